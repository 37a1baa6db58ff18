package nodetest

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/wire"
)

// scaleOf is the size of a scale benchmark: SCALE, or a small one.
func scaleOf(b *testing.B, usual int) int {
	if text := os.Getenv("SCALE"); text != "" {
		n, err := strconv.Atoi(text)
		must(b, err)
		return n
	}
	return usual
}

// BenchmarkGroups is what many groups cost that nobody writes to: memory, idle
// time and a restart, and a message in one of them.
func BenchmarkGroups(b *testing.B) {
	n := scaleOf(b, 1000)
	net := New(b, Options{Members: 2, Block: 30 * time.Millisecond})
	net.Ready()
	from, to := net.Members[0], net.Members[1]
	before := heap()
	started := time.Now()
	var last wire.UUID
	for i := range n {
		in := input(`1`, "t")
		in.Group = &message.GroupInput{Name: fmt.Sprint("group-", i), Members: []message.MemberInput{{Identity: to.Name}}}
		m, err := from.Messages.Private(context.Background(), in)
		must(b, err)
		last = m.Header.ID
		if i%200 == 199 {
			to.Confirmed(last)
		}
	}
	to.Confirmed(last)
	net.Quiet()
	made := time.Since(started)
	used := heap() - before
	rest := idle(5 * time.Second)
	started = time.Now()
	to.Stop()
	to.Start()
	in := input(`2`, "t")
	in.Group = &message.GroupInput{Name: "group-0", Members: []message.MemberInput{{Identity: to.Name}}}
	m, err := from.Messages.Private(context.Background(), in)
	must(b, err)
	to.Confirmed(m.Header.ID)
	restart := time.Since(started)
	for b.Loop() {
		m, err := from.Messages.Private(context.Background(), in)
		must(b, err)
		to.Confirmed(m.Header.ID)
	}
	b.ReportMetric(float64(made.Microseconds())/float64(n), "µs/group-made")
	b.ReportMetric(used/float64(2*n), "B/group")
	b.ReportMetric(rest/2, "idle-%/member")
	b.ReportMetric(float64(restart.Milliseconds()), "ms/restart")
}

// heap is the live memory in bytes.
func heap() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// idle is the share of one core, in per cent, that the process uses in a time.
func idle(d time.Duration) float64 {
	used := func() time.Duration {
		var u syscall.Rusage
		if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
			return 0
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	start := used()
	<-time.After(d)
	return 100 * float64(used()-start) / float64(d)
}
