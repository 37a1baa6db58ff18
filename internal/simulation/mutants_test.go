package simulation

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var (
	mutants     = flag.Bool("mutants", false, "show that planted mistakes are found; takes about a minute each")
	mutantSeeds = flag.Int("mutant-seeds", 150, "how many seeds each mistake is given")
)

// TestMutants plants each mistake of mutants/*.patch in a copy of the module
// and shows that the simulation finds it. The head of a patch says what is
// wrong; one that is not found says why on a line "Survives:". Without -mutants
// it shows that each patch still applies.
func TestMutants(t *testing.T) {
	patches, err := filepath.Glob("mutants/*.patch")
	if err != nil {
		t.Fatal(err)
	}
	classes := map[string]int{}
	for _, path := range patches {
		m := readMutant(t, path)
		if m.survives == "" {
			classes[m.class]++
		}
		m.applies(t)
		if *mutants {
			t.Run(strings.TrimSuffix(filepath.Base(path), ".patch"), func(t *testing.T) { m.plant(t) })
		}
	}
	for _, class := range []string{"ordering", "durability", "duplicate suppression", "epoch and key validity", "recovery"} {
		if classes[class] < 2 {
			t.Errorf("class %s has %d mistakes that are found, at least 2 are asked for", class, classes[class])
		}
	}
}

type mutant struct {
	path, class, mistake, survives string
}

// readMutant reads the head of a patch.
func readMutant(t *testing.T, path string) mutant {
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m := mutant{path: path}
	head, _, found := strings.Cut(string(content), "\ndiff ")
	for _, line := range strings.Split(head, "\n") {
		key, value, _ := strings.Cut(line, ": ")
		switch key {
		case "Class":
			m.class = value
		case "Mistake":
			m.mistake = value
		case "Survives":
			m.survives = value
		}
	}
	if !found || m.class == "" || m.mistake == "" {
		t.Errorf("%s does not say its class and mistake before the difference", path)
	}
	return m
}

// applies shows that the patch fits today's code, which it leaves alone. Git
// looks for no repository above the module, where the paths would mean others.
func (m mutant) applies(t *testing.T) {
	patch, err := filepath.Abs(m.path)
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("git", "apply", "--check", patch)
	c.Dir = root
	c.Env = append(c.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(root))
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%s does not apply (%v); write it anew:\n%s", m.path, err, out)
	}
}

// plant applies the patch to a copy of the module and runs seeds on it.
func (m mutant) plant(t *testing.T) {
	dir := t.TempDir()
	if err := copyModule(filepath.Join("..", ".."), dir); err != nil {
		t.Fatal(err)
	}
	patch, err := filepath.Abs(m.path)
	if err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) (string, error) {
		c := exec.Command(name, args...)
		c.Dir = dir
		out, err := c.CombinedOutput()
		return string(out), err
	}
	if out, err := run("git", "apply", patch); err != nil {
		t.Fatalf("the patch does not apply; write it anew:\n%s", out)
	}
	if out, err := run("go", "test", "-trimpath", "-c", "-o", "mutant.test", "./internal/simulation"); err != nil {
		t.Fatalf("the mutant does not build; write it anew:\n%s", out)
	}
	out, err := run("./mutant.test", "-test.run", "TestSeeds$", "-test.failfast", "-seeds", fmt.Sprint(*mutantSeeds))
	switch {
	case err == nil && m.survives == "":
		t.Errorf("survived %d seeds: %s", *mutantSeeds, m.mistake)
	case err == nil:
		t.Logf("survived, as expected: %s", m.survives)
	case m.survives != "":
		t.Errorf("is found now; take the line Survives out of %s:\n%s", m.path, finding(out))
	default:
		t.Logf("found: %s\n%s", m.mistake, finding(out))
	}
}

// finding is the line that tells what the simulation saw.
func finding(out string) string {
	for _, line := range strings.Split(out, "\n") {
		if _, text, ok := strings.Cut(line, "VIOLATION: "); ok {
			return text[:min(len(text), 300)]
		}
	}
	return out[:min(len(out), 600)]
}

// copyModule copies what the simulation is built of.
func copyModule(from, to string) error {
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, name), b, 0o600); err != nil {
			return err
		}
	}
	for _, name := range []string{"wire", "contracts", "internal"} {
		if err := os.CopyFS(filepath.Join(to, name), os.DirFS(filepath.Join(from, name))); err != nil {
			return err
		}
	}
	return nil
}
