package order

import (
	"bytes"
	"slices"

	"github.com/parley-node/parley/wire"
)

// MaxWindow bounds W, so that a window fits one word.
const MaxWindow = 64

// Window remembers which numbers of a key are used in the current epoch of an
// audience. It is the row that the caller stores after each valid pin.
type Window struct {
	Epoch uint64
	Key   wire.Address
	High  uint64 // highest n of a valid pin, 0 before the first
	Used  uint64 // bit i: n = High-i is used
}

// used tells whether n has been used. It must not be above High or out of the
// word.
func (w Window) used(n uint64) bool { return w.Used>>(w.High-n)&1 == 1 }

// free is the rule of the counter: n counts from 1, is unused, and lies within
// (High-width, High+width].
func (w Window) free(n, width uint64) bool {
	switch {
	case n == 0 || n > w.High+width || n+width <= w.High:
		return false
	case n > w.High:
		return true
	}
	return !w.used(n)
}

// use marks n. The window moves with every valid pin, inside a block too.
func (w *Window) use(n uint64) {
	if n > w.High {
		w.Used = w.Used << (n - w.High) // a shift of 64 or more gives 0
		w.High = n
	}
	w.Used |= 1 << (w.High - n)
}

// window adds the tags that are expected for the key.
type window struct {
	Window
	tags map[uint64]wire.Tag // by n
}

// slot is what an expected tag stands for.
type slot struct {
	key wire.Address
	n   uint64
}

// Tags is a change of the set of expected tags. The caller keeps one map from
// tag to audience over all its machines.
type Tags struct{ Added, Removed []wire.Tag }

// Expected are the tags that the next pins of the audience can carry: the
// unused n within W of each key of each member of the current epoch. It is
// empty while the epoch's keys are unknown.
func (a *Audience) Expected() []wire.Tag {
	tags := make([]wire.Tag, 0, len(a.tags))
	for t := range a.tags {
		tags = append(tags, t)
	}
	slices.SortFunc(tags, func(x, y wire.Tag) int { return bytes.Compare(x[:], y[:]) })
	return tags
}

// Windows are the used numbers of each key in the current epoch, by key.
func (a *Audience) Windows() []Window {
	var ws []Window
	for _, w := range a.windows {
		if w.High > 0 {
			ws = append(ws, w.Window)
		}
	}
	slices.SortFunc(ws, func(x, y Window) int { return bytes.Compare(x.Key[:], y.Key[:]) })
	return ws
}

// Unlock gives the keys of the current epoch. They must be those to which the
// definition commits. A machine that was stalled can apply pins again, from
// Through on; until the next Final nothing is judged, because those pins may
// hold votes.
func (a *Audience) Unlock(keys wire.Keys) (Tags, error) {
	if err := a.current().CheckKeys(keys); err != nil {
		return Tags{}, err
	}
	if a.Stalled() {
		a.head, a.headAt = 0, 0
	}
	a.keys = &keys
	for _, r := range a.held {
		a.ready.push(r)
	}
	a.held = nil
	return a.expect(), nil
}

// KeysChanged tells that the caller has read the membership records up to a
// position: keys of members may have been added, or W may have changed. It
// comes before the pins that follow those records.
func (a *Audience) KeysChanged(known wire.Position) Tags {
	if a.known.Compare(known) < 0 {
		a.known = known
	}
	return a.expect()
}

// expect brings the expected tags up to date for all keys of all members. A
// key stays expected when it is revoked: whether it was valid is decided at
// the position of the pin.
func (a *Audience) expect() (change Tags) {
	if a.Stalled() {
		return change
	}
	// A machine that is behind the records must find pins of either width.
	a.width = min(max(a.width, a.net.Params(a.known).Window, a.net.Params(a.through).Window), MaxWindow)
	for _, org := range a.current().Members {
		for _, key := range a.net.Keys(org, a.known) {
			w := a.windows[key]
			if w == nil {
				w = &window{Window: Window{Epoch: a.current().Epoch, Key: key}}
				a.windows[key] = w
			}
			if w.tags == nil {
				w.tags = map[uint64]wire.Tag{}
			}
			a.expectKey(w, &change)
		}
	}
	return change
}

// expectKey brings the expected tags of one key up to date.
func (a *Audience) expectKey(w *window, change *Tags) {
	for n, tag := range w.tags {
		if !w.free(n, a.width) {
			delete(w.tags, n)
			delete(a.tags, tag)
			change.Removed = append(change.Removed, tag)
		}
	}
	low := uint64(1)
	if w.High >= a.width {
		low = w.High - a.width + 1
	}
	for n := low; n <= w.High+a.width; n++ {
		if _, has := w.tags[n]; has || !w.free(n, a.width) {
			continue
		}
		tag := a.keys.PinTag(w.Key, n)
		w.tags[n] = tag
		a.tags[tag] = slot{w.Key, n}
		change.Added = append(change.Added, tag)
	}
}

// forget drops the windows and tags of an epoch that has ended. What the same
// pin has just added, no caller knows of yet.
func (a *Audience) forget(change *Tags) {
	for _, tag := range change.Added {
		delete(a.tags, tag)
	}
	change.Added = nil
	for tag := range a.tags {
		change.Removed = append(change.Removed, tag)
	}
	clear(a.tags)
	clear(a.windows)
}
