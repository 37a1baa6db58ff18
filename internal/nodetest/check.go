package nodetest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/parley-node/parley/internal/check"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// Check waits until nothing is under way at the members that run, then replays
// what each member's database holds, also of those that are down. Every
// difference fails the test.
func (net *Net) Check() {
	net.t.Helper()
	net.Quiet()
	for _, m := range net.Members {
		for _, d := range m.Differences() {
			net.t.Errorf("%s: check: %s", m.Name, d)
		}
	}
}

// Differences checks the member's database as it is.
func (m *Member) Differences() (list []check.Difference) {
	t := m.net.t
	t.Helper()
	var db *store.DB
	if m.Node != nil {
		db = m.DB
	} else {
		var err error
		db, err = store.Open(context.Background(), store.Options{Path: m.Path}) // also when the test has ended
		must(t, err)
		defer func() { must(t, db.Close()) }()
	}
	_, err := check.Run(context.Background(), m.Source(db), func(d check.Difference) { list = append(list, d) })
	must(t, err)
	return list
}

// Source is what a check of the member needs, over its own database or a copy.
func (m *Member) Source(db *store.DB) check.Source {
	return check.Source{
		DB: db, Namespace: "default", Network: wire.NetworkID(chainID, contract), Self: m.Org,
		Blobs: m.blobs(), Ledger: m.net.Chain.Connect(m.keys),
	}
}

// Quiet waits until no running member has anything under way: no message
// without a verdict, no parcel for a running peer, no call that is not final.
// Waits of the network itself, such as parcels for members that are down, do
// not count.
func (net *Net) Quiet() {
	net.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		m, busy := net.busy()
		if m == nil {
			return
		}
		last, err := m.Events.Last(ctx)
		if ctx.Err() != nil {
			net.t.Fatalf("after %s there is still something under way at %s: %s", patience, m.Name, busy)
		}
		must(net.t, err)
		wait, done := context.WithTimeout(ctx, 20*time.Millisecond)
		_ = m.Events.Next(wait, last) // woken or not, it is looked at again
		done()
	}
}

// busy finds a member that has something under way, and says what; nil if all
// is quiet.
func (net *Net) busy() (*Member, string) {
	net.t.Helper()
	chain, err := net.observer.State(context.Background(), nil)
	must(net.t, err)
	down := map[wire.OrgID]bool{}
	for _, m := range net.Members {
		down[m.Org] = m.Node == nil
	}
	for _, m := range net.Members {
		if m.Node == nil {
			continue
		}
		what := ""
		must(net.t, m.DB.Read(context.Background(), func(tx *store.Tx) (err error) {
			what, err = underWay(tx, chain.Records, down)
			return err
		}))
		if what != "" {
			return m, what
		}
	}
	return nil, ""
}

func underWay(tx *store.Tx, records uint64, down map[wire.OrgID]bool) (string, error) {
	for what, query := range map[string]string{
		"messages of ours": `SELECT COUNT(*) FROM messages WHERE state IN ('ready', 'sent')`,
		"arrivals":         `SELECT COUNT(*) FROM arrivals`,
		"ledger calls":     `SELECT COUNT(*) FROM submissions WHERE state IN ('queued', 'signed')`,
		"batches of ours":  `SELECT COUNT(*) FROM batches WHERE own AND state IN ('collecting', 'pinning')`,
	} {
		var n int
		if err := tx.QueryRow(query).Scan(&n); err != nil {
			return "", err
		}
		if n > 0 {
			return fmt.Sprintf("%d %s", n, what), nil
		}
	}
	whole := true
	for _, d := range down {
		whole = whole && !d
	}
	var open int
	if err := tx.QueryRow(`SELECT COUNT(*) FROM pins WHERE state = 'open'`).Scan(&open); err != nil {
		return "", err
	}
	if whole && open > 0 { // else who is down may have what they lack
		return fmt.Sprintf("%d open pins", open), nil
	}
	pending, err := tx.Query(`SELECT DISTINCT org FROM messages WHERE state = 'pending'`)
	if err != nil {
		return "", err
	}
	defer pending.Close()
	for pending.Next() {
		var org wire.OrgID
		if err := pending.Scan(&org); err != nil {
			return "", err
		}
		if !down[org] { // whoever is down may have sent a batch, and not pinned it
			return "messages of " + org.Short() + " without a verdict", nil
		}
	}
	waiting, err := tx.OutboxByPeer()
	if err != nil {
		return "", err
	}
	for _, w := range waiting {
		if !down[w.Peer] {
			return strings.TrimSpace(fmt.Sprintf("%d parcels for %s %s", w.Waiting, w.Peer.Short(), w.Error)), nil
		}
	}
	through, err := tx.Meta(store.MetaConfirmed)
	if err != nil || through != fmt.Sprint(records) {
		return fmt.Sprintf("%s of %d records applied", through, records), err
	}
	return "", nil
}
