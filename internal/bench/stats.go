package bench

import (
	"math"
	"slices"
	"time"
)

// Times are percentiles in milliseconds.
type Times struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// timesOf sums up durations, which it sorts.
func timesOf(d []time.Duration) Times {
	if len(d) == 0 {
		return Times{}
	}
	slices.Sort(d)
	return Times{P50: percentile(d, 50), P95: percentile(d, 95), P99: percentile(d, 99), Max: ms(d[len(d)-1])}
}

// percentile is the nearest-rank percentile of sorted durations.
func percentile(sorted []time.Duration, p float64) float64 {
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return ms(sorted[max(rank, 1)-1])
}

func ms(d time.Duration) float64 { return math.Round(float64(d)/float64(time.Microsecond)) / 1000 }

// slope is the least-squares slope of y over x; 0 with fewer than two points.
func slope(x, y []float64) float64 {
	n := float64(len(x))
	var sx, sy, sxx, sxy float64
	for i := range x {
		sx, sy, sxx, sxy = sx+x[i], sy+y[i], sxx+x[i]*x[i], sxy+x[i]*y[i]
	}
	if d := n*sxx - sx*sx; len(x) >= 2 && d != 0 {
		return (n*sxy - sx*sy) / d
	}
	return 0
}
