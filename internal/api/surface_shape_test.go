package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// shapes holds results against the documented types, and remembers which
// optional fields it has seen.
type shapes struct {
	sf   *surface
	seen map[string]*presence // by component and field
}

type presence struct{ set, unset bool }

// beyond are fields that results have and the documented types lack.
var beyond = map[string]map[string]string{
	"NamespaceStatus": {"version": "string"},
	"Subscription":    {"status": "any"}, // with ?fetchstatus
	// With ?fetchreferences.
	"Event": {
		"message": "@Message", "transaction": "@Transaction", "blockchainEvent": "@BlockchainEvent", "datatype": "@Datatype",
		"identity": "@Identity", "operation": "@Operation",
	},
	"Identity": {"verifiers": "[]@VerifierRef"}, // with ?fetchverifiers
}

var (
	uuidText = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	timeText = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$`)
	hashText = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// check holds a value against a type: "string", "string:uuid", "string:byte" (32
// bytes in hexadecimal), "string:date-time", "integer…", "number…", "boolean",
// "enum:name", "any", "@component", "[]" and a type; with "?" at the end it may
// be null.
func (s *shapes) check(t *testing.T, where string, typ, v any) {
	t.Helper()
	name, plain := typ.(string)
	if !plain { // an object that the surface says nothing more of
		return
	}
	name, nullable := strings.CutSuffix(name, "?")
	if v == nil {
		if !nullable && name != "any" {
			t.Errorf("%s: null, want %s", where, name)
		}
		return
	}
	fits := func(ok bool) {
		t.Helper()
		if !ok {
			t.Errorf("%s: %v is no %s", where, v, name)
		}
	}
	text, isText := v.(string)
	kind, arg, _ := strings.Cut(name, ":")
	switch {
	case strings.HasPrefix(name, "[]"):
		list, isList := v.([]any)
		fits(isList)
		for i, e := range list {
			s.check(t, fmt.Sprintf("%s[%d]", where, i), name[2:], e)
		}
	case strings.HasPrefix(name, "@"):
		o, isObject := v.(object)
		fits(isObject)
		if isObject {
			s.component(t, where, name[1:], o)
		}
	case kind == "enum":
		fits(isText && slices.Contains(s.sf.Enums[arg], text))
	case name == "string:uuid":
		fits(uuidText.MatchString(text))
	case name == "string:date-time":
		fits(timeText.MatchString(text))
	case name == "string:byte":
		fits(hashText.MatchString(text))
	case kind == "string":
		fits(isText)
	case kind == "integer":
		n, isNumber := v.(json.Number)
		fits(isNumber && !strings.ContainsAny(n.String(), ".eE"))
	case kind == "number":
		_, isNumber := v.(json.Number)
		fits(isNumber)
	case kind == "boolean":
		_, isBool := v.(bool)
		fits(isBool)
	case name != "any":
		t.Fatalf("%s: the surface names the type %q", where, name)
	}
}

// component checks the fields of an object: only documented ones, optional ones
// never empty, all others always there.
func (s *shapes) component(t *testing.T, where, name string, o object) {
	t.Helper()
	c, known := s.sf.Components[name]
	if !known {
		t.Fatalf("%s: the surface names the component %q", where, name)
	}
	for field, v := range o {
		typ, documented := c.Properties[field]
		if !documented {
			extra, allowed := beyond[name][field]
			if !allowed {
				t.Errorf("%s: %s has the field %q, which is not documented", where, name, field)
				continue
			}
			typ = extra
		}
		s.check(t, where+"."+field, typ, v)
	}
	optional, described := s.sf.Optional[name]
	for _, field := range slices.Sorted(maps.Keys(c.Properties)) {
		v, there := o[field]
		if !slices.Contains(optional, field) {
			if described && !there {
				t.Errorf("%s: %s lacks the field %q", where, name, field)
			}
			continue
		}
		p := s.seen[name+"."+field]
		if p == nil {
			p = &presence{}
			s.seen[name+"."+field] = p
		}
		if there {
			p.set = true
			if v == nil || v == "" || v == false || v == json.Number("0") {
				t.Errorf("%s: %s has the empty field %q, which is left out then", where, name, field)
			}
		} else {
			p.unset = true
		}
	}
}

// complete tells which optional fields were not seen both ways, apart from those
// that cannot be.
func (s *shapes) complete(t *testing.T) {
	t.Helper()
	for _, field := range slices.Sorted(maps.Keys(s.seen)) {
		p := s.seen[field]
		_, always := alwaysSet[field]
		_, never := neverSet[field]
		switch {
		case always && p.unset:
			t.Errorf("%s is said to be always set, and was seen unset", field)
		case never && p.set:
			t.Errorf("%s is said to be never set, and was seen set", field)
		case !p.set && !never:
			t.Errorf("%s was never seen set", field)
		case !p.unset && !always:
			t.Errorf("%s was never seen unset", field)
		}
	}
	for _, list := range []map[string]string{alwaysSet, neverSet} {
		for field := range list {
			if s.seen[field] == nil {
				t.Errorf("%s is excused, and no result has its type", field)
			}
		}
	}
}
