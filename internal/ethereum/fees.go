package ethereum

import (
	"context"
	"fmt"
	"math/big"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rpc"
)

// Fees is how a transaction's offer for gas is found.
type Fees int

const (
	FeesAuto    Fees = iota // EIP-1559 where blocks have a base fee, else the price that the endpoint suggests
	FeesZero                // nothing: the bundled ledger, and permissioned chains with free gas
	FeesLegacy              // the price that the endpoint suggests
	FeesDynamic             // EIP-1559: twice the base fee, and the tip that the endpoint suggests
	FeesFixed               // always the same price; only with a FeePolicy
)

// feeNames are the words of the configuration, in the order of the constants.
var feeNames = []string{"auto", "zero", "legacy", "dynamic", "fixed"}

// ParseFees reads auto, zero, legacy or dynamic.
func ParseFees(s string) (Fees, error) {
	for i, name := range feeNames[:FeesFixed] {
		if s == name {
			return Fees(i), nil
		}
	}
	return 0, fmt.Errorf("fees %q is not one of auto, zero, legacy, dynamic", s)
}

// FeePolicy is what transactions of a signer offer to pay, in wei per gas.
type FeePolicy struct {
	Fees  Fees
	Price *big.Int // of FeesFixed
	Cap   *big.Int // the most to offer, however often an offer is raised; nil for no limit
}

// ParseFeePolicy reads a policy: one of the words of ParseFees, or fixed with a
// price. price and limit are decimal numbers of wei per gas, empty for none.
func ParseFeePolicy(fees, price, limit string) (p FeePolicy, err error) {
	number := func(name, text string) *big.Int {
		n, ok := new(big.Int).SetString(text, 10)
		if err == nil && (!ok || n.Sign() < 0 || n.BitLen() > 256) {
			err = fmt.Errorf("%s %q is not a whole number of wei per gas", name, text)
		}
		return n
	}
	if limit != "" {
		p.Cap = number("maxGasPrice", limit)
	}
	if fees != feeNames[FeesFixed] {
		if price != "" {
			return p, fmt.Errorf("gasPrice %q is set, but fees are %q; set fees to fixed, or leave gasPrice out", price, fees)
		}
		var kind error
		if p.Fees, kind = ParseFees(fees); kind != nil {
			return p, fmt.Errorf("fees %q is not one of auto, zero, legacy, dynamic, fixed", fees)
		}
		return p, err
	}
	if price == "" {
		return p, fmt.Errorf("fees are fixed, but gasPrice is missing; set it to a whole number of wei per gas")
	}
	p.Fees, p.Price = FeesFixed, number("gasPrice", price)
	return p, err
}

// Offer is a transaction's price per gas.
type Offer struct {
	Price    *big.Int // of a legacy transaction
	Tip, Cap *big.Int // of a dynamic one (EIP-1559); nil in a legacy one
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

// Raised is the offer after some bumps, within a limit if there is one.
func (o Offer) Raised(bump int, limit *big.Int) Offer {
	within := func(n *big.Int) *big.Int {
		if n = raised(n, bump); limit != nil && n.Cmp(limit) > 0 {
			return limit
		}
		return n
	}
	if o.Tip == nil {
		return Offer{Price: within(o.Price)}
	}
	r := Offer{Tip: within(o.Tip), Cap: within(o.Cap)}
	if r.Tip.Cmp(r.Cap) > 0 { // a tip above the cap is refused by every node
		r.Tip = r.Cap
	}
	return r
}

// Beats says whether an offer is high enough above another for nodes to replace
// a waiting transaction: a tenth, in each part.
func (o Offer) Beats(other Offer) bool {
	more := func(a, b *big.Int) bool {
		least := new(big.Int).Mul(b, big.NewInt(11))
		return a.Sign() > 0 && new(big.Int).Mul(a, big.NewInt(10)).Cmp(least) >= 0
	}
	tip, most := o.parts()
	otherTip, otherMost := other.parts()
	return more(tip, otherTip) && more(most, otherMost)
}

// parts are tip and cap; a legacy price is both.
func (o Offer) parts() (tip, most *big.Int) {
	if o.Tip == nil {
		return o.Price, o.Price
	}
	return o.Tip, o.Cap
}

// Offer finds what to offer now, after some bumps.
func (p FeePolicy) Offer(ctx context.Context, e *Endpoints, bump int) (Offer, error) {
	o, err := p.market(ctx, e)
	if err != nil {
		return o, err
	}
	return o.Raised(bump, p.Cap), nil
}

// market is the offer before any bump.
func (p FeePolicy) market(ctx context.Context, e *Endpoints) (o Offer, err error) {
	switch p.Fees {
	case FeesZero:
		return Offer{Price: new(big.Int)}, nil
	case FeesFixed:
		return Offer{Price: p.Price}, nil
	}
	var head *Header
	var price, tip hexutil.Big
	err = e.Do(ctx, func(ctx context.Context, c *rpc.Client) error {
		var b Batch
		b.Add(&head, "eth_getBlockByNumber", "latest", false)
		b.Add(&price, "eth_gasPrice")
		b.Optional(&tip, "eth_maxPriorityFeePerGas")
		return b.Run(ctx, c)
	})
	switch {
	case err != nil:
		return o, fmt.Errorf("ask the ledger for the price of gas: %w", err)
	case head == nil:
		return o, fmt.Errorf("ask the ledger for the price of gas: the endpoint knows no newest block")
	case p.Fees == FeesDynamic && head.BaseFee == nil:
		return o, fmt.Errorf("fees are set to dynamic, but this chain's blocks have no base fee; set them to auto or legacy")
	case p.Fees == FeesLegacy || head.BaseFee == nil:
		return Offer{Price: price.ToInt()}, nil
	}
	most := new(big.Int).Lsh(head.BaseFee.ToInt(), 1)
	most.Add(most, tip.ToInt())
	return Offer{Tip: tip.ToInt(), Cap: most}, nil
}

// Transaction lays out an unsigned transaction that makes the offer. to is nil
// to create a contract.
func (o Offer) Transaction(chainID *big.Int, nonce, gas uint64, to *common.Address, value *big.Int, data []byte) *types.Transaction {
	if o.Tip == nil {
		return types.NewTx(&types.LegacyTx{Nonce: nonce, GasPrice: o.Price, Gas: gas, To: to, Value: value, Data: data})
	}
	return types.NewTx(&types.DynamicFeeTx{
		ChainID: chainID, Nonce: nonce, GasTipCap: o.Tip, GasFeeCap: o.Cap, Gas: gas, To: to, Value: value, Data: data,
	})
}
