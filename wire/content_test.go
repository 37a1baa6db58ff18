package wire

import (
	"crypto/sha256"
	"testing"
)

func TestContentID(t *testing.T) {
	// As "ipfs add --cid-version 1 --raw-leaves" names these bytes.
	const hello = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
	hash := Hash(sha256.Sum256([]byte("hello world")))
	if got := ContentID(hash); got != hello {
		t.Errorf("the identifier is %s, want %s", got, hello)
	}
	if got, err := ParseContentID(hello); err != nil || got != hash {
		t.Errorf("parsed as %s, %v", got, err)
	}
	for _, bad := range []string{"", "b", "x" + hello[1:], hello[:58], hello + "a", hello[:58] + "f", "bafybeifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e", hash.String(), "B" + hello[1:]} {
		if got, err := ParseContentID(bad); err == nil {
			t.Errorf("%q was parsed as %s", bad, got)
		}
	}
}

func FuzzParseContentID(f *testing.F) {
	f.Add(ContentID(Hash{1, 2, 3}))
	f.Add("bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e")
	f.Add("b")
	f.Fuzz(func(t *testing.T, id string) {
		if hash, err := ParseContentID(id); err == nil && ContentID(hash) != id {
			t.Errorf("%q and %q name the same content", id, ContentID(hash))
		}
	})
}
