package message

import (
	"fmt"
	"strings"
	"testing"

	"github.com/parley-node/parley/wire"
)

// nested is a schema of a few lines that doubles itself depth times.
func nested(depth int) string {
	var defs []string
	for i := range depth {
		defs = append(defs, fmt.Sprintf(`"d%d":{"allOf":[{"$ref":"#/$defs/d%d"},{"$ref":"#/$defs/d%d"}]}`, i, i+1, i+1))
	}
	return fmt.Sprintf(`{"$ref":"#/$defs/d0","$defs":{%s,"d%d":{"type":"object"}}}`, strings.Join(defs, ","), depth)
}

func TestReferencesOfASchemaAreBounded(t *testing.T) {
	for schema, want := range map[string]string{
		`{"type":"object","properties":{"$ref":{"type":"string"},"id":{"const":"x"}}}`:                     "",
		`{"$id":"http://x/","$defs":{"a/b":{"type":"string"}},"properties":{"x":{"$ref":"#/$defs/a~1b"}}}`: "",
		`{"$defs":{"a b":true},"items":{"$ref":"#/$defs/a%20b"}}`:                                          "",
		`{"allOf":[{"type":"object"},{"$ref":"#/allOf/0"}]}`:                                               "",
		nested(6):                               "",
		nested(30):                              "more than 4096 parts",
		`{"properties":{"child":{"$ref":"#"}}}`: `"#" leads back to itself`,
		`{"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}`:                  "leads back to itself",
		`{"$ref":"http://json-schema.org/draft-07/schema#"}`:                             "no JSON pointer",
		`{"$ref":"#name","$defs":{"a":{"$anchor":"name"}}}`:                              "no JSON pointer",
		`{"$ref":"#/$defs/none"}`:                                                        "names nothing",
		`{"$dynamicRef":"#/a"}`:                                                          `"$dynamicRef" is not supported`,
		`{"$defs":{"a":{"$id":"http://x/a","$ref":"#/b"}}}`:                              "at the top only",
		`{"$schema":"http://json-schema.org/draft-04/schema#","$defs":{"a":{"id":"b"}}}`: "draft-04",
	} {
		_, err := compileSchema([]byte(schema))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", schema, err, want)
		}
	}
}

// What compiles can be validated against, in a bounded time.
func FuzzSchema(f *testing.F) {
	for _, seed := range []string{nested(3), nested(40), `{"$ref":"#"}`, `{"$ref":"#/a/0/b","a":[{"b":{}}]}`, `{"not":{"$ref":"#/~0"},"~":true}`, `[]`} {
		f.Add([]byte(seed), []byte(`{"n":[1,{"m":null}]}`))
	}
	f.Fuzz(func(t *testing.T, text, value []byte) {
		c := schemaCache{compiled: map[wire.Hash]*schema{}}
		_ = c.validate(text, value)
	})
}
