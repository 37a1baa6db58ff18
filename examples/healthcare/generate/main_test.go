package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestFilesAreWhatIsGenerated fails if a file was edited, or if a new Go
// version compresses differently: then generate again and commit.
func TestFilesAreWhatIsGenerated(t *testing.T) {
	for _, f := range files {
		committed, err := os.ReadFile(filepath.Join("..", f.name))
		if err != nil {
			t.Fatal(err)
		}
		generated, err := f.content()
		if err != nil {
			t.Fatalf("%s: %v", f.name, err)
		}
		if !bytes.Equal(committed, generated) {
			t.Errorf("%s has %d bytes that differ from the %d generated; run go run ./generate", f.name, len(committed), len(generated))
		}
	}
}
