package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The scripts run this test binary as parley, and so do the processes that it
// starts.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"parley": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata"})
}
