package verdict

import (
	"math"
	"time"
)

// Traffic is what a rule will see in a second: the requests, or checks, of both sides, and the error rate of a good release.
type Traffic struct {
	Candidate, Baseline float64 // a second; a Baseline of 0 is nobody to compare with
	Errors              float64 // from 0 to 1
}

// ForChecks are the options of a rule that judges checks of our own.
func ForChecks(o Options) Options {
	o.checks = true
	return o
}

// Never is longer than anybody waits.
const Never = 100 * 365 * 24 * time.Hour

// lateFactor is how many times the usual time 95 of 100 releases take; found by simulation.
const lateFactor = 2.2

// Passing is how long a good release usually takes to get a pass, and how long 95 of 100 take at most: the evidence that 1/Beta needs,
// over what a second of this traffic brings against the nearest intolerable release (Wald 1945), as often as errors come together.
func (o Options) Passing(t Traffic) (usual, late time.Duration) {
	size := 1 + (o.largest()-1)*2/(2+expectedBlocks)
	if t.Errors == 0 {
		size = o.largest()
	}
	usual = o.WarmUp + seconds(-math.Log(o.Beta)*size/o.worth(t))
	late = o.WarmUp + seconds(lateFactor*-math.Log(o.Beta)*size/o.worth(t))
	return max(usual, o.Bake), max(late, o.Bake)
}

// expectedBlocks is how many half-minutes with errors there are at the end of a usual bake.
const expectedBlocks = 40

func (o Options) largest() float64 {
	if o.checks {
		return largestProbe
	}
	return largestEvent
}

// worth is what a second brings against the nearest intolerable pair of rates.
func (o Options) worth(t Traffic) float64 {
	if t.Baseline == 0 {
		return t.Candidate * information(t.Errors, max(o.Intolerable, 1e-9))
	}
	least := math.Inf(1)
	for i := range 400 { // the rates of a baseline around its own
		p := t.Errors*math.Exp(float64(i-200)/100) + leastRate
		if t.Errors == 0 {
			p = leastRate * math.Exp(float64(i)/20)
		}
		least = min(least, t.Candidate*information(t.Errors, o.beside(p))+t.Baseline*information(t.Errors, p))
	}
	return least
}

// Finding is how long a release with so many times the errors usually takes to be found, when they come one by one and nothing is
// known of the time before: the shortest mean delay that any rule can have (Wald 1945, Lorden 1971), times what this one takes longer by simulation.
func (o Options) Finding(t Traffic, times float64) time.Duration {
	bad := min(1, times*t.Errors)
	if bad >= 0.5 {
		return streakLasts
	}
	gained := 0.0
	if t.Baseline == 0 {
		if bad > o.Objective {
			gained = t.Candidate * information(bad, o.Objective)
		}
	} else {
		pooled := (t.Candidate*bad + t.Baseline*t.Errors) / (t.Candidate + t.Baseline)
		if pooled > 0 {
			gained = t.Candidate*information(bad, pooled) + t.Baseline*information(t.Errors, pooled)
		}
	}
	if gained == 0 {
		return Never
	}
	return o.WarmUp + seconds(findingFactor*-math.Log(o.Alpha)/gained)
}

// findingFactor is how many times the bound a small difference takes without history.
const findingFactor = 4

// information is what a request with errors at rate p says against rate q: Kullback and Leibler's divergence of Poisson's laws.
func information(p, q float64) float64 {
	d := q - p
	if p > 0 {
		d += p * math.Log(p/q)
	}
	return max(0, d)
}

func seconds(s float64) time.Duration {
	if !(s < Never.Seconds()) {
		return Never
	}
	return time.Duration(s * float64(time.Second))
}
