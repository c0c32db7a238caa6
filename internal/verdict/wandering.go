package verdict

import (
	"math"
	"time"
)

// wandering is an intensity of errors that changes by itself, on each side alone: its correlation time, and the variance of the
// intensity, over its squared mean, that is allowed for as long as nothing is known.
type wandering struct {
	length time.Duration
	prior  float64
}

// The kinds of wandering that are allowed for: a factor of e within half a minute, and half of that in logs within two. The
// priors are e^(σ²)-1 of those. What wanders further is not covered.
var wanderings = [2]wandering{{30 * time.Second, 1.7}, {120 * time.Second, 0.284}}

// damping is the variance of the mean of an intensity over x correlation times, over its own variance.
func damping(x float64) float64 {
	if x < 1e-3 {
		return 1 - x/3
	}
	return 2 / x * (1 - (1-math.Exp(-x))/x)
}

// between is the variance between neighbouring blocks of this length, over that of the intensity.
func (w wandering) between(length time.Duration) float64 {
	x := float64(length) / float64(w.length)
	u := (1 - math.Exp(-x)) / x
	return damping(x) - u*u
}

// spread is the standard deviation of the log of the ratio of both sides over a time, when their intensities have this variance.
func (w wandering) spread(over time.Duration, variance float64) float64 {
	return max(leastSpread, math.Sqrt(2*math.Log1p(variance*damping(float64(over)/float64(w.length)))))
}

// leastSpread is what two sides differ by in any case; below it the grid of ratios is too coarse.
const leastSpread = 0.1

// The logs of ratios that a block's likelihood is kept for.
const (
	gridFrom  = -4.0
	gridStep  = 0.2
	gridSteps = 60
)

// wander is the evidence against "the ratio of both sides is null on average, and wanders": block after block of twice the
// correlation time, the likelihood of the block when the ratio is spread around an alternative, over that when it is spread
// around the null. Blocks multiply. Within a block the ratio of averages is an e-value at any time.
type wander struct {
	kind    wandering
	bets    stakes
	parts   []float64
	waiting waiting
	begun   time.Duration
	seen    bool
	log     [gridSteps]float64 // the likelihood of the block
}

func newWander(kind wandering, bets stakes) *wander {
	w := &wander{kind: kind, bets: bets, parts: make([]float64, len(bets)), waiting: waiting{left: lateness}}
	for i, b := range bets {
		w.parts[i] = b.stake * (1 - lateness)
	}
	return w
}

// add adds the log likelihood of the candidate's part of all errors of a tick, at each ratio of the grid.
func (w *wander) add(p Pair) {
	if p.Candidate.Errors+p.Baseline.Errors == 0 {
		return
	}
	w.seen = true
	log := math.Log(float64(p.Candidate.Requests)/float64(p.Baseline.Requests)) + gridFrom
	for j := range w.log {
		// k·ln(q) + (K-k)·ln(1-q), where the odds of q are the ratio times the traffic
		rest := math.Log1p(math.Exp(log))
		w.log[j] += float64(p.Candidate.Errors)*(log-rest) - float64(p.Baseline.Errors)*rest
		log += gridStep
	}
}

// values are the e-values of the open block, for each bet.
func (w *wander) values(at time.Duration, null, variance float64) []float64 {
	all := make([]float64, len(w.bets))
	for i := range all {
		all[i] = 1
	}
	if !w.seen {
		return all
	}
	top := w.log[0]
	for _, l := range w.log[1:] {
		top = max(top, l)
	}
	var likely [gridSteps]float64
	for j, l := range w.log {
		likely[j] = math.Exp(l - top)
	}
	spread := w.kind.spread(max(at-w.begun, time.Second), variance)
	healthy := averaged(&likely, math.Log(null), spread)
	for i, b := range w.bets {
		if b.ratio > null {
			all[i] = min(averaged(&likely, math.Log(b.ratio), spread)/healthy, ceiling)
		}
	}
	return all
}

// averaged is the likelihood averaged over ratios whose log is normal.
func averaged(likely *[gridSteps]float64, mean, spread float64) float64 {
	sum, weights := 0.0, 0.0
	x := (gridFrom - mean) / spread
	for _, l := range likely {
		weight := math.Exp(-x * x / 2)
		sum += weight * l
		weights += weight
		x += gridStep / spread
	}
	return max(sum/weights, 1e-300)
}

// wealth is what the stake of 1 has become at this time.
func (w *wander) wealth(at time.Duration, null, variance float64) float64 {
	sum := w.waiting.left
	for i, e := range w.values(at, null, variance) {
		sum += w.parts[i] * e
	}
	return min(sum, ceiling)
}

// due says whether the block is over.
func (w *wander) due(at time.Duration) bool { return at-w.begun >= 2*w.kind.length }

// closeBlock ends the block, and lets stake join.
func (w *wander) closeBlock(at time.Duration, null, variance float64) {
	joins := w.waiting.joins(at)
	for i, e := range w.values(at, null, variance) {
		w.parts[i] = min(w.parts[i]*e, ceiling) + joins*w.bets[i].stake
	}
	w.begun, w.seen, w.log = at, false, [gridSteps]float64{}
}
