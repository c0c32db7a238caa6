package verify

import (
	"time"

	"github.com/backstep/backstep/internal/executor"
	"github.com/backstep/backstep/internal/verdict"
	"github.com/backstep/backstep/internal/verdict/ticks"
)

// rates are the counts of both sides in stretches of equal length, over all sources.
type rates struct {
	step   time.Duration
	points []verdict.Pair // the first one begins with the bake
	whole  verdict.Pair
}

// round are lengths of time that a person reads well.
var round = []time.Duration{10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute,
	15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour}

// rounded is the shortest of them that is as long as d, or the longest.
func rounded(d time.Duration) time.Duration {
	for _, r := range round {
		if r >= d {
			return r
		}
	}
	return round[len(round)-1]
}

// enough is how many requests a stretch should have, of both sides.
const enough = 6

// ratesOf counts what came until the end, in stretches of which there are at most so many. None is shorter than what a source takes to
// tell of one: a stretch would have the requests of some sources and not of others. What was before the bake is history.
func ratesOf(all []ticks.Series, end time.Duration, most int) rates {
	least := time.Duration(0)
	requests, often := 0, 1
	for _, s := range all {
		told := 0
		for _, t := range s.Ticks {
			if n := t.Candidate.Requests + t.Baseline.Requests; t.Elapsed > 0 && n > 0 {
				told, requests = told+1, requests+n
			}
		}
		least, often = max(least, s.Rule.Tick), max(often, told)
	}
	least = max(least, end/time.Duration(max(1, min(most, often, requests/enough))))
	r := rates{step: rounded(least)}
	for _, s := range all {
		for _, t := range s.Ticks {
			if t.Elapsed <= 0 {
				continue
			}
			i := int((t.Elapsed - 1) / r.step) // a tick is counted where it ends
			for len(r.points) <= i {
				r.points = append(r.points, verdict.Pair{})
			}
			r.points[i], r.whole = plus(r.points[i], t), plus(r.whole, t)
		}
	}
	return r
}

func plus(p verdict.Pair, t verdict.Tick) verdict.Pair {
	return verdict.Pair{Candidate: p.Candidate.Add(t.Candidate), Baseline: p.Baseline.Add(t.Baseline)}
}

// within is what was counted of both sides after from, and until until at the latest.
func within(all []ticks.Series, from, until time.Duration) verdict.Pair {
	var p verdict.Pair
	for _, s := range all {
		for _, t := range s.Ticks {
			if t.Elapsed > from && t.Elapsed <= until {
				p = plus(p, t)
			}
		}
	}
	return p
}

// took is how long it was until the verdict.
func took(e executor.Evidence) time.Duration {
	end := time.Duration(0)
	if n := len(e.Phases); n > 0 {
		end = e.Phases[n-1].Until
	}
	if n := len(e.Ways); n > 0 {
		end = max(end, e.Ways[n-1].At)
	}
	return end
}
