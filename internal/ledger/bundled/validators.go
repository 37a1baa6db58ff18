package bundled

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"

	abci "github.com/cometbft/cometbft/abci/types"
	cmtcrypto "github.com/cometbft/cometbft/crypto/ed25519"
	cmttypes "github.com/cometbft/cometbft/types"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
)

// validatorChanged is the network contract's event
//
//	ValidatorChanged(uint64 indexed number, bytes32 indexed running,
//	                 address indexed signer, bytes32 key, uint64 power)
//
// The members agreed that the validator with this ed25519 key has this power
// from now on; power 0 removes it.
var validatorChanged = crypto.Keccak256Hash([]byte("ValidatorChanged(uint64,bytes32,address,bytes32,uint64)"))

// validatorUpdates reads the changes that a block's logs make to the validator
// set that current describes. CometBFT stops the chain on a change that it
// cannot make, so one that would empty the set, overflow the total power or
// remove nobody is left out. All validators leave out the same ones.
func validatorUpdates(contract common.Address, receipts types.Receipts, current *cmttypes.ValidatorSet, log *slog.Logger) []abci.ValidatorUpdate {
	next := current
	for _, receipt := range receipts {
		for _, l := range receipt.Logs {
			if l.Address != contract || contract == (common.Address{}) || len(l.Topics) != 4 || l.Topics[0] != validatorChanged || len(l.Data) != 64 {
				continue
			}
			key, power := l.Data[:32], binary.BigEndian.Uint64(l.Data[56:])
			changed, err := withPower(next, key, power)
			if err != nil {
				log.Warn("validator change left out", "key", common.Bytes2Hex(key), "power", power, "err", err)
				continue
			}
			next = changed
		}
	}
	if next == current {
		return nil
	}
	var updates []abci.ValidatorUpdate
	for _, v := range next.Validators {
		if _, old := current.GetByAddress(v.Address); old == nil || old.VotingPower != v.VotingPower {
			updates = append(updates, abci.Ed25519ValidatorUpdate(v.PubKey.Bytes(), v.VotingPower))
		}
	}
	for _, v := range current.Validators {
		if !next.HasAddress(v.Address) {
			updates = append(updates, abci.Ed25519ValidatorUpdate(v.PubKey.Bytes(), 0))
		}
	}
	return updates
}

// withPower returns a copy of set in which the validator has the power.
func withPower(set *cmttypes.ValidatorSet, key []byte, power uint64) (*cmttypes.ValidatorSet, error) {
	if power > uint64(cmttypes.MaxTotalVotingPower) {
		return nil, fmt.Errorf("power is above the limit %d", cmttypes.MaxTotalVotingPower)
	}
	pub := cmtcrypto.PubKey(bytes.Clone(key))
	if power == 0 && set.HasAddress(pub.Address()) && set.Size() == 1 {
		return nil, errors.New("the last validator cannot leave")
	}
	next := set.Copy()
	if err := next.UpdateWithChangeSet([]*cmttypes.Validator{cmttypes.NewValidator(pub, int64(power))}); err != nil {
		return nil, err
	}
	return next, nil
}
