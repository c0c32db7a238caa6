package executor

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/backstep/backstep/internal/config"
	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/probe"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/verdict"
)

// tick is how often evidence is judged.
const tick = 50 * time.Millisecond

// waiting bounds the checks of one probe that wait for an answer at the same time.
const waiting = 256

// Evidence is what was seen of a release, and what it says.
type Evidence struct {
	Verdict verdict.Verdict
	Reason  string
	Ticks   []verdict.Tick
	Seen    verdict.Counts
	Samples []string // what the first failed checks got, at most five, all different
	Log     []string // the last lines of the release
}

// sampleLimit bounds Evidence.Samples.
const sampleLimit = 5

// collector adds up the checks of one tick.
type collector struct {
	mu      sync.Mutex
	counts  verdict.Counts
	samples []string
}

func (c *collector) add(name string, r probe.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch r.Outcome {
	case probe.Pass:
		c.counts.Requests++
	case probe.Fail:
		c.counts.Requests++
		c.counts.Errors++
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

func (c *collector) take() verdict.Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := c.counts
	c.counts = verdict.Counts{}
	return counts
}

// observe takes evidence of r, a tick at a time, until the rule decides or bake and patience are over. The
// target is asked as well: a release that has died has failed, whatever the checks say.
func (x *Executor) observe(ctx context.Context, r release.Release, bake, patience time.Duration) (Evidence, error) {
	state, err := x.target.Observe(ctx)
	if err != nil {
		return Evidence{}, err
	}
	in := state.Find(r.Digest)
	if in == nil {
		return Evidence{}, fault.Errorf(fault.HalfWay, "%s is not on the target", r).
			WithHint("deploy it again, or roll back")
	}
	v := x.Config.Verify
	rule := verdict.NewObjective(verdict.ObjectiveOptions{Objective: v.Objective, Intolerable: v.Intolerable,
		Alpha: v.Alpha, Beta: v.Beta, Bake: bake, Patience: patience, Tick: tick})

	asking, stop := context.WithCancel(ctx)
	var askers sync.WaitGroup
	defer askers.Wait()
	defer stop()
	var checks collector
	for _, p := range v.Probes {
		askers.Go(func() { ask(asking, p, in.Address, &checks) })
	}

	var seen Evidence
	begin := time.Now()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return seen, context.Cause(ctx)
		case <-ticker.C:
		}
		t := verdict.Tick{Elapsed: time.Since(begin), Candidate: checks.take()}
		seen.Ticks = append(seen.Ticks, t)
		seen.Seen = seen.Seen.Add(t.Candidate)
		seen.Verdict, seen.Reason = rule.Observe(t), rule.Reason()
		if seen.Verdict == verdict.Unknown && (t.Candidate.Errors > 0 || len(seen.Ticks)%10 == 0) {
			if gone := x.hasDied(ctx, r); gone != "" {
				seen.Verdict, seen.Reason = verdict.Fail, gone
			}
		}
		if seen.Verdict != verdict.Unknown || t.Elapsed >= bake+patience {
			checks.mu.Lock()
			seen.Samples = checks.samples
			checks.mu.Unlock()
			return seen, nil
		}
	}
}

// hasDied says why r failed on the target, or "". A target that cannot be asked is no evidence.
func (x *Executor) hasDied(ctx context.Context, r release.Release) string {
	state, err := x.target.Observe(ctx)
	if err != nil {
		return ""
	}
	if in := state.Find(r.Digest); in != nil && in.Phase == plan.Failed {
		return "the release died: " + in.Reason
	}
	return ""
}

// ask checks at a fixed rate, whatever the answers take (open loop), until ctx is done.
func ask(ctx context.Context, p config.ProbeConfig, address string, into *collector) {
	var checks sync.WaitGroup
	defer checks.Wait()
	slots := make(chan struct{}, waiting)
	pace := time.NewTicker(time.Second / time.Duration(p.Rate))
	defer pace.Stop()
	for {
		select {
		case slots <- struct{}{}:
			checks.Go(func() {
				defer func() { <-slots }()
				one, cancel := context.WithTimeout(ctx, p.Timeout)
				defer cancel()
				result := p.Probe.Check(one, address)
				if ctx.Err() == nil {
					into.add(p.Name, result)
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

// watchCanary waits for a pass between two weights. Anything else ends the deploy.
func (x *Executor) watchCanary(ctx context.Context, r release.Release) error {
	share := time.Duration(len(x.Config.Weights) + 1)
	e, err := x.observe(ctx, r, x.Config.Verify.Bake/share, x.Config.Verify.Patience)
	if err != nil {
		return err
	}
	x.log.Info("verdict on the canary", "verdict", e.Verdict.String(), "why", e.Reason)
	if e.Verdict != verdict.Pass {
		return fmt.Errorf("the verdict is %s: %s", e.Verdict, e.Reason)
	}
	return nil
}
