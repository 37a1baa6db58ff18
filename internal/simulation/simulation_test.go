package simulation

import (
	"flag"
	"fmt"
	"runtime"
	"slices"
	"testing"
)

var (
	from  = flag.Uint64("from", 1, "first seed")
	seeds = flag.Int("seeds", 24, "how many seeds")
	steps = flag.Int("steps", 0, "steps of each; 0 for the usual number")
	calm  = flag.Bool("calm", false, "without crashes and disk faults")
	tales = flag.Bool("story", false, "tell the story of each seed as it happens")
)

func TestSeeds(t *testing.T) {
	counts := map[string]int{}
	before := 0
	for i := range *seeds {
		seed := *from + uint64(i)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			o := Options{Seed: seed, Steps: *steps, Calm: *calm}
			if *tales {
				o.Tell = func(l string) { t.Log(l) }
			}
			for k, n := range Run(t, o).Counts {
				counts[k] += n
			}
		})
		if i == 0 {
			before = runtime.NumGoroutine()
		}
	}
	t.Logf("%d seeds: %s", *seeds, summary(counts))
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines are left after %d seeds, %d after the first", n, *seeds, before)
	}
}

// A seed replays exactly.
func TestReplay(t *testing.T) {
	var logs [2][]string
	var stories [2][]string
	for i := range logs {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			logs[i] = Run(t, Options{Seed: *from + 1000, Steps: *steps, Tell: func(l string) { stories[i] = append(stories[i], l) }}).Log
		})
	}
	if !slices.Equal(logs[0], logs[1]) {
		t.Errorf("one seed gave two histories:\n%v\n%v", logs[0], logs[1])
	}
	for i := range stories[0] {
		if i >= len(stories[1]) || stories[0][i] != stories[1][i] {
			t.Fatalf("the stories part at line %d:\n%s\n%s", i, stories[0][i], append(stories[1], "(nothing)")[min(i, len(stories[1]))])
		}
	}
}
