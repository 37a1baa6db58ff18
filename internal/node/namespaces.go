package node

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/parley-node/parley/internal/identity"
)

// Modes of a namespace.
const (
	ModeMultiparty = "multiparty" // a member's part in a network
	ModeGateway    = "gateway"    // no network: events, data, address book, contracts
)

// NamespaceConfig is one of several namespaces of a process: a member's folder,
// or the same keys written here.
type NamespaceConfig struct {
	Name   string `yaml:"name"`             // local name, also the folder of what is written here
	Folder string `yaml:"folder,omitempty"` // a member's folder, whose parley.yaml describes the namespace
	Config `yaml:",inline"`
}

// PluginNames are the names by which existing clients see in the status what a
// namespace stands on.
type PluginNames struct {
	Blockchain    string `yaml:"blockchain,omitempty"`    // ethereum
	Database      string `yaml:"database,omitempty"`      // database
	DataExchange  string `yaml:"dataExchange,omitempty"`  // parley
	SharedStorage string `yaml:"sharedStorage,omitempty"` // none
}

// processKeys are the keys of Config that are about the process. All others are
// about a namespace.
var processKeys = []string{"api", "access", "admin", "metrics", "log", "tracing", "default", "namespaces"}

// processKey says whether a key of Config is about the process.
func processKey(name string) bool { return slices.Contains(processKeys, name) }

// eachKey calls f with each key of Config and its value.
func (c *Config) eachKey(f func(name string, value reflect.Value)) {
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		if name != "-" {
			f(name, v.Field(i))
		}
	}
}

// misplaced names the keys that are set where they mean nothing: those of a
// namespace beside a list of namespaces, and those of the process within one.
func (c *Config) misplaced() error {
	if len(c.Namespaces) == 0 {
		return nil
	}
	var wrong []error
	c.eachKey(func(name string, value reflect.Value) {
		if !processKey(name) && !value.IsZero() {
			wrong = append(wrong, fmt.Errorf("%s: it is about one namespace, and there is a list of namespaces; move it into an entry of that", name))
		}
	})
	for i := range c.Namespaces {
		n := &c.Namespaces[i]
		n.eachKey(func(name string, value reflect.Value) {
			field := fmt.Sprintf("namespaces[%d].%s", i, name)
			switch {
			case value.IsZero():
			case name == "namespace":
				wrong = append(wrong, fmt.Errorf("%s: use name instead", field))
			case processKey(name):
				wrong = append(wrong, fmt.Errorf("%s: it is about the whole process; move it to the top of the file", field))
			case n.Folder != "" && name != "description":
				wrong = append(wrong, fmt.Errorf("%s: it is set beside folder; change %s in that folder", field, ConfigFile))
			}
		})
	}
	return errors.Join(wrong...)
}

// Each gives the configuration of each namespace, complete: the whole
// configuration itself if it has no list of them. It reads the members' folders
// that the list names.
func (c *Config) Each() ([]*Config, error) {
	if len(c.Namespaces) == 0 {
		return []*Config{c}, nil
	}
	var all []*Config
	var wrong []error
	for i := range c.Namespaces {
		n, err := c.namespaceConfig(&c.Namespaces[i])
		if err != nil {
			wrong = append(wrong, fmt.Errorf("namespaces[%d]: %w", i, err))
			continue
		}
		all = append(all, n)
	}
	return all, errors.Join(wrong...)
}

// namespaceConfig makes the configuration of one namespace, as if it were alone.
func (c *Config) namespaceConfig(entry *NamespaceConfig) (*Config, error) {
	n := new(Config)
	if entry.Folder != "" {
		var err error
		if n, err = LoadConfig(c.path(entry.Folder)); err != nil {
			return nil, err
		}
		if len(n.Namespaces) > 0 {
			return nil, fmt.Errorf("folder: %s has a list of namespaces itself; name a folder of one", entry.Folder)
		}
		if entry.Description != "" {
			n.Description = entry.Description
		}
	} else {
		*n = entry.Config
		n.Dir = filepath.Join(c.Dir, entry.Name)
	}
	if entry.Name != "" {
		n.Namespace = entry.Name
	}
	own, shared := reflect.ValueOf(n).Elem(), reflect.ValueOf(c).Elem()
	for i := range own.NumField() {
		name, _, _ := strings.Cut(own.Type().Field(i).Tag.Get("yaml"), ",")
		if processKey(name) && name != "namespaces" && name != "default" {
			own.Field(i).Set(shared.Field(i))
		}
	}
	n.completeNamespace()
	return n, nil
}

// DefaultNamespace is the name of the namespace that paths without one mean.
func (c *Config) DefaultNamespace() string {
	switch {
	case c.Default != "":
		return c.Default
	case len(c.Namespaces) == 0:
		return c.Namespace
	}
	return c.Namespaces[0].Name
}

// checkNamespaces says what is wrong with the list of namespaces as a whole, and
// with each.
func (c *Config) checkNamespaces(wrong *mistakes) {
	taken := map[string]string{} // address -> the namespace that listens there
	names := map[string]bool{}
	for i := range c.Namespaces {
		entry := &c.Namespaces[i]
		field := fmt.Sprintf("namespaces[%d]", i)
		if err := identity.CheckName(field+".name", entry.Name); err != nil {
			*wrong = append(*wrong, err)
			continue
		}
		if names[entry.Name] {
			wrong.bad(field+".name", "%q is the name of two namespaces; choose another", entry.Name)
		}
		names[entry.Name] = true
		n, err := c.namespaceConfig(entry)
		if err == nil {
			err = n.checkNamespace(true)
		}
		if err != nil {
			for one := range strings.SplitSeq(err.Error(), "\n") {
				*wrong = append(*wrong, fmt.Errorf("%s.%s", field, one))
			}
			continue
		}
		for key, address := range n.ports() {
			if _, port, err := net.SplitHostPort(address); err != nil || port == "0" {
				continue // told elsewhere
			}
			if other := taken[address]; other != "" {
				wrong.bad(field+"."+key, "%s is where %s listens; give each namespace ports of its own", address, other)
			}
			taken[address] = entry.Name + " (" + key + ")"
		}
	}
	if c.Default != "" && !names[c.Default] {
		wrong.bad("default", "%q is none of the namespaces", c.Default)
	}
}

// ports are the addresses that the namespace listens on, besides those of the
// process.
func (c *Config) ports() map[string]string {
	p := map[string]string{}
	if !c.Networked() {
		return p
	}
	p["exchange.listen"] = c.Exchange.Listen
	if b := c.Ledger.Bundled; b != nil {
		p["ledger.bundled.rpc"], p["ledger.bundled.p2p"] = b.RPC, b.P2P
	}
	return p
}

// Networked reports whether the namespace is a member's part in a network.
func (c *Config) Networked() bool { return c.Mode != ModeGateway }
