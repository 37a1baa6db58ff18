package bundled

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/parley-node/parley/wire"
)

// Status is the answer of parley_status.
type Status struct {
	NodeID     string         `json:"nodeId"`
	PublicKey  wire.Hash      `json:"publicKey"` // this validator's ed25519 key
	Validating bool           `json:"validating"`
	Block      hexutil.Uint64 `json:"block"`  // number of the newest (and final) Ethereum block
	Height     hexutil.Uint64 `json:"height"` // height of the newest CometBFT block, empty ones included
	Time       hexutil.Uint64 `json:"time"`   // consensus time of Block, Unix nanoseconds
	Syncing    bool           `json:"syncing"`
	Validators []Validator    `json:"validators"`
	Peers      []Peer         `json:"peers"`
}

// Validator is a member of the current validator set.
type Validator struct {
	PublicKey wire.Hash      `json:"publicKey"`
	Power     hexutil.Uint64 `json:"power"`
}

// Peer is a connected validator or follower.
type Peer struct {
	NodeID   string `json:"nodeId"`
	Address  string `json:"address"`
	Outbound bool   `json:"outbound"`
}

// errStarting answers calls that come before consensus runs.
var errStarting = errors.New("the ledger is starting, ask again in a moment")

// parleyAPI serves the JSON-RPC namespace parley.
type parleyAPI struct {
	engine *engine
	status atomic.Pointer[func() (Status, error)] // set once consensus runs
}

// BlockTime (parley_blockTime) is a block's consensus time in Unix nanoseconds.
func (p *parleyAPI) BlockTime(_ context.Context, number rpc.BlockNumber) (hexutil.Uint64, error) {
	header := p.engine.head()
	if number >= 0 {
		if header = p.engine.chain.GetHeaderByNumber(uint64(number)); header == nil {
			return 0, fmt.Errorf("block %d does not exist, the newest is %d", number, p.engine.head().Number)
		}
	}
	if number == rpc.EarliestBlockNumber {
		header = p.engine.chain.Genesis().Header()
	}
	if header.Number.Sign() == 0 {
		return hexutil.Uint64(header.Time * 1e9), nil
	}
	return hexutil.Uint64(sealOf(header).time.UnixNano()), nil
}

// Status (parley_status) tells how this validator and its chain are.
func (p *parleyAPI) Status(context.Context) (Status, error) {
	status := p.status.Load()
	if status == nil {
		return Status{}, errStarting
	}
	return (*status)()
}

// ethAPI replaces methods of go-ethereum's eth namespace.
type ethAPI struct{ intake *intake }

// SendRawTransaction (eth_sendRawTransaction) takes a signed transaction in.
// Unlike go-ethereum's own it is idempotent, knows this chain's rules, and does
// not mind how many transactions of a new account are on their way.
func (e *ethAPI) SendRawTransaction(_ context.Context, raw hexutil.Bytes) (common.Hash, error) {
	tx := new(types.Transaction)
	if err := tx.UnmarshalBinary(raw); err != nil {
		return common.Hash{}, fmt.Errorf("decode transaction: %w", err)
	}
	return tx.Hash(), e.intake.add(tx, false)
}

// GasPrice (eth_gasPrice) is what wallets should offer: nothing.
func (e *ethAPI) GasPrice(context.Context) *hexutil.Big { return new(hexutil.Big) }

// MaxPriorityFeePerGas (eth_maxPriorityFeePerGas) is zero as well.
func (e *ethAPI) MaxPriorityFeePerGas(context.Context) *hexutil.Big { return new(hexutil.Big) }
