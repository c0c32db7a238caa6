package executor

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstep/backstep/internal/config"
	"github.com/backstep/backstep/internal/probe"
	"github.com/backstep/backstep/internal/verdict"
)

// waiting bounds the checks of one probe that wait for an answer at the same time.
const waiting = 256

// collector adds up the checks of one tick.
type collector struct {
	mu      sync.Mutex
	counts  verdict.Pair
	samples []string
}

// add adds what both sides said at one instant; other is nil when the other one could not be asked.
func (c *collector) add(name string, r probe.Result, other *probe.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if other != nil {
		c.counts.Baseline = c.counts.Baseline.Add(counted(*other))
	}
	c.counts.Candidate = c.counts.Candidate.Add(counted(r))
	if r.Outcome == probe.Fail {
		sample := name + ": " + r.Got
		for _, s := range c.samples {
			if s == sample {
				return
			}
		}
		if len(c.samples) < sampleLimit {
			c.samples = append(c.samples, sample)
		}
	}
}

// counted is one check as a count; one that could not be made is none.
func counted(r probe.Result) verdict.Counts {
	switch r.Outcome {
	case probe.Pass:
		return verdict.Counts{Requests: 1}
	case probe.Fail:
		return verdict.Counts{Requests: 1, Errors: 1}
	}
	return verdict.Counts{}
}

func (c *collector) take() verdict.Pair {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := c.counts
	c.counts = verdict.Pair{}
	return counts
}

// found is what the first failed checks got.
func (c *collector) found() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.samples)
}

// asked are the two sides of a check.
type asked struct {
	addresses []string                  // of the candidate, one after the other
	other     *atomic.Pointer[[]string] // those of the release beside it; nil while it cannot be asked
}

// check asks both sides at one instant. The other one counts only when it was there before and after.
func (a asked) check(ctx context.Context, p config.ProbeConfig, turn int) (result probe.Result, other *probe.Result) {
	one, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	var both sync.WaitGroup
	if others := a.other.Load(); others != nil {
		both.Go(func() {
			r := p.Probe.Check(one, (*others)[turn%len(*others)])
			if r.Outcome == probe.Pass || a.other.Load() != nil {
				other = &r
			}
		})
	}
	result = p.Probe.Check(one, a.addresses[turn%len(a.addresses)])
	both.Wait()
	return result, other
}

// ask checks at a fixed rate, whatever the answers take (open loop), until ctx is done.
func ask(ctx context.Context, p config.ProbeConfig, of asked, into *collector) {
	var checks sync.WaitGroup
	defer checks.Wait()
	slots := make(chan struct{}, waiting)
	pace := time.NewTicker(p.Every)
	defer pace.Stop()
	for turn := 0; ; turn++ {
		select {
		case slots <- struct{}{}:
			checks.Go(func() {
				defer func() { <-slots }()
				result, other := of.check(ctx, p, turn)
				if ctx.Err() == nil {
					into.add(p.Name, result, other)
				}
			})
		default: // the release answers none of so many: those that wait will say so
		}
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
	}
}

// reading turns the totals of a meter into ticks.
type reading struct {
	meter config.ProbeConfig
	of    []probe.Subject // the release, and the one beside it
	begin time.Time
	log   *slog.Logger

	mu    sync.Mutex
	ready []verdict.Tick
	last  []*probe.Totals
	mute  bool // the last reading failed, and that was told
}

// taken is the ticks that have come since it was called last.
func (r *reading) taken() []verdict.Tick {
	r.mu.Lock()
	defer r.mu.Unlock()
	ready := r.ready
	r.ready = nil
	return ready
}

// run reads until ctx is done. What a meter remembers of the release beside comes first.
func (r *reading) run(ctx context.Context) {
	if h, ok := r.meter.Meter.(probe.Historian); ok && len(r.of) > 1 {
		one, cancel := context.WithTimeout(ctx, r.meter.Timeout)
		history, err := h.History(one, r.of[1], r.meter.Every)
		cancel()
		if err != nil && ctx.Err() == nil {
			r.log.Warn("what was before is not known", "meter", r.meter.Name, "error", err)
		}
		r.mu.Lock()
		for i := 1; i < len(history); i++ {
			if _, b, ok := difference(nil, nil, history[i-1], history[i]); ok {
				r.ready = append(r.ready, verdict.Tick{Elapsed: -time.Duration(len(history)-i) * r.meter.Every, Baseline: b.Counts, Slower: pairs(part{}, b)})
			}
		}
		r.mu.Unlock()
	}
	pace := time.NewTicker(r.meter.Every)
	defer pace.Stop()
	for {
		one, cancel := context.WithTimeout(ctx, r.meter.Timeout)
		totals, err := r.meter.Meter.Read(one, r.of)
		cancel()
		if ctx.Err() != nil {
			return
		}
		r.add(totals, err)
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
	}
}

// add makes a tick of two readings. A reading that failed, and a counter that began anew, are no data: the tick is dropped.
func (r *reading) add(totals []*probe.Totals, err error) {
	if err != nil {
		if !r.mute {
			r.log.Warn("no data", "meter", r.meter.Name, "error", err)
		}
		r.mute = true
		return
	}
	r.mute = false
	last := r.last
	r.last = totals
	if last == nil {
		return
	}
	var was, now *probe.Totals
	if len(totals) > 1 {
		was, now = last[1], totals[1]
	}
	c, b, ok := difference(last[0], totals[0], was, now)
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ready = append(r.ready, verdict.Tick{Elapsed: time.Since(r.begin), Candidate: c.Counts, Baseline: b.Counts, Slower: pairs(c, b)})
}

// part is what one side got between two readings.
type part struct {
	verdict.Counts
	slower []int
}

// difference is what both sides got between two readings; not ok when a counter began anew.
func difference(c0, c1, b0, b1 *probe.Totals) (c, b part, ok bool) {
	c, okC := since(c0, c1)
	b, okB := since(b0, b1)
	return c, b, okC && okB
}

func since(was, now *probe.Totals) (part, bool) {
	if was == nil || now == nil {
		return part{}, true // nothing is known of this side
	}
	p := part{Counts: verdict.Counts{Requests: now.Requests - was.Requests, Errors: now.Errors - was.Errors}}
	ok := p.Requests >= 0 && p.Errors >= 0 && p.Errors <= p.Requests && len(now.Slower) == len(was.Slower)
	for i := range now.Slower {
		if ok {
			n := now.Slower[i] - was.Slower[i]
			ok = n >= 0 && n <= p.Requests
			p.slower = append(p.slower, n)
		}
	}
	return p, ok
}

// pairs are the slow requests of both sides, bound by bound.
func pairs(c, b part) []verdict.Pair {
	var all []verdict.Pair
	for i := range max(len(c.slower), len(b.slower)) {
		var p verdict.Pair
		if i < len(c.slower) {
			p.Candidate = verdict.Counts{Requests: c.Requests, Errors: c.slower[i]}
		}
		if i < len(b.slower) {
			p.Baseline = verdict.Counts{Requests: b.Requests, Errors: b.slower[i]}
		}
		all = append(all, p)
	}
	return all
}
