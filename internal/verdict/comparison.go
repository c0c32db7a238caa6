package verdict

import (
	"fmt"
	"math"
	"time"
)

// ComparisonOptions say when a release is worse than the one it is compared with, and how sure a verdict has to be.
// Odds are odds ratios of an error: release against baseline.
type ComparisonOptions struct {
	Harmless    float64       // the odds ratio that a good release stays under, at least 1; of a slow request, at least 1.25
	Intolerable float64       // the odds ratio that a pass has to exclude, above Harmless
	Rate        float64       // the error rate that a pass may exclude instead, for releases that hardly ever fail; 0 is none
	WarmUp      time.Duration // how long a good release may be worse, with cold caches,
	Cold        float64       // and up to which odds ratio
	Dispersion  float64       // how many errors come together in a tick; 0 is what the baseline's ticks say
	Alpha       float64       // at most this share of good releases ever fails
	Beta        float64       // at most this share of intolerable releases ever passes
	Bake        time.Duration // no pass before it is over
	Block       time.Duration // ticks are judged together until they are as long, because bursts last; 0 is each alone
	ungated     bool          // its user has gates of its own
}

// Cold is the odds ratio that a release may have while it warms up, unless something else is said: three times the errors, and what comes
// of it in odds.
const Cold = 3.2

// The alternatives to a good release: odds ratios in multiples of Harmless, and how much is staked on each. Small ones,
// for which evidence is slow, get the most. The stakes add up to 1.
var worse = []alternative{{1.3, 0.13}, {1.6, 0.18}, {2, 0.18}, {3, 0.14}, {5, 0.12}, {10, 0.11}, {30, 0.07}, {100, 0.04}, {1000, 0.03}}

// The alternatives to an intolerable release, in multiples of Intolerable.
var better = []alternative{{0.7, 0.25}, {0.5, 0.25}, {0.25, 0.25}, {0.1, 0.25}}

// steady is the odds ratio of a slow request that every release stays under: two machines are never equally fast.
const steady = 1.25

// lateness is the share of the stake that waits for a release that turns bad late.
const lateness = 0.25

// comparison judges the candidate against a baseline that runs beside it: its errors, and for each bound of latency the
// requests that took longer. The processes are averaged, half for errors and half for latency, since they depend on
// one another.
//
// Fail: the average against "the odds ratio is Harmless or less" reaches 1/Alpha. While the release warms up the null
// is Cold, so that a cold cache is no evidence and a broken release still is.
//
// Pass: the mirror process of the errors against "the odds ratio is Intolerable or more, and so is the rate"
// reaches 1/Beta, and the bake is over.
//
// Regions are strata: each compares its own two sides, and all move the same processes.
type comparison struct {
	o           ComparisonOptions
	up          []process // of the errors, then of each bound of latency
	down        process
	rate        [len(clean)]arm // the mirror process of the rate alone
	regions     map[string]*region
	seen, other Counts
	failing     int     // ticks in which the candidate failed
	wealth      float64 // the average of up
	verdict     Verdict
	reason      string
}

// region is what is known of one region.
type region struct {
	block  Tick          // that has not ended
	begun  time.Duration // when it began
	baked  bool          // the bake was over when the last one ended
	spread []dispersion  // of the baseline: errors, then each bound
	streak streak
}

// streak is a run of blocks in each of which half or more of the candidate's requests failed, and less than a quarter of the baseline's.
// Errors that come together do not make one: it has to last, for gateBlocks.
type streak struct {
	blocks int
	Pair
}

// gateBlocks is how many blocks make a fail without statistics.
const gateBlocks = 3

// add adds a block. One without requests of the candidate changes nothing.
func (s *streak) add(c, b Counts) {
	switch {
	case c.Requests == 0:
	case 2*c.Errors >= c.Requests && 4*b.Errors <= b.Requests:
		s.blocks++
		s.Candidate, s.Baseline = s.Candidate.Add(c), s.Baseline.Add(b)
	default:
		*s = streak{}
	}
}

// clean are the alternatives to an intolerable rate, as parts of it.
var clean = [...]float64{0, 0.125, 0.25, 0.5}

// NewComparison is the rule that compares two releases. It needs a baseline with traffic. Ticks from before the release, in which the candidate
// has no requests, tell it how many errors come together.
func NewComparison(o ComparisonOptions) Rule {
	o.Harmless = max(o.Harmless, 1)
	o.Intolerable = max(o.Intolerable, 1.5*o.Harmless)
	r := &comparison{o: o, wealth: 1, regions: map[string]*region{}, down: newProcess(false, 0, scaled(better, o.Intolerable))}
	if o.Rate > 0 {
		for i, part := range clean {
			r.rate[i] = against(part*o.Rate, o.Rate)
		}
	}
	return r
}

func scaled(list []alternative, by float64) []alternative {
	var s []alternative
	for _, a := range list {
		s = append(s, alternative{a.odds * by, a.stake})
	}
	return s
}

// Observe takes one tick.
func (r *comparison) Observe(t Tick) Verdict {
	if r.verdict == Fail {
		return Fail
	}
	r.verdict = Unknown
	if t.Candidate.Requests > 0 && t.Baseline.Requests > 0 {
		r.seen, r.other = r.seen.Add(t.Candidate), r.other.Add(t.Baseline)
		if t.Candidate.Errors > 0 {
			r.failing++
		}
	}
	in := r.regions[t.Region]
	if in == nil {
		in = &region{begun: min(0, t.Elapsed)}
		r.regions[t.Region] = in
	}
	if r.o.Block == 0 {
		r.judge(in, t)
	} else if in.block.add(t); t.Elapsed-in.begun >= r.o.Block || !in.baked && t.Elapsed >= r.o.Bake {
		in.baked = t.Elapsed >= r.o.Bake // a pass waits for the end of the bake, and not for that of a block
		r.judge(in, in.block)
		in.block, in.begun = Tick{}, t.Elapsed
	}
	switch {
	case !r.o.ungated && in.streak.blocks >= gateBlocks && in.streak.Candidate.Requests >= gateRequests && in.streak.Baseline.Requests > 0:
		r.verdict = Fail
		r.reason = fmt.Sprintf("%s, and of late %d of %d: half or more", r.counted(), in.streak.Candidate.Errors, in.streak.Candidate.Requests)
	case !r.o.ungated && r.seen.Requests >= gateRequests && 2*r.seen.Errors >= r.seen.Requests && r.failing > 1 && 4*r.other.Errors < r.other.Requests:
		r.verdict, r.reason = Fail, r.counted()+": half or more"
	case r.wealth >= 1/r.o.Alpha:
		r.verdict = Fail
		r.reason = fmt.Sprintf("%s; a good release would look this bad less than once in %s times", r.told(), times(math.Log(r.wealth)))
	case t.Elapsed >= r.o.Bake && r.certainty() >= -math.Log(r.o.Beta):
		r.verdict = Pass
		r.reason = fmt.Sprintf("%s; %s would look this good less than once in %s times", r.counted(), r.intolerable(), times(r.certainty()))
	}
	return r.verdict
}

// judge moves all processes on by a block of a region.
func (r *comparison) judge(in *region, t Tick) {
	in.streak.add(t.Candidate, t.Baseline)
	null, left := r.o.Harmless, 1.0
	if t.Elapsed <= r.o.WarmUp {
		null = max(null, r.o.Cold)
	} else if t.Elapsed > 0 {
		horizon := max(r.o.Bake, 10*time.Minute)
		left = float64(horizon) / float64(horizon+t.Elapsed)
	}
	bursts := r.move(in, 0, Pair{t.Candidate, t.Baseline}, null, left)
	for i, p := range t.Slower {
		r.move(in, i+1, p, max(null, steady), left)
	}
	r.wealth = r.up[0].wealth()
	if others := r.up[1:]; len(others) > 0 {
		r.wealth /= 2
		for i := range others {
			r.wealth += others[i].wealth() / float64(2*len(others))
		}
	}
	r.down.move(t.Candidate, t.Baseline, r.o.Intolerable, bursts)
	if r.o.Rate > 0 && t.Candidate.Requests > 0 && t.Baseline.Requests > 0 {
		for i := range r.rate {
			r.rate[i].log += r.rate[i].of(t.Candidate) / max(bursts.size, 1)
		}
	}
}

// certainty is the log of the average of the mirror processes.
func (r *comparison) certainty() float64 {
	odds := math.Log(r.down.wealth())
	if r.o.Rate == 0 {
		return odds
	}
	var logs [len(clean)]float64
	for i, a := range r.rate {
		logs[i] = a.log
	}
	return logAdd(odds, logSum(logs[:])-math.Log(float64(len(logs)))) - math.Ln2
}

// move moves the process of the errors, or of a bound of latency, on by a block of a region. It tells how many errors came together before.
func (r *comparison) move(in *region, metric int, p Pair, null, left float64) burstiness {
	for len(r.up) <= metric {
		r.up = append(r.up, newProcess(true, lateness, scaled(worse, r.o.Harmless)))
	}
	for len(in.spread) <= metric {
		in.spread = append(in.spread, dispersion{})
	}
	bursts := in.spread[metric].bursts()
	if r.o.Dispersion > 0 {
		bursts = burstiness{max(r.o.Dispersion, 1), true}
	}
	r.up[metric].join(left)
	r.up[metric].move(p.Candidate, p.Baseline, null, bursts)
	in.spread[metric].observe(p.Baseline)
	return bursts
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

// Progress says how far the evidence has come on the way to a fail and to a pass, from 0 to 1.
func (r *comparison) Progress() (fail, pass float64) {
	return way(math.Log(r.wealth), r.o.Alpha), way(r.certainty(), r.o.Beta)
}

// way is how much of the way to 1/level a process has come, by its log.
func way(log, level float64) float64 { return min(1, max(0, log/-math.Log(level))) }

func (r *comparison) counted() string {
	return fmt.Sprintf("candidate %d of %d failed, baseline %d of %d", r.seen.Errors, r.seen.Requests, r.other.Errors, r.other.Requests)
}

// told is what was counted, and whether it was latency that told.
func (r *comparison) told() string {
	slowest := 0.0
	for i := range r.up[1:] {
		slowest = max(slowest, r.up[1+i].wealth())
	}
	if slowest > r.up[0].wealth() {
		return r.counted() + ", and it is slower"
	}
	return r.counted()
}

func (r *comparison) intolerable() string {
	s := fmt.Sprintf("a release with %.3g times the odds of an error", r.o.Intolerable)
	if r.o.Rate > 0 {
		s += " and " + percent(r.o.Rate) + " of them"
	}
	return s
}
