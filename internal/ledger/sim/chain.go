// Package sim is a simulated ledger: a chain in memory that runs the rules of
// the network contract, shared by all members in one process, with faults that
// tests switch on. It does no I/O and starts no goroutine of its own; time
// comes from package time only, so it runs inside a testing/synctest bubble.
package sim

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/parley-node/parley/internal/keys"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/wire"
)

// Config is the genesis of a chain and how it makes blocks.
type Config struct {
	ChainID  uint64
	Contract wire.Address            // where the network contract lives
	Founders []ledger.MemberAdmitted // at least one
	Params   ledger.Params
	Policy   ledger.Policy
	Epoch1   wire.Hash // hash of the network audience's first epoch definition

	// BlockInterval is how long a transaction waits for others before the block
	// is made. With 0 every transaction is a block at once, inside Send.
	BlockInterval time.Duration
	// Tick makes an empty block this long after the last block. With 0 an idle
	// chain stands still, and consensus time with it.
	Tick time.Duration
	// Now gives consensus time, time.Now if nil.
	Now func() time.Time
	// Rand shuffles the waiting transactions of different accounts inside a
	// block. With nil they are mined as they arrived.
	Rand *rand.Rand
}

// Chain is the ledger that all members share. Safe for concurrent use.
type Chain struct {
	cfg Config

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced when anything that a follower waits for changes
	contract *contract
	blocks   []block // by number; 0 is empty, 1 holds the constructor's records
	records  []ledger.Record
	final    uint64 // highest final block, never lower again
	txs      map[wire.Hash]*transaction
	nonces   map[wire.Address]uint64                  // next one to be mined
	waiting  map[wire.Address]map[uint64]*transaction // by nonce
	customs  map[wire.Address]Contract
	arrivals uint64
	held     bool
	closed   bool
	forks    uint64 // makes the blocks of each branch differ
	mineDue  *time.Timer
	tickDue  *time.Timer
}

type block struct {
	ledger.Block
	records uint64 // number of the contract's newest record
	txs     []*transaction
	finalAt time.Time // by the machine's clock, for delivery delays
}

// ErrClosed: the chain was shut down.
var ErrClosed = errors.New("the simulated chain is closed")

// NewChain founds a network. Close it when done.
func NewChain(cfg Config) (*Chain, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &Chain{
		cfg:     cfg,
		changed: make(chan struct{}),
		txs:     map[wire.Hash]*transaction{},
		waiting: map[wire.Address]map[uint64]*transaction{},
		customs: map[wire.Address]Contract{},
	}
	if err := c.genesis(c.now()); err != nil {
		return nil, fmt.Errorf("found the network: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armTick()
	return c, nil
}

// Connect gives a member its own connection, which signs with the member's
// keys and has faults of its own.
func (c *Chain) Connect(ks keys.Keys) *Ledger { return &Ledger{chain: c, keys: ks} }

// Close stops the timers. Followers hear nothing more; Send and State fail.
func (c *Chain) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, t := range []*time.Timer{c.mineDue, c.tickDue} {
		if t != nil {
			t.Stop()
		}
	}
	c.notify()
}

// Mine makes one block now, of all waiting transactions or, if there are none
// or they are held, an empty one.
func (c *Chain) Mine() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mine()
}

// Hold keeps transactions waiting until Release.
func (c *Chain) Hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = true
}

// Release ends Hold and makes a block of what waited, if anything did.
func (c *Chain) Release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = false
	if len(c.waiting) > 0 {
		c.mine()
	}
}

// DropWaiting makes the chain forget the transactions that are not mined yet,
// as a restarted mempool does, and says how many those were.
func (c *Chain) DropWaiting() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, txs := range c.waiting {
		for _, t := range txs {
			delete(c.txs, t.hash)
			n++
		}
	}
	clear(c.waiting)
	return n
}

// Fork replaces the newest blocks by as many empty ones of another branch. The
// transactions of the replaced blocks wait for the next block. If a replaced
// block was final, followers end with *ledger.Fork. The genesis stays.
func (c *Chain) Fork(depth int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if depth < 1 || depth > len(c.blocks)-2 {
		return fmt.Errorf("a fork of depth %d is not possible, the chain has %d blocks above its genesis", depth, len(c.blocks)-2)
	}
	old := c.blocks
	keep := old[:len(old)-depth]
	if err := c.genesis(keep[0].Time); err != nil {
		return fmt.Errorf("replay the chain: %w", err)
	}
	for _, b := range keep[2:] {
		c.append(b.Time, b.Hash, b.finalAt, b.txs)
	}
	c.forks++
	for _, b := range old[len(keep):] {
		for _, t := range b.txs {
			t.mined, t.refusal = false, nil
			c.enqueue(t)
		}
	}
	for range depth {
		c.seal(nil)
	}
	if c.cfg.BlockInterval > 0 {
		c.armMine()
	}
	c.notify()
	return nil
}

// genesis sets the chain to its first two blocks.
func (c *Chain) genesis(now time.Time) error {
	contract, err := found(c.cfg)
	if err != nil {
		return err
	}
	c.contract = contract
	c.blocks, c.records = nil, nil
	c.nonces = map[wire.Address]uint64{}
	forks := c.forks
	c.forks = 0 // the genesis is the same on every branch
	defer func() { c.forks = forks }()
	c.blocks = append(c.blocks, block{Block: ledger.Block{Time: now, Hash: c.blockHash(now, nil)}, finalAt: time.Now()})
	c.append(now, c.blockHash(now, nil), time.Now(), nil)
	c.final = max(c.final, 1)
	return nil
}

// mine makes a block of all transactions that can run, an empty one while they
// are held.
func (c *Chain) mine() {
	if c.closed {
		return
	}
	var txs []*transaction
	if !c.held {
		txs = c.runnable()
	}
	c.seal(txs)
	c.notify()
	c.armTick()
}

// runnable puts the waiting transactions in an order that keeps the nonces of
// each account.
func (c *Chain) runnable() []*transaction {
	var queues [][]*transaction // per account, runnable ones in nonce order
	for account, txs := range c.waiting {
		var q []*transaction
		for n := c.nonces[account]; txs[n] != nil; n++ {
			q = append(q, txs[n])
		}
		if len(q) > 0 {
			queues = append(queues, q)
		}
	}
	byArrival := func(a, b []*transaction) int { return cmp.Compare(a[0].arrival, b[0].arrival) }
	slices.SortFunc(queues, byArrival) // maps have no order, and a seed must repeat
	var order []*transaction
	for len(queues) > 0 {
		i := 0
		if c.cfg.Rand != nil {
			i = c.cfg.Rand.IntN(len(queues))
		} else {
			for j := range queues {
				if byArrival(queues[j], queues[i]) < 0 {
					i = j
				}
			}
		}
		order = append(order, queues[i][0])
		if queues[i] = queues[i][1:]; len(queues[i]) == 0 {
			queues = slices.Delete(queues, i, i+1)
		}
	}
	return order
}

// seal appends a block of the given transactions at the present time, which
// never runs backwards.
func (c *Chain) seal(txs []*transaction) {
	now := c.now()
	if last := c.blocks[len(c.blocks)-1].Time; now.Before(last) {
		now = last
	}
	c.append(now, c.blockHash(now, txs), time.Now(), txs)
}

// append executes a block and updates what is final.
func (c *Chain) append(now time.Time, hash wire.Hash, finalAt time.Time, txs []*transaction) {
	at := ledger.Block{Number: uint64(len(c.blocks)), Hash: hash, Time: now}
	log := uint32(0)
	record := func(txHash wire.Hash) {
		for _, e := range c.contract.emitted {
			var last wire.Hash
			if n := len(c.records); n > 0 {
				last = c.records[n-1].Running
			}
			c.records = append(c.records, ledger.Record{
				Number:   uint64(len(c.records)) + 1,
				Running:  running(last, e.body),
				Position: wire.Position{Block: at.Number, Log: log},
				Block:    at,
				TxHash:   txHash,
				Signer:   e.signer,
				Body:     e.body,
			})
			log++
		}
		c.contract.emitted = nil
	}
	record(wire.Hash{}) // the constructor's, in block 1
	for _, t := range txs {
		t.refusal = c.execute(t)
		t.mined = true
		c.nonces[t.from] = t.Nonce + 1
		c.unqueue(t)
		record(t.hash)
	}
	c.blocks = append(c.blocks, block{Block: at, records: uint64(len(c.records)), txs: txs, finalAt: finalAt})

	if conf := c.contract.params.Confirmations; at.Number > conf {
		for c.final < at.Number-conf {
			c.final++
			c.blocks[c.final].finalAt = finalAt
		}
	}
}

func (c *Chain) execute(t *transaction) error {
	call, ok := t.call.(ledger.ContractCall)
	if !ok {
		return c.contract.call(t.from, t.call)
	}
	return c.callCustom(t.from, call)
}

// enqueue makes a transaction wait. It replaces another with its nonce.
func (c *Chain) enqueue(t *transaction) {
	txs := c.waiting[t.from]
	if txs == nil {
		txs = map[uint64]*transaction{}
		c.waiting[t.from] = txs
	}
	if old := txs[t.Nonce]; old != nil {
		delete(c.txs, old.hash)
	}
	c.arrivals++
	t.arrival = c.arrivals
	txs[t.Nonce] = t
	c.txs[t.hash] = t
}

// unqueue removes a mined transaction and any other with its nonce.
func (c *Chain) unqueue(t *transaction) {
	txs := c.waiting[t.from]
	if old := txs[t.Nonce]; old != nil && old != t {
		delete(c.txs, old.hash)
	}
	if delete(txs, t.Nonce); len(txs) == 0 {
		delete(c.waiting, t.from)
	}
}

// send takes a transaction into the chain and makes or schedules its block.
func (c *Chain) send(t *transaction) error {
	if c.closed {
		return ErrClosed
	}
	if t.ChainID != c.cfg.ChainID || t.Contract != c.cfg.Contract {
		return fmt.Errorf("the transaction is for chain %d and contract %s, this is chain %d and contract %s",
			t.ChainID, t.Contract, c.cfg.ChainID, c.cfg.Contract)
	}
	if known := c.txs[t.hash]; known != nil {
		return known.refusal
	}
	if t.Nonce < c.nonces[t.from] {
		return fmt.Errorf("account %s, nonce %d: %w", t.from, t.Nonce, ledger.ErrNonceUsed)
	}
	if other := c.waiting[t.from][t.Nonce]; other != nil && other.Bump >= t.Bump {
		return fmt.Errorf("account %s has another transaction waiting with nonce %d and bump %d; sign with a higher bump to replace it",
			t.from, t.Nonce, other.Bump)
	}
	c.enqueue(t)
	switch {
	case c.held:
	case c.cfg.BlockInterval == 0:
		c.mine()
	default:
		c.armMine()
	}
	return t.refusal
}

// armMine schedules the block of the waiting transactions unless one is due.
func (c *Chain) armMine() {
	if c.mineDue != nil {
		return
	}
	c.mineDue = time.AfterFunc(c.cfg.BlockInterval, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.mineDue = nil
		if !c.held && len(c.waiting) > 0 {
			c.mine()
		}
	})
}

func (c *Chain) armTick() {
	if c.cfg.Tick == 0 {
		return
	}
	if c.tickDue != nil {
		c.tickDue.Reset(c.cfg.Tick)
		return
	}
	c.tickDue = time.AfterFunc(c.cfg.Tick, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.mine()
	})
}

// notify wakes every follower.
func (c *Chain) notify() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// pendingNonce is the account's next nonce, counting what waits without a gap.
func (c *Chain) pendingNonce(a wire.Address) uint64 {
	n := c.nonces[a]
	for c.waiting[a][n] != nil {
		n++
	}
	return n
}

// now is consensus time without a monotonic reading, as a header would hold it.
func (c *Chain) now() time.Time { return c.cfg.Now().Round(0).UTC() }

func (c *Chain) blockHash(now time.Time, txs []*transaction) (h wire.Hash) {
	d := sha256.New()
	if n := len(c.blocks); n > 0 {
		d.Write(c.blocks[n-1].Hash[:])
	}
	for _, v := range []uint64{c.cfg.ChainID, uint64(len(c.blocks)), uint64(now.UnixNano()), c.forks} {
		d.Write(binary.BigEndian.AppendUint64(nil, v))
	}
	for _, t := range txs {
		d.Write(t.hash[:])
	}
	d.Sum(h[:0])
	return h
}

// running extends the hash over all records by one more body.
func running(last wire.Hash, b ledger.Body) (h wire.Hash) {
	d := sha256.New()
	d.Write(last[:])
	d.Write([]byte(b.Kind()))
	// The bodies are plain structs of numbers and bytes: encoding and a hash's
	// Write cannot fail.
	_ = json.NewEncoder(d).Encode(b)
	d.Sum(h[:0])
	return h
}
