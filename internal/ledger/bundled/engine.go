package bundled

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/consensus/misc/eip1559"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/rawdb"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/core/vm"
	"github.com/ethereum/go-ethereum/eth"
	"github.com/ethereum/go-ethereum/eth/ethconfig"
	"github.com/ethereum/go-ethereum/eth/filters"
	"github.com/ethereum/go-ethereum/node"
	"github.com/ethereum/go-ethereum/p2p"
	"github.com/ethereum/go-ethereum/rpc"
)

// engine executes blocks with go-ethereum and keeps the chain. It uses the
// calls that go-ethereum's own Engine API is made of, without that API's
// detour through JSON shapes, request caches and background sync.
type engine struct {
	stack *node.Node
	eth   *eth.Ethereum
	chain *core.BlockChain
}

// rpcModules are the JSON-RPC namespaces served. None of them can change the
// node or read its keys.
var rpcModules = []string{"eth", "net", "web3", "txpool", "parley"}

// openEngine opens the chain in dir. JSON-RPC on host:port opens with start.
func openEngine(dir, host string, port int, genesis *core.Genesis) (*engine, error) {
	nc := node.DefaultConfig
	nc.Name = "geth" // names the folder inside dir
	nc.DataDir = dir
	nc.IPCPath = ""
	nc.P2P = p2p.Config{NoDiscovery: true} // transactions and blocks travel through CometBFT
	nc.HTTPHost, nc.HTTPPort, nc.HTTPModules = host, port, rpcModules
	nc.WSHost, nc.WSPort, nc.WSModules = host, port, rpcModules
	nc.HTTPVirtualHosts = []string{"localhost"} // a browser page must not reach us under a name of its own
	nc.HTTPCors, nc.WSOrigins = nil, nil

	ec := ethconfig.Defaults
	ec.Genesis = genesis
	ec.NetworkId = genesis.Config.ChainID.Uint64()
	ec.SyncMode = ethconfig.FullSync
	// The path scheme and a pruned hash trie both keep recent state in memory
	// only; a killed process would come back without its acknowledged blocks.
	ec.StateScheme, ec.NoPruning = rawdb.HashScheme, true
	ec.TransactionHistory = 0 // index everything
	// No search index over logs: it took a quarter of a validator's time, and
	// memory and disk that grow with each block. Nodes read logs block by block
	// as they come; a search over many blocks tests each one's bloom filter.
	ec.LogNoHistory = true
	ec.DatabaseHandles = 256
	ec.DatabaseCache, ec.TrieCleanCache, ec.TrieDirtyCache, ec.SnapshotCache = 16, 16, 0, 0
	ec.FilterLogCacheSize = 32
	ec.RPCGasCap = maxTxGas
	ec.TxPool.NoLocals, ec.TxPool.Journal = true, ""
	ec.TxPool.AccountSlots, ec.TxPool.GlobalSlots = 4096, maxPoolTxs
	ec.TxPool.AccountQueue, ec.TxPool.GlobalQueue = 4096, maxPoolTxs
	// A price of 0 would be raised to a default; the pool's is lowered below, and
	// the miner's is used by nothing that we serve.
	ec.TxPool.PriceLimit, ec.Miner.GasPrice = 1, big.NewInt(1)
	ec.Miner.GasCeil = genesis.GasLimit

	stack, err := node.New(&nc)
	if err != nil {
		return nil, fmt.Errorf("open ledger folder %s: %w", dir, err)
	}
	backend, err := eth.New(stack, &ec)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open chain in %s: %w", dir, err), stack.Close())
	}
	backend.TxPool().SetGasTip(new(big.Int))
	fs := filters.NewFilterSystem(backend.APIBackend, filters.Config{LogCacheSize: ec.FilterLogCacheSize, LogQueryLimit: 1000})
	stack.RegisterAPIs([]rpc.API{{Namespace: "eth", Service: filters.NewFilterAPI(fs)}})
	e := &engine{stack: stack, eth: backend, chain: backend.BlockChain()}
	// The head is final from the first block on. What go-ethereum stored of
	// finality may be a block that was about to become the head.
	e.chain.SetFinalized(e.head())
	e.chain.SetSafe(e.head())
	return e, nil
}

// start opens JSON-RPC and lets the transaction pool accept transactions.
func (e *engine) start() error {
	if err := e.stack.Start(); err != nil {
		return fmt.Errorf("start JSON-RPC: %w", err)
	}
	e.eth.SetSynced()
	return nil
}

func (e *engine) close() error { return e.stack.Close() }

// head is the newest decided block.
func (e *engine) head() *types.Header { return e.chain.CurrentBlock() }

// seal is the consensus data that rides in a header's prevRandao field: eight
// bytes of Unix nanoseconds, sixteen zero bytes, eight bytes of height, big
// endian.
type seal struct {
	time   time.Time // consensus time
	height int64     // CometBFT height of the block
}

func (s seal) encode() (h common.Hash) {
	binary.BigEndian.PutUint64(h[:8], uint64(s.time.UnixNano()))
	binary.BigEndian.PutUint64(h[24:], uint64(s.height))
	return h
}

// sealOf reads a header's seal. The genesis block has the zero seal: height 0
// at the Unix epoch.
func sealOf(h *types.Header) seal {
	return seal{
		time:   time.Unix(0, int64(binary.BigEndian.Uint64(h.MixDigest[:8]))).UTC(),
		height: int64(binary.BigEndian.Uint64(h.MixDigest[24:])),
	}
}

// ethereumTime is the header time that belongs to a consensus time: the same
// second, or one second after the parent if that second is taken.
func ethereumTime(at time.Time, parent *types.Header) uint64 {
	return max(uint64(at.Unix()), parent.Time+1)
}

// build executes txs on top of the head, in order, and returns the block of
// those that could be executed, nil if there was none. A transaction that comes
// before its sender's preceding one is tried again after it. Building stops
// quietly at the block's limits and when ctx ends; what is left goes into a
// later block.
func (e *engine) build(ctx context.Context, s seal, txs []*types.Transaction) (*types.Block, error) {
	parent, config := e.head(), e.chain.Config()
	header := &types.Header{
		ParentHash:       parent.Hash(),
		UncleHash:        types.EmptyUncleHash,
		Number:           new(big.Int).Add(parent.Number, common.Big1),
		Difficulty:       new(big.Int),
		GasLimit:         parent.GasLimit,
		Time:             ethereumTime(s.time, parent),
		MixDigest:        s.encode(),
		BaseFee:          eip1559.CalcBaseFee(config, parent),
		BlobGasUsed:      new(uint64),
		ExcessBlobGas:    new(uint64),
		ParentBeaconRoot: new(common.Hash),
		RequestsHash:     &types.EmptyRequestsHash,
	}
	statedb, err := e.chain.StateAt(parent.Root, parent.Number, parent.Time)
	if err != nil {
		return nil, fmt.Errorf("state of block %d: %w", parent.Number, err)
	}
	evm := vm.NewEVM(core.NewEVMBlockContext(header, e.chain, &header.Coinbase), statedb, config, vm.Config{})
	defer evm.Release()
	core.PreExecution(ctx, header.ParentBeaconRoot, parent, config, evm, header.Number, header.Time)

	var (
		gas      = core.NewGasPool(maxBlockGas)
		receipts []*types.Receipt
		logs     []*types.Log
		body     = types.Body{Withdrawals: types.Withdrawals{}}
	)
	for progress := true; progress; {
		progress = false
		var early []*types.Transaction
		for _, tx := range txs {
			if len(body.Transactions) == maxBlockTxs || ctx.Err() != nil {
				early = nil
				break
			}
			statedb.SetTxContext(tx.Hash(), len(body.Transactions), uint32(len(body.Transactions)+1))
			before, gasBefore := statedb.Snapshot(), gas.Snapshot()
			receipt, _, err := core.ApplyTransaction(ctx, evm, gas, statedb, header, tx)
			if err != nil {
				statedb.RevertToSnapshot(before)
				gas.Set(gasBefore)
				if errors.Is(err, core.ErrNonceTooHigh) {
					early = append(early, tx)
				}
				continue
			}
			progress = true
			header.GasUsed = gas.Used()
			body.Transactions = append(body.Transactions, tx)
			receipts = append(receipts, receipt)
			logs = append(logs, receipt.Logs...)
		}
		txs = early
		progress = progress && len(early) > 0
	}
	if len(body.Transactions) == 0 {
		return nil, nil
	}
	// Building has stopped; finishing the block must not fail for lack of time.
	ctx = context.WithoutCancel(ctx)
	requests, _, err := core.PostExecution(ctx, config, header.Number, header.Time, logs, body.Withdrawals, evm, uint32(len(body.Transactions)+1))
	if err != nil {
		return nil, fmt.Errorf("finish block %d: %w", header.Number, err)
	}
	if len(requests) > 0 {
		return nil, fmt.Errorf("block %d has %d execution-layer requests, this chain has none", header.Number, len(requests))
	}
	e.chain.Engine().Finalize(e.chain, header, statedb, &body)
	block := core.AssembleBlock(e.chain, header, statedb, &body, receipts, nil)
	if err := statedb.Error(); err != nil {
		return nil, fmt.Errorf("state of block %d: %w", header.Number, err)
	}
	return block, nil
}

// execute verifies and runs a child of the head and stores it, without making it
// the head. Running a stored block again costs nothing.
func (e *engine) execute(ctx context.Context, block *types.Block) error {
	if e.chain.HasBlockAndState(block.Hash(), block.NumberU64()) {
		return nil
	}
	if _, err := e.chain.InsertBlockWithoutSetHead(ctx, block, false); err != nil {
		return fmt.Errorf("execute block %d: %w", block.NumberU64(), err)
	}
	return nil
}

// commit makes an executed block the final head, on disk.
func (e *engine) commit(hash common.Hash) error {
	block := e.chain.GetBlockByHash(hash)
	if block == nil {
		return fmt.Errorf("decided block %s is not stored", hash)
	}
	// Finality first: whoever is woken by the new head finds it final.
	e.chain.SetFinalized(block.Header())
	e.chain.SetSafe(block.Header())
	if _, err := e.chain.SetCanonical(block); err != nil {
		return fmt.Errorf("make block %d the head: %w", block.NumberU64(), err)
	}
	if err := e.eth.ChainDb().SyncKeyValue(); err != nil {
		return fmt.Errorf("sync block %d to disk: %w", block.NumberU64(), err)
	}
	return nil
}
