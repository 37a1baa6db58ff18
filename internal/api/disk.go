package api

import "github.com/parley-node/parley/internal/store"

// Disk is what the node keeps on disk, and when its volume will be full. It is
// beyond the reference.
type Disk struct {
	Measured store.Time       `json:"measured"`
	Used     map[string]int64 `json:"used"`             // bytes: database, blobs, and ledger where a validator runs
	Free     *int64           `json:"free,omitempty"`   // bytes of the volume that the node may use; absent where the system does not tell
	PerDay   *int64           `json:"perDay,omitempty"` // bytes a day that it grows by, at the rate of the last hour; absent before two measurements
	Full     *store.Time      `json:"full,omitempty"`   // when the volume is full at that rate; absent if it does not grow, or not within a century
}
