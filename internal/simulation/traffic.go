package simulation

import (
	"bytes"
	"errors"

	"github.com/parley-node/parley/internal/exchange/local"
)

// letter is a request on its way.
type letter struct {
	from, to string
	kind     string
	body     []byte
}

var errAstray = errors.New("the simulated line went dead: the outcome is unknown")

// intercept stands between all members.
func (w *world) intercept(m local.Message) ([]byte, error) {
	if body, err, lied := w.falsify(m); lied {
		return body, err
	}
	if m.Kind != local.KindFetch && !m.Answer {
		w.overhear(letter{m.From, m.To, m.Kind, m.Body})
	}
	if !w.faults {
		return m.Body, nil
	}
	l := letter{m.From, m.To, m.Kind, bytes.Clone(m.Body)}
	switch {
	case m.Answer:
		if w.chance(w.profile.answerLost) {
			w.tell(m.From, "answers %s, and the answer is lost", m.To)
			w.story.count("answer lost")
			return nil, errAstray
		}
	case m.Kind == local.KindFetch:
	case w.chance(w.profile.lost):
		w.tell(m.From, "loses a %s for %s on the way", m.Kind, m.To)
		w.story.count("request lost")
		return nil, errAstray
	case w.chance(w.profile.lateness):
		w.tell(m.From, "has a %s for %s delayed", m.Kind, m.To)
		w.late = append(w.late, l)
		return nil, errAstray
	case w.chance(w.profile.doubled):
		w.late = append(w.late, l)
	}
	return m.Body, nil
}

// overhear keeps some requests, to play them again much later.
func (w *world) overhear(l letter) {
	const kept = 64
	l.body = bytes.Clone(l.body)
	if len(w.sealed) < kept {
		w.sealed = append(w.sealed, l)
	} else if w.chance(100) {
		w.sealed[w.rng.IntN(kept)] = l
	}
}

// lateLetter brings a request that was delayed, or a second copy.
func (w *world) lateLetter() bool {
	if len(w.late) == 0 {
		return false
	}
	i := w.rng.IntN(len(w.late))
	l := w.late[i]
	w.late = append(w.late[:i], w.late[i+1:]...)
	w.bring("comes late", l)
	return true
}

// replay brings an old request again.
func (w *world) replay() bool {
	if len(w.sealed) == 0 {
		return false
	}
	w.bring("is replayed", pick(w, w.sealed))
	return true
}

// bring hands a request to its receiver, past all faults. Nobody waits for the
// answer.
func (w *world) bring(how string, l letter) {
	to, from := w.named(l.to), w.named(l.from)
	if to.proc == nil || to.proc.dead || to.proc.ctx == nil {
		return
	}
	if org, known := to.proc.node.Network.OrgByCertificate(from.cert); !known || org != from.org {
		return
	}
	_, err := to.proc.node.Messages.Receive(to.proc.ctx, from.org, l.kind, l.body)
	w.tell(to.name, "gets a %s of %s that %s: %v", l.kind, l.from, how, err)
}
