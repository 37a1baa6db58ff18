package order

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/parley-node/parley/wire"
)

// Outcome is what a receipt or a certificate did.
type Outcome struct {
	Counts    bool   // it is valid for a live entry, now or before
	Why       string // why it does not count
	Later     bool   // it names a block that is not final here yet, and is kept until it is
	Certified bool   // the entry has enough receipts now
	Contested bool   // and enough votes against it are pinned: pin the certificate before SkipDue
	Incidents []Incident
}

type receiptKey struct {
	org   wire.OrgID
	entry wire.Entry
}

const notOpen = "no open entry of this audience has that author and root"

// Receipt takes a receipt for a live entry. One that is not for a live entry
// does not count; the caller keeps it in case the pin is still to come.
func (a *Audience) Receipt(r wire.Receipt) (out Outcome) {
	e := a.entries[wire.Entry{Author: r.Author, Root: r.Root}]
	if e == nil {
		return Outcome{Why: notOpen}
	}
	out.Why, out.Later = a.receipt(e, r)
	out.Counts = out.Why == ""
	return a.settle(e, out)
}

// Certificate takes all receipts of a certificate. It counts if the entry is
// certified with them.
func (a *Audience) Certificate(c wire.Certificate) (out Outcome) {
	e := a.entries[wire.Entry{Author: c.Author, Root: c.Root}]
	if e == nil {
		return Outcome{Why: notOpen}
	}
	why := "it has no receipts"
	for _, r := range c.Receipts {
		w, later := a.receipt(e, r)
		if w != "" {
			why = fmt.Sprintf("receipt of %s: %s", r.Org.Short(), w)
		}
		out.Later = out.Later || later
	}
	if out.Counts = e.certified(); !out.Counts {
		out.Why = fmt.Sprintf("%d of %d receipts count; %s", len(e.Receipts), e.C, why)
	}
	return a.settle(e, out)
}

func (a *Audience) settle(e *entry, out Outcome) Outcome {
	out.Certified = e.certified()
	out.Contested = out.Certified && e.SkipDue != 0 && !e.Pinned
	out.Incidents = a.drain().Incidents
	return out
}

// receipt counts one receipt for an entry.
func (a *Audience) receipt(e *entry, r wire.Receipt) (why string, later bool) {
	if _, has := e.receipted(r.Org); has {
		return "", false
	}
	if !a.voter(&e.Entry, r.Org) {
		return fmt.Sprintf("%s is not one of the other members at %s", r.Org.Short(), e.Position), false
	}
	if why = a.checkReceipt(r, e.claim()); why != "" {
		return why, false
	}
	if why, later = a.checkRecent(r, max(a.head, a.through.Block)); later {
		a.early[receiptKey{r.Org, e.id()}] = r
	}
	if why != "" {
		return why, later
	}
	a.count(e, r.Org)
	return "", false
}

// count counts a valid receipt.
func (a *Audience) count(e *entry, org wire.OrgID) {
	i, has := e.receipted(org)
	if has {
		return
	}
	e.Receipts = slices.Insert(e.Receipts, i, org)
	if e.voted(org) >= 0 {
		a.effects.incidents = append(a.effects.incidents, Incident{org, e.id()})
	}
	if len(e.Receipts) != int(e.C) {
		return
	}
	if e.SkipDue != 0 && !e.Pinned {
		a.effects.contested = append(a.effects.contested, e.id())
	}
	a.certify(e)
}

// retryEarly looks again at receipts whose block may be final now.
func (a *Audience) retryEarly() {
	for key, r := range a.early {
		e := a.entries[key.entry]
		if e == nil || r.RecentNumber <= a.head {
			delete(a.early, key)
		}
		if e != nil && r.RecentNumber <= a.head {
			a.receipt(e, r)
		}
	}
}

// pinCertificate takes a certificate that a pin carries. Whether it counts is
// a function of the ledger alone, so nothing that is here already helps it.
func (a *Audience) pinCertificate(p Pin, c wire.Certificate) (why string) {
	e := a.find(wire.Entry{Author: c.Author, Root: c.Root})
	switch {
	case e == nil:
		return "no earlier entry has that author and root"
	case e.Status == Skipped || e.SkipDue != 0 && e.SkipDue <= a.now:
		return "the entry is skipped already"
	case e.Pinned:
		return "" // once is enough
	}
	counted, why := a.countValid(c.Receipts, e.claim(), p.Position.Block, func(org wire.OrgID) bool { return a.voter(&e.Entry, org) })
	if len(counted) < int(e.C) {
		return fmt.Sprintf("%d of %d receipts count; %s", len(counted), e.C, why)
	}
	e.Pinned = true
	a.touch(e)
	if e.Status != Open { // nothing more can happen to it
		delete(a.entries, e.id())
		delete(a.voted, e)
		return ""
	}
	for _, org := range counted {
		a.count(e, org)
	}
	return ""
}

// Certifies tells whether these receipts alone are a certificate of an entry,
// open or decided. Where only what remains of a batch is here, they must be those
// that agree about what is gone.
func (a *Audience) Certifies(e Entry, receipts []wire.Receipt) bool {
	if a.epoch(e.Epoch) == nil {
		return false
	}
	counted, _ := a.countValid(receipts, e.claim(), max(a.head, a.through.Block), func(org wire.OrgID) bool { return a.voter(&e, org) })
	return len(counted) >= int(e.C)
}

// countValid gives the distinct eligible organisations whose receipts are
// valid, looking at no block above horizon, and the last reason why one is not.
func (a *Audience) countValid(receipts []wire.Receipt, c claim, horizon uint64, eligible func(wire.OrgID) bool) (counted []wire.OrgID, why string) {
	why = "there are no others"
	for _, r := range receipts {
		if slices.Contains(counted, r.Org) {
			continue
		}
		if !eligible(r.Org) {
			why = fmt.Sprintf("%s cannot receipt it", r.Org.Short())
			continue
		}
		w := a.checkReceipt(r, c)
		if w == "" {
			w, _ = a.checkRecent(r, horizon)
		}
		if w != "" {
			why = fmt.Sprintf("receipt of %s: %s", r.Org.Short(), w)
			continue
		}
		counted = append(counted, r.Org)
	}
	return counted, why
}

// claim is what a receipt must be for.
type claim struct {
	author wire.OrgID
	root   wire.Hash
	epoch  uint64
	at     wire.Position // of the pin
	age    uint64        // K
}

func (e *Entry) claim() claim {
	return claim{author: e.Author, root: e.Root, epoch: e.Epoch, at: e.Position, age: e.ReceiptAge}
}

// checkReceipt tests all of a receipt but its recent block: it is for this
// batch on this network, not older than K blocks before the pin, and signed by
// a key that its organisation had at the position of the pin.
func (a *Audience) checkReceipt(r wire.Receipt, c claim) (why string) {
	switch {
	case r.Version != wire.Version:
		return fmt.Sprintf("version is %d, want %d", r.Version, wire.Version)
	case r.Network != a.current().Network:
		return fmt.Sprintf("network is %s, want %s", r.Network.Short(), a.current().Network.Short())
	case r.Audience != a.id:
		return fmt.Sprintf("audience is %s, want %s", r.Audience.Short(), a.id.Short())
	case r.Epoch != c.epoch:
		return fmt.Sprintf("epoch is %d, want %d", r.Epoch, c.epoch)
	case r.Author != c.author || r.Root != c.root:
		return "it is for another batch"
	case r.RecentNumber < c.at.Block && c.at.Block-r.RecentNumber > c.age:
		return fmt.Sprintf("its recent block %d is more than %d blocks before the pin at %s", r.RecentNumber, c.age, c.at)
	}
	key, err := r.Signer()
	if err != nil {
		return err.Error()
	}
	if org, ok := a.net.OrgOf(key, c.at); !ok || org != r.Org {
		return fmt.Sprintf("its signer %s has no valid key of %s at %s", key, r.Org.Short(), c.at)
	}
	return ""
}

// checkRecent tests that the recent block of a receipt is on the ledger.
// horizon is the last block that is to be taken into account; a later one is
// not known yet.
func (a *Audience) checkRecent(r wire.Receipt, horizon uint64) (why string, later bool) {
	if r.RecentNumber > horizon {
		return fmt.Sprintf("its recent block %d is above %d, the last final one", r.RecentNumber, horizon), true
	}
	hash, ok := a.net.BlockHash(r.RecentNumber)
	if !ok {
		return fmt.Sprintf("its recent block %d holds no record of the network", r.RecentNumber), false
	}
	if hash != r.RecentBlock {
		return fmt.Sprintf("its recent block %d is %s here, not %s", r.RecentNumber, hash.Short(), r.RecentBlock.Short()), false
	}
	return "", false
}

// voter tells whether org is one of the v members that certify or skip the
// entry: those of its epoch that were active at its position, without the
// author.
func (a *Audience) voter(e *Entry, org wire.OrgID) bool {
	return org != e.Author && a.epoch(e.Epoch).Has(org) && a.net.Active(org, e.Position)
}

// receipted gives the place of org among the receipts.
func (e *Entry) receipted(org wire.OrgID) (int, bool) {
	return slices.BinarySearchFunc(e.Receipts, org, compareOrg)
}

func (e *Entry) certified() bool { return len(e.Receipts) >= int(e.C) }

func compareOrg(a, b wire.OrgID) int { return bytes.Compare(a[:], b[:]) }
