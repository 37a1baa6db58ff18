package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
)

// Fact is what the demonstration says of one step: a line of JSON, or a line or
// two of text.
type Fact struct {
	Step  string            `json:"step"`
	OK    bool              `json:"ok"`
	MS    int64             `json:"ms"` // how long the step took
	At    int64             `json:"at"` // milliseconds since the start, when it was done
	Text  string            `json:"text"`
	Error string            `json:"error,omitempty"`
	IDs   map[string]string `json:"ids,omitempty"`

	// Of the step ready:
	Members []MemberFact `json:"members,omitempty"`
	Ledger  *LedgerFact  `json:"ledger,omitempty"`
}

// MemberFact tells how to reach a member.
type MemberFact struct {
	Org          string `json:"org"`
	API          string `json:"api"`
	Admin        string `json:"admin"`
	Metrics      string `json:"metrics"`
	PID          int    `json:"pid"`
	ValidatorPID int    `json:"validator_pid,omitempty"`
	Dir          string `json:"dir"`
}

// LedgerFact tells how to reach the ledger.
type LedgerFact struct {
	RPC      string `json:"rpc"`
	ChainID  uint64 `json:"chainId"`
	Contract string `json:"contract"`
}

// report tells people or scripts how it goes.
type report struct {
	out   io.Writer
	json  bool
	start time.Time

	mu    sync.Mutex
	began time.Time // of the step under way
}

func newReport(out io.Writer, asJSON bool) *report {
	now := time.Now()
	return &report{out: out, json: asJSON, start: now, began: now}
}

// say is for people only: what goes on.
func (r *report) say(format string, args ...any) {
	if r.json {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.out, "%7.1f s    %s\n", time.Since(r.start).Seconds(), fmt.Sprintf(format, args...))
}

// text is for people only, without the time.
func (r *report) text(format string, args ...any) {
	if r.json {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.out, format, args...)
}

// tell reports a step that is done.
func (r *report) tell(f Fact) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	f.MS, f.At = now.Sub(r.began).Milliseconds(), now.Sub(r.start).Milliseconds()
	r.began = now
	if r.json {
		line, err := json.Marshal(f)
		if err != nil {
			line = fmt.Appendf(nil, `{"step":%q,"ok":false,"error":%q}`, f.Step, err)
		}
		fmt.Fprintf(r.out, "%s\n", line)
		return
	}
	mark := "✓"
	if !f.OK {
		mark = "✗"
	}
	fmt.Fprintf(r.out, "%7.1f s  %s %s\n", now.Sub(r.start).Seconds(), mark, f.Text)
	if f.Error != "" {
		fmt.Fprintf(r.out, "             %s\n", f.Error)
	}
}
