package executor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/backstep/backstep/internal/config"
	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/probe"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/verdict"
	"github.com/backstep/backstep/internal/wayback"
)

// What try is content with: as long without a failure is no reason to wait on.
const (
	tryContent = time.Second
	tryChecks  = 3
	tryPause   = 50 * time.Millisecond // between two rounds
)

// triable are the probes that can be asked before a release has traffic; meters count traffic.
func (x *Executor) triable() []config.ProbeConfig {
	var all []config.ProbeConfig
	for _, p := range x.Config.Verify.Probes {
		if p.Err == nil && p.Probe != nil {
			all = append(all, p)
		}
	}
	return all
}

// try asks a staged release and the one that serves, one after the other, before a customer does. One that fails every time while
// the other does not, or that is found to be worse, never gets traffic. What hits both says nothing.
func (x *Executor) try(ctx context.Context, s wayback.Site, r release.Release) error {
	state, err := s.Target.Observe(ctx)
	if err != nil {
		return err
	}
	in, serving := state.Find(r.ID()), state.Serving()
	if in == nil {
		return fault.Errorf(fault.Failed, "it is gone from the target")
	}
	if serving != nil && (serving.Release.ID() == r.ID() || serving.Phase != plan.Ready || serving.Address == "") {
		serving = nil
	}
	rule := x.tryRule()
	seen := &collector{}
	var whole verdict.Pair
	asked := map[int]time.Time{}
	for begin, turn := time.Now(), 0; ; turn++ {
		x.tryRound(ctx, *in, serving, turn, asked, seen)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		counts, elapsed := seen.take(), time.Since(begin)
		whole = verdict.Pair{Candidate: whole.Candidate.Add(counts.Candidate), Baseline: whole.Baseline.Add(counts.Baseline)}
		if rule.Observe(verdict.Tick{Elapsed: elapsed, Candidate: counts.Candidate, Baseline: counts.Baseline}) == verdict.Fail {
			return untried(rule.Reason(), seen.found())
		}
		content := elapsed >= tryContent && whole.Candidate.Requests >= tryChecks && whole.Candidate.Errors == 0
		if content || elapsed >= x.Config.Try {
			break
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(tryPause):
		}
	}
	if whole.Candidate.Errors > 0 {
		x.log.Warn("tried before it has traffic: some checks fail, and that is not enough to tell", "release", r.Digest.Short(),
			"failed", fmt.Sprintf("%d of %d", whole.Candidate.Errors, whole.Candidate.Requests),
			"of what serves", fmt.Sprintf("%d of %d", whole.Baseline.Errors, whole.Baseline.Requests), "samples", strings.Join(seen.found(), "; "))
	}
	return nil
}

// tryRule is the rule of the checks, with the part of alpha that trying has.
func (x *Executor) tryRule() verdict.Rule {
	o := x.ruleOptions(baking{duration: x.Config.Try}, negligibleOfChecks, alphaOfTry*x.Config.Verify.Alpha)
	o.WarmUp = x.Config.Verify.WarmUp
	return verdict.NewProbed(o)
}

// tryRound asks each probe that is due: of the staged release, and then of the one that serves. One that is rare by its configuration is
// asked as often as it takes to tell.
func (x *Executor) tryRound(ctx context.Context, in plan.Instance, serving *plan.Instance, turn int, asked map[int]time.Time, into *collector) {
	for i, p := range x.triable() {
		if time.Since(asked[i]) < min(p.Every, x.Config.Try/tryChecks) {
			continue
		}
		asked[i] = time.Now()
		check := func(address string) probe.Result {
			one, cancel := context.WithTimeout(ctx, p.Timeout)
			defer cancel()
			return p.Probe.Check(one, address)
		}
		own := in.Addresses()
		result := check(own[turn%len(own)])
		var other *probe.Result
		if serving != nil {
			others := serving.Addresses()
			o := check(others[turn%len(others)])
			other = &o
		}
		if ctx.Err() == nil {
			into.add(p.Name, result, other)
		}
	}
}

// untried is the fault of a release that customers never see.
func untried(reason string, samples []string) error {
	e := fault.Errorf(fault.Failed, "tried before it has traffic: %s", reason)
	if len(samples) > 0 {
		return e.WithHint("the checks got:\n  %s", strings.Join(samples, "\n  "))
	}
	return e
}
