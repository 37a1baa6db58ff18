// Command testreport reads `go test -json` from its standard input and prints
// what people and scripts need: the output of what failed, a line a package,
// and one closing line with the counts. It fails if a test failed, if a
// package did not build, if nothing ran, and if a test was skipped: in CI a
// skip would be a hole that nobody sees.
//
//	go test -json ./... | go run ./internal/tools/testreport
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	ok, err := report(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// event is a line of `go test -json`; see go doc test2json.
type event struct {
	Action, Package, Test, Output string
	ImportPath, FailedBuild       string
	Elapsed                       float64
}

// test names a test, or a package where Test is empty.
type test struct{ Package, Test string }

func report(in io.Reader, out io.Writer) (ok bool, err error) {
	var passed, failed, skipped int
	output := make(map[test]*strings.Builder)
	builds := make(map[string]*strings.Builder)
	for dec := json.NewDecoder(in); ; {
		var e event
		switch err := dec.Decode(&e); {
		case errors.Is(err, io.EOF):
			fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", passed, failed, skipped)
			return passed > 0 && failed == 0 && skipped == 0, nil
		case err != nil:
			return false, fmt.Errorf("the input is not the output of go test -json: %w", err)
		}
		t := test{e.Package, e.Test}
		switch e.Action {
		case "output":
			if output[t] == nil {
				output[t] = new(strings.Builder)
			}
			output[t].WriteString(e.Output)
			continue
		case "build-output":
			if builds[e.ImportPath] == nil {
				builds[e.ImportPath] = new(strings.Builder)
			}
			builds[e.ImportPath].WriteString(e.Output)
			continue
		case "pass", "fail", "skip":
		default:
			continue
		}
		if e.Test == "" {
			// A package without test files "skips"; that is no hole.
			fmt.Fprintf(out, "%-5s %6.1fs  %s\n", e.Action, e.Elapsed, e.Package)
		}
		switch {
		case e.Action == "fail":
			failed++
			if b := builds[e.FailedBuild]; b != nil {
				io.WriteString(out, b.String())
			}
			if b := output[t]; b != nil {
				io.WriteString(out, b.String())
			}
		case e.Action == "skip" && e.Test != "":
			skipped++
			fmt.Fprintf(out, "skip: %s %s\n%s", e.Package, e.Test, output[t])
		case e.Action == "pass" && e.Test != "":
			passed++
		}
		delete(output, t)
	}
}
