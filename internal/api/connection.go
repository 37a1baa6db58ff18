package api

import "github.com/parley-node/parley/internal/store"

// stateConnected is the state of a connection that works.
const stateConnected = "connected"

// Connection is how the node and its ledger are connected now.
type Connection struct {
	State     string     `json:"state"`               // connected, waiting, standby, or stopped: the ledger broke its promise
	Waiting   string     `json:"waiting,omitempty"`   // for what, in words
	Validator *Validator `json:"validator,omitempty"` // this member's, of the bundled ledger
}

// Validator is the process that takes part in the bundled ledger for this
// member.
type Validator struct {
	Phase    string      `json:"phase"`
	PID      int         `json:"pid,omitempty"`
	RPC      string      `json:"rpc,omitempty"` // JSON-RPC URL
	Restarts int         `json:"restarts"`
	Since    *store.Time `json:"since,omitempty"` // of the phase
	Error    string      `json:"error,omitempty"` // why the last process ended by itself
}
