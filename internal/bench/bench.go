// Package bench measures running nodes as an application sees them: it posts to
// one node's API and listens for confirmed messages at another's. What counts
// is the time from the POST to the event at the receiver, that nothing fails,
// and that every message arrives once.
//
// load.go posts with the connections of poster.go, track.go matches what was sent
// with what arrived, blob.go and list.go measure attachments and reading,
// process.go reads what the processes use, limits.go measures what the machine
// could do, stats.go sums up, report.go prints.
package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/parley-node/parley/client"
)

// Kinds of load.
const (
	Private   = "private"
	Broadcast = "broadcast"
	Blob      = "blob"
	List      = "list"      // GET messages?limit=25
	Contracts = "contracts" // invocations of a contract, by one signer
)

// Options of a measurement.
type Options struct {
	Sender, Receiver *client.Client
	Kind             string
	Rate             float64       // messages a second; 0 posts as fast as it goes
	Posters          int           // concurrent requests
	Size             int           // bytes of a message's value, or of a blob
	Duration         time.Duration // of posting, after the warm-up
	Warmup           time.Duration // posting whose times do not count
	Count            int           // blobs, one after the other
	Processes        []Process     // whose use of the machine is measured
	Dir              string        // on the volume that the nodes write to: then the machine's limits are measured, too
}

// Process is a process to watch.
type Process struct {
	Name string
	PID  int
}

// Result is what was measured.
type Result struct {
	Kind     string  `json:"kind"`
	Size     int     `json:"size"`
	Rate     float64 `json:"rate,omitempty"` // asked for; 0 for saturation
	Posters  int     `json:"posters,omitempty"`
	Seconds  float64 `json:"seconds"` // of posting, without the warm-up
	Posted   int     `json:"posted"`
	Errors   int     `json:"errors"`
	FirstErr string  `json:"firstError,omitempty"`
	Missing  int     `json:"missing"` // posted and never seen at the receiver
	Twice    int     `json:"twice"`   // seen more than once there

	PostRate    float64 `json:"postRate"`              // acknowledged a second
	ConfirmRate float64 `json:"confirmRate"`           // seen at the receiver a second, from the first POST to the last event
	MBPerSecond float64 `json:"mbPerSecond,omitempty"` // of blobs; the median
	Post        Times   `json:"post"`                  // until the POST was answered
	Latency     Times   `json:"latency"`               // from the POST to the event at the receiver

	Slowest   Slowest `json:"slowest,omitzero"`
	Processes []Usage `json:"processes,omitempty"`
	Limits    *Limits `json:"limits,omitempty"` // of the machine, measured just before

	sent int // with those that do not count
}

// Slowest is the message that took longest, to look for the reason.
type Slowest struct {
	Message string  `json:"message"`
	MS      float64 `json:"ms"`
}

// Failed says what a measurement must not show: errors, losses, doubles.
func (r *Result) Failed() error {
	if r.Errors == 0 && r.Missing == 0 && r.Twice == 0 {
		return nil
	}
	return fmt.Errorf("%d errors (%s), %d messages missing, %d twice", r.Errors, r.FirstErr, r.Missing, r.Twice)
}

// topic is what the measured messages are about.
const topic = "bench"

// Run measures. The result is nil only if it could not begin.
func Run(ctx context.Context, o Options) (*Result, error) {
	if o.Posters < 1 || o.Size < 1 {
		return nil, errors.New("posters and size must be at least 1")
	}
	var limits *Limits
	var err error
	if o.Dir != "" {
		if limits, err = MeasureLimits(ctx, o.Dir, o.Posters); err != nil {
			return nil, err
		}
	}
	watch := startWatch(o.Processes)
	var r *Result
	switch o.Kind {
	case Private, Broadcast:
		r, err = runMessages(ctx, o)
	case Blob:
		r, err = runBlobs(ctx, o)
	case List:
		r, err = runList(ctx, o)
	case Contracts:
		r, err = runContracts(ctx, o)
	default:
		return nil, fmt.Errorf("kind %q is not one of private, broadcast, blob, list, contracts", o.Kind)
	}
	usage := watch.stop()
	if r != nil {
		r.Kind, r.Size, r.Rate, r.Posters, r.Processes = o.Kind, o.Size, o.Rate, o.Posters, usage
		r.Limits = limits
		for i := range r.Processes {
			r.Processes[i].share(r)
		}
	}
	return r, err
}
