package node_test

import (
	"go/build"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/parley-node/parley/"

// rules say what each folder's packages may import of this module, besides
// their own subfolders' contracts: docs/ARCHITECTURE.md, "Who may import whom".
// A folder is matched by the longest rule that it starts with. Tests are free.
var rules = map[string][]string{
	"wire":                {},
	"contracts":           {"wire"},
	"client":              {}, // for strangers: nothing of ours, least of all internal
	"internal/errs":       {},
	"internal/order":      {"wire"},
	"internal/openapi":    {},
	"internal/swagger":    {},
	"internal/trace/otlp": {"internal/trace"},
	"internal/trace":      {},
	"internal/access":     {"internal/errs"},
	"internal/store":      {"wire", "internal/errs"},

	// Ports, and their drivers and conformance suites: never store or a capability.
	"internal/keys":              {"wire"},
	"internal/keys/":             {"wire", "internal/keys"},
	"internal/signer":            {"wire", "internal/ethereum", "internal/keys", "internal/keys/remote"},
	"internal/blob":              {"wire"},
	"internal/blob/":             {"wire", "internal/blob"},
	"internal/exchange":          {"wire"},
	"internal/exchange/":         {"wire", "internal/exchange"},
	"internal/ledger":            {"wire"},
	"internal/ledger/evm":        {"wire", "contracts", "internal/ethereum", "internal/keys", "internal/ledger"},
	"internal/ethereum":          {},
	"internal/ethereum/ethtest":  {"wire"},
	"internal/ledger/bundled":    {"wire", "contracts"},
	"internal/ledger/sim":        {"wire", "internal/keys", "internal/ledger"},
	"internal/ledger/ledgertest": {"wire", "internal/keys", "internal/ledger"},
	"internal/store/storetest":   {"internal/store"},

	// Capabilities: downwards only. identity asks order what it needs to know
	// of the ledger's members; message is the heart and must not know who
	// listens (event) or who calls (api).
	"internal/nonce":                 {"internal/store", "wire"},
	"internal/abi":                   {"wire"},
	"internal/transaction":           {"internal/errs", "internal/ethereum", "internal/keys", "internal/nonce", "internal/store", "wire"},
	"internal/contract/contracttest": {},
	"internal/contract": {"internal/abi", "internal/errs", "internal/ethereum", "internal/identity", "internal/keys", "internal/message",
		"internal/nonce", "internal/store", "internal/transaction", "wire"},
	"internal/event":    {"internal/errs", "internal/store", "internal/trace", "wire"},
	"internal/identity": {"internal/errs", "internal/ledger", "internal/order", "internal/store", "wire"},
	"internal/message": {"internal/blob", "internal/errs", "internal/exchange", "internal/identity", "internal/keys",
		"internal/ledger", "internal/nonce", "internal/order", "internal/store", "internal/trace", "wire"},

	// Independent of what it checks: least of all it may call order.
	"internal/check": {"internal/abi", "internal/blob", "internal/identity", "internal/keys", "internal/ledger", "internal/store", "wire"},

	// api may use every capability and no driver.
	"internal/api": {"internal/abi", "internal/access", "internal/blob", "internal/contract", "internal/errs", "internal/ethereum", "internal/event",
		"internal/exchange", "internal/identity", "internal/keys", "internal/ledger", "internal/message", "internal/openapi", "internal/order",
		"internal/store", "internal/swagger", "internal/trace", "internal/transaction", "wire"},
}

// free are the folders that may import everything: the wiring, the binary, the
// tests' networks and the tools.
var free = []string{"internal/node", "internal/nodetest", "internal/simulation", "internal/demo", "internal/bench", "internal/tools", "internal/meta", "cmd", "examples"}

func TestImports(t *testing.T) {
	root := filepath.Join("..", "..")
	seen := 0
	err := filepath.WalkDir(root, func(dir string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, dir)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		switch name := d.Name(); {
		case rel == ".":
			return nil
		case rel == "e2e", name == "testdata", name == "node_modules", strings.HasPrefix(name, "."):
			return filepath.SkipDir
		}
		p, err := build.ImportDir(dir, 0)
		if _, none := err.(*build.NoGoError); none {
			return nil
		}
		if err != nil {
			return err
		}
		seen++
		if slices.ContainsFunc(free, func(f string) bool { return rel == f || strings.HasPrefix(rel, f+"/") }) {
			return nil
		}
		allowed, ok := ruleOf(rel)
		if !ok {
			t.Errorf("%s: no rule says what this package may import: add one here and in docs/ARCHITECTURE.md", rel)
			return nil
		}
		for _, imported := range p.Imports {
			ours, ok := strings.CutPrefix(imported, module)
			if ok && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s; it may import only %v", rel, ours, allowed)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 20 {
		t.Errorf("only %d packages were seen; is the test run in its folder?", seen)
	}
}

// ruleOf finds the rule of a folder: its own, else that of "parent/".
func ruleOf(rel string) ([]string, bool) {
	if r, ok := rules[rel]; ok {
		return r, true
	}
	for dir := path.Dir(rel); dir != "."; dir = path.Dir(dir) {
		if r, ok := rules[dir+"/"]; ok {
			return r, true
		}
	}
	return nil, false
}

// TestPurity holds what the standard library may do for the packages that must
// give the same answer everywhere.
func TestPurity(t *testing.T) {
	for dir, forbidden := range map[string][]string{
		"internal/order": {"context", "database/sql", "io", "log/slog", "math/rand", "math/rand/v2", "net", "net/http", "os", "sync"},
		"wire":           {"database/sql", "log/slog", "math/rand", "math/rand/v2", "net", "net/http", "os"},
	} {
		p, err := build.ImportDir(filepath.Join("..", "..", dir), 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, imported := range p.Imports {
			if slices.Contains(forbidden, imported) {
				t.Errorf("%s imports %s: it has no I/O, no clock and no goroutines", dir, imported)
			}
		}
	}
}
