package node

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/parley-node/parley/wire"
)

// minimal is the least that a configuration must say.
const minimal = `
org: {name: hospital, salt: 0101010101010101010101010101010101010101010101010101010101010101}
node: {id: 01a210b9-af68-71fb-84ce-a1b7bd853aa4}
exchange: {advertise: [node.example.org:5002]}
ledger: {chainId: 2021, contract: 0x00000000000000000000000000000000000000aa, bundled: {}}
`

func TestConfigDefaults(t *testing.T) {
	c, err := parseConfig([]byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct{ got, want string }{
		{c.Namespace, "default"}, {c.Node.Name, "hospital-node"},
		{c.API.Listen, "127.0.0.1:5000"}, {c.Admin.Listen, "127.0.0.1:5001"}, {c.Metrics.Listen, "127.0.0.1:6000"},
		{c.Ledger.Fees, "zero"}, {c.Ledger.Bundled.RPC, "127.0.0.1:8545"}, {c.Database, "parley.db"},
	} {
		if f.got != f.want {
			t.Errorf("got %q, want %q", f.got, f.want)
		}
	}
	// What it prints is what it reads.
	text, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := parseConfig(text)
	if err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	if second, err := again.Marshal(); err != nil || string(second) != string(text) {
		t.Errorf("printed, read and printed again it is\n%s\nand was\n%s", second, text)
	}
}

// Each mistake is named by its field, with the value and what to do.
func TestConfigMistakes(t *testing.T) {
	for _, c := range []struct{ name, change, with, want string }{
		{"unknown key", "chainId: 2021", "chainID: 2021", "line 5: ledger.chainID: there is no such key; did you mean chainId?"},
		{"no contract", "contract: 0x00000000000000000000000000000000000000aa, ", "", "ledger.contract: it is missing"},
		{"bad name", "name: hospital", "name: -x", `field "org.name" holds "-x"`},
		{"no salt", ", salt: 0101010101010101010101010101010101010101010101010101010101010101", "", "org.salt: it is missing"},
		{"no ledger", ", bundled: {}", "", "neither bundled nor urls"},
		{"two ledgers", "bundled: {}", `bundled: {}, urls: ["http://x:1"]`, "both set"},
		{"nobody can reach it", "node.example.org:5002", "node.example.org:0", "is not a host:port that other members can reach"},
		{"free port for the validator", "bundled: {}", `bundled: {rpc: "127.0.0.1:0"}`, "ledger.bundled.rpc"},
		{"fees", "chainId: 2021", "chainId: 2021, fees: some", `fees "some" is not one of`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(minimal, c.change) {
				t.Fatalf("%q is not in the configuration", c.change)
			}
			cfg, err := parseConfig([]byte(strings.Replace(minimal, c.change, c.with, 1)))
			if err == nil {
				err = cfg.Check()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte("org: {name: a}\nledger: {bundled: null, urls: [x]}\nlog: {level: LOUD}"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseConfig(text)
		if err != nil || c.Check() != nil {
			return
		}
		out, err := c.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseConfig(out)
		if err != nil || again.Check() != nil {
			t.Fatalf("a right configuration is not right any more once printed: %v\n%s", err, out)
		}
	})
}

// Two members make their folders and found a network of the bundled ledger;
// each step refuses to be done twice where that would destroy something.
func TestFoundNetwork(t *testing.T) {
	ctx := context.Background()
	folder := func(name string) *Config {
		return &Config{
			Dir: filepath.Join(t.TempDir(), name), Org: OrgConfig{Name: name}, Exchange: ExchangeConfig{Listen: "127.0.0.1:5002"},
			Ledger: LedgerConfig{Bundled: &BundledConfig{P2P: "127.0.0.1:26656"}},
		}
	}
	a, b := folder("hospital"), folder("insurer")
	if _, err := Init(ctx, a); err != nil {
		t.Fatal(err)
	}
	public, err := Init(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Init(ctx, b); err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("a folder was made twice: %v", err)
	}
	n, err := FoundNetwork(ctx, a, FoundOptions{ChainID: 7, Members: []Member{*public}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := FoundNetwork(ctx, a, FoundOptions{ChainID: 7, Members: []Member{*public}}); err == nil {
		t.Error("a network was founded twice in one folder")
	}
	if err := n.Join(b); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{a.Dir, b.Dir} {
		c, err := ReadConfig(dir)
		if err != nil {
			t.Fatal(err)
		}
		if c.Ledger.Contract != n.Contract || len(c.Ledger.Bundled.Peers) != 1 {
			t.Errorf("%s has contract %s and the peers %v", dir, c.Ledger.Contract, c.Ledger.Bundled.Peers)
		}
	}
	founding, err := readFounding(a)
	if err != nil || founding == nil || founding.Definition.CheckKeys(founding.Secret.Keys()) != nil {
		t.Errorf("the founder has the first epoch %v, %v", founding, err)
	}
	if other, err := readFounding(b); err != nil || other != nil {
		t.Errorf("a member that did not found has the secret: %v, %v", other, err)
	}
	// The invitation of any member describes the same network.
	invited, err := Invite(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	if invited.Contract != n.Contract || string(invited.Genesis) != string(n.Genesis) || len(invited.Peers) != 2 {
		t.Errorf("the invitation names contract %s and %d peers", invited.Contract, len(invited.Peers))
	}
	other := *n
	other.Contract = wire.Address{1}
	if err := other.Join(b); err == nil {
		t.Error("a member's folder was moved to another network")
	}
}

// Who changes a member's public part is found out.
func TestMemberSignature(t *testing.T) {
	ctx := context.Background()
	c := &Config{Dir: filepath.Join(t.TempDir(), "m"), Org: OrgConfig{Name: "hospital"}, Exchange: ExchangeConfig{Listen: "127.0.0.1:5002"}, Ledger: LedgerConfig{URLs: []string{"http://127.0.0.1:1"}}}
	m, err := Init(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(c.Dir, "member.json")
	if err := WriteJSON(path, m); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadMember(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	forged := strings.Replace(string(text), m.Org.String(), strings.Repeat("ab", 32), 1)
	if err := os.WriteFile(path, []byte(forged), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadMember(path); err == nil {
		t.Error("a forged organisation id was accepted")
	}
}
