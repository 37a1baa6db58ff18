package ethereum

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/rpc"
)

// Finality is what is known of how a chain makes blocks final.
type Finality struct {
	tagged atomic.Bool // the chain has named a final block
}

// Heads gives the newest block and the newest final one.
//
// A chain that names a final block is believed. One that finalises by consensus
// but has not done so yet (it has no proof-of-work difficulty) has a final
// genesis. On any other chain a block is final under as many blocks as
// confirmations says; it is asked only there.
func (f *Finality) Heads(ctx context.Context, c *rpc.Client, confirmations func() (uint64, error)) (head, final *Header, err error) {
	var b Batch
	b.Add(&head, "eth_getBlockByNumber", "latest", false)
	b.Optional(&final, "eth_getBlockByNumber", "finalized", false)
	if err := b.Run(ctx, c); err != nil {
		return nil, nil, err
	}
	if head == nil {
		return nil, nil, errors.New("the endpoint knows no newest block")
	}
	if final != nil {
		if final.Number > head.Number { // the head moved between the two answers
			head = final
		}
		f.tagged.Store(f.tagged.Load() || final.Number > 0)
		return head, final, nil
	}
	if f.tagged.Load() || head.Difficulty == nil || head.Difficulty.ToInt().Sign() == 0 {
		final, err = HeaderAt(ctx, c, "0x0")
		return head, final, err
	}
	depth, err := confirmations()
	if err != nil || depth == 0 {
		return head, head, err
	}
	final, err = HeaderAt(ctx, c, BlockTag(Quantity(head.Height()-min(depth, head.Height()))))
	return head, final, err
}

// Announcements rings when a chain announces a new block. Their only effect is
// to look at the chain earlier, so nothing depends on them.
type Announcements struct {
	Wake chan struct{} // holds a ring; more rings before anybody looks are one

	log  *slog.Logger
	url  string
	live atomic.Bool
	end  context.CancelFunc
	done sync.WaitGroup
}

// Announce subscribes to the new blocks of a WebSocket endpoint until Stop, and
// again when the connection breaks. With an empty URL it never rings.
func Announce(ctx context.Context, websocket string, log *slog.Logger) *Announcements {
	ctx, cancel := context.WithCancel(ctx)
	a := &Announcements{Wake: make(chan struct{}, 1), log: log, url: websocket, end: cancel}
	if websocket == "" {
		return a
	}
	a.done.Go(func() {
		for wait := time.Second; ; wait = min(2*wait, 30*time.Second) {
			err := a.subscribe(ctx)
			if a.live.Swap(false) {
				wait = time.Second
			}
			if ctx.Err() != nil {
				return
			}
			log.Info("the chain announces no blocks, polling it", "err", err, "again", wait)
			a.ring()
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
		}
	})
	return a
}

// Live says whether new blocks are being announced.
func (a *Announcements) Live() bool { return a.live.Load() }

// Stop ends the subscription.
func (a *Announcements) Stop() {
	a.end()
	a.done.Wait()
}

// subscribe rings at each new block until the subscription breaks.
func (a *Announcements) subscribe(ctx context.Context) error {
	c, err := rpc.DialOptions(ctx, a.url)
	if err != nil {
		return err
	}
	defer c.Close()
	blocks := make(chan Header, 16)
	s, err := c.EthSubscribe(ctx, blocks, "newHeads")
	if err != nil {
		return err
	}
	defer s.Unsubscribe()
	a.live.Store(true)
	a.ring()
	for {
		select {
		case <-blocks:
			a.ring()
		case err := <-s.Err():
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (a *Announcements) ring() {
	select {
	case a.Wake <- struct{}{}:
	default:
	}
}

// CheckWebSocket says what is wrong with the URL of a WebSocket endpoint; an
// empty one is right.
func CheckWebSocket(text string) error {
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "ws" && u.Scheme != "wss" {
		return fmt.Errorf("WebSocket URL %q does not start with ws:// or wss://", text)
	}
	return nil
}
