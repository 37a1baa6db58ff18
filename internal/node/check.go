package node

import (
	"context"
	"errors"

	"github.com/parley-node/parley/internal/blob/disk"
	"github.com/parley-node/parley/internal/check"
	"github.com/parley-node/parley/internal/ledger/evm"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// Check replays a member's database and reports what it holds otherwise than it
// should. The node may run meanwhile. With the ledger, the stored records are
// compared with the chain's, which then must be reachable.
func Check(ctx context.Context, c *Config, withLedger bool, report func(check.Difference)) (sum check.Summary, err error) {
	db, err := store.OpenToRead(ctx, store.Options{Path: c.database()})
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	blobs, err := disk.OpenToRead(c.path(c.Blobs.Dir))
	if err != nil {
		return sum, err
	}
	s := check.Source{
		DB: db, Namespace: c.Namespace, Network: wire.NetworkID(c.Ledger.ChainID, c.Ledger.Contract), Self: c.OrgID(), Blobs: blobs,
	}
	if withLedger {
		chain, err := openChain(ctx, c, evm.Config{Contract: c.Ledger.Contract, ChainID: c.Ledger.ChainID, FromBlock: c.Ledger.FromBlock})
		if err != nil {
			return sum, err
		}
		defer chain.Close()
		s.Ledger = chain
	}
	return check.Run(ctx, s, report)
}
