package trace

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"
)

// Step is something that was done in a trace, and how long it took.
type Step struct {
	Name       string
	Context    Context // its own; zero for what belongs to no trace
	Parent     SpanID  // the step that caused it; zero for the first
	Start, End time.Time
	Attributes []slog.Attr
	Err        error // why it failed; nil if it did not
	Server     bool  // it answers a request
}

// Recorder tells of steps: always to the log, at the level debug, and to an
// exporter, if there is one. A nil Recorder tells nobody.
type Recorder struct {
	log    *slog.Logger
	export func(Step) // nil for none
	sample float64    // which part of the traces that begin here is to be recorded
}

// NewRecorder makes a recorder; export may be nil. Sample is which part of the
// traces that begin here is recorded, 0 to 1; for one that began elsewhere that
// was decided there.
func NewRecorder(log *slog.Logger, export func(Step), sample float64) *Recorder {
	return &Recorder{log, export, sample}
}

// Request is the context of a request with a traceparent header, "" for none,
// and the step that caused it.
func (r *Recorder) Request(header string) (c Context, parent SpanID) {
	if from, ok := Parse(header); ok {
		return from.Child(), from.Span
	}
	c = New()
	c.Sampled = r != nil && r.export != nil && rand.Float64() < r.sample
	return c, SpanID{}
}

// On reports whether anybody is told. What only they need need not be found out
// otherwise.
func (r *Recorder) On() bool {
	return r != nil && (r.export != nil || r.log.Enabled(context.Background(), slog.LevelDebug))
}

// Step tells of a step that ended.
func (r *Recorder) Step(s Step) {
	if s.Context.IsZero() || !r.On() {
		return
	}
	attributes := append([]slog.Attr{slog.String("step", s.Name), slog.String("trace", s.Context.Trace.String()), slog.Duration("took", s.End.Sub(s.Start))}, s.Attributes...)
	if s.Err != nil {
		attributes = append(attributes, slog.String("error", s.Err.Error()))
	}
	r.log.LogAttrs(context.Background(), slog.LevelDebug, "step", attributes...)
	if r.export != nil {
		r.export(s)
	}
}

// After tells of a step that a stored context caused; it is the traceparent of a
// message, and "" of one without.
func (r *Recorder) After(parent, name string, start, end time.Time, attributes ...slog.Attr) {
	if !r.On() {
		return
	}
	if c, ok := Parse(parent); ok {
		r.Step(Step{Name: name, Context: c.Child(), Parent: c.Span, Start: start, End: end, Attributes: attributes})
	}
}
