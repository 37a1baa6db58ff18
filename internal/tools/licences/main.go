// Command licences checks the licences of all modules that a binary links and
// writes their texts and a bill of materials:
//
//	go run ./internal/tools/licences [-out dist] [packages]
//
// It fails where a linked module is under a licence that Parley does not link
// (GPL, AGPL, BUSL) or under none that it can read. The two files,
// THIRD_PARTY_NOTICES.md and sbom.cdx.json, depend on go.mod alone; they
// accompany a release and are not committed, so they cannot be stale.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

func main() {
	out := flag.String("out", "dist", "`folder` to write to")
	flag.Parse()
	packages := flag.Args()
	if len(packages) == 0 {
		packages = []string{"./cmd/parley"}
	}
	if err := run(*out, packages); err != nil {
		fmt.Fprintln(os.Stderr, "licences:", err)
		os.Exit(1)
	}
}

func run(out string, packages []string) error {
	mods, err := linked(packages)
	if err != nil {
		return err
	}
	var faults []error
	mods = append(mods, embedded...)
	for _, m := range mods {
		if err := m.readTexts(); err != nil {
			return err
		}
		faults = append(faults, m.check())
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	bom, err := sbom(strings.TrimPrefix(runtime.Version(), "go"), mods)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for name, b := range map[string][]byte{"THIRD_PARTY_NOTICES.md": notices(mods), "sbom.cdx.json": bom} {
		if err := os.WriteFile(filepath.Join(out, name), b, 0o644); err != nil {
			return err
		}
	}
	count := make(map[Licence]int)
	for _, m := range mods {
		count[m.Licence]++
	}
	fmt.Printf("%d modules linked: %v\n", len(mods), count)
	return nil
}

// notices returns the texts that must accompany a binary. Equal texts are
// printed once, under all modules that share them.
func notices(mods []*module) []byte {
	var b bytes.Buffer
	b.WriteString("# Third-party notices\n\nThe parley binary links these modules and holds these packages, each under its own licence.\n" +
		"The sources of every version are served by the Go module proxy, or by the npm registry.\n\n| module | version | licence |\n|---|---|---|\n")
	for _, m := range mods {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", m.Path, m.Version, m.Licence)
	}
	users := make(map[string][]string)
	var order []string
	for _, m := range mods {
		for _, t := range m.Texts {
			if users[t.Body] == nil {
				order = append(order, t.Body)
			}
			users[t.Body] = append(users[t.Body], m.Path+" "+t.Name)
		}
	}
	for _, body := range order {
		fmt.Fprintf(&b, "\n## %s\n\n", strings.Join(users[body], ", "))
		for line := range strings.Lines(strings.TrimSpace(body)) {
			b.WriteString("    " + strings.TrimRight(line, " \r\n") + "\n")
		}
	}
	return b.Bytes()
}
