package contract

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/parley-node/parley/internal/abi"
	"github.com/parley-node/parley/internal/ethereum"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

const (
	// Event types of a listener's events.
	eventReceived = "blockchain_event_received"
	eventDropped  = "blockchain_event_dropped" // Parley's own: a reorganisation took it off the chain

	firstPage = 500    // blocks that a listener asks for at first
	mostPage  = 20_000 // and at most
	fullPage  = 2_000  // logs at which it asks for fewer blocks
)

// ListenStep reads what the listeners have not read yet, a page each. next is
// when to look again.
func (s *Service) ListenStep(ctx context.Context) (next time.Duration, err error) {
	chain, err := s.Chain.ChainID(ctx)
	if err != nil {
		return 0, fmt.Errorf("ask the chain for its id: %w", err)
	}
	var listeners []store.Listener
	err = s.DB.Read(ctx, func(tx *store.Tx) error {
		listeners, err = tx.AllListeners(s.Namespace, chain)
		return err
	})
	if err != nil || len(listeners) == 0 {
		return time.Hour, err // Listened wakes it
	}
	_, final, err := s.Chain.Heads(ctx)
	if err != nil {
		return 0, err
	}
	next = s.Chain.Poll
	var failed []error
	for i := range listeners {
		l := &listeners[i]
		if l.NextBlock > final.Height()+1 {
			continue // starts later
		}
		more, err := s.read(ctx, l, final.Height())
		if err != nil {
			failed = append(failed, fmt.Errorf("listener %s: %w", l.Name, err))
		}
		if more {
			next = 1 // at once
		}
	}
	return next, errors.Join(failed...)
}

// read reads one page of a listener: its events up to a final block, or fewer. A
// page and the listener's new place are stored in one database transaction.
func (s *Service) read(ctx context.Context, l *store.Listener, final uint64) (more bool, err error) {
	if l.NextBlock > final {
		return false, s.verify(ctx, l)
	}
	page := s.page(l.ID)
	to := min(final, l.NextBlock+page-1)
	q, wanted, err := query(l)
	if err != nil {
		return false, err
	}
	q.From, q.To = l.NextBlock, to
	ends := []uint64{to}
	if l.NextBlock > 0 {
		ends = append(ends, l.NextBlock-1)
	}
	logs, headers, err := s.Chain.Logs(ctx, q, ends...)
	if err != nil {
		if page > 1 { // endpoints bound what they return in one answer
			s.setPage(l.ID, page/4)
			return true, nil
		}
		return false, err
	}
	if headers[0] == nil {
		return false, fmt.Errorf("the endpoint does not know block %d, which is final", to)
	}
	if len(l.BlockHash) > 0 && (headers[1] == nil || !bytes.Equal(headers[1].Hash[:], l.BlockHash)) {
		return true, s.rewind(ctx, l)
	}
	switch {
	case len(logs) > fullPage:
		s.setPage(l.ID, page*fullPage/uint64(len(logs)))
	case len(logs) < fullPage/2:
		s.setPage(l.ID, page*2)
	}
	events, err := s.events(ctx, l, logs, wanted)
	if err != nil {
		return false, err
	}
	if err := s.store(ctx, l, events, to+1, wire.Hash(headers[0].Hash)); err != nil {
		return false, err
	}
	return to < final, nil
}

// page is how many blocks a listener asks for.
func (s *Service) page(id wire.UUID) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pages[id] == 0 {
		s.pages[id] = firstPage
	}
	return s.pages[id]
}

func (s *Service) setPage(id wire.UUID, n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pages[id] = min(max(n, 1), mostPage)
}

// wanted is a filter that is ready to use.
type wanted struct {
	*abi.CompiledEvent
	at *common.Address // nil for anywhere
}

// query is what to ask the chain for a listener.
func query(l *store.Listener) (q ethereum.LogQuery, filters []wanted, err error) {
	anywhere := false
	for i, f := range l.Filters {
		var d abi.EventDefinition
		if err := json.Unmarshal(f.Event, &d); err != nil {
			return q, nil, fmt.Errorf("the stored filter %d: %w", i, err)
		}
		e, err := d.Compile()
		if err != nil {
			return q, nil, fmt.Errorf("the stored filter %d: %w", i, err)
		}
		w := wanted{CompiledEvent: e}
		if empty(f.Location) {
			anywhere = true
		} else {
			a, err := address("location", f.Location)
			if err != nil {
				return q, nil, err
			}
			w.at = (*common.Address)(&a)
			if !slices.Contains(q.Addresses, *w.at) {
				q.Addresses = append(q.Addresses, *w.at)
			}
		}
		if !slices.Contains(q.Topics, e.Topic) {
			q.Topics = append(q.Topics, e.Topic)
		}
		filters = append(filters, w)
	}
	if anywhere {
		q.Addresses = nil
	}
	return q, filters, nil
}

// info is what an event says of its place on the chain.
type info struct {
	Address          string `json:"address"`
	BlockNumber      string `json:"blockNumber"`
	BlockHash        string `json:"blockHash"`
	LogIndex         string `json:"logIndex"`
	Signature        string `json:"signature"`
	SubID            string `json:"subId"`
	Timestamp        string `json:"timestamp"`
	TransactionHash  string `json:"transactionHash"`
	TransactionIndex string `json:"transactionIndex"`
	Removed          bool   `json:"removed,omitempty"` // a reorganisation took it off the chain
}

// events decodes the logs that a listener wants, in the order of the chain.
func (s *Service) events(ctx context.Context, l *store.Listener, logs []types.Log, filters []wanted) ([]*store.BlockchainEvent, error) {
	slices.SortFunc(logs, func(a, b types.Log) int {
		if a.BlockNumber != b.BlockNumber {
			return int(int64(a.BlockNumber) - int64(b.BlockNumber))
		}
		return int(a.Index) - int(b.Index)
	})
	times, err := s.times(ctx, logs)
	if err != nil {
		return nil, err
	}
	var events []*store.BlockchainEvent
	for i := range logs {
		log := &logs[i]
		for _, w := range filters {
			if w.at != nil && *w.at != log.Address {
				continue
			}
			output, err := w.Decode(log)
			if errors.Is(err, abi.ErrOtherEvent) {
				continue
			}
			e := &store.BlockchainEvent{
				ID: s.NewID(), Source: plugin, Namespace: s.Namespace, Name: w.Name, Listener: &l.ID, Timestamp: store.At(time.Unix(int64(times[log.BlockNumber]), 0)),
				ProtocolID: fmt.Sprintf("%012d/%06d/%06d", log.BlockNumber, log.TxIndex, log.Index),
				Tx:         store.BlockchainTxRef{BlockchainID: log.TxHash.Hex()},
			}
			if err != nil { // of another contract with the same signature: what it says is not ours to judge
				output = map[string]any{"error": err.Error(), "data": "0x" + hex.EncodeToString(log.Data)}
			}
			if e.Output, err = json.Marshal(output); err != nil {
				return nil, err
			}
			e.Info, err = json.Marshal(info{
				Address: strings.ToLower(log.Address.Hex()), BlockNumber: strconv.FormatUint(log.BlockNumber, 10), BlockHash: log.BlockHash.Hex(),
				LogIndex: strconv.FormatUint(uint64(log.Index), 10), Signature: w.Signature, SubID: l.BackendID,
				Timestamp: strconv.FormatUint(times[log.BlockNumber], 10), TransactionHash: log.TxHash.Hex(), TransactionIndex: fmt.Sprintf("0x%x", log.TxIndex),
			})
			if err != nil {
				return nil, err
			}
			events = append(events, e)
			break // filters do not overlap
		}
	}
	return events, nil
}

// times are the times of the logs' blocks in Unix seconds, asked for where the
// endpoint does not tell them with the logs.
func (s *Service) times(ctx context.Context, logs []types.Log) (map[uint64]uint64, error) {
	times := map[uint64]uint64{}
	var ask []uint64
	for _, log := range logs {
		if _, known := times[log.BlockNumber]; known {
			continue
		}
		if times[log.BlockNumber] = log.BlockTimestamp; log.BlockTimestamp == 0 {
			ask = append(ask, log.BlockNumber)
		}
	}
	headers, err := s.Chain.Headers(ctx, ask)
	if err != nil {
		return nil, err
	}
	for i, h := range headers {
		if h == nil {
			return nil, fmt.Errorf("the endpoint does not know block %d any more", ask[i])
		}
		times[ask[i]] = uint64(h.Timestamp)
	}
	return times, nil
}

// store writes events and the listener's new place in one database transaction.
func (s *Service) store(ctx context.Context, l *store.Listener, events []*store.BlockchainEvent, next uint64, hash wire.Hash) error {
	hashes := make([]wire.Hash, 0, len(events))
	for _, e := range events {
		hashes = append(hashes, wire.Hash(common.HexToHash(e.Tx.BlockchainID)))
	}
	slices.SortFunc(hashes, func(a, b wire.Hash) int { return bytes.Compare(a[:], b[:]) })
	hashes = slices.Compact(hashes)
	last := l.LastLog
	if len(events) > 0 {
		last = events[len(events)-1].ProtocolID
	}
	err := s.DB.Write(ctx, func(tx *store.Tx) error {
		if err := tx.MoveListener(l.ID, next, hash, last); err != nil || len(events) == 0 {
			return err
		}
		ours, err := tx.ChainTxsByHash(hashes)
		if err != nil {
			return err
		}
		entries := make([]*store.Event, len(events))
		now := s.now()
		for i, e := range events {
			if ref, ok := ours[wire.Hash(common.HexToHash(e.Tx.BlockchainID))]; ok {
				e.Tx.Type, e.Tx.ID = ref.Type, &ref.Tx
			}
			entries[i] = &store.Event{ID: s.NewID(), Type: eventReceived, Namespace: s.Namespace, Reference: &e.ID, Tx: e.Tx.ID, Topic: l.Topic, Created: now}
		}
		if err := tx.InsertBlockchainEvents(events); err != nil {
			return err
		}
		return tx.InsertEvents(entries)
	})
	if errors.Is(err, store.ErrNoRows) {
		return nil // deleted meanwhile
	}
	if err == nil && len(events) > 0 {
		s.Committed()
	}
	return err
}

// verify looks whether the block up to which a listener has read is still on the
// chain.
func (s *Service) verify(ctx context.Context, l *store.Listener) error {
	if len(l.BlockHash) == 0 {
		return nil
	}
	headers, err := s.Chain.Headers(ctx, []uint64{l.NextBlock - 1})
	if err != nil {
		return err
	}
	if headers[0] != nil && bytes.Equal(headers[0].Hash[:], l.BlockHash) {
		return nil
	}
	return s.rewind(ctx, l)
}

// rewind takes a listener back behind a reorganisation that went deeper than what
// it took for final: to the newest of its events whose block is still on the
// chain. Those after it are marked, and told of; what the chain has instead is
// read next.
func (s *Service) rewind(ctx context.Context, l *store.Listener) error {
	var dropped []store.BlockchainEvent
	next, hash, last := l.Start, []byte(nil), ""
	for below := int64(0); ; {
		var events []store.BlockchainEvent
		var seqs []int64
		err := s.DB.Read(ctx, func(tx *store.Tx) (err error) {
			events, seqs, err = tx.EventsOfListener(l.ID, below, 100)
			return err
		})
		if err != nil {
			return err
		}
		if len(events) == 0 {
			break
		}
		kept, gone, err := s.onChain(ctx, events)
		if err != nil {
			return err
		}
		dropped = append(dropped, gone...)
		if kept != nil {
			next, hash, last = kept.block+1, common.HexToHash(kept.hash).Bytes(), kept.protocolID
			break
		}
		below = seqs[len(seqs)-1]
	}
	err := s.DB.Write(ctx, func(tx *store.Tx) error {
		now := s.now()
		for i := len(dropped) - 1; i >= 0; i-- { // oldest first
			d := &dropped[i]
			var in info
			if err := json.Unmarshal(d.Info, &in); err != nil {
				return err
			}
			in.Removed = true
			text, err := json.Marshal(in)
			if err != nil {
				return err
			}
			if err := tx.SetBlockchainEventInfo(d.ID, text); err != nil {
				return err
			}
			if err := s.notify(tx, eventDropped, d.ID, nil, l.Topic, now); err != nil {
				return err
			}
		}
		incident := &store.Incident{At: now, Kind: "reorganisation", Ref: fmt.Sprintf("%s/%d/%s", l.ID, l.NextBlock-1, hexOf(l.BlockHash)),
			Text: fmt.Sprintf("the chain changed below block %d, which the listener %s had taken for final: %d events are dropped, and the chain is read again from block %d; raise the confirmations", l.NextBlock-1, l.Name, len(dropped), next)}
		if _, err := tx.PutIncident(incident); err != nil {
			return err
		}
		return tx.RewindListener(l.ID, next, hash, last)
	})
	if errors.Is(err, store.ErrNoRows) {
		return nil
	}
	if err == nil {
		s.Log.Warn("a reorganisation was deeper than what a listener took for final", "listener", l.Name, "dropped", len(dropped), "from", next)
		s.Committed()
	}
	return err
}

// kept is an event whose block is on the chain.
type kept struct {
	block            uint64
	hash, protocolID string
}

// onChain finds the first of some events, newest first, whose block is on the
// chain, and those before it in the list that are to be dropped.
func (s *Service) onChain(ctx context.Context, events []store.BlockchainEvent) (*kept, []store.BlockchainEvent, error) {
	infos := make([]info, len(events))
	var numbers []uint64
	for i, e := range events {
		if err := json.Unmarshal(e.Info, &infos[i]); err != nil {
			return nil, nil, fmt.Errorf("the stored info of event %s: %w", e.ID, err)
		}
		n, err := strconv.ParseUint(infos[i].BlockNumber, 10, 64)
		if err != nil {
			return nil, nil, fmt.Errorf("the stored info of event %s: %w", e.ID, err)
		}
		numbers = append(numbers, n)
	}
	distinct := slices.Compact(slices.Clone(numbers))
	headers, err := s.Chain.Headers(ctx, distinct)
	if err != nil {
		return nil, nil, err
	}
	hashes := map[uint64]string{}
	for i, h := range headers {
		if h != nil {
			hashes[distinct[i]] = h.Hash.Hex()
		}
	}
	var gone []store.BlockchainEvent
	for i, e := range events {
		switch {
		case infos[i].Removed: // by an earlier reorganisation
		case hashes[numbers[i]] == infos[i].BlockHash:
			return &kept{numbers[i], infos[i].BlockHash, e.ProtocolID}, gone, nil
		default:
			gone = append(gone, e)
		}
	}
	return nil, gone, nil
}

// parseProtocolID takes block/transaction/log apart.
func parseProtocolID(text string) (block, tx, log int64, ok bool) {
	parts := strings.Split(text, "/")
	if len(parts) != 3 {
		return 0, 0, 0, false
	}
	var err1, err2, err3 error
	block, err1 = strconv.ParseInt(parts[0], 10, 64)
	tx, err2 = strconv.ParseInt(parts[1], 10, 64)
	log, err3 = strconv.ParseInt(parts[2], 10, 64)
	return block, tx, log, err1 == nil && err2 == nil && err3 == nil
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }
