package api

import (
	"encoding/json"
	"net/http"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/store"
)

func postBroadcast(c *call, in message.Input) (any, error) {
	return c.confirmed(func() (*store.Message, error) { return c.Messages.Broadcast(c.ctx(), in) })
}

func postPrivate(c *call, in message.Input) (any, error) {
	return c.confirmed(func() (*store.Message, error) { return c.Messages.Private(c.ctx(), in) })
}

func postRequestReply(c *call, in message.Input) (any, error) { return c.requestReply(in) }

// message reads a message by id.
func (c *call) message(id store.UUID) (*store.Message, error) {
	m, err := store.Get(c.ctx(), c.DB, store.Messages, c.Namespace, id.String())
	if err != nil {
		return nil, err
	}
	return &m, nil
}

// messageWithData is a message with its values in place of the references.
type messageWithData struct {
	store.Message
	Data []inlineData `json:"data,omitempty"`
}

// inlineData is a data item without its blob.
type inlineData struct {
	ID        store.UUID         `json:"id"`
	Hash      store.Hex          `json:"hash,omitempty"`
	Validator string             `json:"validator,omitempty"`
	Datatype  *store.DatatypeRef `json:"datatype,omitempty"`
	Value     json.RawMessage    `json:"value,omitempty"`
}

// withData adds the values to messages, with one query for all.
func (c *call) withData(messages []store.Message) ([]messageWithData, error) {
	seqs := make([]int64, len(messages))
	for i := range messages {
		seqs[i] = messages[i].Seq
	}
	var of map[int64][]*store.Data
	err := c.DB.Read(c.ctx(), func(tx *store.Tx) (err error) {
		of, err = tx.DataOfMessages(seqs)
		return err
	})
	if err != nil {
		return nil, err
	}
	full := make([]messageWithData, len(messages))
	for i := range messages {
		full[i] = messageWithData{Message: messages[i], Data: []inlineData{}}
		for _, d := range of[messages[i].Seq] {
			full[i].Data = append(full[i].Data, inlineData{d.ID, d.Hash, d.Validator, d.Datatype, d.Value})
		}
	}
	return full, nil
}

func getMessages(c *call) (any, error) {
	messages, err := list(c, store.Messages)
	if err != nil || !c.flag("fetchdata") {
		return messages, err
	}
	full, err := c.withData(messages.items)
	return page[messageWithData]{full, messages.count, messages.total}, err
}

func getMessage(c *call) (any, error) {
	id, err := c.uuid("msgid")
	if err != nil {
		return nil, err
	}
	m, err := c.message(id)
	if err != nil || !c.flag("fetchdata") {
		return m, err
	}
	full, err := c.withData([]store.Message{*m})
	if err != nil {
		return nil, err
	}
	return full[0], nil
}

// dataOf reads the data items of the message that the path names.
func (c *call) dataOf() (m *store.Message, items []*store.Data, err error) {
	id, err := c.uuid("msgid")
	if err != nil {
		return nil, nil, err
	}
	if m, err = c.message(id); err != nil {
		return nil, nil, err
	}
	err = c.DB.Read(c.ctx(), func(tx *store.Tx) error {
		of, err := tx.DataOfMessages([]int64{m.Seq})
		items = of[m.Seq]
		return err
	})
	return m, items, err
}

func getMessageData(c *call) (any, error) {
	_, items, err := c.dataOf()
	if items == nil {
		items = []*store.Data{}
	}
	return items, err
}

// getMessageEvents lists the events that speak of a message or of its data.
func getMessageEvents(c *call) (any, error) {
	q, err := c.parse(&store.Events.Collection)
	if err != nil {
		return nil, err
	}
	m, items, err := c.dataOf()
	if err != nil {
		return nil, err
	}
	about := []any{m.Header.ID.String()}
	for _, d := range items {
		about = append(about, d.ID.String())
	}
	if err := q.Where(&store.Events.Collection, "reference", about...); err != nil {
		return nil, err
	}
	return listQuery(c, store.Events, q)
}

func getMessageTransaction(c *call) (any, error) {
	id, err := c.uuid("msgid")
	if err != nil {
		return nil, err
	}
	m, err := c.message(id)
	if err != nil {
		return nil, err
	}
	if m.TxID == nil {
		return nil, errs.New("FF10210", http.StatusNotFound, "Message %s has no transaction yet; it gets one with its batch", id)
	}
	return store.Get(c.ctx(), c.DB, store.Transactions, c.Namespace, m.TxID.String())
}
