package main

import (
	"math"
	"math/rand/v2"
	"time"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/backstep/backstep/internal/verdict"
)

// setting is the traffic of a service.
type setting struct {
	rate  float64 // requests a second, of both sides
	share float64 // the candidate's part of them
	base  float64 // the error rate of a good release
	tick  time.Duration
}

const (
	horizon = 30 * time.Minute
	history = time.Hour // of the baseline alone, before the deploy
)

// world is what happens in a run.
type world struct {
	name    string
	burst   float64 // the mean number of errors that come together, geometric; 1 is one by one
	shared  bool    // an incident of 20 times the errors, 2 minutes long, of both sides
	drift   bool    // rate and errors of both sides follow a wave
	warmUp  bool    // the candidate has three times the errors for its first minute
	missing bool    // a tenth of the scrapes fails, and counters begin anew
	latency bool    // requests have a latency, with a speed of its own in each tick
	slowPod bool    // one of the baseline's nine pods is slow

	// What hangs together for longer than a tick; these are simulated second by second.
	wander  float64       // the standard deviation of the log of each side's intensity, which wanders by itself,
	within  time.Duration // and its correlation time
	pareto  float64       // errors come in heaps with a Pareto tail of 1.5, this many at least; 0 is not
	spread  int           // over so many ticks at most
	split   bool          // the candidate's part doubles in the middle of a tick, while an incident of both begins
	retries bool          // who gets an error asks again after a second, twice at most
	bot     bool          // somebody gets errors from the old side only, until some time
	cold    time.Duration // how long the candidate has three times the errors
	skew    time.Duration // how much later the baseline is read
	step    bool          // the errors of both sides are ten times as many from some time on, for ten minutes
	ramp    bool          // they rise to that within five minutes

	ratio  float64       // of the candidate's error rate to that of a good release; 0 is all requests failing
	slower float64       // of the candidate's latency to that of a good release
	onset  time.Duration // when the candidate turns bad
}

// The healthy worlds: whoever fails a release in one of them is wrong.
var nulls = []world{
	{name: "N1 independent", burst: 1, ratio: 1},
	{name: "N2 shared incident", burst: 1, ratio: 1, shared: true},
	{name: "N3 drift", burst: 1, ratio: 1, drift: true},
	{name: "N4 bursts of 5", burst: 5, ratio: 1},
	{name: "N4 bursts of 20", burst: 20, ratio: 1},
	{name: "N5 warm-up", burst: 1, ratio: 1, warmUp: true},
	{name: "N6 slow baseline pod", burst: 1, ratio: 1, latency: true, slower: 1, slowPod: true},
	{name: "N7 missing and resets", burst: 1, ratio: 1, missing: true},
	{name: "N8 wandering, 0.5 in 30 s", ratio: 1, wander: 0.5, within: 30 * time.Second},
	{name: "N8 wandering, 0.5 in 2 min", ratio: 1, wander: 0.5, within: 2 * time.Minute},
	{name: "N8 wandering, 1 in 30 s", ratio: 1, wander: 1, within: 30 * time.Second},
	{name: "N9 heaps in a tick", ratio: 1, pareto: 1},
	{name: "N9 heaps over 3 to 10 ticks", ratio: 1, pareto: 1, spread: 10},
	{name: "N9 heaps of 5 over 3 to 10 ticks", ratio: 1, pareto: 5, spread: 10},
	{name: "N10 the split changes", ratio: 1, split: true},
	{name: "N11 clients ask again", ratio: 1, retries: true, step: true},
	{name: "N12 a bot at the old side", ratio: 1, bot: true},
	{name: "N13 cold for 45 s", ratio: 1, cold: 45 * time.Second},
	{name: "N14 read 5 s apart", ratio: 1, skew: 5 * time.Second, step: true},
	{name: "N15 a ramp of both", ratio: 1, ramp: true},
	{name: "latency as ever", burst: 1, ratio: 1, latency: true, slower: 1},
}

// bounds are Prometheus's default buckets around a latency of 100 ms, in seconds.
var bounds = []float64{0.05, 0.1, 0.25, 0.5, 1}

const (
	median = 0.1 // seconds
	sigma  = 0.5 // of the logarithm
	jitter = 0.05
)

// slowShare is the share of requests that take longer than bound.
func slowShare(bound, speed float64) float64 {
	return 0.5 * math.Erfc((math.Log(bound/(median*speed)))/sigma/math.Sqrt2)
}

// generator makes the ticks of runs.
type generator struct {
	*rand.Rand
	source rand.Source
}

func newGenerator(seed1, seed2 uint64) generator {
	source := rand.NewPCG(seed1, seed2)
	return generator{rand.New(source), source}
}

func (g generator) poisson(mean float64) int {
	if mean <= 0 {
		return 0
	}
	return int(distuv.Poisson{Lambda: mean, Src: g.source}.Rand())
}

// counts are the requests of an interval at this mean number, and their errors.
func (g generator) counts(mean, p, burst float64) verdict.Counts {
	if burst <= 1 {
		errors := g.poisson(mean * p)
		return verdict.Counts{Requests: errors + g.poisson(mean*(1-p)), Errors: errors}
	}
	requests, errors := g.poisson(mean), 0
	for range g.poisson(mean * p / burst) {
		// Geometric from 1 upwards.
		errors += 1 + int(math.Log(1-g.Float64())/math.Log1p(-1/burst))
	}
	return verdict.Counts{Requests: requests, Errors: min(errors, requests)}
}

// slow are the requests that take longer than each bound, spread evenly over pods of these speeds.
func (g generator) slow(requests int, pods ...float64) []int {
	over := make([]int, len(bounds))
	for i, speed := range pods {
		n := g.binomial(requests, 1/float64(len(pods)-i)) // this pod's part of what is left
		requests -= n
		speed *= math.Exp(jitter * g.NormFloat64())
		above := 1.0
		for j, bound := range bounds { // of those over the last bound, some are over this one
			share := slowShare(bound, speed)
			n = g.binomial(n, share/above)
			over[j] += n
			above = share
		}
	}
	return over
}

func (g generator) binomial(n int, p float64) int {
	switch {
	case n == 0 || p <= 0:
		return 0
	case p >= 1:
		return n
	}
	return int(distuv.Binomial{N: float64(n), P: p, Src: g.source}.Rand())
}

// run is the ticks of one run: the hour before the deploy, and the half-hour after it.
func (g generator) run(into []verdict.Tick, s setting, w world) []verdict.Tick {
	into = into[:0]
	if w.fine() {
		return newCourse(g, s, w).run(into)
	}
	incident := time.Duration(g.Float64() * float64(horizon-2*time.Minute))
	phase := 2 * math.Pi * g.Float64()
	var keptC, keptB verdict.Counts
	for at := -history + s.tick; at <= horizon; at += s.tick {
		seconds, base := s.tick.Seconds(), s.base
		rate := s.rate
		if w.drift {
			wave := math.Sin(phase + 2*math.Pi*at.Hours())
			rate *= 1 + 0.5*wave
			base *= 1 + 0.5*wave
		}
		if w.shared && at > incident && at <= incident+2*time.Minute {
			base = min(20*base, 0.95)
		}
		t := verdict.Tick{Elapsed: at}
		baselineShare := 1.0
		if at > 0 {
			baselineShare = 1 - s.share
		}
		t.Baseline = g.counts(rate*baselineShare*seconds, base, w.burst)
		speed := 1.0
		if at > 0 {
			p := base
			if at > w.onset {
				speed = max(w.slower, 1)
				if w.ratio == 0 {
					p = 1
				} else {
					p = min(1, w.ratio*base)
				}
			}
			if w.warmUp && at <= time.Minute {
				p = min(1, 3*base)
			}
			burst := w.burst
			if p == 1 {
				burst = 1
			}
			t.Candidate = g.counts(rate*s.share*seconds, p, burst)
		}
		if w.latency {
			pods := []float64{1}
			if w.slowPod {
				pods = []float64{1, 1, 1, 1, 1, 1, 1, 1, 2}
			}
			c, b := g.slow(t.Candidate.Requests, speed), g.slow(t.Baseline.Requests, pods...)
			for i := range bounds {
				t.Slower = append(t.Slower, verdict.Pair{Candidate: verdict.Counts{Requests: t.Candidate.Requests, Errors: c[i]},
					Baseline: verdict.Counts{Requests: t.Baseline.Requests, Errors: b[i]}})
			}
		}
		if w.missing {
			t.Candidate, keptC = g.scrape(t.Candidate.Add(keptC))
			t.Baseline, keptB = g.scrape(t.Baseline.Add(keptB))
		}
		into = append(into, t)
	}
	return into
}

// scrape is what a scrape gives of what was counted, and what is left for the next one.
func (g generator) scrape(counted verdict.Counts) (now, kept verdict.Counts) {
	switch x := g.Float64(); {
	case x < 0.1: // it failed
		return verdict.Counts{}, counted
	case x < 0.11: // the counter began anew
		return verdict.Counts{}, verdict.Counts{}
	}
	return counted, verdict.Counts{}
}

// bound is the Wald-Lorden bound of the mean delay: log(1/alpha) over the information that a second brings against the null. While
// the null allows for a warm-up, an odds ratio of cold is healthy, and a second brings less. Errors that come together make
// it longer by their dispersion, and an unknown onset by the log of the ticks it can be at.
func bound(s setting, w world, alpha float64, warmUp time.Duration, cold float64) time.Duration {
	p1 := min(1, w.ratio*s.base)
	if w.ratio == 0 {
		p1 = 1
	}
	evidence := -math.Log(alpha)
	if w.onset > 0 {
		evidence += math.Log(float64(horizon) / float64(s.tick))
		warmUp = 0
	}
	if p1 < 1 {
		evidence *= 2*w.burst - 1 // the dispersion of geometric bursts: E[B²]/E[B]
	}
	early, later := warmUp.Seconds()*information(s, p1, cold), information(s, p1, 1)
	seconds := warmUp.Seconds() + (evidence-early)/later
	if evidence < early {
		seconds = warmUp.Seconds() * evidence / early
	}
	return time.Duration(min(seconds, 1e9) * float64(time.Second))
}

// information is what a second brings against the nearest healthy pair of rates: those with the odds ratio null between them.
func information(s setting, p1, null float64) float64 {
	rc, rb := s.rate*s.share, s.rate*(1-s.share)
	if p1 < 1 && p1/(1-p1) <= null*s.base/(1-s.base) {
		return 0
	}
	at := func(logit float64) float64 {
		qb, qc := 1/(1+math.Exp(-logit)), 1/(1+math.Exp(-logit-math.Log(null)))
		return rc*kullback(p1, qc) + rb*kullback(s.base, qb)
	}
	low, high := -20.0, 20.0 // the information is convex in the rates
	for range 200 {
		third := (high - low) / 3
		if at(low+third) < at(high-third) {
			high -= third
		} else {
			low += third
		}
	}
	return at(low)
}

func kullback(p, q float64) float64 {
	d := 0.0
	if p > 0 {
		d += p * math.Log(p/q)
	}
	if p < 1 {
		d += (1 - p) * math.Log((1-p)/(1-q))
	}
	return d
}
