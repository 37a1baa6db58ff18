package bundled

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/txpool"
	"github.com/ethereum/go-ethereum/core/txpool/legacypool"
	"github.com/ethereum/go-ethereum/core/types"
)

const (
	// maxPoolTxs bounds the executable transactions kept, and again those that
	// wait for a preceding one.
	maxPoolTxs = 65536
	// maxHeld bounds the transactions that wait for their account to exist.
	maxHeld = 16384
	// holdFor is how long a transaction waits for its account to exist.
	holdFor = 10 * time.Minute
	// offerEvery is how often executable transactions that are not in CometBFT's
	// mempool are offered to it again.
	offerEvery = time.Second
	// spreadMost bounds the growing pauses after which transactions are spread
	// again while no block comes, in units of offerEvery.
	spreadMost = 64
)

// intake is the way of transactions into this validator, from JSON-RPC and from
// peers alike. go-ethereum's pool judges them and keeps them in account order;
// CometBFT's mempool takes the executable ones, spreads them and starts
// consensus. Whatever keeps one out of the mempool for a moment, the pool offers
// it again.
//
// CometBFT tells each peer of a transaction once, and a peer that is still
// catching up does not listen. With no empty blocks that can stop the chain: the
// validators that do not know a transaction see no reason for a block. So when
// transactions wait and no block comes, intake has them spread afresh.
//
// go-ethereum's pool lets an account that is not in the state yet have one
// transaction in flight only. Here nobody needs funds, so such accounts are
// normal: intake holds their further transactions until the first is in a block.
type intake struct {
	pool   *txpool.TxPool
	chain  *core.BlockChain
	signer types.Signer
	now    func() time.Time
	log    *slog.Logger
	every  time.Duration // offerEvery

	mu    sync.Mutex
	held  map[common.Address][]heldTx // per account in nonce order
	count int                         // transactions in held
}

type heldTx struct {
	tx    *types.Transaction
	since time.Time
}

func newIntake(e *engine, now func() time.Time, log *slog.Logger) *intake {
	return &intake{
		pool:   e.eth.TxPool(),
		chain:  e.chain,
		signer: types.LatestSigner(e.chain.Config()),
		now:    now,
		log:    log,
		every:  offerEvery,
		held:   make(map[common.Address][]heldTx),
	}
}

// add takes a transaction in. It is idempotent. With wait it returns only after
// the pool has placed the transaction, so that executable can tell.
func (in *intake) add(tx *types.Transaction, wait bool) error {
	if err := admissible(tx); err != nil {
		return err
	}
	if in.pool.Has(tx.Hash()) {
		return nil
	}
	err := in.pool.Add([]*types.Transaction{tx}, wait)[0]
	switch {
	case errors.Is(err, txpool.ErrAlreadyKnown):
		return nil
	case errors.Is(err, txpool.ErrInflightTxLimitReached), errors.Is(err, legacypool.ErrOutOfOrderTxFromDelegated):
		return in.hold(tx)
	case errors.Is(err, core.ErrNonceTooLow):
		if lookup, _ := in.chain.GetCanonicalTransaction(tx.Hash()); lookup != nil {
			return nil // it is in a block already
		}
	}
	return err
}

// executable reports whether the pool holds the transaction and nothing has to
// come before it.
func (in *intake) executable(hash common.Hash) bool {
	return in.pool.Status(hash) == txpool.TxStatusPending
}

// hold keeps a transaction until its account's first one is in a block.
func (in *intake) hold(tx *types.Transaction) error {
	from, err := types.Sender(in.signer, tx)
	if err != nil {
		return fmt.Errorf("transaction %s: %w", tx.Hash(), err)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	queue := in.held[from]
	at, found := slices.BinarySearchFunc(queue, tx.Nonce(), func(h heldTx, nonce uint64) int { return cmp.Compare(h.tx.Nonce(), nonce) })
	held := heldTx{tx: tx, since: in.now()}
	switch {
	case found:
		queue[at] = held // the newer one replaces, as in the pool at equal price
	case in.count >= maxHeld:
		return fmt.Errorf("%d transactions already wait for the first one of a new account, send %s again later", in.count, tx.Hash())
	default:
		in.held[from] = slices.Insert(queue, at, held)
		in.count++
	}
	return nil
}

// release moves the transactions of accounts that exist now into the pool and
// forgets those that waited too long.
func (in *intake) release() error {
	in.mu.Lock()
	held := in.held
	in.held, in.count = make(map[common.Address][]heldTx), 0
	in.mu.Unlock()
	if len(held) == 0 {
		return nil
	}
	// The pool follows the chain's head a little later; without waiting for it
	// the accounts would still look new.
	if err := in.pool.Sync(); err != nil {
		return fmt.Errorf("wait for the transaction pool: %w", err)
	}
	for from, queue := range held {
		for _, h := range queue {
			if in.now().Sub(h.since) > holdFor {
				in.log.Warn("gave up a transaction whose account's preceding ones did not come", "account", from, "nonce", h.tx.Nonce(), "tx", h.tx.Hash())
				continue
			}
			if err := in.add(h.tx, false); err != nil {
				in.log.Info("transaction is no longer acceptable", "account", from, "nonce", h.tx.Nonce(), "tx", h.tx.Hash(), "err", err)
			}
		}
	}
	return nil
}

// run offers executable transactions to CometBFT's mempool until ctx ends. offer
// is called with the raw transaction and must not mind repetitions; flush makes
// the mempool forget all it knows, so that what is offered next is spread anew.
func (in *intake) run(ctx context.Context, offer func(raw []byte) error, flush func()) error {
	fresh := make(chan core.NewTxsEvent, 1024)
	freshSub := in.pool.SubscribeTransactions(fresh, true)
	defer freshSub.Unsubscribe()
	heads := make(chan core.ChainHeadEvent, 16)
	headSub := in.chain.SubscribeChainHeadEvent(heads)
	defer headSub.Unsubscribe()
	again := time.NewTicker(in.every)
	defer again.Stop()

	push := func(txs []*types.Transaction) {
		var refused int
		var why error
		for _, tx := range txs {
			raw, err := tx.MarshalBinary()
			if err == nil {
				err = offer(raw)
			}
			if err != nil {
				refused++
				why = err
			}
		}
		if refused > 0 {
			in.log.Warn("mempool did not take transactions, they are offered again", "count", refused, "err", why)
		}
	}
	var (
		stalledAt common.Hash // head at the last tick, if transactions waited then
		ticks     int         // since then without a block
		spreadAt  = 1         // number of ticks at which to spread again; doubles
	)
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-freshSub.Err():
			return fmt.Errorf("transaction pool closed: %w", err)
		case err := <-headSub.Err():
			return fmt.Errorf("chain closed: %w", err)
		case event := <-fresh:
			push(event.Txs)
		case <-heads:
			if err := in.release(); err != nil {
				return err
			}
		case <-again.C:
			if err := in.release(); err != nil {
				return err
			}
			if pending, _ := in.pool.Stats(); pending == 0 {
				stalledAt = common.Hash{}
				continue
			}
			if head := in.chain.CurrentBlock().Hash(); head != stalledAt {
				stalledAt, ticks, spreadAt = head, 0, 1
			} else if ticks++; ticks >= spreadAt {
				ticks, spreadAt = 0, min(2*spreadAt, spreadMost)
				flush()
			}
			push(in.pending())
		}
	}
}

// pending are the executable transactions, each account's in order.
func (in *intake) pending() (all []*types.Transaction) {
	accounts, _ := in.pool.Pending(txpool.PendingFilter{})
	for _, txs := range accounts {
		for _, lazy := range txs {
			if tx := lazy.Resolve(); tx != nil {
				all = append(all, tx)
			}
		}
	}
	return all
}
