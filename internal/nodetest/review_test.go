package nodetest

import (
	"testing"
	"time"

	"github.com/parley-node/parley/internal/ledger"
)

// On a ledger that was idle for longer than receipts are valid, every receipt
// that was given before a pin is too old. Members give new ones.
func TestReceiptsThatAreTooOldAreRenewed(t *testing.T) {
	params := ledger.DefaultParams
	params.ReceiptAge = 1
	net := New(t, Options{Members: 3, Params: params, Tick: 10 * time.Millisecond})
	net.Ready()
	msg := net.Members[0].Broadcast(`"late"`, "idle")
	for _, m := range net.Members {
		m.Confirmed(msg.Header.ID)
	}
}
