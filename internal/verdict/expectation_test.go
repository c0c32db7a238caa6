package verdict

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// What is said before a deploy is what comes of it: the time of a pass, and of a fail, within a factor of two of simulated ones.
func TestExpectation(t *testing.T) {
	median := func(o Options, c, b Traffic, want Verdict) time.Duration {
		var all []time.Duration
		for seed := range uint64(15) {
			random := rand.New(rand.NewPCG(seed, 8))
			r := NewProbed(o)
			for at := time.Second; ; at += time.Second {
				n, m := int(c.Candidate), int(b.Baseline)
				v := r.Observe(Tick{Elapsed: at, Candidate: Counts{n, flip(random, n, c.Errors)}, Baseline: Counts{m, flip(random, m, b.Errors)}})
				if v == want || at > 2*time.Hour {
					all = append(all, at)
					break
				}
			}
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	o := Options{Ratio: 2.5, Objective: 0.01, Negligible: 0.01, Intolerable: 0.02, Harmless: 1, WarmUp: time.Minute, Alpha: 0.009, Beta: 0.01, Bake: time.Minute, checks: true}
	for _, rate := range []float64{0, 0.005, 0.02} {
		traffic := Traffic{10, 10, rate}
		usual, late := o.Passing(traffic)
		if got := median(o, traffic, traffic, Pass); got > 2*usual || got < usual/2 || late <= usual {
			t.Errorf("a pass at %g: %s simulated, %s said, %s at the latest", rate, got, usual, late)
		}
	}
	traffic := Traffic{10, 10, 0.02}
	if got, said := median(o, Traffic{10, 0, 0.2}, traffic, Fail), o.Finding(traffic, 10); got > 2*said+time.Minute || got < said/2 {
		t.Errorf("ten times the errors: %s simulated, %s said", got, said)
	}
	if got := o.Finding(Traffic{10, 10, 0}, 2); got != Never {
		t.Errorf("twice nothing is found after %s", got)
	}
	if a, b := o.Finding(Traffic{3, 3, 0.005}, 2), o.Finding(Traffic{300, 300, 0.005}, 2); a < 50*b {
		t.Errorf("a hundred times the traffic: %s and %s", a, b)
	}
	alone := Traffic{10, 0, 0}
	if usual, _ := o.Passing(alone); usual > 5*time.Minute || usual < time.Minute {
		t.Errorf("alone: %s", usual)
	}
}
