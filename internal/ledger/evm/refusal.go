package evm

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"

	"github.com/parley-node/parley/contracts"
	"github.com/parley-node/parley/internal/ethereum"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/wire"
)

// meanings says each of the network contract's errors in words, with the
// error's arguments in order. A test keeps it complete.
var meanings = map[string]string{
	"NoFounder":          "a network needs at least one founding member",
	"ZeroOrg":            "the organisation's id is zero",
	"ZeroKey":            "the key is zero",
	"UnknownKey":         "account %v is no member's key; ask the members to admit its organisation",
	"KeyNotValid":        "key %v is not valid any more: its organisation revoked it or was admitted anew; use one of its valid keys",
	"KeyValidAlready":    "key %v is valid already",
	"KeyOfOtherMember":   "key %v belongs or belonged to another organisation; use a fresh one",
	"LastKey":            "organisation %v would lose its last key; add another first",
	"AlreadyMember":      "organisation %v is a member already",
	"NotMember":          "organisation %v is not a member",
	"MemberNotActive":    "organisation %v is not an active member: it was suspended or removed, or never admitted",
	"MemberNotSuspended": "organisation %v is not suspended",
	"LastActiveMember":   "organisation %v is the last active member; it can only end the network by a proposal to terminate",
	"PolicyAboveMembers": "the policy asks for %v approvals, there are %v active members",
	"InvalidParams":      "the parameter %v is out of range; durations, the window, the receipt age and the version must be above zero",
	"UnknownValidator":   "validator %v has no power that could be taken",
	"LastValidator":      "validator %v is the last one; without it the ledger would stop for ever",
	"PowerTooHigh":       "the voting power %v is above the limit of %v",
	"InvalidSuccessor":   "%v cannot be the successor contract; give the address of the new network contract",
	"WrongArguments":     "the proposal's arguments have a wrong length of %v bytes",
	"UnknownProposal":    "there is no proposal %v",
	"ProposalExecuted":   "proposal %v is executed already",
	"VotedBefore":        "on proposal %v organisation %v has voted already",
	"TooManyHandles":     "a pin carries %v handles, at most %v are allowed; split the batch",
	"ControlTooLong":     "a pin's control has %v bytes, at most %v are allowed",
	"EmptyPin":           "a pin has neither a root nor a control",
	"HandlesWithoutRoot": "a pin without a root has handles, it must have none",
	"InvalidNode":        "the node's %v is missing, too long or too many",
	"PinExpired":         "the carried pin was valid up to block %v, this is block %v; sign it again with a later expiry",
	"PinCarriedBefore":   "the carried pin %v was pinned before",
	"InvalidSignature":   "the carried pin's signature is malformed, or not the lower of the two forms of s",
	"NetworkSucceeded":   "the network moved to the contract %v",
	"NetworkTerminated":  "the network was terminated by its members",
}

// refusalOf reads a contract's refusal out of an endpoint's error, nil if it is
// some other error.
func refusalOf(err error) *ledger.Refusal {
	revert := ethereum.RevertOf(err)
	switch {
	case revert == nil:
		return nil
	case len(revert.Data) >= 4:
		return &ledger.Refusal{Reason: reason(revert.Data)}
	}
	return &ledger.Refusal{Reason: "the contract reverted without a reason; the call does not fit what it expects"}
}

// reason says revert data, of at least 4 bytes, in words. Custom contracts may
// pass the network contract's errors on.
func reason(data []byte) string {
	if text, err := abi.UnpackRevert(data); err == nil {
		return text
	}
	raw := "0x" + hex.EncodeToString(data)
	e, err := contracts.NetworkABI.ErrorByID([4]byte(data[:4]))
	if err != nil {
		return "the contract reverted with its own error " + raw
	}
	values, err := e.Inputs.Unpack(data[4:])
	if err != nil {
		return e.Name + " " + raw
	}
	for i, v := range values {
		switch v := v.(type) {
		case [32]byte:
			values[i] = wire.Hash(v)
		case common.Address:
			values[i] = wire.Address(v)
		}
	}
	return fmt.Sprintf(meanings[e.Name], values...)
}

// isPin reports whether call data is a direct pin.
func isPin(data []byte) bool {
	return len(data) >= 4 && binary.BigEndian.Uint32(data) == pinSelector
}

var pinSelector = binary.BigEndian.Uint32(contracts.NetworkABI.Methods["pin"].ID)
