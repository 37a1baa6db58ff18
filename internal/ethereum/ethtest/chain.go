// Package ethtest runs a whole Ethereum chain inside a test: go-ethereum with
// JSON-RPC on a loopback port, whose blocks the test makes, and a proxy in front
// of it that can be cut and can lie.
package ethtest

import (
	"math/big"
	"sync"
	"testing"

	"github.com/ethereum/go-ethereum/beacon/engine"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/eth"
	"github.com/ethereum/go-ethereum/eth/catalyst"
	"github.com/ethereum/go-ethereum/eth/ethconfig"
	"github.com/ethereum/go-ethereum/eth/filters"
	"github.com/ethereum/go-ethereum/miner"
	"github.com/ethereum/go-ethereum/node"
	"github.com/ethereum/go-ethereum/p2p"
	"github.com/ethereum/go-ethereum/params"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/parley-node/parley/wire"
)

// ChainID is that of every test chain.
const ChainID = 4711

// Chain is go-ethereum in this process, with HTTP and WebSocket on a
// loopback port. Blocks are made by the test, through the Engine API.
type Chain struct {
	t     testing.TB
	stack *node.Node
	eth   *eth.Ethereum
	api   *catalyst.ConsensusAPI
	Options

	mu sync.Mutex // one block at a time
}

// Options say how a chain makes blocks.
type Options struct {
	Priced bool   // a base fee; else gas is free
	Lag    uint64 // blocks from the head down to the final one
	Auto   bool   // a block as soon as a transaction waits
	Clock  bool   // parley_blockTime, as the bundled ledger has it
}

// clock serves parley_blockTime: an eighth of a second per block.
type clock struct{}

func (clock) BlockTime(number rpc.BlockNumber) hexutil.Uint64 {
	return hexutil.Uint64(max(number, 0)) * 125e6
}

// New starts a chain that knows some accounts.
func New(t testing.TB, o Options, funded ...wire.Address) *Chain {
	t.Helper()
	cc := *params.AllDevChainProtocolChanges
	cc.ChainID = big.NewInt(ChainID)
	cc.PragueTime, cc.OsakaTime, cc.BogotaTime = new(uint64), nil, nil
	alloc := core.SystemContractAllocs()
	for _, a := range funded {
		balance := big.NewInt(1) // a wholly unknown account may have only one transaction waiting
		if o.Priced {
			balance.Lsh(balance, 90)
		}
		alloc[common.Address(a)] = types.Account{Balance: balance}
	}
	genesis := &core.Genesis{Config: &cc, GasLimit: 2_000_000_000, BaseFee: new(big.Int), Difficulty: new(big.Int), Alloc: alloc}
	if o.Priced {
		genesis.BaseFee = big.NewInt(params.InitialBaseFee)
	}

	nc := node.DefaultConfig
	nc.Name, nc.DataDir = "geth", ""
	nc.P2P = p2p.Config{NoDiscovery: true}
	nc.HTTPHost, nc.HTTPPort, nc.HTTPModules = "127.0.0.1", 0, []string{"eth", "parley"}
	nc.WSHost, nc.WSPort, nc.WSModules = "127.0.0.1", 0, []string{"eth", "parley"}
	nc.AuthAddr, nc.AuthPort, nc.IPCPath = "127.0.0.1", 0, ""
	ec := ethconfig.Defaults
	ec.Genesis, ec.NetworkId, ec.SyncMode = genesis, ChainID, ethconfig.FullSync
	ec.StateScheme, ec.NoPruning = "hash", true
	ec.DatabaseCache, ec.TrieCleanCache, ec.TrieDirtyCache, ec.SnapshotCache = 8, 8, 8, 8
	ec.TxPool.NoLocals, ec.TxPool.Journal = true, ""
	ec.Miner.GasCeil = genesis.GasLimit
	c := &Chain{t: t, Options: o}
	var err error
	check := func() {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	c.stack, err = node.New(&nc)
	check()
	c.eth, err = eth.New(c.stack, &ec)
	check()
	c.stack.RegisterAPIs([]rpc.API{{Namespace: "eth", Service: filters.NewFilterAPI(filters.NewFilterSystem(c.eth.APIBackend, filters.Config{}))}})
	if o.Clock {
		c.stack.RegisterAPIs([]rpc.API{{Namespace: "parley", Service: clock{}}})
	}
	err = c.stack.Start()
	check()
	t.Cleanup(func() {
		if err := c.stack.Close(); err != nil {
			t.Error(err)
		}
	})
	if !o.Priced {
		c.eth.TxPool().SetGasTip(new(big.Int))
		err = c.eth.Miner().SetGasTip(new(big.Int))
		check()
	}
	c.api = catalyst.NewConsensusAPI(c.eth)
	c.setHead(c.eth.BlockChain().Genesis().Hash())
	if o.Auto {
		c.mineOnDemand()
	}
	return c
}

// HTTP and WS are the chain's endpoints.
func (c *Chain) HTTP() string { return c.stack.HTTPEndpoint() }
func (c *Chain) WS() string   { return c.stack.WSEndpoint() }

// Head is the newest block.
func (c *Chain) Head() *types.Header { return c.eth.BlockChain().CurrentBlock() }

// Header is the block with a number, nil if there is none.
func (c *Chain) Header(number uint64) *types.Header {
	return c.eth.BlockChain().GetHeaderByNumber(number)
}

// Waiting reports whether a transaction could be mined.
func (c *Chain) Waiting() bool {
	pending, _ := c.eth.TxPool().Stats()
	return pending > 0
}

// Settle mines what waits and makes it final.
func (c *Chain) Settle() {
	for range c.Lag + 1 {
		c.Mine()
	}
}

// mineOnDemand makes blocks until the test ends.
func (c *Chain) mineOnDemand() {
	waiting := make(chan core.NewTxsEvent, 1024)
	sub := c.eth.TxPool().SubscribeTransactions(waiting, true)
	var done sync.WaitGroup
	done.Go(func() {
		for {
			select {
			case <-waiting:
				c.Mine()
			case <-sub.Err():
				return
			}
		}
	})
	c.t.Cleanup(func() {
		sub.Unsubscribe()
		done.Wait()
	})
}

// Mine makes one block of what waits, on the head.
func (c *Chain) Mine() common.Hash {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mineOn(c.eth.BlockChain().CurrentBlock(), 0)
}

// mineOn makes a block on a parent; salt makes it differ from others there.
func (c *Chain) mineOn(parent *types.Header, salt byte) common.Hash {
	if err := c.eth.TxPool().Sync(); err != nil {
		c.t.Error(err)
		return common.Hash{}
	}
	built, err := c.eth.Miner().BuildPayload(c.t.Context(), &miner.BuildPayloadArgs{
		Parent: parent.Hash(), Timestamp: parent.Time + 1, Random: common.Hash{salt}, Withdrawals: types.Withdrawals{}, BeaconRoot: &common.Hash{}, Version: engine.PayloadV3,
	}, false)
	if err != nil {
		c.t.Error(err)
		return common.Hash{}
	}
	envelope := built.ResolveFull()
	if envelope == nil {
		c.t.Error("no payload was built")
		return common.Hash{}
	}
	requests := []hexutil.Bytes{}
	for _, r := range envelope.Requests {
		requests = append(requests, r)
	}
	status, err := c.api.NewPayloadV4(c.t.Context(), *envelope.ExecutionPayload, []common.Hash{}, &common.Hash{}, requests)
	if err != nil || status.Status != engine.VALID {
		c.t.Errorf("new payload: %v %v", status, err)
		return common.Hash{}
	}
	c.setHead(envelope.ExecutionPayload.BlockHash)
	return envelope.ExecutionPayload.BlockHash
}

// setHead makes a block the head, and the one Lag below it final.
func (c *Chain) setHead(head common.Hash) {
	final := c.eth.BlockChain().GetHeaderByHash(head)
	for range c.Lag {
		if final.Number.Sign() > 0 {
			final = c.eth.BlockChain().GetHeaderByHash(final.ParentHash)
		}
	}
	status, err := c.api.ForkchoiceUpdatedV3(c.t.Context(), engine.ForkchoiceStateV1{HeadBlockHash: head, SafeBlockHash: final.Hash(), FinalizedBlockHash: final.Hash()}, nil)
	if err != nil || status.PayloadStatus.Status != engine.VALID {
		c.t.Errorf("fork choice: %v %v", status, err)
	}
}

// Reorg replaces the newest blocks by as many other, empty ones and one more.
func (c *Chain) Reorg(depth int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	chain := c.eth.BlockChain()
	parent := chain.CurrentBlock()
	for range depth {
		parent = chain.GetHeaderByHash(parent.ParentHash)
	}
	// Empty blocks: the pool is cleared, for a reorg puts the transactions back.
	for range depth + 1 {
		c.eth.TxPool().Clear()
		parent = chain.GetHeaderByHash(c.mineOn(parent, 1))
	}
}
