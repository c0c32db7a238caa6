package verdict

import (
	"fmt"
	"math"
	"time"
)

// natural is how many times the errors of the release before a good one may have where that has more than the objective: it is judged
// at another time.
const natural = 1.5

// How many rates are tried against the objective, in multiples of it up to nearly all.
const (
	triedRates = 12
	leastOver  = 1.5
	mostRate   = 0.999
)

// hopeful are the rates at which a good release may be, as parts of the intolerable one.
var hopeful = []float64{0, 0.125, 0.25, 0.5}

// objective judges the error rate of the candidate alone. Ticks from before the release tell how errors come together, and which rate is
// natural: where the release before had more errors than the objective, half as many again are no evidence.
//
// Fail: the evidence against "the rate is the objective or less", for errors in events of the size that the ticks admit, reaches
// 1/Alpha. A release that turns bad late is caught as fast as one that starts bad (Shiryaev 1963; see events).
//
// Pass: the likelihood at a good rate, over that at the intolerable one, to the power of one over the size of an event, reaches
// 1/Beta, and the bake is over.
type objective struct {
	o           Options
	null        float64 // the objective, or what is natural
	intolerable float64
	bets        []float64 // rates
	logs        []float64 // of their likelihood ratios in a block
	event       *events
	spread      *dispersion
	assured     *assurance // only its size
	tick        time.Duration
	earlier     Counts // of the release before
	seen        Counts
	block       Counts // that has not ended
	other       Counts // likewise
	begun       time.Duration
	streak      streak
	wealth      float64
	verdict     Verdict
	reason      string
}

// NewObjective is the rule that compares the error rate with an objective. It needs no baseline.
func NewObjective(o Options) Rule {
	o.Objective = min(max(o.Objective, 1e-6), 0.5)
	o.Intolerable = min(max(o.Intolerable, leastOver*o.Objective), 0.9)
	largest := float64(largestEvent)
	if o.checks {
		largest = largestProbe
	}
	return &objective{o: o, wealth: 1, tick: o.Tick, assured: newAssurance(o, largest)}
}

// Observe takes one tick. The baseline tells only how errors come together, and how many are natural.
func (r *objective) Observe(t Tick) Verdict {
	if r.verdict == Fail {
		return Fail
	}
	r.verdict = Unknown
	if t.Elapsed <= 0 && r.begun == 0 {
		r.begun = t.Elapsed
	}
	r.seen = r.seen.Add(t.Candidate)
	r.block, r.other = r.block.Add(t.Candidate), r.other.Add(t.Baseline)
	if t.Elapsed <= 0 {
		r.earlier = r.earlier.Add(t.Baseline)
	}
	if r.o.over(t.Elapsed, r.begun) {
		if r.tick == 0 {
			r.tick = learnt(t.Elapsed, r.begun)
		}
		r.judge(t.Elapsed)
		r.block, r.other, r.begun = Counts{}, Counts{}, t.Elapsed
	}
	switch plain := r.streak.plain(r.seen, r.counted()); {
	case plain != "":
		r.verdict, r.reason = Fail, plain
	case r.wealth >= 1/r.o.Alpha:
		r.verdict = Fail
		r.reason = fmt.Sprintf("%s; a release that keeps to %s would look this bad less than once in %s times",
			r.counted(), percent(r.null), times(math.Log(r.wealth)))
	case t.Elapsed >= r.o.Bake && way(r.certainty(), r.o.Beta) == 1 && way(math.Log(r.wealth), r.o.Alpha) < halfWay:
		r.verdict = Pass
		r.reason = fmt.Sprintf("%s in %s; a release at %s would look this good less than once in %s times",
			r.counted(), t.Elapsed.Round(100*time.Millisecond), percent(r.intolerable), times(r.certainty()))
	}
	return r.verdict
}

// judge takes a block that ended at this time.
func (r *objective) judge(at time.Duration) {
	length := max(r.tick, block)
	if r.spread == nil {
		r.spread = newDispersion(length, r.o.checks)
	}
	for i, c := range []Counts{r.other, r.block} {
		of := sideOf(0, i == 1)
		r.spread.add(of, at, c)
		r.assured.watch(of, at, c)
	}
	if at <= 0 {
		return
	}
	if r.event == nil {
		r.begin()
	}
	w := r.spread.weather()
	if !r.o.checks {
		r.streak.add(Tick{Elapsed: at, Candidate: r.block}, length, w)
	}
	if r.block.Requests == 0 {
		return
	}
	for i, rate := range r.bets {
		r.logs[i] = bernoulli(r.block, rate) - bernoulli(r.block, r.null)
	}
	r.event.add(at, length, r.logs, w)
	r.wealth = r.event.wealth(w)
}

// begin sets the rates that are tried.
func (r *objective) begin() {
	r.null, r.intolerable = r.o.Objective, r.o.Intolerable
	if r.earlier.Errors > 0 {
		r.null = min(0.5, max(r.null, natural*r.earlier.rate()))
		r.intolerable = min(0.9, max(r.intolerable, 2*r.null))
	}
	low := leastOver * r.null
	stakes := make([]float64, triedRates)
	for i := range stakes {
		stakes[i] = 1. / triedRates
		r.bets = append(r.bets, low*math.Pow(mostRate/low, float64(i)/(triedRates-1)))
	}
	r.event, r.logs = newEvents(stakes), make([]float64, triedRates)
}

// certainty is the log of the evidence for a pass; 0 is none.
func (r *objective) certainty() float64 {
	if r.spread == nil || r.seen.Requests == 0 || r.seen.rate() > r.intolerable {
		return 0
	}
	size := r.assured.size(r.spread)
	var terms []float64
	for _, part := range hopeful {
		terms = append(terms, (bernoulli(r.seen, part*r.intolerable)-bernoulli(r.seen, r.intolerable))/size-math.Log(float64(len(hopeful))))
	}
	return max(0, logSum(terms))
}

// bernoulli is the log likelihood of so many errors of so many requests at a rate.
func bernoulli(c Counts, rate float64) float64 {
	log := float64(c.Requests-c.Errors) * math.Log1p(-rate)
	if c.Errors > 0 { // 0 × -Inf is not a number
		log += float64(c.Errors) * math.Log(rate)
	}
	return log
}

func (r *objective) Reason() string {
	switch {
	case r.verdict != Unknown:
		return r.reason
	case r.seen.Requests == 0:
		return "nobody asked it: there was neither a check nor a request of a customer"
	}
	return fmt.Sprintf("%s: not enough to tell %s from %s", r.counted(), percent(max(r.null, r.o.Objective)), percent(max(r.intolerable, r.o.Intolerable)))
}

// Progress says how far the evidence has come on the way to a fail and to a pass, from 0 to 1.
func (r *objective) Progress() (fail, pass float64) {
	return way(math.Log(r.wealth), r.o.Alpha), way(r.certainty(), r.o.Beta)
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
