package evm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/parley-node/parley/internal/ethereum"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/wire"
)

const (
	firstSpan = 2_000   // blocks in one question for logs, to begin with
	longSpan  = 100_000 // and at most
	pageSize  = 1_000   // records after which an Advance ends with its block

	shortWait = 2 * time.Millisecond // for the final head to follow a new head
	longWait  = 5 * time.Second      // after failures, and between looks at a chain that announces its blocks
)

// Follow gives the records in order. See ledger.Ledger.
func (l *Ledger) Follow(ctx context.Context, next uint64, fn func(context.Context, ledger.Advance) error) error {
	if l.contract == (common.Address{}) {
		return errors.New("the ledger is open without a network contract; set its address")
	}
	if next == 0 {
		return errors.New("records are numbered from 1, asked for record 0")
	}
	heads := ethereum.Announce(ctx, l.websocket, l.log)
	defer heads.Stop()

	f := &follower{l: l, next: next, span: firstSpan}
	for failures, incidents, wait := 0, 0, time.Duration(0); ; {
		moved, err := f.step(ctx, fn)
		var refused *fnError
		var fork *ledger.Fork
		var gap *ledger.Gap
		switch {
		case errors.As(err, &refused):
			return refused.error
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &fork), errors.As(err, &gap):
			// One endpoint's word is not enough to stop a network: each gets to say it,
			// and the first twice, for it may have answered from two states.
			if incidents++; incidents > l.endpoints.Len() {
				return err
			}
			l.log.Warn("an endpoint's records do not hold, asking again", "endpoint", l.endpoints.Name(), "err", err)
			l.endpoints.Next(err)
			wait = l.poll
		case err != nil:
			if failures++; failures == 1 {
				l.log.Warn("the ledger cannot be read, trying again", "err", err)
			}
			wait = min(l.poll<<min(failures, 8), longWait)
		default:
			if failures > 0 {
				l.log.Info("the ledger can be read again")
			}
			failures, incidents = 0, 0
			wait = f.patience(moved, wait, heads.Live())
		}
		if wait == 0 {
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-heads.Wake:
			timer.Stop()
			wait = 0
		case <-timer.C:
		}
	}
}

// fnError is an error of the caller's own function.
type fnError struct{ error }

// follower is the state of one Follow.
type follower struct {
	l    *Ledger
	next uint64 // number of the next record to give

	started bool
	told    bool         // fn was called, so the caller knows a final block
	running wire.Hash    // of record next-1
	from    uint64       // first block that may hold record next
	last    ledger.Block // final block up to which all was given; zero hash before the first
	span    uint64

	head, final uint64 // as last seen
}

// patience is how long to wait for the next look. While final lags behind head
// it is about to move, so looks are close together at first.
func (f *follower) patience(moved bool, before time.Duration, announced bool) time.Duration {
	switch {
	case moved && f.last.Number < f.final:
		return 0 // more pages
	case f.head > f.final && (moved || before == 0):
		return shortWait
	case f.head > f.final:
		return min(2*before, max(f.l.poll, shortWait))
	case announced:
		return longWait
	}
	return f.l.poll
}

// step gives the next page of records, if the final head moved.
func (f *follower) step(ctx context.Context, fn func(context.Context, ledger.Advance) error) (moved bool, err error) {
	var a *ledger.Advance
	err = f.l.endpoints.Do(ctx, func(ctx context.Context, c *rpc.Client) error {
		a = nil
		head, final, err := f.l.heads(ctx, c)
		if err != nil {
			return err
		}
		f.head, f.final = head.Height(), final.Height()
		if !f.started {
			if ready, err := f.start(ctx, c, final); !ready || err != nil {
				return err
			}
		}
		if ready, err := f.sameChain(ctx, c, final); !ready || err != nil {
			if err == nil && !f.told && final.Height() == f.last.Number {
				a = &ledger.Advance{Final: f.last} // resumed where it was
			}
			return err
		}
		page, err := f.page(ctx, c, final)
		a = &page
		return err
	})
	if a == nil || err != nil {
		return false, err
	}
	if err := fn(ctx, *a); err != nil {
		return false, &fnError{err}
	}
	f.told = true
	f.accept(*a)
	return true, nil
}

// accept moves the state over what the caller has stored.
func (f *follower) accept(a ledger.Advance) {
	for _, r := range a.Records {
		f.next, f.running = r.Number+1, r.Running
		switch b := r.Body.(type) {
		case ledger.Founded:
			f.l.learn(b.Params)
		case ledger.ParamsChanged:
			f.l.learn(b.Params)
		}
	}
	f.last, f.from = a.Final, a.Final.Number+1
	f.l.mu.Lock()
	defer f.l.mu.Unlock()
	if f.next > f.l.known.Record {
		f.l.known = Cursor{Record: f.next - 1, Running: f.running, Final: f.last}
	}
}

// start finds where to begin. ready is false while the endpoint's final chain
// does not reach there: it is catching up.
func (f *follower) start(ctx context.Context, c *rpc.Client, final *ethereum.Header) (ready bool, err error) {
	f.l.mu.Lock()
	known := f.l.known
	f.l.mu.Unlock()
	if known.Final != (ledger.Block{}) {
		// Whatever is asked for now, what was final must still be there.
		if ready, err := stillThere(ctx, c, known.Final, final); !ready || err != nil {
			return false, err
		}
	}
	switch {
	case known.Final != (ledger.Block{}) && known.Record == f.next-1:
		f.running, f.last, f.from = known.Running, known.Final, known.Final.Number+1
	case f.next == 1:
		f.from = f.l.fromBlock
	default:
		log, err := f.l.find(ctx, c, f.next-1, final.Height())
		if err != nil {
			return false, err
		}
		if log == nil {
			return false, f.missing(ctx, c, final)
		}
		f.running, f.from = wire.Hash(log.Topics[2]), log.BlockNumber
		if known.Record == f.next-1 && known.Running != f.running {
			return false, &ledger.Gap{Want: known.Record, Got: known.Record, Reason: fmt.Sprintf(
				"record %d had running hash %s, now it has %s", known.Record, known.Running, f.running)}
		}
	}
	f.started = true
	return true, nil
}

// missing says what it means that record next-1 is not there.
func (f *follower) missing(ctx context.Context, c *rpc.Client, final *ethereum.Header) error {
	var records ethereum.Quantity
	if err := c.CallContext(ctx, &records, "eth_call", f.l.query("records"), ethereum.BlockTag(final.Number)); err != nil {
		return err
	}
	if uint64(records) < f.next-1 {
		return nil // the endpoint is behind
	}
	return &ledger.Gap{Want: f.next - 1, Got: uint64(records), Reason: fmt.Sprintf(
		"the contract counts %d records at block %d, the endpoint does not find number %d from block %d on",
		uint64(records), final.Height(), f.next-1, f.l.fromBlock)}
}

// sameChain checks that the final chain goes on from the last final block.
// ready is false if it has not moved.
func (f *follower) sameChain(ctx context.Context, c *rpc.Client, final *ethereum.Header) (ready bool, err error) {
	if f.last == (ledger.Block{}) {
		return final.Height() >= f.from, nil
	}
	if final.Height() == f.last.Number+1 && wire.Hash(final.ParentHash) == f.last.Hash {
		return true, nil
	}
	ready, err = stillThere(ctx, c, f.last, final)
	return ready && final.Height() > f.last.Number, err
}

// stillThere checks that a block that was final is on the chain. It cannot tell
// (false) where the endpoint has not come that far.
func stillThere(ctx context.Context, c *rpc.Client, had ledger.Block, final *ethereum.Header) (bool, error) {
	if final.Height() < had.Number {
		return false, nil
	}
	found := final
	if final.Height() > had.Number {
		var err error
		if found, err = ethereum.HeaderAt(ctx, c, ethereum.BlockTag(ethereum.Quantity(had.Number))); err != nil {
			return false, err
		}
	}
	if wire.Hash(found.Hash) != had.Hash {
		return false, &ledger.Fork{Had: had, Found: ledger.Block{
			Number: found.Height(), Hash: wire.Hash(found.Hash), Time: time.Unix(int64(found.Timestamp), 0)}}
	}
	return true, nil
}

// page reads and checks the records of the next blocks.
func (f *follower) page(ctx context.Context, c *rpc.Client, final *ethereum.Header) (a ledger.Advance, err error) {
	to := min(final.Height(), f.from+f.span-1)
	var logs []types.Log
	var running hexutil.Bytes
	var b ethereum.Batch
	if f.from == final.Height() {
		// By hash, an endpoint that does not know the block cannot answer "no logs".
		b.Add(&logs, "eth_getLogs", filter{Address: f.l.contract, BlockHash: &final.Hash})
	} else {
		b.Add(&logs, "eth_getLogs", filter{Address: f.l.contract, FromBlock: ethereum.BlockTag(ethereum.Quantity(f.from)), ToBlock: ethereum.BlockTag(ethereum.Quantity(to))})
	}
	if to == final.Height() {
		b.Optional(&running, "eth_call", f.l.query("running"), ethereum.BlockTag(final.Number))
	}
	if err := b.Run(ctx, c); err != nil {
		f.span = max((to-f.from+1)/2, 1) // perhaps too much for one question
		return a, err
	}
	// So that the questions that follow stay small too, an overlong page ends
	// before the block that would make it so.
	if cut := f.l.cut(logs); cut < len(logs) {
		to, logs, running = logs[cut].BlockNumber-1, logs[:cut], nil
		f.span = max(f.span/2, 1)
	} else if len(logs) < f.l.pageSize/2 {
		f.span = min(2*f.span, longSpan)
	}
	records, err := f.check(logs)
	if err != nil {
		return a, err
	}
	// An endpoint may have no state so far back any more, and no answer. Then a
	// dropped last record shows only at the next one.
	if last := f.after(records); len(running) == 32 && wire.Hash(running) != last {
		return a, &ledger.Gap{Want: f.next + uint64(len(records)), Got: f.next + uint64(len(records)) - 1, Reason: fmt.Sprintf(
			"at block %d the contract's running hash is %s, the endpoint's logs end with %s: records are missing",
			final.Height(), wire.Hash(running), last)}
	}
	return f.advance(ctx, c, records, to, final)
}

type filter struct {
	Address   common.Address `json:"address"`
	BlockHash *common.Hash   `json:"blockHash,omitempty"`
	FromBlock string         `json:"fromBlock,omitempty"`
	ToBlock   string         `json:"toBlock,omitempty"`
	Topics    []*common.Hash `json:"topics,omitempty"`
}

// check decodes logs and proves that they are the next records.
func (f *follower) check(logs []types.Log) ([]ledger.Record, error) {
	records := make([]ledger.Record, 0, len(logs))
	next, running := f.next, f.running
	for i := range logs {
		l := &logs[i]
		number, err := recordNumber(l)
		if err != nil {
			return nil, &ledger.Gap{Want: next, Reason: err.Error()}
		}
		if number < f.next && f.last == (ledger.Block{}) {
			continue // Follow was asked to begin amid a block
		}
		if number != next {
			return nil, &ledger.Gap{Want: next, Got: number, Reason: fmt.Sprintf(
				"after record %d comes %d, at %d/%d", next-1, number, l.BlockNumber, l.Index)}
		}
		if want := runningHash(running, l); want != wire.Hash(l.Topics[2]) {
			return nil, &ledger.Gap{Want: next, Got: number, Reason: fmt.Sprintf(
				"record %d at %d/%d has running hash %s, its content makes %s", number, l.BlockNumber, l.Index, wire.Hash(l.Topics[2]), want)}
		}
		r, err := decode(l)
		if err != nil {
			return nil, &ledger.Gap{Want: next, Got: number, Reason: err.Error()}
		}
		records = append(records, r)
		next, running = next+1, r.Running
	}
	return records, nil
}

// cut is how many logs make a page of whole blocks, at least one block.
func (l *Ledger) cut(logs []types.Log) int {
	for i := l.pageSize; i < len(logs); i++ {
		if logs[i].BlockNumber != logs[i-1].BlockNumber {
			return i
		}
	}
	return len(logs)
}

// after is the running hash behind records.
func (f *follower) after(records []ledger.Record) wire.Hash {
	if len(records) == 0 {
		return f.running
	}
	return records[len(records)-1].Running
}

// advance adds the blocks' times to the records of a page.
func (f *follower) advance(ctx context.Context, c *rpc.Client, records []ledger.Record, to uint64, final *ethereum.Header) (a ledger.Advance, err error) {
	blocks, err := f.blocks(ctx, c, records, to, final)
	if err != nil {
		return a, err
	}
	for i := range records {
		b := blocks[records[i].Block.Number]
		if b.Hash != records[i].Block.Hash {
			return a, &ledger.Fork{Had: b, Found: records[i].Block}
		}
		records[i].Block = b
	}
	return ledger.Advance{Records: records, Final: blocks[to]}, nil
}

// blocks reads the blocks that hold records, and the last one of the page.
func (f *follower) blocks(ctx context.Context, c *rpc.Client, records []ledger.Record, to uint64, final *ethereum.Header) (map[uint64]ledger.Block, error) {
	headers := map[uint64]*ethereum.Header{final.Height(): final}
	wanted := []uint64{to}
	for _, r := range records {
		if n := r.Block.Number; n != to && n != wanted[len(wanted)-1] {
			wanted = append(wanted, n)
		}
	}
	slots := make([]*ethereum.Header, len(wanted))
	var b ethereum.Batch
	for i, n := range wanted {
		if slots[i] = headers[n]; slots[i] == nil {
			b.Add(&slots[i], "eth_getBlockByNumber", ethereum.BlockTag(ethereum.Quantity(n)), false)
		}
	}
	if err := b.Run(ctx, c); err != nil {
		return nil, err
	}
	for i, h := range slots {
		if h == nil || h.Height() != wanted[i] {
			return nil, fmt.Errorf("the endpoint does not know block %d", wanted[i])
		}
	}
	times, err := f.l.times(ctx, c, slots...)
	if err != nil {
		return nil, err
	}
	blocks := make(map[uint64]ledger.Block, len(slots))
	for _, h := range slots {
		blocks[h.Height()] = blockOf(h, times)
	}
	return blocks, nil
}

// How many blocks a search for a record asks about at once: first, and at most.
const (
	findFirst = 1 << 12
	findMost  = 1 << 18
)

// find looks for the log of a record, nil if there is none up to a block.
func (l *Ledger) find(ctx context.Context, c *rpc.Client, number, to uint64) (*types.Log, error) {
	topic := common.BigToHash(ethereum.Quantity(number).Big())
	// The newest blocks first: that is where a node resumes. An endpoint without
	// an index of logs tests each block, so one question does not cover them all;
	// where it limits the range to less, the pieces become smaller.
	for span, most := uint64(findFirst), uint64(findMost); ; span = min(2*span, most) {
		from := l.fromBlock
		if to+1 > span {
			from = max(from, to+1-span)
		}
		var logs []types.Log
		err := c.CallContext(ctx, &logs, "eth_getLogs", filter{Address: l.contract, FromBlock: ethereum.BlockTag(ethereum.Quantity(from)), ToBlock: ethereum.BlockTag(ethereum.Quantity(to)), Topics: []*common.Hash{nil, &topic}})
		var answer rpc.Error
		switch {
		case errors.As(err, &answer) && to > from:
			most = (to - from + 1) / 2
			continue
		case err != nil:
			return nil, err
		case len(logs) > 1:
			return nil, &ledger.Gap{Want: number, Got: number, Reason: fmt.Sprintf("the endpoint gives %d logs with record number %d", len(logs), number)}
		case len(logs) == 1:
			if n, err := recordNumber(&logs[0]); err != nil || n != number {
				return nil, &ledger.Gap{Want: number, Got: n, Reason: fmt.Sprintf("asked for record %d, the endpoint gives another", number)}
			}
			return &logs[0], nil
		case from <= l.fromBlock:
			return nil, nil
		}
		to = from - 1
	}
}
