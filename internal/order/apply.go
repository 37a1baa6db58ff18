package order

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/parley-node/parley/wire"
)

// Applied is what a pin did. All of it is a function of the ledger, but for
// the Contested and Incidents, which depend on the receipts that are here.
type Applied struct {
	// Void is why the pin is void, empty if it is valid. A void pin changes
	// nothing: its number stays unused and its control never applies.
	Void string

	Epoch, N  uint64
	Window    Window // row to store
	Entry     *Entry // row to store; nil for a control-only pin and a duplicate
	Duplicate bool   // an earlier pin named the same batch
	Control   wire.Control

	Created   bool                  // the group exists from here
	Activated *wire.EpochDefinition // the new current epoch
	Stalled   bool                  // the new epoch's keys are wanted: see Unlock
	Ignored   []string              // parts of the control that had no effect, and why

	Effects
	Tags
}

// ErrStalled: the machine lacks the keys of the current epoch.
var ErrStalled = errors.New("the current epoch's keys are not known: pull its secret from a member, call Unlock, then apply from Through on")

// Apply applies the next pin whose tag is expected. An error means a call that
// must not be made, out of ledger order or while stalled; it changes nothing.
func (a *Audience) Apply(p Pin) (Applied, error) {
	if a.Stalled() {
		return Applied{}, fmt.Errorf("pin %d of audience %s: %w", p.Number, a.id.Short(), ErrStalled)
	}
	if p.Position.Compare(a.through) <= 0 {
		return Applied{}, fmt.Errorf("pin %d at %s of audience %s is not after %s: apply pins once and in ledger order", p.Number, p.Position, a.id.Short(), a.through)
	}
	a.advance(p.Position, p.Time.UnixNano())
	out := Applied{Epoch: a.current().Epoch}
	var control wire.Control
	if out.N, control, out.Void = a.read(p); out.Void != "" {
		out.Effects = a.drain()
		return out, nil
	}
	out.Control = control

	if !a.created { // read lets nothing but its creation pass
		a.created, out.Created = true, true
	}
	w := a.windows[p.Key]
	w.use(out.N)
	out.Window = w.Window
	a.expectKey(w, &out.Tags)

	// A certificate in the same pin is stronger than a vote in it.
	for _, c := range control.Certificates {
		if why := a.pinCertificate(p, c); why != "" {
			out.Ignored = append(out.Ignored, fmt.Sprintf("certificate for %s: %s", c.Root.Short(), why))
		}
	}
	for _, v := range control.Votes {
		a.vote(p, v)
	}
	if !p.Pin.Root.IsZero() {
		a.enter(p, &out)
	}
	// Last, so that the pin's own batch still belongs to the old epoch.
	if control.Activate != nil {
		if why := a.activate(p, *control.Activate, &out); why != "" {
			out.Ignored = append(out.Ignored, "activation: "+why)
		}
	}
	out.Effects = a.drain()
	return out, nil
}

// read decides whether a pin is valid: the epoch is current (only its tags are
// expected), the tag is of the key that signed, the key is valid and its
// organisation a member at the position, n is unused and within W, the control
// opens, and the audience exists. The reason is empty for a valid pin.
func (a *Audience) read(p Pin) (n uint64, control wire.Control, void string) {
	s, ok := a.tags[p.Pin.Tag]
	if !ok {
		return 0, control, "the tag is not expected in epoch " + fmt.Sprint(a.current().Epoch)
	}
	if s.key != p.Key {
		return s.n, control, fmt.Sprintf("the tag is of key %s, but %s signed", s.key, p.Key)
	}
	org, valid := a.net.OrgOf(p.Key, p.Position)
	if !valid || org != p.Org {
		return s.n, control, fmt.Sprintf("key %s is not a valid key of an active member", p.Key)
	}
	if !a.current().Has(org) {
		return s.n, control, fmt.Sprintf("%s is not a member in epoch %d", org.Short(), a.current().Epoch)
	}
	width := min(a.net.Params(p.Position).Window, MaxWindow)
	if w := a.windows[p.Key]; !w.free(s.n, width) {
		return s.n, control, fmt.Sprintf("number %d is not within %d of %d, the key's highest", s.n, width, w.High)
	}
	if p.Pin.Root.IsZero() && len(p.Pin.Handles) > 0 {
		return s.n, control, "it has handles, but no root"
	}
	if len(p.Pin.Control) > 0 {
		var err error
		if control, err = a.keys.OpenControl(p.Pin.Control, p.Key, s.n, p.Pin.Root, p.Pin.Handles); err != nil {
			return s.n, wire.Control{}, fmt.Sprintf("its control is not valid: %v", err)
		}
	}
	if !a.created && (control.Create == nil || *control.Create != a.id) {
		return s.n, wire.Control{}, "the group does not exist yet: only a pin that creates it is valid"
	}
	return s.n, control, ""
}

// enter makes the entry of a pinned batch. Its identity is (author, root); a
// later pin of the same batch makes none.
func (a *Audience) enter(p Pin, out *Applied) {
	id := wire.Entry{Author: p.Org, Root: p.Pin.Root}
	if a.entries[id] != nil || a.hist.Pinned(id.Author, id.Root) {
		out.Duplicate = true
		return
	}
	params := a.net.Params(p.Position)
	row := Entry{
		Number: p.Number, Position: p.Position, Time: p.Time.UnixNano(),
		Author: p.Org, Root: p.Pin.Root, Epoch: out.Epoch,
		ReceiptAge: params.ReceiptAge, SkipAfter: int64(params.SkipAfter),
	}
	row.Contexts, row.Bad = a.unmask(p, out.N)
	for _, org := range a.current().Members {
		if org != p.Org && a.net.Active(org, p.Position) {
			row.V++
		}
	}
	row.C, row.S = Quorums(row.V)
	row = a.insert(row).row()
	out.Entry = &row
}

// Quorums gives how many of v members certify an entry (c) and how many skip
// it (s). c + s > v, so that both need a member that lies.
func Quorums(v uint32) (c, s uint32) { return v - v/2, v/2 + 1 }

// unmask gives the contexts that a pin touches, ascending and distinct, and
// why the handles are not in that form themselves, which rejects the batch.
func (a *Audience) unmask(p Pin, n uint64) (contexts []wire.ContextID, bad string) {
	contexts = make([]wire.ContextID, len(p.Pin.Handles))
	for i, h := range p.Pin.Handles {
		contexts[i] = a.keys.UnmaskHandle(p.Key, n, p.Pin.Root, i, h)
		if i > 0 && compareContext(contexts[i-1], contexts[i]) >= 0 {
			bad = fmt.Sprintf("handle %d of the pin is not above the one before it", i)
		}
	}
	if bad != "" {
		slices.SortFunc(contexts, compareContext)
		contexts = slices.Compact(contexts)
	}
	return contexts, bad
}

func compareContext(a, b wire.ContextID) int { return bytes.Compare(a[:], b[:]) }
