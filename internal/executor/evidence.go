package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstep/backstep/internal/config"
	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/probe"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/verdict"
	"github.com/backstep/backstep/internal/verdict/ticks"
	"github.com/backstep/backstep/internal/wayback"
)

// tick is how often evidence is judged.
const tick = 50 * time.Millisecond

// Evidence is what was seen of a release, and what it says.
type Evidence struct {
	Verdict verdict.Verdict
	Reason  string
	Series  []ticks.Series // by source: the checks, then each meter
	Seen    verdict.Counts // of the release: the checks and the requests of its customers
	Samples []string       // what the first failed checks got, at most five, all different
	Ways    []Way
	Phases  []Phase          // in their order, up to the verdict
	Other   *release.Release // the one that it was compared with; nil when nobody was there

	pending *sync.WaitGroup // checks that are still under way; nil when there are none
}

// wait returns when no check is under way any more.
func (e Evidence) wait() {
	if e.pending != nil {
		e.pending.Wait()
	}
}

// Way is how far the evidence had come at one time on the way to a fail and to a pass, from 0 to 1.
type Way struct {
	At         time.Duration
	Fail, Pass float64
}

// Phase is a stretch of a bake that has a name.
type Phase struct {
	Name  string
	Until time.Duration // since the bake began; it begins where the one before ends
}

// The names of the phases.
const (
	WarmingUp = "warm-up"
	Baking    = "bake"
	Watching  = "watch"
	Waiting   = "waiting for evidence"
)

// phases are those that a bake of a duration had when it ended after so long. Each has a share of the traffic in its name, in percent, when
// that is not all of it.
func phases(warmUp, duration, took time.Duration, main string, share int) []Phase {
	var all []Phase
	at := time.Duration(0)
	for _, p := range []Phase{{WarmingUp, warmUp}, {main, duration}, {Waiting, took}} {
		if until := min(p.Until, took); until > at {
			if share > 0 && share < 100 {
				p.Name += fmt.Sprintf(" at %d %%", share)
			}
			at, p.Until = until, until
			all = append(all, p)
		}
	}
	return all
}

// sampleLimit bounds Evidence.Samples.
const sampleLimit = 5

// source is where evidence comes from, and the rule that judges it.
type source struct {
	rule   verdict.Rule
	record ticks.Series
	take   func() []verdict.Tick // those that have come since it was called last, Elapsed being set
	said   verdict.Verdict
}

// baking is what is judged, beside what, and for how long.
type baking struct {
	release            release.Release
	other              *release.Release // it is asked too, while it is ready; nil is the one with the other part of the traffic, if any
	alpha              float64          // the share of good releases that may get a fail
	duration, patience time.Duration
	watch              bool // what is good already is only watched
	alerts             bool // a new alert is a fail
}

// share is the part of the traffic that a release has, in percent; 0 when that is not known.
func share(state plan.State, r release.Release) int {
	if in := state.Find(r.ID()); in != nil {
		return in.Weight
	}
	return 0
}

// main is the name of its longest phase.
func (b baking) main() string {
	if b.watch {
		return Watching
	}
	return Baking
}

// bake takes evidence of a release, a tick at a time, until the rules decide or duration and patience are over. One fail is
// a fail; a pass requires all, each with its share of alpha. A release that has died has failed, whatever the evidence says.
// When bake returns, checks may still be under way: Evidence.wait ends them. Nothing that follows from a verdict waits for a
// probe.
func (x *Executor) bake(ctx context.Context, b baking) (Evidence, error) {
	r := b.release
	in, err := x.sites[0].Target.Find(ctx, r.ID())
	if err != nil {
		return Evidence{}, err
	}
	if in == nil {
		return Evidence{}, fault.Errorf(fault.HalfWay, "%s is not on the target", r).
			WithHint("deploy it again, or roll back")
	}
	if in.Phase == plan.Failed && in.Ended {
		return Evidence{Verdict: verdict.Fail, Reason: x.world.Secrets.Redact(dead(*in))}, nil
	}
	// Who else has traffic is good to know; a load balancer that is away is no reason to judge nobody.
	state, err := x.sites[0].Target.Observe(ctx)
	if err != nil {
		x.log.Warn("who else has traffic is not known", "error", err)
	}
	asking, stop := context.WithCancel(ctx)
	seen := Evidence{pending: &sync.WaitGroup{}}
	begin := time.Now()
	checks := &collector{}
	if now := state.Find(r.ID()); now != nil {
		in.Weight = now.Weight
	}
	other := beside(state, r)
	if b.other == nil && other != nil {
		b.other = &other.Release
	}
	if other == nil && b.other != nil { // it is warm; what it had before is history
		other = state.Find(b.other.ID())
	}
	of := asked{addresses: in.Addresses(), other: x.watchOther(asking, seen.pending, b.other, in.Addresses())}
	sources := x.sources(asking, seen.pending, checks, of, *in, other, begin, b)
	plainly := make(chan string, 1+len(x.Config.Verify.Probes)) // each sends once
	x.watchLife(asking, seen.pending, *in, b.other, plainly)
	if b.alerts {
		x.watchAlerts(asking, seen.pending, subject(*in), begin, plainly)
	}
	err = x.judge(ctx, &seen, sources, plainly, begin, b.duration, b.patience)
	stop()
	if b.other != nil && b.other.Digest+release.Digest(b.other.Before) != "" {
		seen.Other = b.other
	}
	seen.Phases = phases(x.warmUp(b.duration), b.duration, time.Since(begin), b.main(), share(state, r))
	for _, s := range sources {
		seen.Series = append(seen.Series, s.record)
	}
	seen.Reason = x.world.Secrets.Redact(seen.Reason)
	for _, s := range checks.found() {
		seen.Samples = append(seen.Samples, x.world.Secrets.Redact(s))
	}
	return seen, err
}

// judge reads what has come in each tick, and asks the rules, until it is decided.
func (x *Executor) judge(ctx context.Context, seen *Evidence, sources []*source, plainly <-chan string, begin time.Time, duration, patience time.Duration) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	point, line := seen.pictures(), every(progressEvery)
	for {
		gone := ""
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case gone = <-plainly:
		case <-ticker.C:
		}
		elapsed := time.Since(begin)
		for _, s := range sources {
			for _, t := range s.take() {
				seen.Seen = seen.Seen.Add(t.Candidate)
				s.record.Ticks = append(s.record.Ticks, t)
				s.said = s.rule.Observe(t)
			}
		}
		seen.Verdict, seen.Reason = together(sources)
		if gone != "" && seen.Verdict != verdict.Fail {
			seen.Verdict, seen.Reason = verdict.Fail, gone
		}
		over := seen.Verdict != verdict.Unknown || elapsed >= duration+patience
		done := seen.Verdict == verdict.Fail || over && !x.paused.Load()
		point(elapsed, done, func() Way { return way(sources, elapsed, seen.Verdict) })
		if done {
			return nil
		}
		if line(elapsed) {
			w := way(sources, elapsed, seen.Verdict)
			x.log.Info("so far", "seen", seen.Reason, "to a fail", percent(w.Fail), "to a pass", percent(w.Pass),
				"left", (duration + patience - elapsed).Round(time.Second).String())
		}
	}
}

// The pace of looking whether the release lives, and the longest that one look takes. It happens beside the judging, which
// an engine that hangs must not delay.
const (
	lifeEvery   = 200 * time.Millisecond
	lifeTimeout = 5 * time.Second
)

// watchLife sends once why the release failed on a target, or that it ended since it was first looked at. A target that cannot be
// reached is no evidence.
func (x *Executor) watchLife(ctx context.Context, running *sync.WaitGroup, first plan.Instance, other *release.Release, died chan<- string) {
	running.Go(func() {
		pace := time.NewTicker(lifeEvery)
		defer pace.Stop()
		for {
			for _, s := range x.sites {
				one, cancel := context.WithTimeout(ctx, lifeTimeout)
				in, err := s.Target.Find(one, first.Release.ID())
				cancel()
				switch {
				case err != nil || in == nil:
				case in.Phase == plan.Failed && (in.Ended || !x.unwell(ctx, s, other)):
					died <- dead(*in)
					return
				case in.Restarts > first.Restarts:
					died <- fmt.Sprintf("the release died: it ended, and was started again (%d times)", in.Restarts-first.Restarts)
					return
				}
			}
			select {
			case <-ctx.Done():
				return
			case <-pace.C:
			}
		}
	})
}

// unwell says whether the release beside the one that is judged has the same trouble: what only the checks of the target say, such as a
// HEALTHCHECK, is nothing against a release when they say it of both.
func (x *Executor) unwell(ctx context.Context, s wayback.Site, other *release.Release) bool {
	if other == nil || other.Digest == "" {
		return false
	}
	one, cancel := context.WithTimeout(ctx, lifeTimeout)
	defer cancel()
	in, err := s.Target.Find(one, other.ID())
	return err != nil || in != nil && !in.Ended && in.Phase != plan.Ready && in.Phase != plan.Parked
}

// watchOther keeps the addresses of the release beside the one that is judged, while it is ready on the first target.
func (x *Executor) watchOther(ctx context.Context, running *sync.WaitGroup, other *release.Release, judged []string) *atomic.Pointer[[]string] {
	var at atomic.Pointer[[]string]
	if other == nil || other.Digest == "" {
		return &at
	}
	look := func() {
		one, cancel := context.WithTimeout(ctx, lifeTimeout)
		defer cancel()
		in, err := x.sites[0].Target.Find(one, other.ID())
		if err != nil {
			return
		}
		// One that was ready and is not any more is asked on: what has hit it may have hit both.
		was := at.Load() != nil
		if in == nil || in.Ended || in.Phase == plan.Parked || in.Address == "" || in.Phase != plan.Ready && !was || slices.Contains(judged, in.Address) {
			at.Store(nil)
			return
		}
		all := in.Addresses()
		at.Store(&all)
	}
	look()
	running.Go(func() {
		pace := time.NewTicker(lifeEvery)
		defer pace.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-pace.C:
				look()
			}
		}
	})
	return &at
}

func dead(in plan.Instance) string { return "the release died: " + in.Reason }

// unopened is why probes cannot be asked: their secrets are not set.
func (x *Executor) unopened() error {
	var faults []error
	for _, p := range x.Config.Verify.Probes {
		faults = append(faults, p.Err)
	}
	return errors.Join(faults...)
}

// probed says whether there is a probe that can be asked.
func (x *Executor) probed() bool {
	for _, p := range x.Config.Verify.Probes {
		if p.Err == nil {
			return true
		}
	}
	return false
}

// every says once in each period that it is due.
func every(period time.Duration) func(elapsed time.Duration) bool {
	next := period
	return func(elapsed time.Duration) bool {
		if elapsed < next {
			return false
		}
		next = elapsed + period
		return true
	}
}

// pictures adds points to Ways: each tick at first, and half as often whenever there are too many, so that a verdict after a second has a
// picture, and one after an hour no more points.
func (e *Evidence) pictures() func(elapsed time.Duration, done bool, way func() Way) {
	period, next := tick, time.Duration(0)
	return func(elapsed time.Duration, done bool, way func() Way) {
		if elapsed < next && !done {
			return
		}
		next = elapsed + period - tick/2 // a tick is never quite on time
		e.Ways = append(e.Ways, way())
		if len(e.Ways) < 2*pictured {
			return
		}
		period *= 2
		for i := range pictured {
			e.Ways[i] = e.Ways[2*i+1]
		}
		e.Ways = e.Ways[:pictured]
	}
}

// One deploy has one alpha: these are the shares of its parts. Without a canary verify has that share as well.
const (
	alphaOfTry    = 0.1
	alphaOfCanary = 0.4
)

// alphaOfVerify is what is left.
func (x *Executor) alphaOfVerify() float64 {
	if x.Config.Strategy == plan.Canary {
		return (1 - alphaOfTry - alphaOfCanary) * x.Config.Verify.Alpha
	}
	return (1 - alphaOfTry) * x.Config.Verify.Alpha
}

const (
	block         = time.Second     // in which the errors of customers may come together
	pictured      = 60              // points of a picture, and less than twice as many
	progressEvery = 5 * time.Second // a line of the log
)

func percent(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }

// beside is the other release with the most traffic, or nil.
func beside(state plan.State, r release.Release) *plan.Instance {
	var most *plan.Instance
	for i := range state.Instances {
		in := &state.Instances[i]
		if in.Release.ID() != r.ID() && in.Weight > 0 && (most == nil || in.Weight > most.Weight) {
			most = in
		}
	}
	return most
}

// sources starts to take all evidence there is of a release: the probes together, and each meter. What has customers beside it is compared
// with them.
func (x *Executor) sources(ctx context.Context, askers *sync.WaitGroup, checks *collector, of asked, in plan.Instance, other *plan.Instance,
	begin time.Time, b baking) []*source {
	var meters []config.ProbeConfig
	rules := 0
	for _, p := range x.Config.Verify.Probes {
		if p.Err != nil || p.Watch != nil {
			continue // the first is reported by unopened, where it matters; the second is no source
		}
		if p.Meter != nil {
			meters = append(meters, p)
		} else {
			rules = 1
			askers.Go(func() { ask(ctx, p, of, checks) })
		}
	}
	rule := func(name string, negligible float64) verdict.Setting {
		return verdict.Setting{Rule: name, Options: x.ruleOptions(b, negligible, b.alpha/float64(rules+len(meters)))}
	}
	var all []*source
	if rules > 0 {
		all = append(all, newSource("checks", rule(verdict.Probed, negligibleOfChecks), func() []verdict.Tick {
			counts := checks.take()
			return []verdict.Tick{{Elapsed: time.Since(begin), Candidate: counts.Candidate, Baseline: counts.Baseline}}
		}))
	}
	for _, p := range meters {
		by := rule(verdict.Metered, negligibleOfCustomers)
		by.Tick, by.Skew = max(p.Every, block), p.Skew
		if by.Skew == 0 && other != nil && other.Weight > 0 {
			by.Share = float64(in.Weight) / float64(in.Weight+other.Weight)
		}
		subjects := []probe.Subject{subject(in)}
		if other != nil {
			subjects = append(subjects, subject(*other))
		}
		reader := &reading{meter: p, of: subjects, begin: begin, log: x.log}
		s := newSource(p.Name, by, reader.taken)
		s.record.Bounds = p.Meter.Bounds()
		askers.Go(func() {
			reader.run(ctx)
			if c, ok := p.Meter.(io.Closer); ok {
				c.Close()
			}
		})
		all = append(all, s)
	}
	return all
}

// What nobody minds, unless the configuration says something else: of checks there are few, and of customers many.
const (
	negligibleOfChecks    = 0.01
	negligibleOfCustomers = 0.001
)

// intolerableRatio is the ratio of error rates that a pass excludes, in multiples of what is harmless.
const intolerableRatio = 2.5

// warmUp is how long the caches of a good release may be cold in a bake of a duration.
func (x *Executor) warmUp(duration time.Duration) time.Duration {
	return min(x.Config.Verify.WarmUp, duration/3)
}

// ruleOptions are what the configuration says of a good release.
func (x *Executor) ruleOptions(b baking, negligible, alpha float64) verdict.Options {
	v := x.Config.Verify
	if v.Negligible > 0 {
		negligible = v.Negligible
	}
	return verdict.Options{Harmless: v.Harmless, Objective: v.Objective, WarmUp: x.warmUp(b.duration), Ratio: intolerableRatio * v.Harmless,
		Negligible: negligible, Intolerable: v.Intolerable, Alpha: alpha, Beta: v.Beta, Bake: b.duration}
}

// newSource is a source that is judged by a rule.
func newSource(name string, by verdict.Setting, take func() []verdict.Tick) *source {
	rule, err := by.New()
	if err != nil {
		panic(err) // the names are ours
	}
	return &source{record: ticks.Series{Name: name, Rule: by}, rule: rule, take: take}
}

// subject is an instance as meters find it.
func subject(in plan.Instance) probe.Subject {
	return probe.Subject{Address: in.Address, Fronts: in.Fronts(), Release: in.Release}
}

// together is what all sources say.
func together(sources []*source) (verdict.Verdict, string) {
	said, reasons := verdict.Pass, ""
	if len(sources) == 0 {
		return verdict.Unknown, "there is no evidence"
	}
	for _, s := range sources {
		reason := s.rule.Reason()
		if len(sources) > 1 {
			reason = s.record.Name + ": " + reason
		}
		switch {
		case s.said == verdict.Fail:
			return verdict.Fail, reason
		case s.said == verdict.Unknown:
			said = verdict.Unknown
		}
		if reasons != "" {
			reasons += "; "
		}
		reasons += reason
	}
	return said, reasons
}

// way is the furthest of the sources on the way to a fail, and the last of them on the way to a pass. What is plain is a
// fail all at once.
func way(sources []*source, at time.Duration, said verdict.Verdict) Way {
	w := Way{At: at, Pass: 1}
	for _, s := range sources {
		fail, pass := s.rule.Progress()
		w.Fail, w.Pass = max(w.Fail, fail), min(w.Pass, pass)
	}
	switch {
	case said == verdict.Fail:
		w.Fail = 1
	case len(sources) == 0:
		w.Pass = 0
	}
	return w
}

// halfWay is how far the evidence against a release may have come for it to go on without a verdict.
const halfWay = 0.5

// against is how far the evidence has come on the way to a fail, from 0 to 1.
func (e Evidence) against() float64 {
	if len(e.Ways) == 0 {
		return 1
	}
	return e.Ways[len(e.Ways)-1].Fail
}

// watchCanary waits for a pass between two weights. Anything else ends the deploy.
func (x *Executor) watchCanary(ctx context.Context, r release.Release) error {
	steps := len(x.Config.Weights)
	e, err := x.bake(ctx, baking{release: r, alpha: alphaOfCanary * x.Config.Verify.Alpha / float64(steps),
		duration: x.Config.Verify.Bake / time.Duration(steps+1), patience: x.Config.Verify.Patience / time.Duration(steps+1), alerts: true})
	if err != nil {
		return err
	}
	if e.Verdict == verdict.Pass {
		e.wait() // what fails goes back first
	}
	x.canary = append(x.canary, e)
	x.log.Info("verdict on the canary", "verdict", e.Verdict.String(), "why", e.Reason)
	if e.Verdict == verdict.Unknown && x.Config.OnUnknown == config.OnUnknownGoOn && e.Seen.Requests > 0 && e.against() < halfWay {
		e.wait()
		x.log.Warn("there is no verdict at this share, and little against the release: it goes on", "why", e.Reason)
		return nil
	}
	switch e.Verdict {
	case verdict.Pass:
		return nil
	case verdict.Unknown:
		return fault.Errorf(fault.VerdictUnknown, "the verdict is unknown: %s", e.Reason).
			WithHint("%d requests came within the bake of this share: give it a longer bake or a higher rate, or choose --on-unknown promote, so that verify judges it with all the traffic", e.Seen.Requests)
	}
	return fmt.Errorf("the verdict is %s: %s", e.Verdict, e.Reason)
}
