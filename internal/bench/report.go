package bench

import (
	"fmt"
	"io"
)

// Print writes a result for people.
func (r *Result) Print(w io.Writer) {
	load := fmt.Sprintf("%d posters, as fast as it goes", r.Posters)
	if r.Rate > 0 {
		load = fmt.Sprintf("%g a second", r.Rate)
	}
	switch r.Kind {
	case Blob:
		fmt.Fprintf(w, "blob        %d of %.1f MB: %.0f MB/s from the POST of the message to confirmed at the receiver (median)\n", r.Posted, float64(r.Size)/1e6, r.MBPerSecond)
	case List:
		fmt.Fprintf(w, "list        GET messages?limit=25, %d readers: %.0f a second\n", r.Posters, r.PostRate)
	default:
		fmt.Fprintf(w, "%-11s %d bytes, %s, %.1f s\n", r.Kind, r.Size, load, r.Seconds)
		fmt.Fprintf(w, "  posted    %d, %.0f a second; %d errors\n", r.Posted, r.PostRate, r.Errors)
		fmt.Fprintf(w, "  confirmed %.0f a second at the receiver; %d missing, %d twice\n", r.ConfirmRate, r.Missing, r.Twice)
	}
	if r.FirstErr != "" {
		fmt.Fprintf(w, "  first error: %s\n", r.FirstErr)
	}
	if r.Kind != List {
		fmt.Fprintf(w, "  latency   POST to confirmed at the receiver: p50 %.0f ms, p95 %.0f ms, p99 %.0f ms, max %.0f ms\n", r.Latency.P50, r.Latency.P95, r.Latency.P99, r.Latency.Max)
	}
	if r.Slowest.Message != "" {
		fmt.Fprintf(w, "            slowest: message %s\n", r.Slowest.Message)
	}
	fmt.Fprintf(w, "  answer    to the request: p50 %.1f ms, p95 %.1f ms, p99 %.1f ms, max %.1f ms\n", r.Post.P50, r.Post.P95, r.Post.P99, r.Post.Max)
	for _, u := range r.Processes {
		if !u.Measured {
			fmt.Fprintf(w, "  %-22s pid %d: not measured on this system\n", u.Name, u.PID)
			continue
		}
		fmt.Fprintf(w, "  %-22s %.2f processors", u.Name, u.CPU)
		if u.Micros != 0 {
			fmt.Fprintf(w, ", %.0f us a message", u.Micros)
		}
		fmt.Fprintf(w, ", %.0f MB resident (peak %.0f MB", u.RSSMB, u.PeakMB)
		if u.SlopeMB != 0 {
			fmt.Fprintf(w, ", %+.1f MB a minute", u.SlopeMB)
		}
		fmt.Fprintln(w, ")")
	}
	r.printLimits(w)
}

// printLimits compares the result with what the machine can do.
func (r *Result) printLimits(w io.Writer) {
	l := r.Limits
	if l == nil {
		return
	}
	fmt.Fprintf(w, "  limits    of this machine, just before: %.0f synced writes a second, %.0f signatures a second and processor,\n", l.Commits, l.Signatures)
	fmt.Fprintf(w, "            SHA-256 %.0f MB/s, %.0f round trips and %.0f empty requests a second over loopback\n", l.HashMB, l.RoundTrips, l.Requests)
	if rate := r.ConfirmRate; rate > 0 {
		fmt.Fprintf(w, "  ratio     messages for each synced write that the disk can do: %.2f; for each signature %.2f; for each empty request %.2f\n",
			rate/l.Commits, rate/l.Signatures, rate/l.Requests)
	}
	if r.MBPerSecond > 0 {
		fmt.Fprintf(w, "  ratio     of the hash rate: %.2f\n", r.MBPerSecond/l.HashMB)
	}
}
