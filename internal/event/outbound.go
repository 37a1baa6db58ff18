package event

import (
	"context"
	"crypto/tls"
	"log/slog"
	"sync"
	"time"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
)

// OutboundConfig is what the operator gives to the deliveries that the node makes
// itself. Applications choose from it by name, and see none of it.
type OutboundConfig struct {
	// Allow names the targets of webhooks in the node's own networks: host names,
	// also *.example.com, IP addresses and CIDR ranges. All other addresses that
	// are not public are refused, so that who may subscribe to events may not
	// make the node call its neighbours.
	Allow []string

	TLS   map[string]*tls.Config // for tlsConfigName of webhooks
	NATS  map[string]NATSConfig
	Kafka map[string]KafkaConfig

	// Source is the source of events as CloudEvents: a URI reference that is this
	// node's namespace alone.
	Source string

	// Reply sends the answer of a webhook as a message. Nil refuses webhooks that
	// ask for it. It is called again with the same Key until it succeeds.
	Reply func(ctx context.Context, r Reply) error

	Grace time.Duration // how long requests under way may take to end on Run's end; 0 means 1 s
}

// Outbound carries the events of one namespace to where no consumer connects
// from: webhooks and message brokers. Each such subscription has an outlet, which
// delivers, retries and keeps the position.
type Outbound struct {
	cfg     OutboundConfig
	subs    *Subscriptions
	log     *slog.Logger
	guard   *guard
	journal *journal
	brokers brokers
	signal  chan struct{} // holds at most one "look again"
}

// NewOutbound prepares the deliveries of subs; Run makes them. Call it before
// subs is used.
func NewOutbound(subs *Subscriptions, cfg OutboundConfig) (*Outbound, error) {
	g, err := newGuard(cfg.Allow)
	if err != nil {
		return nil, err
	}
	if cfg.Grace == 0 {
		cfg.Grace = time.Second
	}
	o := &Outbound{
		cfg:     cfg,
		subs:    subs,
		log:     subs.logger,
		guard:   g,
		journal: newJournal(subs.db, subs.logger),
		brokers: brokers{cfg: cfg, logger: subs.logger},
		signal:  make(chan struct{}, 1),
	}
	subs.outbound = o
	return o, nil
}

// wake makes Run look for new and changed subscriptions.
func (o *Outbound) wake() {
	select {
	case o.signal <- struct{}{}:
	default:
	}
}

// rescan bounds how long a change stays unseen that another process made.
const rescan = 5 * time.Second

// version tells one definition of a subscription from the next, and what is
// delivered before it was moved by hand from what is afterwards.
type version struct {
	id      store.UUID
	updated store.Time
	moved   int
}

// running is an outlet at work.
type running struct {
	stop context.CancelFunc
	done chan struct{}
}

// Run delivers until ctx ends. The subscriptions must still be open then, to
// store the positions.
func (o *Outbound) Run(ctx context.Context) error {
	// What was logged of a subscription while it was deleted.
	if err := o.subs.db.Write(ctx, (*store.Tx).SweepDeliveries); err != nil && ctx.Err() == nil {
		o.log.Warn("delete the log of deliveries of deleted subscriptions", "error", err)
	}
	outlets := map[version]running{}
	for ctx.Err() == nil {
		if err := o.scan(ctx, outlets); err != nil && ctx.Err() == nil {
			o.log.Warn("read subscriptions; trying again", "namespace", o.subs.log.namespace, "error", err)
		}
		pause(ctx, rescan, o.signal)
	}
	for _, r := range outlets {
		r.stop()
	}
	for _, r := range outlets {
		<-r.done
	}
	o.brokers.close()
	return o.journal.close(context.WithoutCancel(ctx))
}

// scan starts the outlets of new definitions and ends those of old ones, which
// store their position before the new one reads it.
func (o *Outbound) scan(ctx context.Context, outlets map[version]running) error {
	wanted := map[version]bool{}
	err := o.subs.db.Read(ctx, func(tx *store.Tx) error {
		all, err := tx.Subscriptions()
		for _, sub := range all {
			if sub.Namespace == o.subs.log.namespace && carried(sub.Transport) {
				wanted[o.versionOf(sub)] = true
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	var ending sync.WaitGroup
	for v, r := range outlets {
		if !wanted[v] {
			r.stop()
			ending.Go(func() { <-r.done })
			delete(outlets, v)
		}
	}
	ending.Wait()
	for v := range wanted {
		if _, there := outlets[v]; there {
			continue
		}
		ctx, stop := context.WithCancel(ctx)
		r := running{stop: stop, done: make(chan struct{})}
		outlets[v] = r
		go func() {
			defer close(r.done)
			defer stop()
			o.serve(ctx, v)
		}()
	}
	return nil
}

func (o *Outbound) versionOf(sub *store.Subscription) version {
	v := version{id: sub.ID, moved: o.subs.positions.movedAt(sub.ID)}
	if sub.Updated != nil {
		v.updated = *sub.Updated
	}
	return v
}

// serve delivers one definition of a subscription until ctx ends.
func (o *Outbound) serve(ctx context.Context, v version) {
	for ctx.Err() == nil {
		turn := o.subs.positions.turn()
		sub, err := o.subs.Get(ctx, v.id)
		if errs.Code(err) == errs.CodeNotFound || err == nil && o.versionOf(sub) != v {
			return // the next scan knows what became of it
		}
		if err == nil {
			err = o.deliver(ctx, sub, turn)
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		o.log.Error("a subscription is not delivered; trying again", "namespace", o.subs.log.namespace, "subscription", v.id, "error", err)
		pause(ctx, rescan, nil)
	}
}

// deliver runs an outlet on a definition.
func (o *Outbound) deliver(ctx context.Context, sub *store.Subscription, turn int) error {
	out, err := o.outlet(sub)
	if err != nil {
		return err
	}
	out.turn = turn
	defer out.target.close()
	err = o.subs.db.Write(ctx, func(tx *store.Tx) error { return tx.InterruptDeliveries(sub.ID, store.At(time.Now())) })
	if err != nil {
		return err
	}
	return out.run(ctx)
}

// check says what is wrong with the options of a subscription that the node is
// to carry; secret is the one that was taken out of them.
func (o *Outbound) check(transport string, options *Options, secret string) error {
	switch transport {
	case TransportWebhooks:
		w, err := options.webhook()
		if err != nil {
			return err
		}
		return w.check(o)
	case TransportNATS, TransportKafka:
		b, err := options.broker(transport)
		if err != nil {
			return err
		}
		return o.brokers.check(transport, b)
	}
	return nil
}
