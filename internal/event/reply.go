package event

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"strings"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
)

// Reply is the answer of a webhook to a message, to be sent as a message of the
// same type, to the same group and topics.
type Reply struct {
	Request *store.Message
	Tag     string
	TxType  string          // "" as usual, "unpinned" without the ledger
	Value   json.RawMessage // {"status","headers","body"}
	Key     string          // idempotency key: the same for each attempt to reply
}

// answer is the value of a reply.
type answer struct {
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers"`
	Body    json.RawMessage   `json:"body"`
}

// answerOf is a receiver's answer. A body that is not JSON becomes a text in
// base64.
func answerOf(resp *http.Response, body []byte, isJSON bool) *answer {
	a := &answer{Status: resp.StatusCode, Headers: make(map[string]string, len(resp.Header))}
	for name, values := range resp.Header {
		a.Headers[name] = strings.ToValidUTF8(values[0], "?")
	}
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	isJSON = isJSON || err == nil && (kind == mediaJSON || strings.HasSuffix(kind, "+json"))
	switch {
	case isJSON && json.Valid(body):
		a.Body = body
	case len(body) == 0:
	default:
		a.Body = quote(base64.StdEncoding.EncodeToString(body))
	}
	return a
}

// failedAnswer tells whoever waits for a reply that there was no answer.
func failedAnswer(err error) *answer {
	text := "the webhook could not be called; the log of deliveries of the replying member has the details"
	if e, public := errors.AsType[*forbiddenError](err); public {
		text = e.Error()
	}
	return &answer{Status: http.StatusBadGateway, Headers: map[string]string{}, Body: json.RawMessage(`{"error":` + string(quote(text)) + `}`)}
}

// quote is text as JSON, which every text can be.
func quote(text string) json.RawMessage {
	b, err := json.Marshal(text)
	if err != nil {
		return json.RawMessage(`""`)
	}
	return b
}

// isReply says whether a frame is of a message that answers another one. A
// webhook that replies is not called with those: two of them would go on for
// ever.
func isReply(f *Frame) bool {
	m := f.Events[0].Message
	return m != nil && m.Header.CID != nil
}

// sendReply sends the answer to a confirmed message. Other events have nobody to
// reply to.
func (w *webhookOptions) sendReply(ctx context.Context, u *outlet, f *Frame, out attempt) error {
	e := &f.Events[0]
	if e.Type != "message_confirmed" || e.Message == nil {
		return nil
	}
	value, err := json.Marshal(out.answer)
	if err != nil {
		return err
	}
	r := Reply{
		Request: e.Message,
		Tag:     w.ReplyTag,
		TxType:  w.replyTx(f),
		Value:   value,
		Key:     "webhook:" + u.sub.ID.String() + ":" + e.ID.String(),
	}
	err = u.cfg.Reply(ctx, r)
	if errors.Is(err, errs.MessageKeyUsed) {
		return nil // sent before the node stopped
	}
	return err
}

// replyTx is the transaction type of a reply: what the request's data says, or
// the subscription.
func (w *webhookOptions) replyTx(f *Frame) string {
	tx := w.ReplyTx
	if text, there := firstValue(f)[w.Input.ReplyTx]; there && w.Input.ReplyTx != "" {
		var pinned bool
		switch {
		case json.Unmarshal(text, &pinned) == nil:
			tx = ""
			if !pinned {
				tx = "unpinned"
			}
		default:
			// Neither true, false nor a text leaves it at the subscription's.
			_ = json.Unmarshal(text, &tx)
		}
	}
	if tx == "none" {
		tx = "unpinned"
	}
	return tx
}
