package simulation

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"
)

// story is what happened, one line each, with the virtual time.
type story struct {
	w      *world
	start  time.Time
	lines  []string
	counts map[string]int
}

// told is how many of the last lines a failure prints.
const told = 400

func (s *story) line(who, text string) {
	if s.start.IsZero() {
		s.start = s.w.now
	}
	if who != "" {
		text = who + " " + text
	}
	l := fmt.Sprintf("%10.3fs  %s", s.w.now.Sub(s.start).Seconds(), text)
	s.lines = append(s.lines, l)
	if s.w.opt.Tell != nil {
		s.w.opt.Tell(l)
	}
}

func (s *story) count(what string) { s.counts[what]++ }

// print gives the end of the story and how to replay it.
func (s *story) print() {
	lines := s.lines
	if cut := len(lines) - told; cut > 0 {
		lines = append([]string{fmt.Sprintf("(%d lines before; -story prints all)", cut)}, lines[cut:]...)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "The story of seed %d:\n%s\n", s.w.opt.Seed, strings.Join(lines, "\n"))
	fmt.Fprintf(&b, "Replay it: go test ./internal/simulation -run 'TestSeeds$' -from %d -seeds 1 -steps %d -story", s.w.opt.Seed, s.w.opt.Steps)
	if s.w.opt.Calm {
		b.WriteString(" -calm")
	}
	s.w.t.Log(b.String())
}

// summary lists what happened how often.
func summary(counts map[string]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s %d", k, counts[k]))
	}
	return strings.Join(parts, ", ")
}

// logger puts what a node logs into the story.
func (s *story) logger(who string) *slog.Logger {
	return slog.New(slog.NewTextHandler(&logLines{s, who}, &slog.HandlerOptions{
		Level: slog.LevelInfo,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == "path" { // the run's folder
				return slog.Attr{}
			}
			return a
		},
	}))
}

type logLines struct {
	s   *story
	who string
}

func (l *logLines) Write(b []byte) (int, error) {
	l.s.line(l.who, "logs: "+string(bytes.TrimSpace(b)))
	return len(b), nil
}
