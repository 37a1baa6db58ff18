package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Usage is what a process used during a measurement.
type Usage struct {
	Name     string  `json:"name"`
	PID      int     `json:"pid"`
	CPU      float64 `json:"cpu"`              // processors in use, on average
	Seconds  float64 `json:"seconds"`          // processor time used
	Micros   float64 `json:"micros,omitempty"` // of it, for each message of the load, in microseconds
	RSSMB    float64 `json:"rssMB"`            // resident memory at the end, in MB
	PeakMB   float64 `json:"peakMB"`           // and at most
	SlopeMB  float64 `json:"slopeMB"`          // growth over the last two thirds, MB a minute; 0 below a minute
	Measured bool    `json:"measured"`         // false where the system does not tell
}

// share computes what a message cost the process, warm-up included.
func (u *Usage) share(r *Result) {
	if r.sent > 0 {
		u.Micros = u.Seconds / float64(r.sent) * 1e6
	}
}

// slopeAfter is how long a measurement must last for the growth of memory to
// mean anything.
const slopeAfter = time.Minute

// sampleEvery is how often memory is looked at.
const sampleEvery = 500 * time.Millisecond

// clockTick is the unit of CPU time in /proc: USER_HZ, 100 on every Linux.
const clockTick = 100

// watch looks at processes during a measurement. It knows Linux's /proc; where
// there is none it measures nothing.
type watch struct {
	began   time.Time
	watched []*watched
	quit    chan struct{}
	done    sync.WaitGroup
}

type watched struct {
	Process
	cpu       float64 // seconds at the start
	at, rssMB []float64
	ok        bool
}

func startWatch(processes []Process) *watch {
	w := &watch{began: time.Now(), quit: make(chan struct{})}
	for _, p := range processes {
		one := &watched{Process: p}
		var err error
		one.cpu, err = cpuSeconds(p.PID)
		one.ok = err == nil
		w.watched = append(w.watched, one)
	}
	w.done.Go(func() {
		tick := time.NewTicker(sampleEvery)
		defer tick.Stop()
		for {
			w.sample()
			select {
			case <-w.quit:
				return
			case <-tick.C:
			}
		}
	})
	return w
}

func (w *watch) sample() {
	at := time.Since(w.began).Minutes()
	for _, p := range w.watched {
		if rss, err := residentMB(p.PID); err == nil {
			p.at, p.rssMB = append(p.at, at), append(p.rssMB, rss)
		}
	}
}

func (w *watch) stop() []Usage {
	close(w.quit)
	w.done.Wait()
	w.sample()
	var all []Usage
	for _, p := range w.watched {
		u := Usage{Name: p.Name, PID: p.PID}
		if cpu, err := cpuSeconds(p.PID); err == nil && p.ok && len(p.rssMB) > 0 {
			u.Measured = true
			u.Seconds = cpu - p.cpu
			u.CPU = u.Seconds / time.Since(w.began).Seconds()
			u.RSSMB = p.rssMB[len(p.rssMB)-1]
			for _, mb := range p.rssMB {
				u.PeakMB = max(u.PeakMB, mb)
			}
			if warm := len(p.at) / 3; time.Since(w.began) >= slopeAfter {
				u.SlopeMB = slope(p.at[warm:], p.rssMB[warm:])
			}
		}
		all = append(all, u)
	}
	return all
}

// cpuSeconds is the processor time that a process has used.
func cpuSeconds(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The command's name is in parentheses and may hold anything.
	end := bytes.LastIndexByte(text, ')')
	fields := strings.Fields(string(text[end+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	user, err := strconv.ParseFloat(fields[11], 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseFloat(fields[12], 64)
	return (user + system) / clockTick, err
}

// residentMB is the resident memory of a process in MB.
func residentMB(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0, fmt.Errorf("/proc/%d/statm has %d fields", pid, len(fields))
	}
	pages, err := strconv.ParseFloat(fields[1], 64)
	return pages * float64(os.Getpagesize()) / 1e6, err
}
