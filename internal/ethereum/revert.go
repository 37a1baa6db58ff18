package ethereum

import (
	"errors"
	"strings"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/rpc"
)

// Revert is a contract's refusal of a call. Data is what it returned: an encoded
// error, or nothing.
type Revert struct{ Data []byte }

func (r *Revert) Error() string {
	return "execution reverted"
}

// RevertOf reads a contract's refusal out of an endpoint's error, nil if it is
// some other error.
func RevertOf(err error) *Revert {
	var answer rpc.Error
	if !errors.As(err, &answer) {
		return nil
	}
	var revert rpc.DataError
	if errors.As(err, &revert) {
		if text, ok := revert.ErrorData().(string); ok {
			if data := common.FromHex(text); len(data) > 0 {
				return &Revert{Data: data}
			}
		}
	}
	if strings.Contains(strings.ToLower(answer.Error()), "revert") {
		return &Revert{}
	}
	return nil
}
