package node

import (
	"strings"
	"testing"

	"github.com/parley-node/parley/internal/message"
)

func TestRetentionConfiguration(t *testing.T) {
	c, err := parseConfig([]byte(`
retention:
  requests: accept
  policies:
    - {topic: chat, age: 90d}
    - {datatype: claim/1.0, age: 36h, recipients: true}
`))
	if err != nil {
		t.Fatal(err)
	}
	r := c.Retention.retention()
	if r.Requests != message.RequestsAccept || len(r.Policies) != 2 || r.Policies[0].Topic != "chat" || !r.Policies[1].Recipients {
		t.Errorf("read as %+v", r)
	}
	if r := new(RetentionConfig).retention(); r.Requests != message.RequestsAsk {
		t.Errorf("the default is %q", r.Requests)
	}
	for text, want := range map[string]string{
		`{requests: always}`:                      "retention.requests",
		`{policies: [{age: forever}]}`:            "retention.policies[0]",
		`{policies: [{age: 1s}]}`:                 "at least",
		`{policies: [{age: 1d, topic: "a b"}]}`:   "topic",
		`{policies: [{age: 1d, group: "12"}]}`:    "group",
		`{policies: [{age: 1d, datatype: "a/"}]}`: "datatype",
	} {
		c, err := parseConfig([]byte("retention: " + text))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want it to name %s", text, err, want)
		}
	}
}

func FuzzParseAge(f *testing.F) {
	for _, seed := range []string{"90d", "36h", "0d", "-1d", "1e9d", "999999999d", "d", "1.5d", "1m"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := message.ParseAge(text); err == nil && d < 0 {
			t.Errorf("%q is read as %s", text, d)
		}
	})
}
