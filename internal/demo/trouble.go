package demo

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/parley-node/parley/client"
)

// The topics of the last part of the story.
const (
	roundTopic   = "settlement-round"
	trafficTopic = "traffic"
)

// kill ends a member's node and its validator with SIGKILL.
func (m *Member) kill(ctx context.Context) {
	_, validator, err := m.PIDs(ctx)
	m.proc.kill()
	if err == nil && validator != 0 {
		if p, err := os.FindProcess(validator); err == nil {
			_ = p.Kill() // it may have gone with its parent already
		}
	}
}

// noOvertaking: a message whose payload is late is not overtaken by a later one
// on its topic, although that is there.
//
// The payload of the first message is held back on its way to one member by the
// relay in front of it. Other members would give it to whom it is missing; so
// new connections to them are refused meanwhile, and no old one is left.
func (s *story) noOvertaking(ctx context.Context) (told, error) {
	h, a, late := s.hospital(), s.insurerA(), s.outsiders()[0]
	for _, m := range s.Members {
		m.relay.drop()
	}
	for _, m := range s.Members { // makes the connections for sending again
		if _, err := s.sayToAll(ctx, m, "warm-up", "ready"); err != nil {
			return told{}, err
		}
	}
	for _, m := range s.Members {
		if m != late {
			m.relay.refuseNew()
		}
	}
	late.relay.hold()
	first, err := h.API.Broadcast(ctx, broadcast(roundTopic, noise(16<<10)))
	if err != nil {
		return told{}, err
	}
	ids := map[string]string{"first": first.Header.ID}
	if _, err := h.confirmed(ctx, first.Header.ID); err != nil {
		return told{ids: ids}, err
	}
	held := late.relay.passOthers()
	if held < 16<<10 {
		return told{ids: ids}, fmt.Errorf("the relay holds %d bytes back, which cannot be the payload", held)
	}
	topic := roundTopic
	if s.broken {
		topic = "another-topic"
	}
	second, err := a.API.Broadcast(ctx, broadcast(topic, "second"))
	if err != nil {
		return told{ids: ids}, err
	}
	ids["second"] = second.Header.ID
	for _, m := range []*Member{h, a} {
		if _, err := m.confirmed(ctx, second.Header.ID); err != nil {
			return told{ids: ids}, err
		}
	}
	var blockers []client.Blocker
	err = waitFor(ctx, late.Name+" has the second message and says what the topic waits for", func(ctx context.Context) (bool, error) {
		m, err := late.API.Message(ctx, second.Header.ID)
		if client.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if m.State == client.StateConfirmed {
			return false, errors.New("the second message was confirmed before the first")
		}
		blockers, err = late.API.Blockers(ctx, "network", roundTopic)
		return len(blockers) > 0, err
	})
	if err != nil {
		return told{ids: ids}, err
	}
	// Both are there to be looked at: the answer holds now.
	m, err := late.API.Message(ctx, second.Header.ID)
	if err != nil {
		return told{ids: ids}, err
	}
	if m.State == client.StateConfirmed {
		return told{ids: ids}, errors.New("the second message was confirmed before the first")
	}
	return told{fmt.Sprintf("one payload is held back on its way to %s: the later message on the topic is there and waits; the node names what is missing (%s of %s)",
		late.Name, blockers[0].Missing, blockers[0].Author), ids}, nil
}

func broadcast(topic, text string) client.NewMessage {
	value, err := json.Marshal(text)
	if err != nil {
		value = json.RawMessage(`""`) // cannot be: a text has a JSON form
	}
	return client.NewMessage{Header: client.Header{Topics: []string{topic}}, Data: []client.DataRef{{Value: value}}}
}

// noise is text that does not compress.
func noise(size int) string {
	b := make([]byte, size)
	rand.Read(b) // never fails: see crypto/rand
	return hex.EncodeToString(b)
}

// sayToAll broadcasts and waits until all members have confirmed.
func (s *story) sayToAll(ctx context.Context, from *Member, topic, text string) (*client.Message, error) {
	sent, err := from.API.Broadcast(ctx, broadcast(topic, text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from.Name, err)
	}
	for _, m := range s.Members {
		if _, err := m.confirmed(ctx, sent.Header.ID); err != nil {
			return nil, err
		}
	}
	return sent, nil
}

// oneOrder: all write to one topic at once, with one payload still late, and
// all see one order.
func (s *story) oneOrder(ctx context.Context) (told, error) {
	const each = 5
	errs := make([]error, len(s.Members))
	var all sync.WaitGroup
	var mu sync.Mutex
	var sent []string
	for i, m := range s.Members {
		all.Go(func() {
			for n := range each {
				msg, err := m.API.Broadcast(ctx, broadcast(roundTopic, fmt.Sprintf("%s %d", m.Name, n)))
				if err != nil {
					errs[i] = fmt.Errorf("%s: %w", m.Name, err)
					return
				}
				mu.Lock()
				sent = append(sent, msg.Header.ID)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return told{}, err
	}
	for _, m := range s.Members {
		m.relay.release()
	}
	if s.broken {
		if err := s.aside(ctx, roundTopic); err != nil {
			return told{}, err
		}
	}
	for _, m := range s.Members {
		for _, id := range sent {
			if _, err := m.confirmed(ctx, id); err != nil {
				return told{}, err
			}
		}
	}
	order, err := s.orders(ctx, roundTopic, s.Members...)
	if err != nil {
		return told{}, err
	}
	text := fmt.Sprintf("all %d members wrote to one topic at once", len(s.Members))
	if len(order) > len(sent) {
		text += ", then the late payload was let through"
	}
	return told{fmt.Sprintf("%s: all see its %d messages in one order, compared id by id", text, len(order)), nil}, nil
}

// aside has the hospital write to a topic without telling anybody.
func (s *story) aside(ctx context.Context, topic string) error {
	h := s.hospital()
	alone, err := h.API.Private(ctx, client.NewMessage{
		Header: client.Header{Topics: []string{topic}},
		Group:  &client.Group{Name: "aside", Members: []client.Member{{Identity: h.Name}}},
		Data:   []client.DataRef{{Value: json.RawMessage(`"a note to itself"`)}},
	})
	if err != nil {
		return err
	}
	_, err = h.confirmed(ctx, alone.Header.ID)
	return err
}

// Traffic during the crash.
const (
	trafficEach  = 60 // messages of each writer
	killAfter    = 15 // acknowledged messages of the member that is killed
	restartAfter = 45 // acknowledged messages of the hospital
	trafficPace  = 20 * time.Millisecond
)

// victim is the member that is killed.
func (s *story) victim() *Member { return s.Members[min(2, len(s.Members)-1)] }

// crash: a member and its validator are killed in mid-traffic and come back.
// Every message, also those that the killed member had sent, is confirmed at
// all members in one order.
func (s *story) crash(ctx context.Context) (told, error) {
	victim := s.victim()
	writers := []*Member{s.hospital(), s.insurerA()}
	if victim != s.insurerA() {
		writers = append(writers, victim)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	kill, restart := make(chan struct{}), make(chan struct{})
	errs := make([]error, len(writers))
	var all sync.WaitGroup
	for i, w := range writers {
		all.Go(func() {
			errs[i] = w.write(ctx, func(acknowledged int) {
				if w == victim && acknowledged == killAfter {
					close(kill)
				}
				if w == s.hospital() && acknowledged == restartAfter {
					close(restart)
				}
			})
			if errs[i] != nil {
				stop()
			}
		})
	}
	wait := func(c chan struct{}) error {
		select {
		case <-c:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var down, back time.Time
	err := wait(kill)
	if err == nil {
		err = waitFor(ctx, victim.Name+" has confirmed part of it", func(ctx context.Context) (bool, error) {
			ids, err := victim.order(ctx, trafficTopic)
			return len(ids) > 0, err
		})
	}
	if err == nil {
		down = time.Now()
		victim.kill(ctx)
		s.report.say("%s and its validator are killed in mid-traffic", victim.Name)
		if s.survives() {
			err = wait(restart)
		}
	}
	if err == nil && s.broken {
		err = victim.alter(ctx, `DELETE FROM events WHERE sequence = (SELECT min(sequence) FROM events WHERE topic = $1)`, trafficTopic)
	}
	if err == nil {
		back = time.Now()
		err = victim.Start()
		s.report.say("%s starts again, after %.1f s", victim.Name, back.Sub(down).Seconds())
	}
	if err != nil {
		stop()
	}
	all.Wait()
	if err := errors.Join(append(errs, err)...); err != nil {
		return told{}, err
	}
	want := trafficEach * len(writers)
	var ids []string
	err = waitFor(ctx, fmt.Sprintf("%s has all %d messages", s.hospital().Name, want), func(ctx context.Context) (bool, error) {
		ids, err = s.hospital().order(ctx, trafficTopic)
		return len(ids) >= want, err
	})
	if err != nil {
		return told{}, err
	}
	for _, m := range s.Members {
		for _, id := range ids {
			if _, err := m.confirmed(ctx, id); err != nil {
				return told{}, err
			}
		}
	}
	caughtUp := time.Since(back)
	if _, err := s.orders(ctx, trafficTopic, s.Members...); err != nil {
		return told{}, err
	}
	return told{fmt.Sprintf("%s was down for %.1f s, came back and had everything %.1f s later: all %d messages of %d writers are at all members in one order, none lost",
		victim.Name, back.Sub(down).Seconds(), caughtUp.Seconds(), want, len(writers)), nil}, nil
}

// survives says whether the ledger goes on without the victim.
func (s *story) survives() bool { return s.dev != nil || len(s.Members) >= DefaultMembers }

// write sends the member's share of the traffic, each message until it is
// acknowledged: with a key, so that one whose acknowledgement was lost is not
// sent twice.
func (m *Member) write(ctx context.Context, acknowledged func(int)) error {
	pace := time.NewTicker(trafficPace)
	defer pace.Stop()
	for n := 0; n < trafficEach; {
		msg := broadcast(trafficTopic, trafficText(m, n))
		msg.IdempotencyKey = trafficText(m, n)
		_, err := m.API.Broadcast(ctx, msg)
		if err == nil || client.IsDuplicate(err) {
			n++
			acknowledged(n)
		} else if refused := new(client.Error); errors.As(err, &refused) && refused.Status < 500 && !client.IsStarting(err) {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-pace.C:
		}
	}
	return nil
}

func trafficText(m *Member, n int) string { return fmt.Sprintf("%s-%03d", m.Name, n) }

// nothingTwice: after the crash, no message and no event is there twice, at any
// member.
func (s *story) nothingTwice(ctx context.Context) (told, error) {
	victim := s.victim()
	if s.broken {
		err := victim.tamper(ctx, `INSERT INTO events (id, type, namespace, reference, correlator, tx, topic, created)
			SELECT substr(id, 1, 24) || '000000000000', type, namespace, reference, correlator, tx, topic, created FROM events WHERE topic = $1 AND type = 'message_confirmed' LIMIT 1`, trafficTopic)
		if err != nil {
			return told{}, err
		}
	}
	var total int
	for _, m := range s.Members {
		ids, err := m.order(ctx, trafficTopic)
		if err != nil {
			return told{}, err
		}
		seen := map[string]bool{}
		texts := map[string]string{}
		for _, id := range ids {
			if seen[id] {
				return told{}, fmt.Errorf("%s saw message %s twice", m.Name, id)
			}
			seen[id] = true
			msg, err := m.API.Message(ctx, id)
			if err != nil {
				return told{}, fmt.Errorf("%s: %w", m.Name, err)
			}
			text := string(msg.Data[0].Value)
			if other, twice := texts[text]; twice {
				return told{}, fmt.Errorf("at %s, messages %s and %s both say %s, which was sent once", m.Name, other, id, text)
			}
			texts[text] = id
		}
		total = len(ids)
	}
	return told{fmt.Sprintf("and none is there twice: %d messages at each of %d members, each id and each content once", total, len(s.Members)), nil}, nil
}
