package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// surface is what existing clients know of the API, contracts and tokens left
// out: the operations with the types of their parameters, bodies and results.
type surface struct {
	Operations []surfaceOp
	Components map[string]struct{ Properties map[string]any } // name of a field -> type, see shapes.check
	Optional   map[string][]string                            // fields that are left out when empty
	Enums      map[string][]string
	Filters    map[string]map[string]string // fields that a list is filtered by, with their kind
}

type surfaceOp struct {
	Method, Path, Variants, Filter string
	Success                        any
	Responses                      map[string]any // status -> type of the result
}

func loadSurface(t *testing.T) *surface {
	t.Helper()
	text, err := os.ReadFile("testdata/surface.json")
	if err != nil {
		t.Fatal(err)
	}
	sf := new(surface)
	if err := json.Unmarshal(text, sf); err != nil {
		t.Fatal(err)
	}
	return sf
}

// name is the operation's method and path below /api/v1.
func (op *surfaceOp) name() string { return op.Method + " " + strings.TrimPrefix(op.Path, v1) }

// TestSurface drives every operation that existing clients know, in each form of
// its path, and holds results against what these clients expect. An operation
// without a case fails, and so does an optional field that is never seen set, or
// never left out.
func TestSurface(t *testing.T) {
	t.Parallel()
	sf := loadSurface(t)
	w := newWorld(t)
	shapes := &shapes{sf: sf, seen: map[string]*presence{}}
	left := maps.Clone(cases)
	// What ends the network comes last.
	ops := slices.Clone(sf.Operations)
	slices.SortStableFunc(ops, func(a, b surfaceOp) int {
		return boolInt(a.name() == "POST network/action") - boolInt(b.name() == "POST network/action")
	})
	for i := range ops {
		op := &ops[i]
		run := cases[op.name()]
		if run == nil {
			t.Errorf("no case drives %s", op.name())
			continue
		}
		delete(left, op.name())
		forms := []string{""}
		if op.Variants != "global" {
			forms = append(forms, "namespaces/default/")
		}
		for n, prefix := range forms {
			ok := t.Run(strings.ReplaceAll(op.Method+" "+prefix+strings.TrimPrefix(op.Path, v1), "/", "."), func(t *testing.T) {
				c := &caller{T: t, w: w, op: op, shapes: shapes, prefix: prefix, round: n, site: w.alice}
				run(c)
				if !c.succeeded {
					t.Error("the case has no success")
				}
			})
			if !ok && t.Context().Err() != nil {
				return
			}
		}
	}
	for name := range left {
		t.Errorf("a case drives %s, which is no operation of the surface", name)
	}
	if !t.Failed() {
		shapes.complete(t)
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// caller drives one operation in one form of its path.
type caller struct {
	*testing.T
	w         *world
	op        *surfaceOp
	shapes    *shapes
	prefix    string // of the paths: "" or "namespaces/…/"
	round     int    // which form it is, from 0
	site      *site  // whose API is called
	succeeded bool
}

// call does the operation at a path, which must be one of the operation.
func (c *caller) call(path, body string, header ...string) *answer {
	c.Helper()
	bare, _, _ := strings.Cut(path, "?")
	pattern := regexp.MustCompile(`\\\{(did|parent)\\\}|\\\{\w+\\\}`).ReplaceAllStringFunc(regexp.QuoteMeta(strings.TrimPrefix(c.op.Path, v1)), func(v string) string {
		if v == `\{did\}` || v == `\{parent\}` {
			return `.+`
		}
		return `[^/]+`
	})
	if !regexp.MustCompile("^" + pattern + "$").MatchString(bare) {
		c.Fatalf("%s is no path of %s", path, c.op.name())
	}
	at := *c.site
	at.t = c.T
	return at.do(c.op.Method, c.prefix+path, body, header...)
}

// fails does the operation and expects an error.
func (c *caller) fails(path, body string, status int, code string) {
	c.Helper()
	c.call(path, body).is(status, code)
}

// ok does the operation and expects its success: the documented status, and a
// result of the documented shape, which it returns.
func (c *caller) ok(path, body string, header ...string) any {
	c.Helper()
	_, query, _ := strings.Cut(path, "?")
	status := http.StatusOK
	switch success := c.op.Success.(type) {
	case float64:
		status = int(success)
	default: // "202, or 200 with confirm=true"
		if values, err := url.ParseQuery(query); err != nil || !values.Has("confirm") {
			status = http.StatusAccepted
		}
	}
	a := c.call(path, body, header...).is(status, "")
	c.succeeded = true
	typ, known := c.op.Responses[fmt.Sprint(status)]
	if !known {
		c.Fatalf("%s: the surface knows no status %d", a.what, status)
	}
	switch {
	case typ == nil:
		if len(a.body) != 0 {
			c.Errorf("%s: a body %s with status %d", a.what, a.body, status)
		}
		return nil
	case len(a.body) == 0:
		c.Fatalf("%s: no body", a.what)
	case typ == "string:byte":
		return a
	case a.header.Get("Content-Type") != jsonCT || a.body[len(a.body)-1] != '\n':
		c.Errorf("%s: type %q, and the body ends with %q", a.what, a.header.Get("Content-Type"), a.body[len(a.body)-1])
	}
	v := decode(c.T, a)
	if op := c.op.name(); op == "GET data/{dataid}/messages" { // documented as one message
		typ = "[]" + typ.(string)
	}
	if !strings.Contains(query, "fetchverifiers") {
		if list, is := strings.CutSuffix(fmt.Sprint(typ), "@IdentityWithVerifiers"); is {
			typ = list + "@Identity"
		}
	}
	if e, counted := v.(object); counted && strings.HasPrefix(fmt.Sprint(typ), "[]") {
		c.shapes.check(c.T, a.what, typ, e["items"])
		return v
	}
	c.shapes.check(c.T, a.what, typ, v)
	return v
}

// object is ok for a result that is one object.
func (c *caller) object(path, body string, header ...string) object {
	c.Helper()
	v, isObject := c.ok(path, body, header...).(object)
	if !isObject {
		c.Fatalf("%s %s: the result is no object", c.op.name(), path)
	}
	return v
}

// decode reads a result with numbers as their text.
func decode(t *testing.T, a *answer) (v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v in %s", a.what, err, a.body)
	}
	return v
}

// at is the value at a path of field names.
func at(v any, path ...string) any {
	for _, name := range path {
		o, _ := v.(object)
		v = o[name]
	}
	return v
}

// text is the text at a path of field names; "" if there is none.
func text(v any, path ...string) string {
	s, _ := at(v, path...).(string)
	return s
}

// equal compares a result, or a part of one, with JSON.
func (c *caller) equal(what string, got any, want string) {
	c.Helper()
	text, err := json.Marshal(got)
	if err != nil {
		c.Fatal(err)
	}
	if string(text) != want {
		c.Errorf("%s is %s, want %s", what, text, want)
	}
}
