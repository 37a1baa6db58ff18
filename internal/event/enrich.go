package event

import (
	"context"
	"fmt"
	"strings"

	"github.com/parley-node/parley/internal/store"
)

// Enriched is an event with the object that it speaks of. At most one of the
// pointers is set; none is if the object has gone since.
type Enriched struct {
	store.Event
	BlockchainEvent *store.BlockchainEvent `json:"blockchainEvent,omitempty"`
	ContractAPI     *store.ContractAPI     `json:"contractAPI,omitempty"`
	Interface       *store.Interface       `json:"contractInterface,omitempty"` // without its methods, events and errors
	Datatype        *store.Datatype        `json:"datatype,omitempty"`
	Identity        *store.Identity        `json:"identity,omitempty"`
	Message         *store.Message         `json:"message,omitempty"` // references to its data, no values
	Transaction     *store.Transaction     `json:"transaction,omitempty"`
	Operation       *store.Operation       `json:"operation,omitempty"`

	// Data is that of the message, where a subscription asks for it.
	Data []*store.Data `json:"data,omitempty"`
}

// attach adds the data of messages to events.
func (l *Log) attach(ctx context.Context, events []Enriched) error {
	var messages []int64
	for i := range events {
		if m := events[i].Message; m != nil {
			messages = append(messages, m.Seq)
		}
	}
	if len(messages) == 0 {
		return nil
	}
	var data map[int64][]*store.Data
	err := l.db.Read(ctx, func(tx *store.Tx) (err error) {
		data, err = tx.DataOfMessages(messages)
		return err
	})
	if err != nil {
		return fmt.Errorf("read the data of %d messages: %w", len(messages), err)
	}
	for i := range events {
		if m := events[i].Message; m != nil {
			events[i].Data = data[m.Seq]
		}
	}
	return nil
}

// kind is what the reference of an event names.
type kind int

const (
	kindNone kind = iota
	kindMessage
	kindTransaction
	kindDatatype
	kindIdentity
	kindOperation
	kindBlockchainEvent
	kindInterface
	kindContractAPI
)

func kindOf(eventType string) kind {
	switch eventType {
	case "message_confirmed", "message_rejected", "message_erased":
		return kindMessage
	case "transaction_submitted":
		return kindTransaction
	case "datatype_confirmed":
		return kindDatatype
	case "identity_confirmed", "identity_updated":
		return kindIdentity
	case "contract_interface_confirmed":
		return kindInterface
	case "contract_api_confirmed":
		return kindContractAPI
	case "blockchain_event_received", "blockchain_event_dropped":
		return kindBlockchainEvent
	}
	if strings.HasSuffix(eventType, "_op_succeeded") || strings.HasSuffix(eventType, "_op_failed") {
		return kindOperation
	}
	return kindNone
}

// Enrich adds to each event the object it speaks of, with one query for each
// kind of object and not one for each event. The result is parallel to events.
func (l *Log) Enrich(ctx context.Context, events []store.Event) ([]Enriched, error) {
	wanted := make(map[kind][]store.UUID)
	seen := make(map[store.UUID]struct{}, len(events)) // several events speak of a message with several topics
	for i := range events {
		ref := events[i].Reference
		k := kindOf(events[i].Type)
		if ref == nil || k == kindNone {
			continue
		}
		if _, again := seen[*ref]; !again {
			seen[*ref] = struct{}{}
			wanted[k] = append(wanted[k], *ref)
		}
	}
	out := make([]Enriched, len(events))
	for i := range events {
		out[i].Event = events[i]
	}
	if len(wanted) == 0 {
		return out, nil
	}
	err := l.db.Read(ctx, func(tx *store.Tx) error { return l.fill(tx, wanted, out) })
	if err != nil {
		return nil, fmt.Errorf("read what %d events speak of: %w", len(events), err)
	}
	return out, nil
}

// fill fetches what is wanted and sets it in the events that speak of it.
func (l *Log) fill(tx *store.Tx, wanted map[kind][]store.UUID, out []Enriched) error {
	var (
		messages     map[store.UUID]*store.Message
		transactions map[store.UUID]*store.Transaction
		datatypes    map[store.UUID]*store.Datatype
		identities   map[store.UUID]*store.Identity
		operations   map[store.UUID]*store.Operation
		chainEvents  map[store.UUID]*store.BlockchainEvent
		interfaces   map[store.UUID]*store.Interface
		apis         map[store.UUID]*store.ContractAPI
	)
	for k, ids := range wanted {
		var err error
		switch k {
		case kindMessage:
			messages, err = tx.MessagesByID(l.namespace, ids)
		case kindTransaction:
			transactions, err = tx.TransactionsByID(l.namespace, ids)
		case kindDatatype:
			datatypes, err = tx.DatatypesByID(l.namespace, ids)
		case kindIdentity:
			identities, err = tx.IdentitiesByID(l.namespace, ids)
		case kindOperation:
			operations, err = tx.OperationsByID(l.namespace, ids)
		case kindBlockchainEvent:
			chainEvents, err = tx.BlockchainEventsByID(l.namespace, ids)
		case kindInterface:
			interfaces, err = tx.InterfacesByID(l.namespace, ids)
		case kindContractAPI:
			apis, err = tx.APIsByID(l.namespace, ids)
		}
		if err != nil {
			return err
		}
	}
	for i := range out {
		e := &out[i]
		if e.Reference == nil {
			continue
		}
		switch kindOf(e.Type) {
		case kindMessage:
			e.Message = messages[*e.Reference]
		case kindTransaction:
			e.Transaction = transactions[*e.Reference]
		case kindDatatype:
			e.Datatype = datatypes[*e.Reference]
		case kindIdentity:
			e.Identity = identities[*e.Reference]
		case kindOperation:
			e.Operation = operations[*e.Reference]
		case kindBlockchainEvent:
			e.BlockchainEvent = chainEvents[*e.Reference]
		case kindInterface:
			e.Interface = interfaces[*e.Reference]
		case kindContractAPI:
			e.ContractAPI = apis[*e.Reference]
		}
	}
	return nil
}
