package simulation

import (
	"flag"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/parley-node/parley/internal/store/storetest"
)

var (
	from  = flag.Uint64("from", 1, "first seed")
	seeds = flag.Int("seeds", 30, "how many seeds")
	both  = flag.Int("both", 3, "how many seeds are compared on two databases")
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

// A seed replays exactly, to the line of the story.
func TestReplay(t *testing.T) {
	for seed := uint64(1001); seed <= 1003; seed++ {
		var stories [2][]string
		var logs [2][]string
		for i := range logs {
			t.Run(fmt.Sprint(seed, ".", i), func(t *testing.T) {
				logs[i] = Run(t, Options{Seed: seed, Steps: *steps, Tell: func(l string) { stories[i] = append(stories[i], l) }}).Log
			})
		}
		if !slices.Equal(logs[0], logs[1]) {
			t.Errorf("seed %d gave two histories:\n%v\n%v", seed, logs[0], logs[1])
		}
		for i, line := range stories[0] {
			if i >= len(stories[1]) || line != stories[1][i] {
				t.Fatalf("the stories of seed %d part at line %d:\n%s\n%s", seed, i, line, append(stories[1], "(nothing)")[min(i, len(stories[1]))])
			}
		}
	}
}

// Both databases give the same history, where nothing is lost in a crash. With
// PARLEY_TEST_POSTGRES the second run is on PostgreSQL, else on SQLite again.
func TestDatabases(t *testing.T) {
	for seed := uint64(2001); seed < 2001+uint64(*both); seed++ {
		var logs [2][]string
		for i, postgres := range []bool{false, storetest.Postgres()} {
			t.Run(fmt.Sprint(seed, ".", i), func(t *testing.T) {
				logs[i] = Run(t, Options{Seed: seed, Steps: *steps, Calm: true, Postgres: postgres}).Log
			})
		}
		if !slices.Equal(logs[0], logs[1]) {
			t.Errorf("seed %d gives two histories:\n%s\n\n%s", seed, strings.Join(logs[0], "\n"), strings.Join(logs[1], "\n"))
		}
	}
}
