package sim

import (
	"crypto/sha256"

	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/wire"
)

// Contract is a custom contract: it answers calls to its address and may carry
// pins into the network contract. An error refuses the transaction; the
// pins that it carried before are then undone. It is called again when a fork
// replays the chain, so it must not keep state of its own.
type Contract func(from wire.Address, data []byte, carry func(CarriedPin) error) error

// CarriedPin is the argument of the network contract's pinBatchData: a pin
// with a member key's signature over wire.CarriedPinDigest.
type CarriedPin struct {
	Pin       wire.Pin
	Expiry    uint64 // last block in which it may be pinned
	Signature wire.Signature
}

// Install deploys a custom contract and returns its address.
func (c *Chain) Install(contract Contract) wire.Address {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := sha256.Sum256(append([]byte("custom contract"), byte(len(c.customs)), byte(len(c.customs)>>8)))
	var a wire.Address
	copy(a[:], sum[:])
	c.customs[a] = contract
	return a
}

func (c *Chain) callCustom(from wire.Address, call ledger.ContractCall) error {
	if call.To == nil {
		return refuse("the simulated ledger deploys no bytecode; install a contract in Go")
	}
	contract := c.customs[*call.To]
	if contract == nil {
		return refuse("there is no contract at %s", *call.To)
	}
	var used []wire.Hash
	err := contract(from, call.Data, func(p CarriedPin) error {
		digest, err := c.carry(*call.To, p)
		if err == nil {
			used = append(used, digest)
		}
		return err
	})
	if err != nil {
		c.contract.emitted = nil
		for _, digest := range used {
			delete(c.contract.carried, digest)
		}
		return refuse("the contract at %s: %v", *call.To, err)
	}
	return nil
}

// carry pins for whoever signed, not for the account that sent the
// transaction.
func (c *Chain) carry(via wire.Address, p CarriedPin) (wire.Hash, error) {
	digest := wire.CarriedPinDigest(c.cfg.ChainID, c.cfg.Contract, via, p.Expiry, p.Pin)
	if n := uint64(len(c.blocks)); n > p.Expiry {
		return digest, refuse("the carried pin expired at block %d, this is block %d", p.Expiry, n)
	}
	signer, err := wire.RecoverAddress(digest, p.Signature)
	if err != nil {
		return digest, refuse("the carried pin's signature: %v", err)
	}
	org, err := c.contract.caller(signer)
	if err != nil {
		return digest, err
	}
	if c.contract.carried[digest] {
		return digest, refuse("the carried pin %s was pinned before", digest.Short())
	}
	if err := c.contract.pin(signer, org, p.Pin, via); err != nil {
		return digest, err
	}
	c.contract.carried[digest] = true
	return digest, nil
}
