package check

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"

	"github.com/parley-node/parley/internal/abi"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// contracts are the interfaces and contract APIs that members have published.
type contracts struct {
	interfaces map[wire.UUID]string // name and version on the network, by id
	apis       map[wire.UUID]string // name on the network, by id
}

// ffi tests the definition of an interface and lets it take effect.
func (k *contracts) ffi(m *judged) string {
	var f abi.Interface
	if json.Unmarshal(m.body, &f) != nil || f.ID == nil || *f.ID == (wire.UUID{}) || !nameRule.MatchString(f.Name) || !nameRule.MatchString(f.Version) ||
		f.NetworkName != "" && !nameRule.MatchString(f.NetworkName) || f.Complete() != nil {
		return "interface"
	}
	name := f.Name + "/" + f.Version
	if taken(k.interfaces, name) {
		return "the network has an interface"
	}
	if _, again := k.interfaces[*f.ID]; again {
		return "interface"
	}
	if k.interfaces == nil {
		k.interfaces = map[wire.UUID]string{}
	}
	k.interfaces[*f.ID] = name
	return ""
}

// addressRule is an address as the locations of contracts have it.
var addressRule = regexp.MustCompile(`^(0x)?[0-9a-fA-F]{40}$`)

// api tests the definition of a contract API and lets it take effect.
func (k *contracts) api(m *judged) string {
	var a struct {
		ID        wire.UUID       `json:"id"`
		Name      string          `json:"name"`
		Interface wire.UUID       `json:"interface"`
		Location  json.RawMessage `json:"location"`
	}
	if json.Unmarshal(m.body, &a) != nil || a.ID == (wire.UUID{}) || !nameRule.MatchString(a.Name) {
		return "contract API"
	}
	if len(a.Location) > 0 && string(a.Location) != "null" {
		var at struct {
			Address string `json:"address"`
		}
		if json.Unmarshal(a.Location, &at) != nil || !addressRule.MatchString(at.Address) {
			return "contract API"
		}
	}
	if _, known := k.interfaces[a.Interface]; !known {
		return "contract API"
	}
	if taken(k.apis, a.Name) {
		return "the network has a contract API"
	}
	if _, again := k.apis[a.ID]; again {
		return "contract API"
	}
	if k.apis == nil {
		k.apis = map[wire.UUID]string{}
	}
	k.apis[a.ID] = a.Name
	return ""
}

func taken(names map[wire.UUID]string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

// finish compares the tables with what was published.
func (k *contracts) finish(c *checker) error {
	for _, t := range []struct {
		what, query string
		want        map[wire.UUID]string
	}{
		{"interface", `SELECT id, network_name || '/' || version FROM interfaces WHERE published AND namespace = $1`, maps.Clone(k.interfaces)},
		{"contract API", `SELECT id, network_name FROM contract_apis WHERE published AND namespace = $1`, maps.Clone(k.apis)},
	} {
		type row struct {
			id   wire.UUID
			name string
		}
		_, err := each(c.tx, func(rows *store.Rows, r *row) error { return rows.Scan(&r.id, &r.name) }, func(r *row) error {
			where := fmt.Sprintf("%s %s", t.what, r.id)
			name, ok := t.want[r.id]
			if !ok {
				c.differ(Contract, where, "published", "not published by any confirmed message", rebuild)
				return nil
			}
			equal(c, Contract, where, r.name, name, rebuild)
			delete(t.want, r.id)
			return nil
		}, t.query, c.Namespace)
		if err != nil {
			return err
		}
		for id, name := range t.want {
			c.differ(Contract, fmt.Sprintf("%s %s", t.what, id), "nothing", "published as "+name, rebuild)
		}
	}
	return nil
}
