package event

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
)

// maxSubscriptions is how many durable subscriptions a namespace may have: each
// one that is connected reads the log for itself.
const maxSubscriptions = 500

// codeTooMany is Parley's own: existing clients know no code for it.
const codeTooMany = "FF90001"

// codeWrongTransport is Parley's own: the subscription is consumed otherwise.
const codeWrongTransport = "FF90006"

// SubscriptionInput is a subscription as an application asks for it. What else
// its JSON holds, such as a namespace, is ignored.
type SubscriptionInput struct {
	Name      string  `json:"name"`
	Transport string  `json:"transport,omitempty"` // websockets, which is also the default, sse, webhooks, nats or kafka
	Filter    Filter  `json:"filter"`
	Options   Options `json:"options"`
}

// SubscriptionStatus is how far a subscription has got.
type SubscriptionStatus struct {
	CurrentOffset int64 `json:"currentOffset,omitempty"` // everything up to this sequence is done with
}

// SubscriptionWithStatus is what ?fetchstatus adds to a subscription.
type SubscriptionWithStatus struct {
	store.Subscription
	Status SubscriptionStatus `json:"status" openapi:"optional"`
}

// Subscriptions are the subscriptions of one namespace: their definitions,
// their positions, and the consumers that wait in line for them.
type Subscriptions struct {
	log       *Log
	db        *store.DB
	logger    *slog.Logger
	positions *positions
	outbound  *Outbound // delivers what no consumer connects for; nil if nothing does

	mu    sync.Mutex
	lines map[string]*line // by name; only while a consumer is connected
}

// NewSubscriptions returns the subscriptions to a log. Close them after the
// transports that serve them.
func NewSubscriptions(log *Log, logger *slog.Logger) *Subscriptions {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Subscriptions{
		log:       log,
		db:        log.db,
		logger:    logger,
		positions: newPositions(log.db, logger),
		lines:     make(map[string]*line),
	}
}

// Close stores the positions that are not stored yet.
func (s *Subscriptions) Close(ctx context.Context) error { return s.positions.close(ctx) }

// Create makes a new subscription. A name that is taken is FF10193 (409).
func (s *Subscriptions) Create(ctx context.Context, in SubscriptionInput) (*store.Subscription, error) {
	return s.put(ctx, in, false)
}

// CreateOrUpdate makes a subscription, or replaces the definition of the one
// that has its name. The position stays: a subscription is replaced without
// missing or repeating what was acknowledged, and its firstEvent stays as it was
// resolved. An equal definition changes nothing. A connected consumer goes on
// under the new definition.
func (s *Subscriptions) CreateOrUpdate(ctx context.Context, in SubscriptionInput) (*store.Subscription, error) {
	return s.put(ctx, in, true)
}

func (s *Subscriptions) put(ctx context.Context, in SubscriptionInput, replace bool) (*store.Subscription, error) {
	secret, err := in.check(s.outbound)
	if err != nil {
		return nil, err
	}
	filter, err := json.Marshal(in.Filter)
	if err != nil {
		return nil, err
	}
	fresh, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	now := store.At(time.Now())
	var sub *store.Subscription
	var same bool
	err = s.db.Write(ctx, func(tx *store.Tx) error {
		same = false
		options := in.Options
		old, err := tx.SubscriptionByName(s.log.namespace, in.Name)
		switch {
		case errors.Is(err, store.ErrNoRows):
			if err := s.roomForOne(tx); err != nil {
				return err
			}
			newest, err := tx.LastEvent()
			if err != nil {
				return err
			}
			first, err := options.firstEvent(newest)
			if err != nil {
				return err
			}
			options.FirstEvent = strconv.FormatInt(first, 10)
			sub = &store.Subscription{
				ID:        fresh,
				Namespace: s.log.namespace,
				Name:      in.Name,
				Transport: in.Transport,
				Filter:    filter,
				Created:   now,
				Position:  first,
				Secret:    secret,
			}
			if secret == hiddenSecret {
				return errs.BadRequest(errs.CodeBadValue, "options.secret is %q, which stands for a secret that is kept already; give the secret itself for the new subscription %q", secret, in.Name)
			}
			if sub.Options, err = json.Marshal(options); err != nil {
				return err
			}
			return tx.InsertSubscription(sub)
		case err != nil:
			return err
		case !replace:
			return errs.Conflict("FF10193", "Subscription %q is there already, with id %s; choose another name, or replace it with PUT", in.Name, old.ID)
		}
		var before Options
		if err := json.Unmarshal(old.Options, &before); err != nil {
			return err
		}
		options.FirstEvent = before.FirstEvent
		text, err := json.Marshal(options)
		if err != nil {
			return err
		}
		sub = old
		kept := secret
		if secret == hiddenSecret { // as it was read: it stays
			kept = sub.Secret
		}
		if sub.Transport == in.Transport && sub.Secret == kept && bytes.Equal(sub.Filter, filter) && bytes.Equal(sub.Options, text) {
			same = true
			return nil
		}
		sub.Transport, sub.Filter, sub.Options, sub.Secret, sub.Updated = in.Transport, filter, text, kept, &now
		return tx.UpdateSubscription(sub)
	})
	if err != nil {
		return nil, err
	}
	if !same {
		s.announce(in.Name)
	}
	return sub, nil
}

// roomForOne refuses a subscription beyond the most that a namespace may have.
func (s *Subscriptions) roomForOne(tx *store.Tx) error {
	all, err := tx.Subscriptions()
	if err != nil {
		return err
	}
	n := 0
	for _, sub := range all {
		if sub.Namespace == s.log.namespace {
			n++
		}
	}
	if n >= maxSubscriptions {
		return errs.Conflict(codeTooMany, "namespace %q has %d subscriptions, which is the most it may have; delete one that is not needed", s.log.namespace, n)
	}
	return nil
}

// name is what a subscription may be called.
var name = regexp.MustCompile(`^[0-9A-Za-z]([0-9A-Za-z._-]{0,62}[0-9A-Za-z])?$`)

// check validates the input and completes it with defaults. It takes the secret
// out of the options, in which hiddenSecret stays in its place.
func (in *SubscriptionInput) check(outbound *Outbound) (secret string, err error) {
	if !name.MatchString(in.Name) {
		return "", errs.BadRequest(errs.CodeBadName,
			"name is %q; it must have 1 to 64 characters out of letters, digits, '.', '_' and '-', the first and the last a letter or digit", in.Name)
	}
	if uuid.Validate(in.Name) == nil {
		return "", errs.BadRequest("FF00141", "name is %q, which is a UUID; choose a name that cannot be taken for an id", in.Name)
	}
	in.Transport = cmp.Or(strings.ToLower(in.Transport), TransportWebSockets)
	switch {
	case in.Transport == "system":
		return "", errs.New("FF10266", http.StatusInternalServerError, `transport is "system", which is kept for the node itself; use "websockets"`)
	case in.Transport == TransportWebSockets, in.Transport == TransportSSE, carried(in.Transport) && outbound != nil:
	default:
		return "", errs.New("FF10172", http.StatusInternalServerError, `transport is %q, which does not exist; use "websockets", "sse", "webhooks", "nats" or "kafka"`, in.Transport)
	}
	if _, err := in.Filter.compile(); err != nil {
		return "", err
	}
	if _, err := in.Options.firstEvent(0); err != nil {
		return "", err
	}
	if _, err := in.Options.plan(in.Transport); err != nil {
		return "", err
	}
	if err := in.Options.checkTLS(outbound); err != nil {
		return "", err
	}
	if secret, err = in.Options.hideSecret(in.Transport); err != nil {
		return "", err
	}
	if outbound == nil {
		return secret, nil
	}
	return secret, outbound.check(in.Transport, &in.Options, secret)
}

// Delete removes a subscription and its position. One that is not there is
// FF10109 (404).
func (s *Subscriptions) Delete(ctx context.Context, id store.UUID) error {
	var sub *store.Subscription
	err := s.db.Write(ctx, func(tx *store.Tx) (err error) {
		if sub, err = tx.SubscriptionByID(s.log.namespace, id); err != nil {
			return noSuch(err, id)
		}
		return tx.DeleteSubscription(id)
	})
	if err != nil {
		return err
	}
	s.announce(sub.Name)
	return nil
}

// Acknowledge says that the consumers of an sse subscription have got everything
// up to a sequence. The position never moves back: a lower one has no effect.
func (s *Subscriptions) Acknowledge(ctx context.Context, id store.UUID, sequence int64) error {
	turn := s.positions.turn()
	sub, err := s.Get(ctx, id)
	if err != nil {
		return err
	}
	if sub.Transport != TransportSSE {
		return errs.Conflict(codeWrongTransport, "subscription %q has the transport %q, whose deliveries are acknowledged otherwise; only those of sse are acknowledged here", sub.Name, sub.Transport)
	}
	newest, err := s.log.Last(ctx)
	if err != nil {
		return err
	}
	if sequence > newest {
		return errs.BadRequest(errs.CodeBadValue, "sequence is %d, and the newest event has %d; give the sequence of an event that was delivered", sequence, newest)
	}
	if sequence > sub.Position {
		s.positions.set(id, turn, sequence)
	}
	return s.positions.save(ctx)
}

// Rewind moves a subscription to a sequence, back or forth: delivery goes on with
// the event after it. What is in flight need not be acknowledged any more. -1 is
// the beginning.
func (s *Subscriptions) Rewind(ctx context.Context, id store.UUID, sequence int64) (*SubscriptionWithStatus, error) {
	sub, err := s.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	newest, err := s.log.Last(ctx)
	if err != nil {
		return nil, err
	}
	if sequence < -1 || sequence > newest {
		return nil, errs.BadRequest(errs.CodeBadValue, "sequence is %d; give that of the last event that shall count as delivered, at most %d, or -1 to begin with the oldest", sequence, newest)
	}
	if err := s.positions.rewind(ctx, id, sequence); err != nil {
		return nil, noSuch(err, id)
	}
	s.announce(sub.Name)
	return s.GetWithStatus(ctx, id)
}

// Get returns a subscription; one that is not there is FF10109 (404).
func (s *Subscriptions) Get(ctx context.Context, id store.UUID) (sub *store.Subscription, err error) {
	err = s.db.Read(ctx, func(tx *store.Tx) error {
		sub, err = tx.SubscriptionByID(s.log.namespace, id)
		return noSuch(err, id)
	})
	if err != nil {
		return nil, err
	}
	return sub, nil
}

// GetWithStatus returns a subscription and how far it has got.
func (s *Subscriptions) GetWithStatus(ctx context.Context, id store.UUID) (*SubscriptionWithStatus, error) {
	unsaved, there := s.positions.get(id)
	sub, err := s.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	position := sub.Position
	if there {
		position = max(position, unsaved)
	}
	return &SubscriptionWithStatus{Subscription: *sub, Status: SubscriptionStatus{CurrentOffset: position}}, nil
}

// List returns the stored subscriptions that a query selects, and how many there
// are in all if the query counts them.
func (s *Subscriptions) List(ctx context.Context, q store.Query) ([]store.Subscription, int64, error) {
	return store.List(ctx, s.db, store.Subscriptions, s.log.namespace, q)
}

// ByName returns the subscription of a name, nil if there is none.
func (s *Subscriptions) ByName(ctx context.Context, name string) (sub *store.Subscription, err error) {
	err = s.db.Read(ctx, func(tx *store.Tx) error {
		sub, err = tx.SubscriptionByName(s.log.namespace, name)
		return err
	})
	if errors.Is(err, store.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return sub, nil
}

func noSuch(err error, id store.UUID) error {
	if errors.Is(err, store.ErrNoRows) {
		return errs.NoSuch("subscription", id.String())
	}
	return err
}

// Ephemeral is a subscription that is not stored.
type Ephemeral struct {
	ref     Ref
	matcher *matcher
	plan    plan
	after   int64
}

// Ephemeral checks a subscription that lives as long as its consumer. It starts
// at the newest event of this moment, unless the options say otherwise. Its id,
// which is also its name, is made up.
func (s *Subscriptions) Ephemeral(ctx context.Context, filter Filter, options Options) (*Ephemeral, error) {
	newest, err := s.log.Last(ctx)
	if err != nil {
		return nil, err
	}
	return s.ephemeral(TransportWebSockets, filter, options, newest)
}

// ephemeral is Ephemeral with the event that is the newest one given.
func (s *Subscriptions) ephemeral(transport string, filter Filter, options Options, newest int64) (*Ephemeral, error) {
	m, err := filter.compile()
	if err != nil {
		return nil, err
	}
	p, err := options.plan(transport)
	if err != nil {
		return nil, err
	}
	after, err := options.firstEvent(newest)
	if err != nil {
		return nil, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	return &Ephemeral{
		ref:     Ref{ID: id, Namespace: s.log.namespace, Name: id.String()},
		matcher: m,
		plan:    p,
		after:   after,
	}, nil
}
