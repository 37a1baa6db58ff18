package message

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// HoldInput is a legal hold as an application sets it.
type HoldInput struct {
	Kind   string `json:"kind"`  // message, topic, group, author
	Value  string `json:"value"` // id of the message, name of the topic, hash of the group, DID or name of the author
	Reason string `json:"reason"`
	Author string `json:"author,omitempty"` // who sets it; the organisation if empty
}

// codeHeld refuses to erase what a legal hold covers.
const codeHeld = "FF90020"

// SetHold sets a legal hold. From its commit on nothing that it covers is
// erased, also what arrives later.
func (s *Service) SetHold(ctx context.Context, in HoldInput) (*store.Hold, error) {
	if err := checkReason(in.Reason); err != nil {
		return nil, err
	}
	h := &store.Hold{ID: s.NewID(), Namespace: s.Namespace, Kind: in.Kind, Value: in.Value, Reason: in.Reason, Author: s.person(in.Author), Created: s.now()}
	switch in.Kind {
	case store.HoldMessage:
		id, err := uuid.Parse(in.Value)
		if err != nil {
			return nil, errs.BadUUID(in.Value)
		}
		h.Value = id.String()
	case store.HoldTopic:
		if err := identity.CheckName("value", in.Value); err != nil {
			return nil, err
		}
	case store.HoldGroup:
		hash, err := wire.ParseHash(in.Value)
		if err != nil {
			return nil, errs.New(errs.CodeBadHash, 400, "field %q: %v", "value", err)
		}
		h.Value = hash.String()
	case store.HoldAuthor:
		err := s.DB.Read(ctx, func(tx *store.Tx) error {
			id, err := identity.Resolve(tx, s.Namespace, in.Value)
			if err == nil && id == nil {
				return errs.New("FF10277", 400, "field %q names %q, which is no identity known here: see GET identities", "value", in.Value)
			}
			if err == nil {
				h.Value = id.DID
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	default:
		return nil, errs.New(errs.CodeBadValue, 400, "field %q holds %q: use message, topic, group or author", "kind", in.Kind)
	}
	err := s.DB.Write(ctx, func(tx *store.Tx) error {
		if err := tx.InsertHold(h); err != nil {
			return err
		}
		return tx.InsertEvents([]*store.Event{{ID: s.NewID(), Type: "hold_set", Namespace: s.Namespace, Reference: &h.ID, Created: h.Created}})
	})
	if err != nil {
		return nil, err
	}
	s.EventsCommitted()
	return h, nil
}

// LiftHold ends a legal hold. Policies look again at what it kept.
func (s *Service) LiftHold(ctx context.Context, id wire.UUID, author string) error {
	at := s.now()
	err := s.DB.Write(ctx, func(tx *store.Tx) error {
		ok, err := tx.LiftHold(s.Namespace, id, s.person(author), at)
		if err != nil {
			return err
		}
		if !ok {
			return errs.NoSuch("hold in force", id.String())
		}
		return tx.InsertEvents([]*store.Event{{ID: s.NewID(), Type: "hold_lifted", Namespace: s.Namespace, Reference: &id, Created: at}})
	})
	if err != nil {
		return err
	}
	s.EventsCommitted()
	s.keeping.again()
	s.Wake.Retention.Set()
	return nil
}

// person is who acts: as the caller says, or the organisation.
func (s *Service) person(named string) string {
	if named = strings.TrimSpace(named); named != "" {
		return named
	}
	return s.Self.DID()
}

// checkReason checks why something is erased or held: it is kept for ever.
func checkReason(reason string) error {
	if strings.TrimSpace(reason) == "" {
		return errs.New(errs.CodeBadValue, 400, "field %q is missing: say why, it is recorded", "reason")
	}
	if len(reason) > wire.MaxReason {
		return errs.New(errs.CodeBadValue, 400, "field %q has %d bytes: at most %d are allowed", "reason", len(reason), wire.MaxReason)
	}
	return nil
}

// holdOn is the first hold in force that covers a message.
func (s *Service) holdOn(holds []store.Hold, m *store.Message) *store.Hold {
	for i := range holds {
		h := &holds[i]
		covered := false
		switch h.Kind {
		case store.HoldMessage:
			covered = h.Value == m.Header.ID.String()
		case store.HoldTopic:
			covered = slices.Contains(m.Header.Topics, h.Value)
		case store.HoldGroup:
			covered = h.Value == string(m.Header.Group)
		case store.HoldAuthor:
			covered = h.Value == m.Header.Author
		}
		if covered {
			return h
		}
	}
	return nil
}

// heldError says that a message must be kept, and why. A member that asked for
// its erasure is told of the hold, not what it is about.
type heldError struct {
	coded *errs.Error
	hold  store.Hold
}

func held(m *store.Message, h *store.Hold) error {
	return &heldError{errs.Conflict(codeHeld, "message %s must be kept: legal hold %s on %s %s (%s) is in force; lift it first with DELETE holds/%s",
		m.Header.ID, h.ID, h.Kind, h.Value, h.Reason, h.ID), *h}
}

func (e *heldError) Error() string { return e.coded.Error() }

// Unwrap lets the API find the code.
func (e *heldError) Unwrap() error { return e.coded }

func (e *heldError) toPeer() string { return fmt.Sprintf("legal hold %s is in force here", e.hold.ID) }
