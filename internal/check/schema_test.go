package check

import (
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

func TestSchemaIsWritableOnlyWithBoundedReferences(t *testing.T) {
	for text, want := range map[string]bool{
		`{"properties":{"$ref":{"type":"string"}}}`:                                                      true,
		`{"$defs":{"a/b":true},"items":{"$ref":"#/$defs/a~1b"}}`:                                         true,
		`{"properties":{"child":{"$ref":"#"}}}`:                                                          false,
		`{"$ref":"http://json-schema.org/draft-07/schema#"}`:                                             false,
		`{"allOf":[` + strings.Repeat(`{"$ref":"#/$defs/a"},`, 2000) + `{}],"$defs":{"a":{"items":{}}}}`: false,
		`{"allOf":[` + strings.Repeat(`{"$ref":"#/$defs/a"},`, 1000) + `{}],"$defs":{"a":{"items":{}}}}`: true,
	} {
		doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := writable(doc); got != want {
			t.Errorf("%.80s: writable %v, want %v", text, got, want)
		}
	}
}
