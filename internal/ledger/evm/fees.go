package evm

import (
	"context"
	"fmt"

	"github.com/ethereum/go-ethereum/common"

	"github.com/parley-node/parley/internal/ethereum"
	"github.com/parley-node/parley/internal/ledger"
)

// Fees is what a transaction offers to pay for gas.
type Fees = ethereum.Fees

const (
	FeesAuto    = ethereum.FeesAuto
	FeesZero    = ethereum.FeesZero
	FeesLegacy  = ethereum.FeesLegacy
	FeesDynamic = ethereum.FeesDynamic
)

// ParseFees reads auto, zero, legacy or dynamic.
func ParseFees(s string) (Fees, error) { return ethereum.ParseFees(s) }

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
	gas, err := ethereum.Call[ethereum.Quantity](ctx, l.endpoints, "eth_estimateGas", ethereum.Message{From: &from, To: to, Data: data})
	if refusal := refusalOf(err); refusal != nil {
		return 0, refusal
	}
	if err != nil {
		return 0, fmt.Errorf("estimate the gas of a call: %w", err)
	}
	return uint64(gas) + uint64(gas)/4, nil // the state may be another when it is mined
}
