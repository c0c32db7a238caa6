package verdict

import (
	"fmt"
	"math"
	"time"
)

// ObjectiveOptions say what a good release keeps to, and how sure a verdict has to be.
type ObjectiveOptions struct {
	Objective   float64       // the error rate that a good release stays under, above 0
	Intolerable float64       // the error rate that a pass has to exclude, above Objective
	Alpha       float64       // at most this share of good releases ever fails
	Beta        float64       // at most this share of intolerable releases ever passes
	Bake        time.Duration // no pass before it is over
	Patience    time.Duration // how much longer to wait for enough evidence
	Tick        time.Duration // about how often Observe is called, or the Block when there is one
	Block       time.Duration // errors may come together within as long; 0 is one by one
	ungated     bool          // its user has gates of its own
}

// The hard gate: half or more of at least gateRequests failing is a fail without statistics.
const gateRequests = 20

// grid is how many error rates above the objective are tried against it.
const grid = 12

// objective judges the error rate of the candidate alone.
//
// Fail: for each alternative rate p and each tick s at which the release may have turned bad, the likelihood
// ratio of everything since s against the objective is a test martingale; their average over p, and over s
// with a weight for each tick that is fixed beforehand, is one too (Shiryaev 1963; the mixture e-detector of
// Shin, Ramdas and Rinaldo, arXiv 2203.03532, with weights that add up to one). By Ville's inequality it
// reaches 1/Alpha with probability Alpha at most while the rate is at or below the objective, however long
// and however often one looks. A release that turns bad late is caught as fast as one that starts bad.
//
// With a Block, the likelihood ratio of each block is replaced by the same bet on the share of its requests that failed,
// x·p/p0 + (1-x)·(1-p)/(1-p0): its mean is at most 1 however errors come together within the block.
//
// Pass: the mirror process against "the rate is Intolerable or more", from the first tick on.
type objective struct {
	o        ObjectiveOptions
	up       [grid]arm // alternatives above the objective
	waiting  float64   // weight of the ticks that have not come
	share    float64   // weight of one tick
	down     [4]arm
	seen     Counts
	verdict  Verdict
	reason   string
	block    Counts // that has not ended
	begun    time.Duration
	strength float64 // log of the fail process
	sure     float64 // log of the pass process
}

// arm is one alternative: the log likelihood ratio of a bad and of a good request, and the log of its process.
type arm struct{ bad, good, log float64 }

// against is the arm of rate p against rate null.
func against(p, null float64) arm {
	a := arm{bad: math.Inf(-1), good: math.Log1p(-p) - math.Log1p(-null)}
	if p > 0 {
		a.bad = math.Log(p / null)
	}
	return a
}

// of is the log likelihood ratio of one tick.
func (a arm) of(c Counts) float64 {
	log := float64(c.Requests-c.Errors) * a.good
	if c.Errors > 0 { // 0 × -Inf is not a number
		log += float64(c.Errors) * a.bad
	}
	return log
}

// bet is the log of the bet on the share of requests that failed.
func (a arm) bet(c Counts) float64 {
	if c.Requests == 0 {
		return 0
	}
	x := float64(c.Errors) / float64(c.Requests)
	return math.Log(x*math.Exp(a.bad) + (1-x)*math.Exp(a.good))
}

// NewObjective is the rule that compares the error rate with an objective. It needs no baseline.
func NewObjective(o ObjectiveOptions) Rule {
	o.Objective = min(max(o.Objective, 1e-6), 0.5)
	o.Intolerable = min(max(o.Intolerable, 1.5*o.Objective), 0.9)
	r := &objective{o: o, waiting: 1}
	ticks := math.Ceil(float64(o.Bake+o.Patience) / float64(max(o.Tick, time.Millisecond)))
	r.share = 1 / max(ticks, 1)
	low, high := 1.5*o.Objective, 0.999
	for i := range r.up {
		p := low * math.Pow(high/low, float64(i)/(grid-1))
		r.up[i] = against(p, o.Objective)
		r.up[i].log = math.Inf(-1)
	}
	for i, q := range []float64{0, o.Intolerable / 8, o.Intolerable / 4, o.Intolerable / 2} {
		r.down[i] = against(q, o.Intolerable)
	}
	return r
}

// Observe takes one tick. Only the candidate is looked at.
func (r *objective) Observe(t Tick) Verdict {
	if r.verdict == Fail {
		return Fail
	}
	r.verdict = Unknown
	r.seen = r.seen.Add(t.Candidate)
	if r.o.Block == 0 {
		r.strength = r.fail(t.Candidate, arm.of)
	} else if r.block = r.block.Add(t.Candidate); t.Elapsed-r.begun >= r.o.Block {
		r.strength = r.fail(r.block, arm.bet)
		r.block, r.begun = Counts{}, t.Elapsed
	}
	r.sure = r.pass(t.Candidate)
	switch {
	case !r.o.ungated && r.seen.Requests >= gateRequests && 2*r.seen.Errors >= r.seen.Requests:
		r.verdict = Fail
		r.reason = fmt.Sprintf("%s: half or more", r.counted())
	case r.strength >= -math.Log(r.o.Alpha):
		r.verdict = Fail
		r.reason = fmt.Sprintf("%s; a release that keeps to %s would look this bad less than once in %s times",
			r.counted(), percent(r.o.Objective), times(r.strength))
	case t.Elapsed >= r.o.Bake && r.sure >= -math.Log(r.o.Beta):
		r.verdict = Pass
		r.reason = fmt.Sprintf("%s in %s; a release at %s would look this good less than once in %s times",
			r.counted(), t.Elapsed.Round(100*time.Millisecond), percent(r.o.Intolerable), times(r.sure))
	}
	return r.verdict
}

func (r *objective) Reason() string {
	switch {
	case r.verdict != Unknown:
		return r.reason
	case r.seen.Requests == 0:
		return "nobody asked it: there was neither a check nor a request of a customer"
	}
	return fmt.Sprintf("%s: not enough to tell %s from %s", r.counted(), percent(r.o.Objective), percent(r.o.Intolerable))
}

// Progress says how far the evidence has come on the way to a fail and to a pass, from 0 to 1.
func (r *objective) Progress() (fail, pass float64) {
	return way(r.strength, r.o.Alpha), way(r.sure, r.o.Beta)
}

// fail moves the fail process on by one tick and returns its log.
func (r *objective) fail(c Counts, factor func(arm, Counts) float64) float64 {
	share := min(r.share, r.waiting)
	r.waiting -= share
	terms := [grid + 1]float64{grid: math.Log(r.waiting)}
	for i := range r.up {
		a := &r.up[i]
		a.log = logAdd(a.log, math.Log(share)) + factor(*a, c)
		terms[i] = a.log - math.Log(grid)
	}
	return logSum(terms[:])
}

// pass moves the pass process on by one tick and returns its log.
func (r *objective) pass(c Counts) float64 {
	var terms [len(r.down)]float64
	for i := range r.down {
		a := &r.down[i]
		a.log += a.of(c)
		terms[i] = a.log - math.Log(float64(len(r.down)))
	}
	return logSum(terms[:])
}

func (r *objective) counted() string {
	return fmt.Sprintf("%d of %d failed", r.seen.Errors, r.seen.Requests)
}

func logAdd(a, b float64) float64 {
	if a < b {
		a, b = b, a
	}
	if math.IsInf(b, -1) {
		return a
	}
	return a + math.Log1p(math.Exp(b-a))
}

func logSum(terms []float64) float64 {
	sum := math.Inf(-1)
	for _, t := range terms {
		sum = logAdd(sum, t)
	}
	return sum
}

func percent(rate float64) string { return fmt.Sprintf("%.3g %%", 100*rate) }

// times is e to the power of log, as people say it: two figures, and no more than a billion.
func times(log float64) string {
	n := math.Exp(min(log, math.Log(1e9)))
	scale := math.Pow(10, max(0, math.Floor(math.Log10(n))-1))
	return fmt.Sprintf("%.0f", math.Floor(n/scale)*scale)
}
