package event

import (
	"regexp"

	"github.com/parley-node/parley/internal/errs"
)

// Filter selects events by regular expressions (RE2 syntax, unanchored). Every
// expression given must match; an empty one matches everything. An expression on
// a kind of object that an event does not speak of is matched against the empty
// text, so that it usually excludes the event.
type Filter struct {
	Events          string                `json:"events,omitempty"` // event type
	Message         MessageFilter         `json:"message"`
	Transaction     TransactionFilter     `json:"transaction"`
	BlockchainEvent BlockchainEventFilter `json:"blockchainevent"`
	Topic           string                `json:"topic,omitempty"` // topic of the event

	// Older names for Topic and Message, which win if both are given.
	Topics string `json:"topics,omitempty"`
	Tag    string `json:"tag,omitempty"`
	Group  string `json:"group,omitempty"`
	Author string `json:"author,omitempty"`
}

// MessageFilter selects by the header of an event's message.
type MessageFilter struct {
	Tag    string `json:"tag,omitempty"`
	Group  string `json:"group,omitempty"`  // hash of the group
	Author string `json:"author,omitempty"` // DID
}

// TransactionFilter selects by an event's transaction, which only
// transaction_submitted has.
type TransactionFilter struct {
	Type string `json:"type,omitempty"`
}

// BlockchainEventFilter selects by an event of a contract.
type BlockchainEventFilter struct {
	Name     string `json:"name,omitempty"`
	Listener string `json:"listener,omitempty"` // id of the contract listener
}

// matcher is a compiled Filter. A nil expression matches everything.
type matcher struct {
	types, topic       *regexp.Regexp
	tag, group, author *regexp.Regexp
	txType             *regexp.Regexp
	name, listener     *regexp.Regexp
}

// compile checks and compiles the expressions of f. The error names the field.
func (f *Filter) compile() (*matcher, error) {
	var m matcher
	for _, x := range []struct {
		field       string
		expr, older string
		to          **regexp.Regexp
	}{
		{"filter.events", f.Events, "", &m.types},
		{"filter.topic", f.Topic, f.Topics, &m.topic},
		{"filter.message.tag", f.Message.Tag, f.Tag, &m.tag},
		{"filter.message.group", f.Message.Group, f.Group, &m.group},
		{"filter.message.author", f.Message.Author, f.Author, &m.author},
		{"filter.transaction.type", f.Transaction.Type, "", &m.txType},
		{"filter.blockchainevent.name", f.BlockchainEvent.Name, "", &m.name},
		{"filter.blockchainevent.listener", f.BlockchainEvent.Listener, "", &m.listener},
	} {
		expr := x.expr
		if expr == "" {
			expr = x.older
		}
		if expr == "" {
			continue
		}
		re, err := regexp.Compile(expr)
		if err != nil {
			return nil, errs.Wrap(err, "FF10171", 500, "%s is not a regular expression (RE2 syntax): %q", x.field, expr)
		}
		*x.to = re
	}
	return &m, nil
}

// early decides by what stands in the event itself; false is final. It saves
// fetching the objects of events that nobody wants.
func (m *matcher) early(typ, topic string) bool {
	return matches(m.types, typ) && matches(m.topic, topic)
}

// match decides for an enriched event.
func (m *matcher) match(e *Enriched) bool {
	if !m.early(e.Type, e.Topic) {
		return false
	}
	if m.tag != nil || m.group != nil || m.author != nil {
		var tag, group, author string
		if e.Message != nil {
			h := &e.Message.Header
			tag, group, author = h.Tag, string(h.Group), h.Author
		}
		if !matches(m.tag, tag) || !matches(m.group, group) || !matches(m.author, author) {
			return false
		}
	}
	if m.txType != nil {
		var typ string
		if e.Transaction != nil {
			typ = e.Transaction.Type
		}
		if !matches(m.txType, typ) {
			return false
		}
	}
	if m.name != nil || m.listener != nil {
		var name, listener string
		if b := e.BlockchainEvent; b != nil {
			name = b.Name
			if b.Listener != nil {
				listener = b.Listener.String()
			}
		}
		if !matches(m.name, name) || !matches(m.listener, listener) {
			return false
		}
	}
	return true
}

func matches(re *regexp.Regexp, text string) bool { return re == nil || re.MatchString(text) }
