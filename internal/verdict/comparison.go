package verdict

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// ComparisonOptions say when a release is worse than the one it is compared with, and how sure a verdict has to be.
// Odds are odds ratios of an error: release against baseline.
type ComparisonOptions struct {
	Harmless    float64       // the odds ratio that a good release stays under, at least 1
	Intolerable float64       // the odds ratio that a pass has to exclude, above Harmless
	Dispersion  float64       // of the baseline's errors per tick before the deploy, see Dispersion; 1 when they come one by one
	Alpha       float64       // at most this share of good releases ever fails
	Beta        float64       // at most this share of intolerable releases ever passes
	Bake        time.Duration // no pass before it is over
}

// ratios are the alternatives to Harmless that are tried, as multiples of it.
var ratios = [...]float64{1.15, 1.3, 1.6, 2, 3, 5, 10, 30, 100, 1000}

// comparison judges the errors of the candidate against those of a baseline that runs beside it.
//
// In each tick, given the requests of both and all errors of both, the candidate's errors follow Fisher's
// noncentral hypergeometric law with the odds ratio ω: P_ω. For each alternative ω the product over ticks of
// (P_ω/P_ω0)^γ has a mean of at most 1 while the true odds ratio is at most ω0 = Harmless, and so has the average
// over alternatives; by Ville's inequality it reaches 1/Alpha with probability Alpha at most, however long and
// often one looks, whatever the split of the traffic, and whatever hits both sides alike (the conditional test
// of Cochran, Mantel and Haenszel, made valid at any time). γ = 1/Dispersion tempers errors that come in bursts.
//
// Pass: the mirror process against "the odds ratio is Intolerable or more".
type comparison struct {
	o           ComparisonOptions
	up          [len(ratios)]float64 // the log of the process of each alternative
	down        [len(better)]float64
	seen, other Counts
	strength    float64 // the log of the average of up
	certainty   float64 // the log of the average of down
	verdict     Verdict
	reason      string
}

// better are the alternatives to Intolerable that the mirror process tries, as parts of it.
var better = [...]float64{0.7, 0.5, 0.25, 0.1}

// NewComparison is the rule that compares the errors of two releases. It needs a baseline with traffic.
func NewComparison(o ComparisonOptions) Rule {
	o.Harmless = max(o.Harmless, 1)
	o.Intolerable = max(o.Intolerable, 1.5*o.Harmless)
	o.Dispersion = max(o.Dispersion, 1)
	return &comparison{o: o}
}

// Observe takes one tick. A tick in which one side has no requests says nothing.
func (r *comparison) Observe(t Tick) Verdict {
	if r.verdict != Unknown {
		return r.verdict
	}
	if t.Candidate.Requests > 0 && t.Baseline.Requests > 0 {
		r.seen, r.other = r.seen.Add(t.Candidate), r.other.Add(t.Baseline)
	}
	r.move(t)
	strength, certainty := r.strength, r.certainty
	switch {
	case r.seen.Requests >= gateRequests && 2*r.seen.Errors >= r.seen.Requests && 4*r.other.Errors < r.other.Requests:
		r.verdict, r.reason = Fail, r.counted()+": half or more"
	case strength >= -math.Log(r.o.Alpha):
		r.verdict = Fail
		r.reason = fmt.Sprintf("%s; a good release would look this bad less than once in %s times", r.counted(), times(strength))
	case t.Elapsed >= r.o.Bake && certainty >= -math.Log(r.o.Beta):
		r.verdict = Pass
		r.reason = fmt.Sprintf("%s; a release with %.3g times the odds of an error would look this good less than once in %s times",
			r.counted(), r.o.Intolerable, times(certainty))
	}
	return r.verdict
}

func (r *comparison) Reason() string {
	switch {
	case r.verdict != Unknown:
		return r.reason
	case r.seen.Requests == 0:
		return "no tick has requests of both"
	}
	return r.counted() + ": not enough to tell"
}

// move moves both processes on by one tick. A tick without errors, or with nothing else, moves neither.
func (r *comparison) move(t Tick) {
	c, b := t.Candidate, t.Baseline
	all := c.Errors + b.Errors
	if c.Requests == 0 || b.Requests == 0 || all == 0 || all == c.Requests+b.Requests {
		return
	}
	null, intolerable := logFisher(c, b, r.o.Harmless), logFisher(c, b, r.o.Intolerable)
	for i, ratio := range ratios {
		r.up[i] += (logFisher(c, b, r.o.Harmless*ratio) - null) / r.o.Dispersion
	}
	for i, part := range better {
		r.down[i] += (logFisher(c, b, r.o.Intolerable*part) - intolerable) / r.o.Dispersion
	}
	r.strength, r.certainty = mean(r.up[:]), mean(r.down[:])
}

// mean is the log of the mean of what logs are the logs of.
func mean(logs []float64) float64 {
	top := slices.Max(logs)
	sum := 0.0
	for _, l := range logs {
		sum += math.Exp(l - top)
	}
	return top + math.Log(sum/float64(len(logs)))
}

// logFisher is the log of the probability of c.Errors errors of the candidate, given all errors of both and the
// requests of both, when the odds ratio of an error is odds: Fisher's noncentral hypergeometric law. The sum over
// its support is taken outwards from c.Errors, each term from the one before, scaled before it can overflow, and
// ends where terms no longer count.
func logFisher(c, b Counts, odds float64) float64 {
	nc, nb, all := float64(c.Requests), float64(b.Requests), float64(c.Errors+b.Errors)
	at := float64(c.Errors)
	up, upScale := walk(func(j float64) float64 { // from j to j+1
		j += at
		return odds * (nc - j) * (all - j) / ((j + 1) * (nb - all + j + 1))
	}, min(nc, all)-at)
	down, downScale := walk(func(j float64) float64 { // from j to j-1
		j = at - j
		return j * (nb - all + j) / (odds * (nc - j + 1) * (all - j + 1))
	}, at-max(0, all-nb))
	if upScale == 0 && downScale == 0 {
		return -math.Log1p(up + down)
	}
	return -logAdd(0, logAdd(upScale+math.Log(up), downScale+math.Log(down)))
}

// walk is r(0) + r(0)r(1) + … with this many factors, to be multiplied by e to the power of scale; the products
// rise and then fall.
func walk(r func(j float64) float64, steps float64) (sum, scale float64) {
	term := 1.0
	for j := 0.0; j < steps; j++ {
		factor := r(j)
		term *= factor
		sum += term
		if sum > 1e200 {
			sum, term, scale = sum*1e-200, term*1e-200, scale+200*math.Ln10
		}
		if factor < 1 && term < 1e-17*sum {
			break
		}
	}
	return sum, scale
}

func (r *comparison) counted() string {
	return fmt.Sprintf("candidate %d of %d failed, baseline %d of %d", r.seen.Errors, r.seen.Requests, r.other.Errors, r.other.Requests)
}

// Dispersion is Pearson's dispersion of errors per tick around their mean rate, at least 1: how many errors come
// together. Ticks without requests say nothing; with fewer than two others there is nothing to tell, and it is 1.
func Dispersion(ticks []Counts) float64 {
	var sum Counts
	n := 0
	for _, t := range ticks {
		if t.Requests > 0 {
			sum = sum.Add(t)
			n++
		}
	}
	if n < 2 || sum.Errors == 0 {
		return 1
	}
	rate, chi := float64(sum.Errors)/float64(sum.Requests), 0.0
	for _, t := range ticks {
		if t.Requests > 0 {
			expected := rate * float64(t.Requests)
			chi += (float64(t.Errors) - expected) * (float64(t.Errors) - expected) / expected
		}
	}
	phi := max(1, chi/float64(n-1))
	if float64(sum.Errors) < float64(n) {
		phi = max(1, 2*phi) // less than one error a tick: the estimate is itself unsure
	}
	return phi
}
