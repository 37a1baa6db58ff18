package simulation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// sent is a message that a node has accepted.
type sent struct {
	label    string
	id       wire.UUID
	from     *member
	to       []*member // nil for all
	topics   []string
	unpinned bool
	refused  bool // it may end as rejected
	skipped  bool // the members voted it away
}

// topics are few, so that they are busy.
var topics = []string{"orders", "claims", "prices"}

type datatype struct{ name, version string }

// submit lets an application send something.
func (w *world) submit() bool {
	up := some(w.running(), func(m *member) bool { return m.belongs && !m.away && m.known() })
	if len(up) == 0 {
		return false
	}
	m := pick(w, up)
	switch n := w.rng.IntN(100); {
	case n < 4:
		return w.define(m)
	case n < 45:
		return w.send(m, nil, false)
	}
	others := some(w.members, func(o *member) bool { return o != m && o.belongs && !o.away && o.founder })
	w.rng.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	if len(others) == 0 {
		return false
	}
	return w.send(m, others[:1+w.rng.IntN(min(2, len(others)))], w.chance(150))
}

// known says whether the member's own claim is confirmed at itself.
func (m *member) known() bool { return m.names(m) }

// names says whether the member knows another by name.
func (m *member) names(o *member) (yes bool) {
	m.read(func(tx *store.Tx) error {
		id, err := identity.OrgIdentity(tx, "default", o.org)
		yes = id != nil
		return err
	})
	return yes
}

// define broadcasts a datatype.
func (w *world) define(m *member) bool {
	d := datatype{fmt.Sprintf("type%d", w.rng.IntN(3)), fmt.Sprint(w.rng.IntN(2))}
	schema := fmt.Sprintf(`{"type":"object","required":["n"],"properties":{"n":{"type":"integer","maximum":%d}}}`, 10_000+w.rng.IntN(3))
	_, msg, err := m.proc.node.Messages.DefineDatatype(m.proc.ctx, message.DatatypeInput{Name: d.name, Version: d.version, Value: []byte(schema)})
	if !w.accepted(m, fmt.Sprintf("defines datatype %s %s", d.name, d.version), err) {
		return true
	}
	if !slices.Contains(w.types, d) {
		w.types = append(w.types, d)
	}
	w.note(&sent{id: msg.Header.ID, from: m, topics: msg.Header.Topics, refused: true}) // another may be first
	return true
}

// send sends a message to everybody, or to some.
func (w *world) send(m *member, to []*member, unpinned bool) bool {
	n := len(w.sent)
	chosen := []string{pick(w, topics)}
	for _, t := range topics {
		if w.chance(200) && !slices.Contains(chosen, t) {
			chosen = append(chosen, t)
		}
	}
	in := message.Input{Header: message.Header{Topics: chosen}, Data: []message.DataInput{{Value: json.RawMessage(fmt.Sprintf(`{"n":%d}`, n))}}}
	what := "broadcasts"
	if to != nil {
		what = "sends"
		in.Group = &message.GroupInput{}
		for _, o := range to {
			in.Group.Members = append(in.Group.Members, message.MemberInput{Identity: o.name})
		}
		if unpinned {
			in.Header.TxType = message.TxUnpinned
		}
	}
	if len(w.types) > 0 && w.chance(150) {
		d := pick(w, w.types)
		in.Data[0].Datatype = &store.DatatypeRef{Name: d.name, Version: d.version}
	}
	service := m.proc.node.Messages
	if w.chance(100) {
		size := 1 + w.rng.IntN(3000)
		if w.chance(100) {
			size += 1 << 20
		}
		d, err := service.AddBlob(m.proc.ctx, message.DataInput{}, bytes.NewReader(bytes.Repeat([]byte{byte(n), byte(n >> 8)}, size)), "", "", false)
		if !w.accepted(m, fmt.Sprintf("stores a blob of %d bytes", 2*size), err) {
			return true
		}
		in.Data = append(in.Data, message.DataInput{ID: &d.ID})
	}
	call := service.Broadcast
	if to != nil {
		call = service.Private
	}
	msg, err := call(m.proc.ctx, in)
	where := strings.Join(chosen, "+")
	for _, o := range to {
		where += " to " + o.name
	}
	if unpinned {
		where += " without a pin"
	}
	if !w.accepted(m, what+" on "+where, err) {
		return true
	}
	s := &sent{id: msg.Header.ID, from: m, to: to, topics: chosen, unpinned: unpinned}
	w.note(s)
	w.tell(m.name, "%s %s on %s", what, s.label, where)
	return true
}

// note remembers what a node has accepted.
func (w *world) note(s *sent) {
	s.label = fmt.Sprintf("m%d", len(w.sent))
	w.sent = append(w.sent, s)
	w.byID[s.id] = s
}

// accepted says whether a node took what an application asked for. A definite
// refusal is the application's matter; anything else is a failure of the node,
// which only a fault explains.
func (w *world) accepted(m *member, what string, err error) bool {
	if err == nil {
		return true
	}
	var refusal *errs.Error
	w.tell(m.name, "does not take it: %s: %v", what, err)
	if !errors.As(err, &refusal) && w.weights["disk fails"]+w.weights["crash"] == 0 {
		w.fail("%s fails an application that %s, without any fault of its own: %v", m.name, what, err)
	}
	return false
}
