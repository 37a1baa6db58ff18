package message

import (
	"context"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// Networked reports whether there is a network. Without one, in a gateway
// namespace, no message can be sent, and definitions hold here alone.
func (s *Service) Networked() bool { return s.Ledger != nil }

// defineHere applies a definition in a namespace without a network: nobody has
// to agree, so it is decided when this returns. The message that stands for it
// is stored nowhere and has no id.
func (s *Service) defineHere(ctx context.Context, tag string, body []byte) (*store.Message, error) {
	m := &store.Message{
		Header: store.MessageHeader{Type: TypeDefinition, Tag: tag, Created: s.now(), Namespace: s.NetName}, LocalNamespace: s.Namespace, State: StateConfirmed,
	}
	err := s.DB.Write(ctx, func(tx *store.Tx) error {
		d, err := s.Definitions[tag](tx, Definition{Message: m, Body: body, At: m.Header.Created})
		if err != nil {
			return err
		}
		if d.Reject != "" {
			return errs.Conflict("FF10403", "The definition is not valid: %s", d.Reject)
		}
		if d.Event == "" {
			return nil
		}
		return tx.InsertEvents([]*store.Event{{ID: s.NewID(), Type: d.Event, Namespace: s.Namespace, Reference: &d.Ref, Topic: definitionTopic, Created: m.Header.Created}})
	})
	if err != nil {
		return nil, err
	}
	s.EventsCommitted()
	return m, nil
}

// MessageID is the id of the message that made the definition; nil in a
// namespace without a network, where none does.
func (d Definition) MessageID() *wire.UUID { return MessageID(d.Message) }

// MessageID is the id of a message that Define has returned; nil if the
// definition was applied without one.
func MessageID(m *store.Message) *wire.UUID {
	if m.Header.ID == (wire.UUID{}) {
		return nil
	}
	return &m.Header.ID
}
