package check

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// definitions are the datatypes and identities that the confirmed messages of
// the network's reserved context define, in ledger order.
type definitions struct {
	datatypes  map[string]datatype // by name and version
	identities map[string]*claimed // by DID
	ids        map[wire.UUID]bool
	contracts  contracts
}

type datatype struct {
	ID        wire.UUID       `json:"id"`
	Name      string          `json:"name"`
	Version   string          `json:"version"`
	Validator string          `json:"validator"`
	Value     json.RawMessage `json:"value"`

	message wire.UUID
}

type claimed struct {
	ID     wire.UUID  `json:"id"`
	DID    string     `json:"did"`
	Type   string     `json:"type"`
	Parent *wire.UUID `json:"parent"`
	Name   string     `json:"name"`
	Key    string     `json:"key"`
	Salt   *wire.Hash `json:"salt"`

	org     wire.OrgID
	message wire.UUID
	number  uint64 // of the pin that claimed it
}

func newDefinitions() *definitions {
	return &definitions{datatypes: map[string]datatype{}, identities: map[string]*claimed{}, ids: map[wire.UUID]bool{}}
}

// reserved is the network's topic for definitions.
const reserved = "ff_definition"

// fault is why a message is invalid whatever comes; it depends on the batch and
// the key that pinned it alone.
func (j *judge) fault(b *content, i int, signer string) string {
	h := &b.Messages[i].Header
	network := b.Header.Audience == j.c.Network
	switch {
	case network && h.Type != "broadcast" && h.Type != "definition":
		return fmt.Sprintf("a message of type %q does not belong to the network", h.Type)
	case !network && h.Type != "private":
		return fmt.Sprintf("a message of type %q does not belong to a group", h.Type)
	case h.Author != "did:firefly:org/"+b.Header.AuthorName && (h.Type == "definition" || !custom(h.Author)):
		return "the author " + h.Author
	case (len(h.Topics) == 1 && h.Topics[0] == reserved) != (h.Type == "definition"):
		return "the topic " + reserved + " is for definitions, and only for them"
	}
	if b.erased(i) && slices.Contains(b.remnant.Faults, uint32(i)) {
		return "its data, which is erased,"
	}
	for _, at := range b.Messages[i].Data {
		d := &b.Data[at]
		if b.erased(i) || d.Datatype == nil || d.Validator != "json" {
			continue
		}
		var schema []byte
		for _, def := range b.Definitions {
			if def.Hash() == d.Datatype.Hash {
				schema = def.Body
			}
		}
		if !j.schemas.valid(schema, d.Value) {
			return fmt.Sprintf("data %s does not conform to datatype %s version %s", d.ID, d.Datatype.Name, d.Datatype.Version)
		}
	}
	if h.Key != signer && signer != "" {
		return fmt.Sprintf("the message names the key %s, but %s pinned it", h.Key, signer)
	}
	return ""
}

// schemas keeps the last compiled ones.
type schemas struct{ compiled map[string]*jsonschema.Schema }

// alone keeps a schema from reaching for other documents.
type alone struct{}

func (alone) Load(url string) (any, error) {
	return nil, errors.New("no document but the schema itself")
}

func (s *schemas) compile(text []byte) *jsonschema.Schema {
	if known, ok := s.compiled[string(text)]; ok {
		return known
	}
	if len(s.compiled) >= page || s.compiled == nil {
		s.compiled = map[string]*jsonschema.Schema{}
	}
	var schema *jsonschema.Schema
	if doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text)); err == nil && writable(doc) {
		c := jsonschema.NewCompiler()
		c.UseLoader(alone{})
		if c.AddResource("schema.json", doc) == nil {
			schema, _ = c.Compile("schema.json") // nil: it is no schema
		}
	}
	s.compiled[string(text)] = schema
	return schema
}

func (s *schemas) valid(schema, value []byte) bool {
	compiled := s.compile(schema)
	if compiled == nil {
		return false
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	return err == nil && compiled.Validate(doc) == nil
}

// apply tests what depends on identities and lets a definition take effect. The
// reason is the beginning of the one that is stored.
func (j *judge) apply(r *replay, p *pending, m *judged) (reject string, err error) {
	org := p.pin.Record.Pin.Org
	name, err := j.authorName(p)
	if err != nil {
		return "", err
	}
	if m.header.Type != "definition" {
		return j.author(r, m.header, org, p.pin.Number), nil
	}
	if m.body == nil {
		return "a definition has exactly one data item", nil
	}
	switch m.header.Tag {
	case "define_datatype":
		return j.datatype(m), nil
	case "define_ffi":
		return j.defs.contracts.ffi(m), nil
	case "define_contract_api":
		return j.defs.contracts.api(m), nil
	case "identity_claim":
		return j.claim(r, p, m, org, name), nil
	case "identity_update":
		var u struct {
			ID wire.UUID `json:"id"`
		}
		if json.Unmarshal(m.body, &u) != nil {
			return "identity update", nil
		}
		for _, id := range j.defs.identities {
			if id.ID == u.ID && id.org == org {
				return "", nil
			}
		}
		return "identity", nil
	}
	return "definitions of kind", nil
}

func (j *judge) authorName(p *pending) (string, error) {
	row, err := j.c.tx.BatchByRoot(p.pin.Record.Pin.Org, p.pin.Record.Pin.Pin.Root)
	if err != nil || row == nil {
		return "", err
	}
	return row.AuthorName, nil
}

// custom tells whether a DID is that of a custom identity.
func custom(did string) bool {
	name, ok := strings.CutPrefix(did, "did:firefly:")
	return ok && nameRule.MatchString(name)
}

// author tests that a custom identity which a message names as its author was
// claimed by the sender before, and that its key signed. A revoked key may be
// replaced by any other of the organisation.
func (j *judge) author(r *replay, h *wire.MessageHeader, org wire.OrgID, number uint64) string {
	if !custom(h.Author) {
		return ""
	}
	id := j.defs.identities[h.Author]
	if id == nil || id.number >= number || id.org != org {
		return "the author " + h.Author
	}
	signer, err := wire.ParseAddress(id.Key)
	if err == nil && signer.String() != h.Key && r.members.owner(signer, number) == org {
		return "the key"
	}
	return ""
}

var nameRule = regexp.MustCompile(`^[0-9A-Za-z]([0-9A-Za-z._-]{0,62}[0-9A-Za-z])?$`)

func (j *judge) datatype(m *judged) string {
	var d datatype
	var compact, text bytes.Buffer
	if json.Unmarshal(m.body, &d) != nil {
		return "datatype"
	}
	if !nameRule.MatchString(d.Name) || !nameRule.MatchString(d.Version) || d.Validator != "json" || d.ID == (wire.UUID{}) {
		return "datatype"
	}
	if json.Compact(&compact, d.Value) != nil {
		return "the datatype's schema"
	}
	if json.HTMLEscape(&text, compact.Bytes()); !bytes.Equal(text.Bytes(), d.Value) || j.schemas.compile(d.Value) == nil {
		return "the datatype's schema"
	}
	k := d.Name + "/" + d.Version
	if _, taken := j.defs.datatypes[k]; taken || j.defs.ids[d.ID] {
		return "datatype"
	}
	d.message = m.header.ID
	j.defs.datatypes[k], j.defs.ids[d.ID] = d, true
	return ""
}

func (j *judge) claim(r *replay, p *pending, m *judged, org wire.OrgID, orgName string) string {
	c := &claimed{org: org, message: m.header.ID, number: p.pin.Number}
	if json.Unmarshal(m.body, c) != nil {
		return "identity claim"
	}
	if have := j.defs.identities[c.DID]; have != nil && have.ID == c.ID && have.org == org && nameRule.MatchString(c.Name) {
		return "" // repeated for who joined later
	}
	prefix := map[string]string{"org": "did:firefly:org/", "node": "did:firefly:node/"}[c.Type]
	if prefix == "" {
		prefix = "did:firefly:"
	}
	parent := false
	for _, id := range j.defs.identities {
		switch {
		case id.ID == c.ID:
			return "the id"
		case c.Type == "org" && id.Type == "org" && id.org == org:
			return "this organisation has"
		case c.Parent != nil && id.ID == *c.Parent && id.org == org && id.Type != "node":
			parent = true
		}
	}
	switch {
	case !nameRule.MatchString(c.Name):
		return "identity name"
	case c.DID != prefix+c.Name:
		return "an identity of type"
	case c.ID == (wire.UUID{}):
		return "the identity has no id"
	case c.Type == "org" && (c.Name != orgName || c.Salt == nil || wire.OrgIDOf(c.Name, *c.Salt) != org):
		return "the organisation"
	case c.Type != "org" && c.Type != "node" && c.Type != "custom":
		return "identity type"
	case c.Type != "org" && c.Parent == nil:
		return "the identity names no parent"
	case c.Type != "org" && !parent:
		return "parent"
	case j.defs.identities[c.DID] != nil:
		return "the DID"
	}
	if c.Type == "custom" {
		address, err := wire.ParseAddress(c.Key)
		if err != nil || r.members.owner(address, p.pin.Number) != org {
			return "key"
		}
	}
	j.defs.identities[c.DID] = c
	return ""
}

// finish compares the tables with what was defined.
func (d *definitions) finish(c *checker) error {
	datatypes, identities := maps.Clone(d.datatypes), maps.Clone(d.identities)
	_, err := each(c.tx, func(rows *store.Rows, t *datatype) error {
		return rows.Scan(&t.ID, &t.Name, &t.Version, &t.Validator, (*[]byte)(&t.Value), &t.message)
	}, func(t *datatype) error {
		where := "datatype " + t.Name + " version " + t.Version
		want, ok := datatypes[t.Name+"/"+t.Version]
		if !ok {
			c.differ(Datatype, where, "defined", "not defined by any confirmed message", rebuild)
			return nil
		}

		equal(c, Datatype, where, fmt.Sprintf("%s by message %s: %s", t.ID, t.message, t.Value), fmt.Sprintf("%s by message %s: %s", want.ID, want.message, want.Value), rebuild)
		delete(datatypes, t.Name+"/"+t.Version)
		return nil
	}, `SELECT id, name, version, validator, value, message FROM datatypes WHERE namespace = $1`, c.Namespace)
	if err != nil {
		return err
	}
	for k := range datatypes {
		c.differ(Datatype, "datatype "+strings.Replace(k, "/", " version ", 1), "nothing", "defined", rebuild)
	}
	_, err = each(c.tx, func(rows *store.Rows, i *claimed) error {
		return rows.Scan(&i.ID, &i.DID, &i.Type, &i.Name, &i.Parent, &i.org, &i.message)
	}, func(i *claimed) error {
		where := "identity " + i.DID
		want := identities[i.DID]
		if want == nil {
			c.differ(Identity, where, "claimed", "not claimed by any confirmed message", rebuild)
			return nil
		}
		equal(c, Identity, where, i.text(), want.text(), rebuild)
		delete(identities, i.DID)
		return nil
	}, `SELECT id, did, type, name, parent, org, msg_claim FROM identities WHERE namespace = $1`, c.Namespace)
	for did := range identities {
		c.differ(Identity, "identity "+did, "nothing", "claimed", rebuild)
	}
	return errors.Join(err, d.contracts.finish(c))
}

func (i *claimed) text() string {
	parent := "none"
	if i.Parent != nil {
		parent = i.Parent.String()
	}
	return fmt.Sprintf("%s %s %s of %s, parent %s, by message %s", i.Type, i.ID, i.Name, i.org.Short(), parent, i.message)
}
