package evm

import (
	"context"
	"fmt"
	"math/big"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/parley-node/parley/internal/ledger"
)

// Fees is what a transaction offers to pay for gas.
type Fees int

const (
	FeesAuto    Fees = iota // EIP-1559 where blocks have a base fee, else the price that the endpoint suggests
	FeesZero                // nothing: the bundled ledger, and permissioned chains with free gas
	FeesLegacy              // the price that the endpoint suggests
	FeesDynamic             // EIP-1559: twice the base fee, and the tip that the endpoint suggests
)

// ParseFees reads auto, zero, legacy or dynamic.
func ParseFees(s string) (Fees, error) {
	for i, name := range []string{"auto", "zero", "legacy", "dynamic"} {
		if s == name {
			return Fees(i), nil
		}
	}
	return 0, fmt.Errorf("fees %q is not one of auto, zero, legacy, dynamic", s)
}

// offer is a transaction's price per gas.
type offer struct {
	price    *big.Int // of a legacy transaction
	tip, cap *big.Int // of a dynamic one; nil in a legacy one
}

// raised makes an offer a quarter higher for each bump: nodes replace a waiting
// transaction for a tenth more, and the market may have fallen since.
func raised(n *big.Int, bump int) *big.Int {
	n = new(big.Int).Set(n)
	for range bump {
		n.Mul(n, big.NewInt(5)).Add(n, big.NewInt(3)).Div(n, big.NewInt(4)) // rounds up: 1 wei becomes 2
	}
	return n
}

func (l *Ledger) offer(ctx context.Context, bump int) (o offer, err error) {
	if l.fees == FeesZero {
		return offer{price: new(big.Int)}, nil
	}
	var head *header
	var price, tip hexutil.Big
	err = l.endpoints.do(ctx, func(ctx context.Context, c *rpc.Client) error {
		var b batch
		b.add(&head, "eth_getBlockByNumber", "latest", false)
		b.add(&price, "eth_gasPrice")
		b.optional(&tip, "eth_maxPriorityFeePerGas")
		return b.run(ctx, c)
	})
	switch {
	case err != nil:
		return o, fmt.Errorf("ask the ledger for the price of gas: %w", err)
	case head == nil:
		return o, fmt.Errorf("ask the ledger for the price of gas: the endpoint knows no newest block")
	case l.fees == FeesDynamic && head.BaseFee == nil:
		return o, fmt.Errorf("fees are set to dynamic, but this chain's blocks have no base fee; set them to auto or legacy")
	case l.fees == FeesLegacy || head.BaseFee == nil:
		return offer{price: raised(price.ToInt(), bump)}, nil
	}
	most := new(big.Int).Lsh(head.BaseFee.ToInt(), 1)
	most.Add(most, tip.ToInt())
	return offer{tip: raised(tip.ToInt(), bump), cap: raised(most, bump)}, nil
}

// transaction lays out an unsigned transaction. to is nil to create a contract.
func (l *Ledger) transaction(nonce, gas uint64, to *common.Address, data []byte, o offer) *types.Transaction {
	if o.tip == nil {
		return types.NewTx(&types.LegacyTx{Nonce: nonce, GasPrice: o.price, Gas: gas, To: to, Data: data})
	}
	return types.NewTx(&types.DynamicFeeTx{
		ChainID: l.signer.ChainID(), Nonce: nonce, GasTipCap: o.tip, GasFeeCap: o.cap, Gas: gas, To: to, Data: data,
	})
}

// gas is how much a call may burn. Calls of the network contract get a bound
// that holds in every state it can be in when they are mined, without asking: a
// vote that is estimated as one of many may be the one that executes. Other
// contracts are estimated, which also tells at once if they refuse.
func (l *Ledger) gas(ctx context.Context, from common.Address, to *common.Address, data []byte, call ledger.Call) (uint64, error) {
	perByte := 48 * uint64(len(data)) // call data at its floor price of EIP-7623, or read, hashed, kept in memory and logged
	switch call.(type) {
	case ledger.PinCall, ledger.RegisterNodeCall:
		return 200_000 + perByte, nil
	case ledger.AddKeyCall, ledger.RevokeKeyCall:
		return 500_000 + perByte, nil
	case ledger.ProposeCall, ledger.VoteCall:
		return 2_000_000 + perByte, nil // enough to count the votes of 200 members
	}
	return l.estimate(ctx, from, to, data)
}

func (l *Ledger) estimate(ctx context.Context, from common.Address, to *common.Address, data []byte) (uint64, error) {
	gas, err := call[quantity](ctx, l.endpoints, "eth_estimateGas", message{From: &from, To: to, Data: data})
	if refusal := refusalOf(err); refusal != nil {
		return 0, refusal
	}
	if err != nil {
		return 0, fmt.Errorf("estimate the gas of a call: %w", err)
	}
	return uint64(gas) + uint64(gas)/4, nil // the state may be another when it is mined
}
