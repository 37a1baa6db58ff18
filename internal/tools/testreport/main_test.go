package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	const pass = `{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0.1}
{"Action":"pass","Package":"p","Elapsed":0.2}
`
	for _, c := range []struct {
		name, in string
		ok       bool
		says     []string
	}{
		{"passed", pass, true, []string{"1 passed, 0 failed, 0 skipped\n"}},
		{
			"failed",
			pass + `{"Action":"output","Package":"p","Test":"TestB","Output":"b_test.go:1: got 2\n"}
{"Action":"fail","Package":"p","Test":"TestB"}`,
			false, []string{"b_test.go:1: got 2", "1 passed, 1 failed"},
		},
		{
			"skipped",
			pass + `{"Action":"output","Package":"p","Test":"TestB","Output":"no anvil\n"}
{"Action":"skip","Package":"p","Test":"TestB"}`,
			false, []string{"skip: p TestB", "no anvil", "1 skipped"},
		},
		{
			"not built",
			pass + `{"Action":"build-output","ImportPath":"q [q.test]","Output":"q.go:1: undefined: x\n"}
{"Action":"fail","Package":"q","FailedBuild":"q [q.test]"}`,
			false, []string{"undefined: x", "1 failed"},
		},
		{"a package without tests", pass + `{"Action":"skip","Package":"q"}`, true, []string{"0 skipped"}},
		{"nothing ran", "", false, []string{"0 passed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			ok, err := report(strings.NewReader(c.in), &out)
			if err != nil {
				t.Fatal(err)
			}
			if ok != c.ok {
				t.Errorf("ok is %v, want %v", ok, c.ok)
			}
			for _, words := range c.says {
				if !strings.Contains(out.String(), words) {
					t.Errorf("no %q in:\n%s", words, out.String())
				}
			}
		})
	}
	if _, err := report(strings.NewReader("PASS\n"), new(strings.Builder)); err == nil {
		t.Error("plain text was taken for JSON")
	}
}
