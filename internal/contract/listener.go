package contract

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"

	"github.com/parley-node/parley/internal/abi"
	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/store"
)

// FilterInput is one kind of event that a listener wants: given inline, or by an
// interface and a path name; at one place, or anywhere.
type FilterInput struct {
	Event     *abi.EventDefinition `json:"event,omitempty"`
	EventPath string               `json:"eventPath,omitempty"`
	Interface *store.InterfaceRef  `json:"interface,omitempty"`
	Location  json.RawMessage      `json:"location,omitempty"`
}

// ListenerInput is a listener as an application describes it: with several
// filters, or with one at the top.
type ListenerInput struct {
	FilterInput
	Name    string                 `json:"name,omitempty"`
	Topic   string                 `json:"topic"` // of the events in the event log
	Options *store.ListenerOptions `json:"options,omitempty"`
	Filters []FilterInput          `json:"filters,omitempty"`
}

// maxFilters bounds the filters of a listener.
const maxFilters = 100

// filters resolves what a listener wants.
func (s *Service) filters(tx *store.Tx, in ListenerInput) ([]store.ListenerFilter, error) {
	inputs, at := in.Filters, func(i int) string { return "filters[" + strconv.Itoa(i) + "]." }
	root := in.Event != nil || in.EventPath != "" || in.Interface != nil
	switch {
	case len(inputs) > 0 && root:
		return nil, errs.New("FF10474", http.StatusInternalServerError, "fields %q and %q are both given; put the event among the filters", "filters", "event")
	case len(inputs) > maxFilters:
		return nil, errs.BadRequest("FF10477", "field %q has %d entries: at most %d are allowed", "filters", len(inputs), maxFilters)
	case len(inputs) == 0:
		inputs, at = []FilterInput{in.FilterInput}, func(int) string { return "" }
	}
	var filters []store.ListenerFilter
	for i, f := range inputs {
		one, err := s.filter(tx, at(i), f)
		if err != nil {
			return nil, err
		}
		for _, other := range filters {
			if overlap(one, other) {
				return nil, errs.BadRequest("FF10477", "field %q wants the same events twice: %s and %s", "filters", other.Signature, one.Signature)
			}
		}
		filters = append(filters, one)
	}
	return filters, nil
}

// overlap says whether two filters select the same events at some place.
func overlap(a, b store.ListenerFilter) bool {
	_, eventA := splitSignature(a.Signature)
	_, eventB := splitSignature(b.Signature)
	return eventA == eventB && (len(a.Location) == 0 || len(b.Location) == 0 || sameJSON(a.Location, b.Location))
}

// splitSignature takes a filter's signature apart: place and event.
func splitSignature(signature string) (place, event string) {
	for i := range len(signature) {
		if signature[i] == ':' {
			return signature[:i], signature[i+1:]
		}
	}
	return "", signature
}

// filter resolves one filter. at is the path of its fields in errors.
func (s *Service) filter(tx *store.Tx, at string, in FilterInput) (f store.ListenerFilter, err error) {
	event := in.Event
	if in.Interface != nil && event == nil {
		row, err := s.find(tx, *in.Interface)
		if err != nil {
			return f, err
		}
		ffi, err := interfaceOf(row)
		if err != nil {
			return f, err
		}
		i := slices.IndexFunc(ffi.Events, func(e abi.Event) bool { return e.Pathname == in.EventPath })
		if i < 0 {
			return f, errs.BadRequest("FF10370", "field %q: the interface %q has no event %q", at+"eventPath", row.Name, shorten(in.EventPath))
		}
		event = &ffi.Events[i].EventDefinition
		f.Interface = &store.InterfaceRef{ID: &row.ID}
	}
	if event == nil || event.Name == "" {
		return f, errs.BadRequest("FF10317", "field %q is missing: give the event itself, or both %q and %q", at+"event", at+"interface", at+"eventPath")
	}
	if event.Params == nil {
		event.Params = []abi.Param{}
	}
	compiled, err := event.Compile()
	if err != nil {
		return f, errs.Wrap(err, "FF10319", http.StatusBadRequest, "field %q", at+"event")
	}
	if compiled.Anonymous {
		return f, errs.BadRequest("FF10319", "field %q: the event %s is anonymous, so that its logs cannot be told from others'", at+"event", event.Name)
	}
	where := "*"
	if !empty(in.Location) {
		a, err := address(at+"location", in.Location)
		if err != nil {
			return f, err
		}
		f.Location, where = place(a), a.String()
	}
	f.Signature = where + ":" + compiled.FilterSignature()
	f.Event, err = json.Marshal(event)
	return f, err
}

// ListenerSignature names what a listener would listen to.
func (s *Service) ListenerSignature(ctx context.Context, in ListenerInput) (signature string, err error) {
	err = s.DB.Read(ctx, func(tx *store.Tx) error {
		filters, err := s.filters(tx, in)
		signature = signatureOf(filters)
		return err
	})
	return signature, err
}

func signatureOf(filters []store.ListenerFilter) string {
	parts := make([]string, len(filters))
	for i, f := range filters {
		parts[i] = f.Signature
	}
	return abi.ListenerSignature(parts)
}

// CreateListener stores a listener. It gets events from the block on that its
// options name: newest (the next block; the default), oldest, or a number.
func (s *Service) CreateListener(ctx context.Context, in ListenerInput) (*store.Listener, error) {
	if err := identity.CheckName("topic", in.Topic); err != nil {
		return nil, err
	}
	if in.Name != "" {
		if err := identity.CheckName("name", in.Name); err != nil {
			return nil, err
		}
	}
	options := store.ListenerOptions{FirstEvent: "newest"}
	if in.Options != nil && in.Options.FirstEvent != "" {
		options = *in.Options
	}
	chain, err := s.Chain.ChainID(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	start, err := s.start(ctx, options.FirstEvent)
	if err != nil {
		return nil, err
	}
	id := s.NewID()
	l := &store.Listener{
		ID: id, Namespace: s.Namespace, Name: in.Name, BackendID: "lst-" + id.String(), Topic: in.Topic, Options: &options,
		Created: s.now(), Chain: chain, Start: start, NextBlock: start,
	}
	if l.Name == "" {
		l.Name = l.BackendID
	}
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		if l.Filters, err = s.filters(tx, in); err != nil {
			return err
		}
		first := l.Filters[0]
		l.Event, l.Location, l.Interface, l.Signature = first.Event, first.Location, first.Interface, signatureOf(l.Filters)
		same, err := tx.ListenersOfTopic(s.Namespace, l.Topic)
		if err != nil {
			return err
		}
		for _, other := range same {
			if other.Signature == l.Signature {
				return errs.Conflict("FF10383", "The listener %q has the topic %q and listens to the same: %s", other.Name, l.Topic, l.Signature)
			}
		}
		return tx.InsertListener(l)
	})
	if errors.Is(err, store.ErrExists) {
		return nil, errs.Conflict("FF10312", "There is a listener %q already; choose another name", l.Name)
	}
	if err != nil {
		return nil, err
	}
	select {
	case s.Listened <- struct{}{}:
	default:
	}
	return l, nil
}

// start is the first block that a listener wants.
func (s *Service) start(ctx context.Context, firstEvent string) (uint64, error) {
	switch firstEvent {
	case "oldest", "earliest", "0":
		return 0, nil
	case "newest", "latest":
		head, _, err := s.Chain.Heads(ctx)
		if err != nil {
			return 0, unavailable(err)
		}
		return head.Height() + 1, nil
	}
	n, err := strconv.ParseUint(firstEvent, 10, 62)
	if err != nil {
		return 0, errs.BadRequest("FF10428", "field %q holds %q; give newest, oldest, or a block number", "options.firstEvent", shorten(firstEvent))
	}
	return n, nil
}

// Listener reads a listener.
func (s *Service) Listener(ctx context.Context, nameOrID string) (l *store.Listener, err error) {
	err = s.DB.Read(ctx, func(tx *store.Tx) error {
		l, err = tx.ListenerByNameOrID(s.Namespace, nameOrID)
		return err
	})
	if errors.Is(err, store.ErrNoRows) {
		return nil, errs.New(errs.CodeNilResult, http.StatusNotFound, "There is no listener %q", shorten(nameOrID))
	}
	return l, err
}

// DeleteListener removes a listener. Its events stay.
func (s *Service) DeleteListener(ctx context.Context, nameOrID string) error {
	err := s.DB.Write(ctx, func(tx *store.Tx) error {
		l, err := tx.ListenerByNameOrID(s.Namespace, nameOrID)
		if err != nil {
			return err
		}
		return tx.DeleteListener(l.ID)
	})
	if errors.Is(err, store.ErrNoRows) {
		return errs.NoSuch("listener", shorten(nameOrID))
	}
	return err
}

// ListenerStatus tells how far a listener has come.
type ListenerStatus struct {
	Checkpoint Checkpoint `json:"checkpoint"`
	Catchup    bool       `json:"catchup"` // final blocks are still to be read
	Head       uint64     `json:"head"`    // newest block of the chain
	Final      uint64     `json:"final"`   // newest final block: as far as a listener can be
	Lag        uint64     `json:"lag"`     // final blocks that are not read yet
}

// Checkpoint is what a listener has stored for good: everything up to a block,
// and the last event in it or before.
type Checkpoint struct {
	Block            int64  `json:"block"` // -1 before the first
	BlockHash        string `json:"blockHash,omitempty"`
	TransactionIndex int64  `json:"transactionIndex"` // of the last event; -1 if there is none
	LogIndex         int64  `json:"logIndex"`
}

// ListenerStatus looks how far a listener has come.
func (s *Service) ListenerStatus(ctx context.Context, l *store.Listener) (*ListenerStatus, error) {
	head, final, err := s.Chain.Heads(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	st := &ListenerStatus{Head: head.Height(), Final: final.Height()}
	st.Checkpoint = Checkpoint{Block: int64(l.NextBlock) - 1, TransactionIndex: -1, LogIndex: -1}
	if len(l.BlockHash) > 0 {
		st.Checkpoint.BlockHash = "0x" + hexOf(l.BlockHash)
	}
	if _, tx, log, ok := parseProtocolID(l.LastLog); ok {
		st.Checkpoint.TransactionIndex, st.Checkpoint.LogIndex = tx, log
	}
	if l.NextBlock <= st.Final {
		st.Catchup, st.Lag = true, st.Final-l.NextBlock+1
	}
	return st, nil
}
