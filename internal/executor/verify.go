package executor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/target"
	"github.com/backstep/backstep/internal/verdict"
	"github.com/backstep/backstep/internal/wayback"
)

// Judging is what a verify is asked to do.
type Judging struct {
	Release  release.ID                 // what it was started for, its digest at least; "" is what is live
	RollBack func(verdict.Verdict) bool // whether this verdict moves the traffic back
	Observe  bool                       // a fail verdict changes nothing, and says what it would have done
	Watch    time.Duration              // how long to go on after a pass; what is good already is only watched
}

// Verification is how the verification of what is live ended.
type Verification struct {
	Release   release.Release
	Watched   bool   // it was good already, and watched for a while
	Observed  string // what a fail verdict would have done
	Evidence  Evidence
	Back      RolledBack // the rollback that the verdict asked for
	BackErr   error      // why the traffic did not go back, or not to something that works
	Unwritten error      // why the ledger does not hold a fail verdict that moved nothing
}

// errUnsettled says that the targets were not as the ledger says when they were claimed.
var errUnsettled = errors.New("the targets changed while they were claimed")

// armingRounds bounds how often verify begins anew because something came in between.
const armingRounds = 3

// Verify takes evidence of the release that is live until there is a verdict, and writes it. An unknown verdict is no error.
// Before it begins it claims the way back: nothing but one shift lies between a fail and the old release.
func (x *Executor) Verify(ctx context.Context, j Judging) (Verification, error) {
	if len(x.Config.Verify.Probes) == 0 {
		return Verification{}, fault.Inputf("environment %s has no probe to verify with", x.Name).
			WithHint("add to it, for example:\n  verify: {probes: [{kind: http, path: /health}]}")
	}
	if err := x.unopened(); err != nil {
		return Verification{}, err
	}
	v, err := x.verified(ctx, j)
	if err == nil && j.Watch > 0 && !v.Watched && v.Evidence.Verdict == verdict.Pass {
		v.Evidence.wait()
		return x.verified(ctx, j)
	}
	return v, err
}

// verified begins anew when something came in between.
func (x *Executor) verified(ctx context.Context, j Judging) (Verification, error) {
	for range armingRounds {
		if v, err := x.verifyOnce(ctx, j); !errors.Is(err, errUnsettled) {
			return v, err
		}
	}
	return Verification{}, fault.Errorf(fault.Refused, "verify: %w", errUnsettled).WithHint("run it again")
}

func (x *Executor) verifyOnce(ctx context.Context, j Judging) (Verification, error) {
	now, err := x.heal(ctx, nil, policy{})
	if err != nil {
		return Verification{}, err
	}
	live, err := x.judged(now.sight, j)
	if err != nil {
		return Verification{}, err
	}
	v := Verification{Release: live.Release, Watched: j.Watch > 0 && live.Good}
	started, err := x.startVerify(ctx, now.sight, v.Watched)
	if err != nil {
		return v, err
	}
	point("verify started")
	ctx, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	defer x.hold(ctx, started, lost)()
	if err := x.arm(ctx, started); err != nil {
		x.disarm(ctx, started, err.Error())
		return v, err
	}
	point("claimed arm")
	bake, patience := x.Config.Verify.Bake, x.Config.Verify.Patience
	if v.Watched {
		bake, patience = j.Watch, 0
	}
	x.log.Info("verifying", "release", live.Release.Digest.Short(), "version", live.Release.Version, "bake", bake.String())
	warm := x.keepWarm(ctx, started)
	v.Evidence, err = x.bake(ctx, baking{release: live.Release, other: &started.State.Intent.To, alpha: x.alphaOfVerify(), duration: bake, patience: patience, watch: v.Watched, alerts: true})
	warm()
	if errors.Is(err, errEnded) && v.Watched {
		v.Evidence.wait()
		v.Evidence.Verdict, v.Evidence.Reason = verdict.Pass, "it has given way to another run"
		return v, nil
	}
	if errors.Is(err, errEnded) {
		v.Evidence.wait()
		return v, fault.Errorf(fault.Refused, "verify %s: %w", live.Release, err).WithHint("look at what the other run did: backstep history")
	}
	if err != nil {
		x.disarm(ctx, started, err.Error())
		v.Evidence.wait()
		return v, fault.Errorf(fault.CodeOf(err), "verify %s: %w: it stays live, and is not judged", live.Release, err).
			WithHint("verify it again, or roll back")
	}
	if v.Watched && v.Evidence.Verdict == verdict.Unknown && v.Evidence.Seen.Requests > 0 {
		v.Evidence.Verdict = verdict.Pass // it is good already: only a fail is news
	}
	x.log.Info("verdict", "verdict", v.Evidence.Verdict.String(), "why", v.Evidence.Reason)
	point("verdict")
	return x.conclude(ctx, j, v, started)
}

// judged is the entry that is to be judged: what is live, and nothing else than the release that verify was started for.
func (x *Executor) judged(now sight, j Judging) (*ledger.Entry, error) {
	live := now.newest.State.Live
	if live == nil {
		return nil, fault.Inputf("nothing is live in environment %s", x.Name).
			WithHint("deploy first: backstep deploy --environment %s --image …", x.Name)
	}
	if j.Release != "" && !live.Release.Named(string(j.Release)) {
		return nil, fault.Errorf(fault.Refused, "%s is not live: %s is, since event %d", j.Release.Short(), live.Release, live.Seq).
			WithHint("verify what is live now; nothing was touched")
	}
	if in := now.find(live.Release.ID()); in == nil || in.Phase != plan.Failed && !now.serves(live.Release.ID()) {
		return nil, fault.Errorf(fault.HalfWay, "the ledger says that %s is live, but it does not have the traffic", live.Release).
			WithHint("deploy it again, or roll back")
	}
	return live, nil
}

// startVerify writes the intent: what is judged, where the traffic goes on a fail, and why there.
func (x *Executor) startVerify(ctx context.Context, now sight, watch bool) (ledger.Event, error) {
	v := x.Config.Verify
	return x.Ledger.Commit(ctx, func(e ledger.Event) (ledger.Event, error) {
		if e.Seq != now.newest.Seq {
			return ledger.Event{}, errUnsettled
		}
		in := ledger.Intent{Kind: ledger.VerifyStarted, Holder: x.holder, Condemn: true, Watch: watch,
			Deadline: x.world.Now().Add(v.Bake + v.Patience + slack).UTC()}
		to, why, err := e.State.WayBack("")
		if err == nil && !e.State.Live.Restored {
			in.To, in.Reason, in.Plan = to, why, plan.Back(now.fleet[0], to)
		}
		return ledger.Start(e, in, x.Stamp()), nil
	})
}

// arm claims every target for the way back, and makes sure that it is as the ledger says.
func (x *Executor) arm(ctx context.Context, started ledger.Event) error {
	in := started.State.Intent
	c := plan.Claim{Token: x.token(started, 0), Event: started.Digest, Ledger: x.Owner, Aim: plan.Arm,
		Wanted: in.From.Release, Entry: in.From.ID, Restored: in.From.Restored}
	if in.To.Digest != "" {
		c.Back = &in.To
	}
	if err := x.claim(ctx, c); err != nil {
		if errors.Is(err, target.ErrFenced) {
			return fmt.Errorf("%w: %w", errUnsettled, err)
		}
		return err
	}
	switch err := x.undisturbed(ctx, started, c.Token); {
	case errors.Is(err, errDisturbed), errors.Is(err, target.ErrFenced):
		return fmt.Errorf("%w: %w", errUnsettled, err)
	case err != nil:
		return err
	}
	now, err := x.survey(ctx, started)
	if err != nil {
		return err
	}
	if found := now.find(in.From.Release.ID()); found == nil || found.Phase != plan.Failed && !now.serves(in.From.Release.ID()) {
		return errUnsettled
	}
	return nil
}

// The time between two looks whether the way back is still ready: longer each time that it could not be started.
const (
	warmEvery    = 500 * time.Millisecond
	warmAtLeast  = 30 * time.Second
	warmStarting = 15 * time.Minute // the longest that a start may take, with the pull of an image
)

// keepWarm starts the release to go back to where it is not ready, again and again until the function it returns is called. The
// bake goes on meanwhile: nobody may be unwatched because the way back is cold. A start that is under way then goes on: what
// fires needs it.
func (x *Executor) keepWarm(ctx context.Context, started ledger.Event) (stop func()) {
	in := started.State.Intent
	if in.To.Digest == "" {
		x.log.Warn("there is no good release to go back to")
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	by := x.token(started, 0)
	for _, s := range x.sites {
		go func() {
			for pause := warmEvery; ; {
				switch err := x.warm(ctx, s, by, in.To); {
				case errors.Is(err, target.ErrFenced):
					return
				case err != nil:
					pause = min(2*pause, warmAtLeast)
				default:
					pause = warmEvery
				}
				select {
				case <-ctx.Done():
					return
				case <-time.After(pause):
				}
			}
		}()
	}
	return cancel
}

func (x *Executor) warm(ctx context.Context, s wayback.Site, by plan.Token, r release.Release) error {
	in, err := s.Target.Find(ctx, r.ID())
	if err != nil || in != nil && in.Phase == plan.Ready {
		return err
	}
	if in == nil {
		x.log.Info("the way back is cold: it is started now", "release", r.Digest.Short(), "version", r.Version)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), warmStarting)
	defer cancel()
	if err = s.Target.Stage(ctx, by, r); err != nil && !errors.Is(err, target.ErrFenced) {
		x.log.Warn("the way back cannot be started", "release", r.Digest.Short(), "error", err)
	}
	return err
}

// conclude does what the verdict asks for: fires, or writes it down.
func (x *Executor) conclude(ctx context.Context, j Judging, v Verification, started ledger.Event) (Verification, error) {
	in := started.State.Intent
	key, e := in.Key(), v.Evidence
	if j.RollBack(e.Verdict) && in.To.Digest != "" {
		out := RolledBack{Release: in.To, Left: in.From.Release, Why: in.Reason, Plan: in.Plan}
		note := x.note(started, out, fmt.Sprintf("verdict %s: %s", e.Verdict, e.Reason))
		note.Evidence = x.world.Secrets.Redact(e.text())
		claim := plan.Claim{Token: x.token(started, 1), Event: started.Digest, Ledger: x.Owner, Aim: plan.Fire,
			Wanted: in.To, Entry: note.ID, Restored: true}
		v.Back, v.BackErr = x.goBack(ctx, x.world.Now(), out, claim, key, note)
		e.wait()
		return v, nil
	}
	x.stays(j, &v, in)
	// A verdict on what somebody has rolled back meanwhile would undo that.
	armed := x.token(started, 0)
	if err := x.undisturbed(context.WithoutCancel(ctx), started, armed); errors.Is(err, errDisturbed) || errors.Is(err, target.ErrFenced) {
		e.wait()
		return v, x.overtaken(ctx, fmt.Errorf("the verdict %s on %s is not written: %w", e.Verdict, in.From.Release, err))
	}
	event, err := x.record(ctx, nil, func(newest ledger.Event) (ledger.Event, error) {
		if v.Observed != "" {
			return ledger.Disarm(newest, key, "only observed: verdict "+e.Verdict.String()+": "+e.Reason, e.text(), x.Stamp())
		}
		if v.Watched && e.Verdict != verdict.Fail {
			return ledger.Disarm(newest, key, "it was watched, and nothing was found", e.text(), x.Stamp())
		}
		switch e.Verdict {
		case verdict.Pass:
			return ledger.Pass(newest, key, e.text(), x.Stamp())
		case verdict.Fail:
			return ledger.Reject(newest, key, e.text(), x.Stamp())
		}
		return ledger.Disarm(newest, key, "verdict unknown: "+e.Reason, e.text(), x.Stamp())
	})
	e.wait()
	if errors.Is(err, ledger.ErrTakenOver) {
		return v, fault.Errorf(fault.Refused, "the verdict %s on %s is not written: %w", e.Verdict, in.From.Release, err).
			WithHint("look at what it did: backstep history")
	}
	if err != nil && e.Verdict == verdict.Pass {
		return v, fault.Errorf(fault.Failed, "the verdict pass on %s is not written: %w", in.From.Release, err).
			WithHint("verify it again when the registry answers")
	}
	if v.Unwritten = err; err != nil {
		return v, nil
	}
	now := x.settle(ctx, event)
	if e.Verdict == verdict.Pass && now.newest.State.Live != nil && now.newest.State.Live.Release.ID() == in.From.Release.ID() {
		if j.Watch > 0 && !v.Watched {
			return v, nil // it is watched next, and the way back stays warm
		}
		x.clear(ctx, now) // nobody goes back to what was warm within seconds any more
	}
	return v, nil
}

// stays says why a verdict that could move the traffic does not.
func (x *Executor) stays(j Judging, v *Verification, in *ledger.Intent) {
	e := v.Evidence
	if j.Observe && e.Verdict == verdict.Fail {
		v.Observed = "it would have found no way back"
		if in.To.Digest != "" {
			v.Observed = fmt.Sprintf("it would have gone back to %s: %s", in.To, in.Reason)
		}
		x.log.Warn("only observed: a verdict changes nothing", "verdict", e.Verdict.String(), "why", e.Reason, "otherwise", v.Observed)
	}
	if j.RollBack(e.Verdict) {
		v.BackErr = fault.Errorf(fault.HalfWay, "there is no good release to go back to").WithHint("name one: backstep rollback --to …")
		if in.From.Restored {
			v.BackErr = fault.Errorf(fault.HalfWay, "%s became live by a rollback, and a rollback is never rolled back", in.From.Release).
				WithHint("look at it yourself; a person may go further back: backstep rollback --to …")
		}
	}
}

// disarm ends a verify that came to no verdict. It is no part of what failed: the next run does it when this one cannot.
func (x *Executor) disarm(ctx context.Context, started ledger.Event, why string) {
	_, err := x.record(ctx, nil, func(e ledger.Event) (ledger.Event, error) {
		return ledger.Disarm(e, started.State.Intent.Key(), why, "", x.Stamp())
	})
	if err != nil {
		x.log.Warn("that the verify ended is not written; the next run does it", "error", err)
	}
}

// text is the evidence as the ledger keeps it: the reason, and what failed checks got.
func (e Evidence) text() string {
	if len(e.Samples) == 0 {
		return e.Reason
	}
	return e.Reason + "; " + strings.Join(e.Samples, "; ")
}
