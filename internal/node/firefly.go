package node

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/parley-node/parley/wire"
)

// A node also runs from a configuration in FireFly's core format. What means the
// same here is taken from its keys; what has no counterpart there stands in its
// section parley, which is a configuration in the native form: the entries of its
// list of namespaces complete those of namespaces.predefined by name.

// Note says what became of one value of a file in FireFly's format.
type Note struct {
	Line  int
	Key   string
	Into  string // native key that took it; empty if it was not taken
	About string // why it was not taken, or what to mind
}

func (n Note) String() string {
	text := fmt.Sprintf("line %d: %s: ", n.Line, n.Key)
	switch {
	case n.Into == "":
		return text + "not taken: " + n.About
	case n.About != "":
		return text + "taken as " + n.Into + "; " + n.About
	}
	return text + "taken as " + n.Into
}

// isFireFly tells FireFly's format from the native one, in which namespaces is a
// list and plugins holds names only.
func isFireFly(root *yaml.Node) bool {
	doc := content(root)
	if n := child(doc, "namespaces"); n != nil && n.Kind == yaml.MappingNode {
		return true
	}
	plugins := child(doc, "plugins")
	if plugins == nil || plugins.Kind != yaml.MappingNode {
		return false
	}
	return slices.ContainsFunc(plugins.Content, func(n *yaml.Node) bool { return n.Kind == yaml.SequenceNode })
}

// content is the top of a document.
func content(root *yaml.Node) *yaml.Node {
	if root.Kind == yaml.DocumentNode && len(root.Content) > 0 {
		return root.Content[0]
	}
	return root
}

// child is the value of a key, whatever its case; nil if there is none.
func child(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if strings.EqualFold(n.Content[i].Value, key) {
			return n.Content[i+1]
		}
	}
	return nil
}

// fireflyFile is a file in FireFly's format on its way into the native form.
type fireflyFile struct {
	values map[string]*yaml.Node // by key in lower case, as FireFly does not mind it
	spelt  map[string]string     // the key as the file has it
	counts map[string]int        // length of a list
	notes  map[string]Note       // what was decided about a value
	wrong  []error
}

// fromFireFly translates a file. The configuration is as it stands: neither
// completed nor checked.
func fromFireFly(root *yaml.Node) (*Config, []Note, error) {
	f := &fireflyFile{values: map[string]*yaml.Node{}, spelt: map[string]string{}, counts: map[string]int{}, notes: map[string]Note{}}
	doc := content(root)
	section := child(doc, "parley")
	extra := new(Config)
	if section != nil {
		if err := errors.Join(unknownKeys(section, reflect.TypeFor[Config](), "parley.")...); err != nil {
			return nil, nil, err
		}
		if err := section.Decode(extra); err != nil {
			return nil, nil, fmt.Errorf("parley: %w", err)
		}
	}
	walk(doc, "", func(key string, n *yaml.Node) {
		lower := strings.ToLower(key)
		f.values[lower], f.spelt[lower] = n, key
		f.count(lower)
	})
	c := f.process(extra)
	f.namespaces(c, extra)
	notes := f.report()
	return c, notes, errors.Join(f.wrong...)
}

var indexed = regexp.MustCompile(`\.(\d+)(\.|$)`)

// count notes how long the lists on the way to a key are.
func (f *fireflyFile) count(key string) {
	for _, at := range indexed.FindAllStringSubmatchIndex(key, -1) {
		i, err := strconv.Atoi(key[at[2]:at[3]])
		if err == nil {
			f.counts[key[:at[0]]] = max(f.counts[key[:at[0]]], i+1)
		}
	}
}

// take gives a value that has a native key; "" if it is not there.
func (f *fireflyFile) take(key, into, about string) string {
	n := f.values[key]
	if n == nil {
		return ""
	}
	f.notes[key] = Note{Into: into, About: about}
	return n.Value
}

// leave says why a value is not taken.
func (f *fireflyFile) leave(key, why string) {
	if f.values[key] != nil {
		f.notes[key] = Note{About: why}
	}
}

func (f *fireflyFile) bad(key, format string, args ...any) {
	line, name := 0, key
	if n := f.values[key]; n != nil {
		line, name = n.Line, f.spelt[key]
	}
	f.wrong = append(f.wrong, fmt.Errorf("line %d: %s: "+format, append([]any{line, name}, args...)...))
}

// enabled reads a switch.
func (f *fireflyFile) enabled(key, into string, standard bool) bool {
	text := f.take(key, into, "")
	if text == "" {
		return standard
	}
	on, err := strconv.ParseBool(text)
	if err != nil {
		f.bad(key, "%q is neither true nor false", text)
	}
	return on
}

// listen is the address of one of FireFly's servers.
func (f *fireflyFile) listen(server, into, port string) string {
	host := f.take(server+".address", into, "")
	if host == "" {
		host = "127.0.0.1"
	}
	if p := f.take(server+".port", into, ""); p != "" {
		port = p
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}

// process translates what is about the process. What the section parley says
// itself wins.
func (f *fireflyFile) process(extra *Config) *Config {
	c := new(Config)
	own, theirs := reflect.ValueOf(c).Elem(), reflect.ValueOf(extra).Elem()
	for i := range own.NumField() {
		if name, _ := yamlKey(own.Type().Field(i)); processKey(name) && name != "namespaces" {
			own.Field(i).Set(theirs.Field(i))
		}
	}
	from := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	from(&c.API.Listen, f.listen("http", "api.listen", "5000"))
	from(&c.API.PublicURL, f.take("http.publicurl", "api.publicURL", ""))
	if f.enabled("http.tls.enabled", "api.tls", false) && c.API.TLS == nil {
		c.API.TLS = &ServerTLS{Cert: f.take("http.tls.certfile", "api.tls.cert", ""), Key: f.take("http.tls.keyfile", "api.tls.key", "")}
		if ca := f.take("http.tls.cafile", "api.tls.clientCA", "clients need a certificate only if http.tls.clientAuth is true"); f.enabled("http.tls.clientauth", "api.tls.clientCA", false) {
			c.API.TLS.ClientCA = ca
		}
	}
	if f.values["http.auth.type"] != nil && strings.EqualFold(f.take("http.auth.type", "access.passwordFile", ""), "basic") {
		from(&c.Access.PasswordFile, f.take("http.auth.basic.passwordfile", "access.passwordFile", "each user has the role admin in every namespace, as there"))
		if c.Access.PasswordRoles == nil && c.Access.PasswordFile != "" {
			c.Access.PasswordRoles = map[string]string{"*": "admin"}
		}
	}
	admin := f.listen("spi", "admin.listen", "5001")
	if !f.enabled("spi.enabled", "admin.listen", false) {
		admin = Off
	}
	from(&c.Admin.Listen, admin)
	monitoring := "metrics"
	if f.values["monitoring.enabled"] != nil || f.values["monitoring.port"] != nil || f.values["monitoring.address"] != nil { // the newer name
		monitoring = "monitoring"
	}
	metrics := f.listen(monitoring, "metrics.listen", "6000")
	if !f.enabled(monitoring+".enabled", "metrics.listen", true) {
		metrics = Off
	}
	from(&c.Metrics.Listen, metrics)
	if f.values[monitoring+".path"] != nil {
		if f.values[monitoring+".path"].Value == "/metrics" {
			f.take(monitoring+".path", "metrics.listen", "")
		} else {
			f.leave(monitoring+".path", "the path is always /metrics")
		}
	}
	level := strings.ToLower(f.take("log.level", "log.level", ""))
	if level == "trace" {
		level = "debug"
		f.take("log.level", "log.level", "its most detailed level is debug")
	}
	from(&c.Log.Level, level)
	if f.enabled("log.json.enabled", "log.format", false) {
		from(&c.Log.Format, "json")
	}
	for i := range f.counts["cors.origins"] {
		key := fmt.Sprintf("cors.origins.%d", i)
		if f.values[key].Value == "*" {
			f.leave(key, "no web page of any origin may use the node; name origins in api.allowedOrigins")
			continue
		}
		c.API.AllowedOrigins = append(c.API.AllowedOrigins, f.take(key, "api.allowedOrigins", ""))
	}
	from(&c.Default, f.take("namespaces.default", "default", ""))
	return c
}

// Kinds of plugin, as the file names them.
const (
	pluginBlockchain    = "blockchain"
	pluginDatabase      = "database"
	pluginDataExchange  = "dataexchange"
	pluginSharedStorage = "sharedstorage"
)

// plugin is one entry below plugins.
type plugin struct{ kind, name, typ, key string }

// plugins lists those of the kinds that mean something here.
func (f *fireflyFile) plugins() []plugin {
	var all []plugin
	for _, kind := range []string{pluginBlockchain, pluginDatabase, pluginDataExchange, pluginSharedStorage} {
		for i := range f.counts["plugins."+kind] {
			key := fmt.Sprintf("plugins.%s.%d", kind, i)
			all = append(all, plugin{kind: kind, name: f.take(key+".name", "plugins", ""), typ: strings.ToLower(f.take(key+".type", "plugins", "")), key: key})
		}
	}
	return all
}

// namespaces translates the list of namespaces.
func (f *fireflyFile) namespaces(c, extra *Config) {
	plugins := f.plugins()
	count := f.counts["namespaces.predefined"]
	if count == 0 {
		f.bad("namespaces.predefined", "it is empty; list at least one namespace")
	}
	known := map[string]*NamespaceConfig{}
	for i := range extra.Namespaces {
		known[extra.Namespaces[i].Name] = &extra.Namespaces[i]
	}
	for i := range count {
		key := fmt.Sprintf("namespaces.predefined.%d", i)
		into := fmt.Sprintf("namespaces[%d].", i)
		n := NamespaceConfig{Name: f.take(key+".name", into+"name", "")}
		if own := known[n.Name]; own != nil {
			n = *own
			delete(known, n.Name)
		} else if count == 1 && len(extra.Namespaces) == 0 {
			n.Config = namespacePart(extra)
		}
		n.Description = f.take(key+".description", into+"description", "")
		if n.Folder != "" {
			f.folder(key, n)
		} else {
			f.namespace(key, into, &n, plugins)
		}
		c.Namespaces = append(c.Namespaces, n)
	}
	for name := range known {
		f.wrong = append(f.wrong, fmt.Errorf("parley.namespaces: %q is none of namespaces.predefined", name))
	}
}

// namespacePart is what a configuration says about its one namespace.
func namespacePart(c *Config) Config {
	var part Config
	own, theirs := reflect.ValueOf(&part).Elem(), reflect.ValueOf(c).Elem()
	for i := range own.NumField() {
		if name, _ := yamlKey(own.Type().Field(i)); name != "-" && !processKey(name) {
			own.Field(i).Set(theirs.Field(i))
		}
	}
	return part
}

// folder leaves out what a member's folder says.
func (f *fireflyFile) folder(key string, n NamespaceConfig) {
	for k := range f.values {
		if strings.HasPrefix(k, key+".") && f.notes[k] == (Note{}) {
			f.leave(k, "the folder "+n.Folder+" says it")
		}
	}
}

// namespace translates one namespace.
func (f *fireflyFile) namespace(key, into string, n *NamespaceConfig, plugins []plugin) {
	from := func(field *string, key, into, about string) {
		if value := f.take(key, into, about); *field == "" {
			*field = value
		}
	}
	party := key + ".multiparty"
	from(&n.Org.Name, party+".org.name", into+"org.name", "")
	from(&n.Node.Name, party+".node.name", into+"node.name", "")
	// What older files say once for all namespaces.
	from(&n.Org.Name, "org.name", into+"org.name", "")
	from(&n.Node.Name, "node.name", into+"node.name", "")
	if !f.enabled(party+".enabled", into+"mode", n.Org.Name != "") {
		n.Mode, n.Org, n.Node = ModeGateway, OrgConfig{}, NodeConfig{}
	} else {
		n.Mode = ModeMultiparty
		from(&n.NetworkNamespace, party+".networknamespace", into+"networkNamespace", "")
		f.contract(party+".contract", into, n)
	}
	used := f.used(key, plugins)
	for _, p := range used {
		switch p.kind {
		case pluginBlockchain:
			if p.typ != "ethereum" {
				f.bad(p.key+".type", "%q is no chain that Parley works with; namespace %s needs one of type ethereum", p.typ, n.Name)
			}
			n.Plugins.Blockchain = p.name
		case pluginDatabase:
			n.Plugins.Database = p.name
		case pluginDataExchange:
			n.Plugins.DataExchange = p.name
		case pluginSharedStorage:
			n.Plugins.SharedStorage = p.name
		}
	}
	if n.Mode == ModeMultiparty && !slices.ContainsFunc(used, func(p plugin) bool { return p.kind == pluginBlockchain }) {
		f.bad(key+".plugins", "namespace %s is multiparty and has no blockchain plugin; add one to its list, or leave the list out for all of them", n.Name)
	}
}

// contract takes the address of the network's contract.
func (f *fireflyFile) contract(key, into string, n *NamespaceConfig) {
	address := f.take(key+".0.location.address", into+"ledger.contract", "it must be a contract of Parley's, see parley network")
	if address != "" && n.Ledger.Contract.IsZero() {
		parsed, err := wire.ParseAddress(address)
		if err != nil {
			f.bad(key+".0.location.address", "%v", err)
		}
		n.Ledger.Contract = parsed
	}
	switch first := f.take(key+".0.firstevent", into+"ledger.fromBlock", ""); first {
	case "", "oldest", "0":
	default:
		block, err := strconv.ParseUint(first, 10, 64)
		if err != nil {
			f.leave(key+".0.firstevent", "it is no number of a block; all records of the contract are read")
		} else if n.Ledger.FromBlock == 0 {
			n.Ledger.FromBlock = block
		}
	}
}

// used are the plugins of a namespace: those it names, or all if it names none.
func (f *fireflyFile) used(key string, plugins []plugin) []plugin {
	count := f.counts[key+".plugins"]
	if count == 0 {
		return plugins
	}
	var used []plugin
	for i := range count {
		k := fmt.Sprintf("%s.plugins.%d", key, i)
		name := f.take(k, "plugins", "")
		at := slices.IndexFunc(plugins, func(p plugin) bool { return p.name == name })
		switch {
		case at >= 0:
			used = append(used, plugins[at])
		case f.otherPlugin(name):
			f.leave(k, "plugins of its kind have no counterpart")
		default:
			f.bad(k, "%q is the name of no plugin; see plugins", name)
		}
	}
	return used
}

// otherPlugin says whether a plugin of a kind without a counterpart has a name.
func (f *fireflyFile) otherPlugin(name string) bool {
	for key, n := range f.values {
		if strings.HasPrefix(key, "plugins.") && strings.HasSuffix(key, ".name") && n.Value == name {
			return true
		}
	}
	return false
}

// without says why keys that begin so are not taken; the longest wins.
var without = map[string]string{
	"":                        "it has no counterpart",
	"api":                     "limits of the API are those of Parley's own",
	"asset":                   "it has no counterpart",
	"batch":                   "batches are formed as messages come",
	"broadcast":               "batches are formed as messages come",
	"privatemessaging":        "batches are formed as messages come",
	"config.autoreload":       "the file is read again on POST /spi/v1/reset or SIGHUP",
	"cors":                    "only the origins in api.allowedOrigins may call the API",
	"debug":                   "there is no debug server",
	"http.auth":               "give access in the section parley",
	"http.tls":                "give it in the section parley",
	"spi":                     "it has no counterpart",
	"log":                     "the log goes to standard error, in one form",
	"namespaces.retry":        "a namespace that does not start is tried again after 1 to 30 seconds",
	"plugins.auth":            "give access in the section parley",
	"plugins.blockchain":      "it leads to a connector of FireFly's; name the chain's JSON-RPC endpoints in ledger.urls of the section parley",
	"plugins.database":        "a node has a database of its own: the file parley.db, or what database of the section parley says",
	"plugins.dataexchange":    "nodes reach each other without a connector; see exchange in the section parley",
	"plugins.sharedstorage":   "members keep what was published for each other",
	"plugins.identity":        "it has no counterpart",
	"plugins.tokens":          "it leads to a connector of FireFly's",
	"subscription":            "it is set with each subscription",
	"tokens":                  "it has no counterpart",
	"ui":                      "there is no console in the node",
	"org.key":                 "the organisation signs with the first of its own keys",
	"node":                    "it has no counterpart",
	"predefined.defaultkey":   "the organisation signs with the first of its own keys",
	"predefined.contract":     "Parley reads one contract",
	"predefined.org.key":      "the organisation signs with the first of its own keys",
	"predefined.tlsconfigs":   "give it as events.tls in the section parley",
	"predefined.assetmanager": "it has no counterpart",
}

var predefined = regexp.MustCompile(`^namespaces\.predefined\.\d+\.(multiparty\.)?`)

// report says what became of each value, in the order of the lines.
func (f *fireflyFile) report() []Note {
	var notes []Note
	for key, n := range f.values {
		if strings.HasPrefix(key, "parley.") {
			continue
		}
		note, decided := f.notes[key]
		if !decided {
			k, best := predefined.ReplaceAllString(key, "predefined."), ""
			for prefix := range without {
				if len(prefix) > len(best) && (k == prefix || strings.HasPrefix(k, prefix+".")) {
					best = prefix
				}
			}
			note.About = without[best]
		}
		note.Line, note.Key = n.Line, f.spelt[key]
		notes = append(notes, note)
	}
	slices.SortFunc(notes, func(a, b Note) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return strings.Compare(a.Key, b.Key)
	})
	return notes
}

// Import reads a file in FireFly's format: the configuration in the native form,
// completed and not checked, and what became of each value.
func Import(path string) (*Config, []Note, error) {
	path, text, err := readConfigFile(path)
	if err != nil {
		return nil, nil, err
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	if !isFireFly(&root) {
		return nil, nil, fmt.Errorf("%s is not in FireFly's core format, which has namespaces.predefined and plugins", path)
	}
	c, notes, err := fromFireFly(&root)
	if err == nil {
		err = c.misplaced()
	}
	if err != nil {
		return nil, notes, fmt.Errorf("%s: %w", path, err)
	}
	c.complete()
	c.Dir, err = filepath.Abs(filepath.Dir(path))
	return c, notes, err
}
