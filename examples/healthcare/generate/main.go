// Command generate writes the sample files of examples/healthcare that are not
// written by hand. Its output never changes: the same bytes on every machine.
//
//	cd examples/healthcare && go run ./generate
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// file is a generated file and what makes its content.
type file struct {
	name    string
	content func() ([]byte, error)
}

var files = []file{
	{"pricelist.json", priceList},
	{"claim-bundle.json", claimBundle},
	{"scan.png", scan},
}

func main() {
	folder := "."
	if len(os.Args) > 1 {
		folder = os.Args[1]
	}
	if err := write(folder); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func write(folder string) error {
	for _, f := range files {
		content, err := f.content()
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if err := os.WriteFile(filepath.Join(folder, f.name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func indented(v any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(v)
	return out.Bytes(), err
}
