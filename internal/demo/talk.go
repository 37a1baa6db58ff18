package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"

	"github.com/parley-node/parley/client"
	"github.com/parley-node/parley/examples/healthcare"
)

// The topic on which hospital and insurer-a talk in private.
const claimTopic = "claim-2026-000417"

// broadcast: what the hospital tells the network, every member has, with the
// same content.
func (s *story) broadcast(ctx context.Context) (told, error) {
	if s.broken {
		s.Members[len(s.Members)-1].kill(ctx)
	}
	var d client.Datatype
	if err := json.Unmarshal(healthcare.DatatypeClaim, &d); err != nil {
		return told{}, err
	}
	if _, err := s.hospital().API.CreateDatatype(ctx, d); err != nil {
		return told{}, err
	}
	prices, err := s.hospital().API.Broadcast(ctx, client.NewMessage{
		Header: client.Header{Topics: []string{"prices"}, Tag: "pricelist"},
		Data:   []client.DataRef{{Value: healthcare.PriceList}},
	})
	if err != nil {
		return told{}, err
	}
	ids := map[string]string{"message": prices.Header.ID}
	for _, m := range s.Members {
		got, err := m.confirmed(ctx, prices.Header.ID)
		if err != nil {
			return told{ids: ids}, err
		}
		if err := sameJSON(got, healthcare.PriceList); err != nil {
			return told{ids: ids}, fmt.Errorf("the price list at %s: %w", m.Name, err)
		}
		// Sent before the price list, it is here when that is.
		if err := waitFor(ctx, m.Name+" has the datatype", func(ctx context.Context) (bool, error) {
			_, err := m.API.Datatype(ctx, d.Name, d.Version)
			if client.IsNotFound(err) {
				return false, nil
			}
			return err == nil, err
		}); err != nil {
			return told{ids: ids}, err
		}
	}
	return told{fmt.Sprintf("the hospital broadcast the datatype %s %s and a price list: all %d members have them, confirmed", d.Name, d.Version, len(s.Members)), ids}, nil
}

// sameJSON says whether the message's first value is what was sent.
func sameJSON(m *client.Message, want []byte) error {
	if len(m.Data) == 0 {
		return errors.New("the message has no data")
	}
	var a, b bytes.Buffer
	if err := errors.Join(json.Compact(&a, m.Data[0].Value), json.Compact(&b, want)); err != nil {
		return err
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		return fmt.Errorf("its content is not what was sent (%d bytes, %d were sent)", a.Len(), b.Len())
	}
	return nil
}

// schema: a record that breaks the agreed schema is refused where it is sent.
func (s *story) schema(ctx context.Context) (told, error) {
	value := healthcare.RecordInvalid
	if s.broken {
		value = healthcare.PrivateRecord
	}
	_, err := s.insurerA().API.Private(ctx, client.NewMessage{
		Header: client.Header{Topics: []string{"refused"}},
		Group:  s.group(),
		Data:   []client.DataRef{{Value: value, Validator: "json", Datatype: &client.DatatypeRef{Name: "claim", Version: "1.0.0"}}},
	})
	var refused *client.Error
	if err == nil || !errors.As(err, &refused) {
		return told{}, fmt.Errorf("a record that breaks the schema was not refused (%v)", err)
	}
	if refused.Status != 400 {
		return told{}, fmt.Errorf("a record that breaks the schema was answered with: %w", err)
	}
	left, err := s.insurerA().API.Messages(ctx, url.Values{"topics": {"refused"}})
	if err != nil {
		return told{}, err
	}
	if len(left) != 0 {
		return told{}, fmt.Errorf("the refused record was stored as message %s", left[0].Header.ID)
	}
	return told{"a record that breaks the schema was refused where it was sent: " + firstLine(refused.Text), nil}, nil
}

// group is the group of hospital and insurer-a, of which nobody else is told.
func (s *story) group() *client.Group {
	return &client.Group{Name: "claim", Members: []client.Member{{Identity: s.hospital().Name}, {Identity: s.insurerA().Name}}}
}

// private: the record and its attachment arrive at the hospital as they were
// sent.
func (s *story) private(ctx context.Context) (told, error) {
	a, h := s.insurerA(), s.hospital()
	scan := healthcare.Scan
	if s.broken {
		scan = bytes.Clone(scan)
		scan[len(scan)/2] ^= 1
	}
	blob, err := a.API.UploadBlob(ctx, bytes.NewReader(scan), client.BlobUpload{Filename: "claim.png", ContentType: "image/png"})
	if err != nil {
		return told{}, err
	}
	bundle, err := a.API.UploadBlob(ctx, bytes.NewReader(healthcare.ClaimBundle), client.BlobUpload{Filename: "claim-bundle.json", ContentType: "application/fhir+json"})
	if err != nil {
		return told{}, err
	}
	sent, err := a.API.Private(ctx, client.NewMessage{
		Header: client.Header{Topics: []string{claimTopic}, Tag: "claim"},
		Group:  s.group(),
		Data: []client.DataRef{
			{Value: healthcare.PrivateRecord, Validator: "json", Datatype: &client.DatatypeRef{Name: "claim", Version: "1.0.0"}},
			{ID: blob.ID}, {ID: bundle.ID},
		},
	})
	if err != nil {
		return told{}, err
	}
	ids := map[string]string{"message": sent.Header.ID, "group": sent.Header.Group, "attachment": blob.ID}
	got, err := h.confirmed(ctx, sent.Header.ID)
	if err != nil {
		return told{ids: ids}, err
	}
	if s.record, err = a.confirmed(ctx, sent.Header.ID); err != nil {
		return told{ids: ids}, err
	}
	if err := sameJSON(got, healthcare.PrivateRecord); err != nil {
		return told{ids: ids}, fmt.Errorf("the record at the hospital: %w", err)
	}
	for _, file := range []struct {
		id   string
		want []byte
	}{{blob.ID, healthcare.Scan}, {bundle.ID, healthcare.ClaimBundle}} {
		if err := sameBlob(ctx, h, file.id, file.want); err != nil {
			return told{ids: ids}, err
		}
	}
	s.blob = blob.ID
	return told{fmt.Sprintf("insurer-a sent the hospital a claim in private, with a scan of %d KB and a FHIR bundle of %d KB: they arrived byte for byte",
		len(scan)>>10, len(healthcare.ClaimBundle)>>10), ids}, nil
}

// sameBlob says whether a member's blob is the file that was sent.
func sameBlob(ctx context.Context, m *Member, id string, want []byte) error {
	r, _, err := m.API.Blob(ctx, id)
	if err != nil {
		return fmt.Errorf("attachment %s at %s: %w", id, m.Name, err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("attachment %s at %s: %w", id, m.Name, err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("attachment %s at %s is not the file that was sent (%d bytes, %d were sent)", id, m.Name, len(got), len(want))
	}
	return nil
}

// reply: the answer names the message that it answers, and both sides find it
// by that.
func (s *story) reply(ctx context.Context) (told, error) {
	a, h := s.insurerA(), s.hospital()
	header := client.Header{Topics: []string{claimTopic}, Tag: "decision", Group: s.record.Header.Group, CID: s.record.Header.ID}
	if s.broken {
		header.CID = ""
	}
	sent, err := h.API.Private(ctx, client.NewMessage{Header: header, Data: []client.DataRef{{Value: healthcare.Reply}}})
	if err != nil {
		return told{}, err
	}
	ids := map[string]string{"message": sent.Header.ID, "cid": s.record.Header.ID}
	for _, m := range []*Member{h, a} {
		if _, err := m.confirmed(ctx, sent.Header.ID); err != nil {
			return told{ids: ids}, err
		}
		found, err := m.API.Messages(ctx, url.Values{"cid": {s.record.Header.ID}})
		if err != nil {
			return told{ids: ids}, err
		}
		if len(found) != 1 || found[0].Header.ID != sent.Header.ID {
			return told{ids: ids}, fmt.Errorf("%s finds %d messages that answer %s, not the one reply %s", m.Name, len(found), s.record.Header.ID, sent.Header.ID)
		}
	}
	return told{"the hospital answered, and insurer-a finds the answer by the message that it answers (cid)", ids}, nil
}

// sameOrder: both sides saw the same messages confirmed in the same order.
func (s *story) sameOrder(ctx context.Context) (told, error) {
	a, h := s.insurerA(), s.hospital()
	if s.broken {
		if err := s.aside(ctx, claimTopic); err != nil {
			return told{}, err
		}
	}
	orders, err := s.orders(ctx, claimTopic, h, a)
	if err != nil {
		return told{}, err
	}
	return told{fmt.Sprintf("hospital and insurer-a saw the same %d messages confirmed in the same order", len(orders)), nil}, nil
}

// orders checks that members saw the same messages on a topic in the same order,
// each once, and gives that order.
func (s *story) orders(ctx context.Context, topic string, members ...*Member) ([]string, error) {
	var first []string
	for i, m := range members {
		ids, err := m.order(ctx, topic)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			first = ids
			continue
		}
		if !slices.Equal(ids, first) {
			return nil, fmt.Errorf("the order on topic %s is not the same at %s and %s: %s", topic, members[0].Name, m.Name, differ(first, ids))
		}
	}
	return first, nil
}

// differ says in a few words where two lists of ids part.
func differ(a, b []string) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("at place %d one has %s, the other %s", i+1, a[i], b[i])
		}
	}
	return fmt.Sprintf("one has %d messages, the other %d", len(a), len(b))
}
