package main

import (
	"math"
	"time"

	"github.com/backstep/backstep/internal/verdict"
)

// fine says whether a world has to be simulated second by second.
func (w world) fine() bool {
	return w.within > 0 || w.pareto > 0 || w.split || w.retries || w.bot || w.cold > 0 || w.skew > 0 || w.step || w.ramp
}

// course is one run of such a world.
type course struct {
	generator
	setting
	world
	incident time.Duration    // when what hits both begins
	leaves   time.Duration    // when the bot does
	logs     [2]float64       // of the intensities of both sides
	heaps    [2][]heap        // those that are under way
	again    [2][2]int        // errors that are asked about again, for the first and the second time
	late     []verdict.Counts // what the baseline has counted, and not shown yet
}

// heap is errors that come together, over some time.
type heap struct {
	each float64
	left time.Duration
}

func newCourse(g generator, s setting, w world) *course {
	c := &course{generator: g, setting: s, world: w}
	c.incident = time.Duration(g.Float64() * float64(horizon-10*time.Minute))
	c.leaves = time.Duration(g.Float64() * float64(horizon))
	c.logs = [2]float64{w.wander * g.NormFloat64(), w.wander * g.NormFloat64()}
	return c
}

const second = time.Second

func (c *course) run(into []verdict.Tick) []verdict.Tick {
	var t verdict.Tick
	for at := -history + second; at <= horizon; at += second {
		share := 0.0
		if at > 0 {
			share = c.share
			if c.split && at > c.incident+c.tick/2 {
				share = min(2*share, 0.5)
			}
		}
		t.Candidate = t.Candidate.Add(c.side(0, at, c.rate*share))
		t.Baseline = t.Baseline.Add(c.shown(c.side(1, at, c.rate*(1-share))))
		if at%c.tick == 0 {
			t.Elapsed = at
			into = append(into, t)
			t = verdict.Tick{}
		}
	}
	return into
}

// shown is what is read of the baseline when this is counted.
func (c *course) shown(now verdict.Counts) verdict.Counts {
	c.late = append(c.late, now)
	if len(c.late) <= int(c.skew/second) {
		return verdict.Counts{}
	}
	now = c.late[0]
	c.late = c.late[1:]
	return now
}

// side is a second of one side, at a mean number of requests.
func (c *course) side(n int, at time.Duration, rate float64) verdict.Counts {
	if rate == 0 {
		return verdict.Counts{}
	}
	p := c.base * c.intensity(n, at)
	if n == 0 {
		switch {
		case c.ratio == 0 && at > c.onset:
			p = 1
		case at > c.onset:
			p *= c.ratio
		}
		if at <= c.cold {
			p *= 3
		}
	}
	p = min(p, 1)
	var out verdict.Counts
	if c.pareto > 0 && p < 1 {
		out = c.heaped(n, rate, p)
	} else {
		out = c.counts(rate, p, 1)
	}
	if c.retries {
		first, twice := c.again[n][0], c.again[n][1]
		more := verdict.Counts{Requests: first + twice, Errors: c.binomial(first, p)}
		c.again[n] = [2]int{out.Errors, more.Errors}
		more.Errors += c.binomial(twice, p)
		out = out.Add(more)
	}
	if c.bot && n == 1 && at < c.leaves {
		k := c.poisson(2 * c.rate * c.base)
		out = out.Add(verdict.Counts{Requests: k, Errors: k})
	}
	return out
}

// intensity is how many times the usual errors a side has.
func (c *course) intensity(n int, at time.Duration) float64 {
	x := 1.0
	if c.within > 0 {
		keep := math.Exp(-float64(second) / float64(c.within))
		c.logs[n] = keep*c.logs[n] + c.wander*math.Sqrt(1-keep*keep)*c.NormFloat64()
		x *= math.Exp(c.logs[n] - c.wander*c.wander/2)
	}
	since := at - c.incident
	switch {
	case since <= 0 || since > 10*time.Minute:
	case c.step, c.split:
		x *= 10
	case c.ramp:
		x *= 1 + 9*min(1, since.Minutes()/5)
	}
	return x
}

// heapTail is the exponent of the number of errors in a heap: its mean is three times the least.
const heapTail = 1.5

// heaped are errors that come in heaps, one of them within a second or over some ticks.
func (c *course) heaped(n int, rate, p float64) verdict.Counts {
	mean := c.pareto * heapTail / (heapTail - 1)
	for range c.poisson(rate * p / mean) {
		size := c.pareto * math.Pow(1-c.Float64(), -1/heapTail)
		length := second
		if c.spread > 0 {
			length = c.tick * time.Duration(3+c.IntN(c.spread-2))
		}
		c.heaps[n] = append(c.heaps[n], heap{size / length.Seconds(), length})
	}
	errors, left := 0, c.heaps[n][:0]
	for _, h := range c.heaps[n] {
		errors += c.poisson(h.each)
		if h.left -= second; h.left > 0 {
			left = append(left, h)
		}
	}
	c.heaps[n] = left
	requests := c.poisson(rate)
	return verdict.Counts{Requests: requests, Errors: min(errors, requests)}
}
