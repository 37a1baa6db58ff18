package node

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

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

// What stands outside the file wins over it, and each value tells where it comes
// from.
func TestSources(t *testing.T) {
	path := filepath.Join(t.TempDir(), ConfigFile)
	text := minimal + "keys: {passphraseEnv: PARLEY_KEYS_SECRET}\nevents: {nats: {default: {urls: [nats://a:1]}}}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, o, err := Source{
		Path:    path,
		Environ: []string{"HOME=/", "PARLEY_API=http://x", "PARLEY_KEYS_SECRET=s", "PARLEY_NONSENSE=1", "PARLEY_LEDGER_CHAINID=5", "PARLEY_API_LISTEN=127.0.0.1:1", "PARLEY_EVENTS_NATS_DEFAULT_URLS=nats://b:1, nats://c:1"},
		Set:     []string{"api.listen=127.0.0.1:2", "ledger.bundled.rpc=127.0.0.1:9"},
	}.Load()
	if err != nil {
		t.Fatal(err)
	}
	if c.Ledger.ChainID != 5 || c.API.Listen != "127.0.0.1:2" || c.Ledger.Bundled.RPC != "127.0.0.1:9" || !slices.Equal(c.Events.NATS["default"].URLs, []string{"nats://b:1", "nats://c:1"}) {
		t.Errorf("it is %+v", c)
	}
	if !slices.Equal(o.Unused, []string{"PARLEY_NONSENSE"}) {
		t.Errorf("unused are %v", o.Unused)
	}
	for key, want := range map[string]string{
		"api.listen": "--set", "ledger.chainId": "PARLEY_LEDGER_CHAINID", "org.name": "parley.yaml:2", "database": "default",
		"events.nats.default.urls.1": "PARLEY_EVENTS_NATS_DEFAULT_URLS", "ledger.bundled.rpc": "--set",
	} {
		if got := o.Of(key); got != want {
			t.Errorf("%s comes from %q, want %q", key, got, want)
		}
	}
	shown, err := c.Show(o)
	if err != nil || !strings.Contains(string(shown), "listen: 127.0.0.1:2 # --set") {
		t.Errorf("it is shown as %s, %v", shown, err)
	}
	for setting, want := range map[string]string{
		"api.lisen=x": `there is no key "lisen"`, "api=x": "group of keys", "ledger.chainId=many": `"many" is no value`, "ledger": "not of the form key=value",
		"namespaces.3.name=x": "no index from 0 to 0", "org.salt=1": "is no value",
		"exchange.advertise[0]=x": "there is nothing below it",
	} {
		if _, _, err := (Source{Path: path, Set: []string{setting}}).Load(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--set %s gives %v, want %q", setting, err, want)
		}
	}
}

// Keys in the wrong place, names and ports taken twice.
func TestNamespaceMistakes(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"org: {name: x}\nnamespaces: [{name: a, mode: gateway}]", "org: it is about one namespace"},
		{"namespaces: [{name: a, api: {listen: x}}]", "namespaces[0].api: it is about the whole process"},
		{"namespaces: [{name: a, namespace: b}]", "namespaces[0].namespace: use name instead"},
		{"namespaces: [{name: a, folder: f, database: d}]", "namespaces[0].database: it is set beside folder"},
		{"namespaces: [{name: a, mode: gateway}, {name: a, mode: gateway}]", "two namespaces"},
		{"namespaces: [{name: -a, mode: gateway}]", "namespaces[0].name"},
		{"namespaces: [{name: a, mode: gateway, org: {name: x}}]", "namespaces[0].mode: it is gateway"},
		{"namespaces: [{name: a, folder: nowhere}]", "namespaces[0].there is no configuration"},
		{"default: b\nnamespaces: [{name: a, mode: gateway}]", "default: \"b\" is none"},
		{"namespaces: [" + member("a") + ", " + member("b") + "]", "namespaces[1].exchange.listen: 0.0.0.0:5002 is where a (exchange.listen) listens"},
	} {
		path := filepath.Join(t.TempDir(), ConfigFile)
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadConfig(path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\ngives %v, want %q", c.text, err, c.want)
		}
	}
}

// member is a namespace's entry, of a member of a network.
func member(name string) string {
	return "{name: " + name + ", " + strings.Join(strings.Split(strings.ReplaceAll(strings.TrimSpace(minimal), "bundled: {}", `urls: ["http://x:1"]`), "\n"), ", ") + "}"
}

// FireFly's format: what is taken, what is not and why, and that the result is
// complete.
func TestFireFlyFormat(t *testing.T) {
	const path = "testdata/firefly.core.yml"
	c, notes, err := Import(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.checkNamespacesOnly(); err != nil {
		t.Error(err)
	}
	n := c.Namespaces[0]
	if len(c.Namespaces) != 2 || n.NetworkNamespace != "Settlement-2024" || n.Org.Name != "hospital" || n.Node.Name != "hospital-1" || n.Ledger.FromBlock != 17 ||
		n.Plugins != (PluginNames{"chain0", "db0", "dx0", "ss0"}) || n.Mode != ModeMultiparty {
		t.Errorf("the first namespace is %+v", n)
	}
	// No list of plugins: all of them.
	if d := c.Namespaces[1]; d.Mode != ModeGateway || d.Plugins.Blockchain != "chain0" {
		t.Errorf("the second is %+v", d)
	}
	if c.API.Listen != "0.0.0.0:5100" || c.Admin.Listen != "127.0.0.1:5101" || c.Metrics.Listen != Off || c.Default != "settle" || c.Log.Level != "debug" || c.Log.Format != "json" {
		t.Errorf("the process is %+v", c)
	}
	var lines []string
	for _, n := range notes {
		lines = append(lines, n.String())
	}
	text := strings.Join(lines, "\n")
	for _, want := range []string{
		"line 8: http.port: taken as api.listen",
		"line 9: http.publicURL: taken as api.publicURL",
		"line 34: namespaces.predefined.0.multiparty.contract.1.location.address: not taken: Parley reads one contract",
		"line 44: plugins.database.0.postgres.url: not taken: ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the notes have no %q:\n%s", want, text)
		}
	}
	for _, f := range []struct{ change, with, want string }{
		{"type: ethereum", "type: fabric", `line 39: plugins.blockchain.0.type: "fabric" is no chain`},
		{"[chain0, db0, dx0, ss0]", "[db0]", "has no blockchain plugin"},
		{"[chain0, db0, dx0, ss0]", "[chain1]", `"chain1" is the name of no plugin`},
		{"enabled: false", "enabled: maybe", `"maybe" is neither true nor false`},
		{"    - name: settle\n      org", "    - name: other\n      org", `parley.namespaces: "other" is none`},
		{"salt:", "sold:", "parley.namespaces[0].org.sold: there is no such key; did you mean salt?"},
	} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.Replace(string(text), f.change, f.with, 1)
		if changed == string(text) {
			t.Fatalf("the file has no %q", f.change)
		}
		other := filepath.Join(t.TempDir(), "core.yml")
		if err := os.WriteFile(other, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadConfig(other); err == nil || !strings.Contains(err.Error(), f.want) {
			t.Errorf("%s: %v, want %q", f.with, err, f.want)
		}
	}
}

// checkNamespacesOnly is Check of the namespaces alone.
func (c *Config) checkNamespacesOnly() error {
	var wrong mistakes
	c.checkNamespaces(&wrong)
	return wrong.join()
}

// Every key of the configuration is documented, and nothing else is.
func TestKeysAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if key, _, ok := strings.Cut(strings.TrimPrefix(line, "| `"), "`"); ok && strings.HasPrefix(line, "| `") {
			documented[key] = true
		}
	}
	for _, key := range Keys() {
		if !documented[key] {
			t.Errorf("docs/configuration.md has no line for %s", key)
		}
		delete(documented, key)
	}
	for key := range documented {
		t.Errorf("docs/configuration.md speaks of %s, which is no key", key)
	}
}

func FuzzOverrides(f *testing.F) {
	for _, s := range []string{"api.listen=x", "namespaces.0.ledger.urls=a,b", "events.nats.x.tls.ca=f", "ledger.chainId=0x10", "api.tls.cert=a", "org.salt=zz", "=", "a.b.c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, setting string) {
		c := new(Config)
		if err := (Source{Set: []string{setting}}).override(c, &Origins{of: map[string]string{}}, nil); err != nil {
			return
		}
		c.complete()
		if _, err := c.Marshal(); err != nil {
			t.Errorf("%q is accepted, and cannot be written: %v", setting, err)
		}
	})
}

func FuzzFireFly(f *testing.F) {
	text, err := os.ReadFile("testdata/firefly.core.yml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	f.Add("namespaces: {predefined: [{name: a, multiparty: {enabled: true, org: {name: x}}}]}")
	f.Add("plugins: {blockchain: [{name: a}]}\nparley: {org: {name: x}}")
	f.Fuzz(func(t *testing.T, text string) {
		var root yaml.Node
		if yaml.Unmarshal([]byte(text), &root) != nil || !isFireFly(&root) {
			return
		}
		c, _, err := fromFireFly(&root)
		if err != nil || c.misplaced() != nil {
			return
		}
		c.complete()
		written, err := c.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseConfig(written); err != nil {
			t.Errorf("what is written cannot be read: %v\n%s", err, written)
		}
	})
}
