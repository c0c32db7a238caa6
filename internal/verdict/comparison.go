package verdict

import (
	"fmt"
	"math"
	"time"
)

// steady is the ratio of slow requests that every release stays under: two machines are never equally fast.
const steady = 1.25

// block is how long ticks are judged together: nothing is known of what happens within.
const block = time.Second

// over says whether the block that began at a time ends at another one. A pass waits for the end of the bake, and not for that of a block.
func (o Options) over(at, begun time.Duration) bool {
	return at-begun >= block || at >= o.Bake && begun < o.Bake
}

// learnt is how often there is evidence, by a block that ends at one time and began at another; 0 when that is not known, of the first one.
func learnt(at, begun time.Duration) time.Duration {
	if begun == 0 {
		return 0
	}
	return max(block, (at - begun).Round(block))
}

// comparison judges the candidate against a baseline that runs beside it: its errors, and for each bound of latency the
// requests that took longer. The evidence is averaged, half for errors and half for latency, since they depend on
// one another.
//
// Fail: the evidence against "the ratio of error rates is Harmless or less", by the most sceptical explanation that the ticks
// admit, reaches 1/Alpha. While the release warms up the null is Cold, so that a cold cache is no evidence and a broken
// release still is.
//
// Pass: the evidence against "the release is intolerable" reaches 1/Beta, and the bake and the warm-up are over.
//
// Regions are strata: each compares its own two sides, and all move the same evidence.
type comparison struct {
	o           Options
	metrics     []*metric // the errors, then each bound of latency
	assured     *assurance
	regions     map[string]*region
	seen, other Counts
	tick        time.Duration
	warm        bool    // the warm-up is over
	wealth      float64 // the average of all metrics
	invalid     string  // why the evidence is
	verdict     Verdict
	reason      string
}

// metric is the evidence of errors, or of a bound of latency.
type metric struct {
	harmless float64 // the ratio that a good release stays under
	null     float64 // that now; it may be worse while it warms up
	bets     stakes
	spread   *dispersion
	event    *events
	shifted  [2]*events // the same with the baseline read later, or earlier
	wander   [len(wanderings)]*wander
	wealth   float64
}

// region is what is known of one region.
type region struct {
	number int
	block  Tick          // that has not ended
	begun  time.Duration // when it began
	both   Tick          // blocks until both sides have requests
	split  split
	streak streak
	past   []*Tick // the last ones of both sides, the oldest first; nil is one that does not count
}

// NewComparison is the rule that compares two releases. It needs a baseline with traffic. Ticks from before the release, in which the candidate
// has no requests, tell it how errors come together.
func NewComparison(o Options) Rule {
	o.Harmless = max(o.Harmless, 1)
	o.Ratio = max(o.Ratio, leastRatio*o.Harmless)
	largest := float64(largestEvent)
	if o.checks {
		largest = largestProbe
	}
	return &comparison{o: o, wealth: 1, regions: map[string]*region{}, assured: newAssurance(o, largest), tick: max(o.Tick, 0)}
}

// Observe takes one tick.
func (r *comparison) Observe(t Tick) Verdict {
	if r.verdict == Fail {
		return Fail
	}
	in := r.regions[t.Region]
	if in == nil {
		in = &region{number: len(r.regions), begun: min(0, t.Elapsed)}
		r.regions[t.Region] = in
	}
	if in.block.add(t); r.o.over(t.Elapsed, in.begun) {
		if r.tick == 0 {
			r.tick = learnt(t.Elapsed, in.begun)
		}
		now := in.block
		in.block, in.begun = Tick{}, t.Elapsed
		r.judge(in, now)
	}
	r.verdict = Unknown
	at, plain := t.Elapsed, in.streak.plain(r.seen, r.counted())
	switch {
	case plain != "" && in.streak.Baseline.Requests > 0:
		r.verdict, r.reason = Fail, plain
	case r.wealth >= 1/r.o.Alpha:
		r.verdict = Fail
		r.reason = fmt.Sprintf("%s; a good release would look this bad less than once in %s times", r.findings(), times(math.Log(r.wealth)))
	case at >= r.o.Bake && way(math.Log(r.wealth), r.o.Alpha) < halfWay && way(r.certainty(), r.o.Beta) == 1:
		if r.invalid = mismatch(r.seen, r.other, r.o.Share); r.invalid != "" {
			return Unknown
		}
		r.verdict = Pass
		r.reason = fmt.Sprintf("%s in %s; %s would look this good less than once in %s times", r.counted(), at.Round(100*time.Millisecond),
			r.intolerable(), times(r.certainty()))
	}
	return r.verdict
}

// judge takes a block of a region.
func (r *comparison) judge(in *region, t Tick) {
	length := max(r.tick, block)
	for i := range 1 + len(t.Slower) {
		if i == len(r.metrics) {
			r.metrics = append(r.metrics, newMetric(r.o, i, length, r.warm))
		}
		p := t.metric(i)
		r.metrics[i].spread.add(sideOf(in.number, false), t.Elapsed, p.Baseline)
		r.metrics[i].spread.add(sideOf(in.number, true), t.Elapsed, p.Candidate)
	}
	r.assured.watch(sideOf(in.number, false), t.Elapsed, t.Baseline)
	r.assured.watch(sideOf(in.number, true), t.Elapsed, t.Candidate)
	if t.Elapsed <= 0 {
		return
	}
	if !r.o.checks {
		in.streak.add(t, length, r.metrics[0].spread.weather())
	}
	if in.both.add(t); in.both.Candidate.Requests == 0 || in.both.Baseline.Requests == 0 {
		return
	}
	now := in.both
	in.both = Tick{}
	r.seen, r.other = r.seen.Add(now.Candidate), r.other.Add(now.Baseline)
	if !r.warm && now.Elapsed > r.o.WarmUp {
		r.warm = true
		for _, m := range r.metrics {
			m.warmed(now.Elapsed - length)
		}
	}
	var counts *Tick
	switch in.split.fits(now) {
	case fits:
		counts = &now
	case anew:
		r.assured.forget(t.Region)
	}
	in.past = append(in.past, counts)
	shift := int((r.o.Skew + length - 1) / length)
	if len(in.past) > shift+1 {
		in.past = in.past[1:]
	}
	if counts == nil {
		return
	}
	if r.warm {
		r.assured.add(t.Region, now.Candidate, now.Baseline)
	}
	sum := 0.0
	for i, m := range r.metrics {
		m.add(in.past, i, length, shift, r.o)
		if i > 0 {
			sum += m.wealth
		}
	}
	r.wealth = r.metrics[0].wealth
	if n := len(r.metrics) - 1; n > 0 {
		r.wealth = (r.wealth + sum/float64(n)) / 2
	}
}

// certainty is the log of the evidence for a pass.
func (r *comparison) certainty() float64 {
	if !r.warm {
		return 0
	}
	size := r.o.Size
	if size == 0 {
		size = r.assured.size(r.metrics[0].spread)
	}
	return r.assured.certainty(size)
}

// metric is what counts for the errors, or for a bound of latency.
func (t *Tick) metric(i int) Pair {
	if i == 0 {
		return Pair{t.Candidate, t.Baseline}
	}
	if i > len(t.Slower) {
		return Pair{}
	}
	return t.Slower[i-1]
}

// newMetric is the evidence of metric i; warm says that the warm-up is over.
func newMetric(o Options, i int, tick time.Duration, warm bool) *metric {
	m := &metric{harmless: o.Harmless, spread: newDispersion(tick, o.checks), wealth: 1}
	if i > 0 {
		m.harmless = max(o.Harmless, steady)
	}
	if m.null = max(m.harmless, cold); warm {
		m.null = m.harmless
	}
	m.bets = worse(m.harmless)
	stakes := m.bets.stakes()
	m.event = newEvents(stakes)
	if o.Skew > 0 {
		m.shifted = [2]*events{newEvents(stakes), newEvents(stakes)}
	}
	for j, kind := range wanderings {
		m.wander[j] = newWander(kind, m.bets)
	}
	return m
}

// warmed ends the warm-up.
func (m *metric) warmed(at time.Duration) {
	w := m.spread.weather()
	for j, wander := range m.wander {
		wander.closeBlock(at, m.null, w.wander[j])
	}
	m.null = m.harmless
}

// add adds the newest of the past ticks of a region, and finds what the evidence is worth by the most sceptical explanation.
func (m *metric) add(past []*Tick, i int, tick time.Duration, shift int, o Options) {
	now := past[len(past)-1]
	p := now.metric(i)
	if p.Candidate.Requests == 0 || p.Baseline.Requests == 0 {
		return
	}
	w := m.spread.weather()
	if o.Size > 0 {
		w = weather{event: o.Size, longer: true}
	}
	at := now.Elapsed
	m.event.add(at, tick, m.bets.against(m.null, p), w)
	if m.shifted[0] != nil && len(past) > shift && past[0] != nil {
		then := past[0].metric(i)
		for j, pair := range []Pair{{p.Candidate, then.Baseline}, {then.Candidate, p.Baseline}} {
			if pair.Candidate.Requests > 0 && pair.Baseline.Requests > 0 {
				m.shifted[j].add(at, tick, m.bets.against(m.null, pair), w)
			}
		}
	}
	if o.Size == 0 {
		for _, wander := range m.wander {
			wander.add(p)
		}
	}
	m.wealth = m.worth(at, w, o)
	for j, wander := range m.wander {
		if o.Size == 0 && wander.due(at) {
			wander.closeBlock(at, m.null, w.wander[j])
		}
	}
}

// worth is the least that the evidence is worth by any explanation. While it is little by one, the others are not looked at.
func (m *metric) worth(at time.Duration, w weather, o Options) float64 {
	little := math.Sqrt(1/o.Alpha) / 2
	worth := m.event.wealth(w)
	for _, e := range m.shifted {
		if e != nil && worth > little {
			worth = min(worth, e.wealth(w))
		}
	}
	for j, wander := range m.wander {
		if o.Size == 0 && worth > little {
			worth = min(worth, wander.wealth(at, m.null, w.wander[j]))
		}
	}
	return worth
}

func (r *comparison) Reason() string {
	switch {
	case r.verdict != Unknown:
		return r.reason
	case r.invalid != "":
		return r.invalid
	case r.seen.Requests == 0:
		return "no tick has requests of both"
	}
	return r.counted() + ": not enough to tell"
}

// Progress says how far the evidence has come on the way to a fail and to a pass, from 0 to 1.
func (r *comparison) Progress() (fail, pass float64) {
	return way(math.Log(r.wealth), r.o.Alpha), way(r.certainty(), r.o.Beta)
}

// halfWay is how far on the way to a fail the evidence may have come for a release to pass.
const halfWay = 0.5

// way is how much of the way to 1/level a process has come, by its log.
func way(log, level float64) float64 { return min(1, max(0, log/-math.Log(level))) }

func (r *comparison) counted() string {
	return fmt.Sprintf("candidate %d of %d failed, baseline %d of %d", r.seen.Errors, r.seen.Requests, r.other.Errors, r.other.Requests)
}

// findings is what was counted, and whether it was latency that told.
func (r *comparison) findings() string {
	slowest := 0.0
	for _, m := range r.metrics[1:] {
		slowest = max(slowest, m.wealth)
	}
	if slowest > r.metrics[0].wealth {
		return r.counted() + ", and it is slower"
	}
	return r.counted()
}

func (r *comparison) intolerable() string {
	return "a release that fails in " + percent(r.o.beside(r.other.rate()))
}
