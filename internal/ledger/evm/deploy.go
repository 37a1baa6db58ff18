package evm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/parley-node/parley/contracts"
	"github.com/parley-node/parley/internal/ethereum"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/wire"
)

// Founding is what a network starts with.
type Founding struct {
	Members    []ledger.MemberAdmitted
	Params     ledger.Params
	Policy     ledger.Policy
	Epoch1     wire.Hash                 // hash of the network audience's first EpochDefinition
	Validators []ledger.ValidatorChanged // those of the bundled ledger's genesis; none on other chains
}

// Deployed is where a network contract stands.
type Deployed struct {
	Contract wire.Address
	Block    uint64 // good for Config.FromBlock
	TxHash   wire.Hash
}

// creation is the data of the transaction that creates the network contract.
func (f Founding) creation() ([]byte, error) {
	type founder struct {
		Org [32]byte
		Key common.Address
	}
	type validator struct {
		Key   [32]byte
		Power uint64
	}
	founders, validators := []founder{}, []validator{}
	for _, m := range f.Members {
		founders = append(founders, founder{m.Org, common.Address(m.Key)})
	}
	for _, v := range f.Validators {
		validators = append(validators, validator{v.Key, v.Power})
	}
	args, err := contracts.NetworkABI.Pack("", founders, *paramsOf(f.Params), f.Policy.Approvals, [32]byte(f.Epoch1), validators)
	if err != nil {
		return nil, fmt.Errorf("encode the founding: %w", err)
	}
	return slices.Concat(contracts.NetworkBytecode, args), nil
}

// SignDeploy makes the transaction that creates a network contract, and tells
// its address. As with Sign, the caller may store the result before it sends it.
// A founding that the contract would refuse gives a *ledger.Refusal.
func (l *Ledger) SignDeploy(ctx context.Context, from wire.Address, nonce uint64, f Founding) (ledger.Signed, wire.Address, error) {
	data, err := f.creation()
	if err != nil {
		return ledger.Signed{}, wire.Address{}, err
	}
	gas, err := l.estimate(ctx, common.Address(from), nil, data)
	if err != nil {
		return ledger.Signed{}, wire.Address{}, fmt.Errorf("deploy the network contract: %w", err)
	}
	tx, err := l.sign(ctx, from, nonce, 0, gas, nil, data)
	return tx, contracts.AddressOf(from, nonce), err
}

// Deploy creates a network contract with the account's next nonce and waits
// until that is final. Open the ledger again with the result.
func (l *Ledger) Deploy(ctx context.Context, from wire.Address, f Founding) (Deployed, error) {
	s, err := l.State(ctx, &from)
	if err != nil {
		return Deployed{}, err
	}
	tx, address, err := l.SignDeploy(ctx, from, s.Nonce, f)
	if err != nil {
		return Deployed{}, err
	}
	if err := l.Send(ctx, tx); err != nil {
		return Deployed{}, err
	}
	d := Deployed{Contract: address, TxHash: tx.Hash}
	if err := l.wait(ctx, tx); err != nil {
		return d, fmt.Errorf("deploy the network contract %s: %w", address, err)
	}
	mined, err := ethereum.Call[*receipt](ctx, l.endpoints, "eth_getTransactionReceipt", common.Hash(tx.Hash))
	if err != nil {
		return d, fmt.Errorf("deploy the network contract %s: %w", address, err)
	}
	if mined == nil || mined.ContractAddress == nil || wire.Address(*mined.ContractAddress) != address {
		return d, fmt.Errorf("deploy the network contract %s: the receipt of transaction %s names another address", address, tx.Hash)
	}
	d.Block = uint64(mined.BlockNumber)
	return d, nil
}

// wait until a transaction is final. What keeps the ledger from telling (it is
// out of reach, or busy with its index) may pass, so only the context ends it.
func (l *Ledger) wait(ctx context.Context, tx ledger.Signed) error {
	tick := time.NewTicker(l.poll)
	defer tick.Stop()
	for {
		settled, err := l.Outcome(ctx, tx)
		if settled || errors.Is(err, ledger.ErrNonceUsed) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-tick.C:
		}
	}
}
