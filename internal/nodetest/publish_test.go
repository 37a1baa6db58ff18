package nodetest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"github.com/parley-node/parley/internal/blob"
	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/exchange/local"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// readPublished reads a content at a member.
func (m *Member) readPublished(hash wire.Hash) ([]byte, error) {
	m.net.t.Helper()
	r, size, err := m.Messages.OpenPublished(m.net.t.Context(), hash)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err == nil && int64(len(content)) != size {
		m.net.t.Errorf("%s reads %d bytes of %d", m.Name, len(content), size)
	}
	return content, err
}

// What one member publishes every member reads by its hash, also from one that
// only has a copy; what nobody published, nobody reads, though it is here.
func TestPublish(t *testing.T) {
	net := Network(t, 3)
	a, b, c := net.Members[0], net.Members[1], net.Members[2]
	content := bytes.Repeat([]byte("scan"), blob.ChunkSize/2) // two chunks
	hash := wire.Hash(sha256.Sum256(content))
	data, err := a.Messages.AddBlob(t.Context(), message.DataInput{Value: []byte(`{"page": 1}`)}, bytes.NewReader(content), "scan.pdf", "application/pdf", true)
	must(t, err)

	if _, err := b.readPublished(hash); errs.Code(err) != errs.CodeNotFound {
		t.Fatalf("a content that was not published: %v", err)
	}
	shown, err := a.Messages.PublishBlob(t.Context(), data.ID, "once")
	must(t, err)
	if shown.Blob.Public != wire.ContentID(hash) || shown.Public != "" {
		t.Errorf("published as %q and %q", shown.Blob.Public, shown.Public)
	}
	if _, err := a.Messages.PublishBlob(t.Context(), data.ID, "once"); errs.Code(err) != errs.CodeTxKey {
		t.Errorf("the same idempotency key: %v", err)
	}
	if _, err := a.Messages.PublishBlob(t.Context(), data.ID, ""); err != nil {
		t.Errorf("published again: %v", err)
	}
	if got, err := b.readPublished(hash); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("b reads %d bytes, %v", len(got), err)
	}
	// The publisher is gone; b has a copy.
	a.Stop()
	if got, err := c.readPublished(hash); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("c reads %d bytes, %v", len(got), err)
	}
	a.Start()

	shown, err = a.Messages.PublishValue(t.Context(), data.ID, "")
	must(t, err)
	valueHash := wire.Hash(sha256.Sum256(shown.Value))
	if shown.Public != wire.ContentID(valueHash) || shown.Blob.Public != wire.ContentID(hash) {
		t.Errorf("published as %q and %q", shown.Blob.Public, shown.Public)
	}
	if got, err := c.readPublished(valueHash); err != nil || !bytes.Equal(got, shown.Value) {
		t.Errorf("c reads %s, %v; published was %s", got, err, shown.Value)
	}
	if _, err := a.Messages.PublishValue(t.Context(), wire.UUID{1}, ""); errs.Code(err) != errs.CodeNotFound {
		t.Errorf("a value that is not there: %v", err)
	}
}

// A member that lies about a content, breaks off, or does not answer costs the
// next one's answer and nothing else: what it gave is not kept.
func TestPublishedByLiar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := Network(t, 3)
		reader := net.Members[2]
		content, lie := []byte(`"true"`), []byte(`"lie"`)
		hash := wire.Hash(sha256.Sum256(content))
		for _, m := range net.Members[:2] {
			data, err := m.Messages.AddData(t.Context(), message.DataInput{Value: content})
			must(t, err)
			_, err = m.Messages.PublishValue(t.Context(), data.ID, "")
			must(t, err)
		}
		first := ""
		for name, fault := range map[string]func(local.Message) ([]byte, error){
			"other bytes": func(local.Message) ([]byte, error) { return lie, nil },
			"broken off":  func(m local.Message) ([]byte, error) { return m.Body[:3], nil },
			"no answer":   func(local.Message) ([]byte, error) { return nil, errFault },
		} {
			net.Exchange.Intercept(func(m local.Message) ([]byte, error) {
				if m.Kind == local.KindFetch && m.Answer && (first == "" || first == m.From) {
					first = m.From
					return fault(m)
				}
				return m.Body, nil
			})
			got, err := reader.readPublished(hash)
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("%s: read %s, %v", name, got, err)
			}
			if first == "" {
				t.Errorf("%s: the liar was not asked", name)
			}
			if _, err := reader.Blobs.Open(t.Context(), sha256.Sum256(lie), 0); !errors.Is(err, blob.ErrNotFound) {
				t.Errorf("%s: the lie is kept: %v", name, err)
			}
			first = ""
			reader.forgetPublished(hash)
		}
		net.Exchange.Intercept(func(m local.Message) ([]byte, error) {
			if m.Kind == local.KindFetch && m.Answer {
				return nil, errFault
			}
			return m.Body, nil
		})
		if _, err := reader.readPublished(hash); errs.Code(err) != errs.CodeNotFound {
			t.Errorf("from nobody: %v", err)
		}
		net.Exchange.Intercept(nil)
	})
}

// forgetPublished makes a member fetch a content again.
func (m *Member) forgetPublished(hash wire.Hash) {
	t := m.net.t
	t.Helper()
	must(t, m.DB.Write(t.Context(), func(tx *store.Tx) error {
		if err := tx.Withdraw(m.Namespace, store.Hex(hash.String()), wire.ContentID(hash)); err != nil {
			return err
		}
		if err := tx.ReleaseBlob(store.Hex(hash.String()), 1); err != nil {
			return err
		}
		return tx.BlobRemoved(store.Hex(hash.String()))
	}))
	must(t, m.Blobs.Delete(t.Context(), hash))
}
