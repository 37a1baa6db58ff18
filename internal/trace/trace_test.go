package trace

import (
	"strings"
	"testing"
)

const example = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestParse(t *testing.T) {
	c, ok := Parse(example)
	if !ok || c.String() != example || !c.Sampled {
		t.Errorf("the example of the standard gives %v, %t", c, ok)
	}
	for text, want := range map[string]bool{
		"":                       false,
		strings.ToUpper(example): false,
		example + "x":            false,
		example + "-x":           false, // version 00 has nothing more
		"cc" + example[2:] + "-what-the-future-holds":             true,
		"cc" + example[2:] + "x":                                  false,
		"ff" + example[2:]:                                        false,
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": false,
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01": false,
		strings.Replace(example, "af", "zz", 1):                   false,
	} {
		if _, ok := Parse(text); ok != want {
			t.Errorf("%q: %t, want %t", text, ok, want)
		}
	}
}

func TestRequest(t *testing.T) {
	var r *Recorder
	c, parent := r.Request(example)
	from, _ := Parse(example)
	if c.Trace != from.Trace || c.Span == from.Span || parent != from.Span || !c.Sampled {
		t.Errorf("a step of %v is %v", from, c)
	}
	a, _ := r.Request("nonsense")
	b, _ := r.Request("")
	if a.IsZero() || a.Trace == b.Trace {
		t.Errorf("new traces %v and %v", a, b)
	}
	ctx := With(t.Context(), c)
	if From(ctx) != c || !From(t.Context()).IsZero() {
		t.Error("a context does not give what it was given")
	}
	if FromBytes(c.Bytes()) != c || (Context{}).Bytes() != nil || FromBytes([]byte("short")) != (Context{}) || FromBytes(make([]byte, Size)) != (Context{}) {
		t.Error("a context does not come back from its bytes")
	}
	if (Context{}).String() != "" {
		t.Error("no trace has a header")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(example)
	f.Add("cc" + example[2:] + "-x")
	f.Fuzz(func(t *testing.T, text string) {
		c, ok := Parse(text)
		if !ok {
			if c != (Context{}) {
				t.Errorf("%q is refused and gives %v", text, c)
			}
			return
		}
		if again, ok := Parse(c.String()); !ok || again != c {
			t.Errorf("%q gives %v, and then %v", text, c, again)
		}
	})
}
