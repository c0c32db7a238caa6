package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/Masterminds/semver/v3"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/target"
)

// Deployment is what a deploy is asked to do.
type Deployment struct {
	Image      string // registry/name with a tag or a digest
	Version    string // SemVer without v; "" is what the image says
	AllowOlder bool   // also when its version is lower than that of what is live
	DryRun     bool   // only plan
}

// Deployed is how a deploy ended.
type Deployed struct {
	Release  release.Release
	Previous release.Release // what was live before; zero when nothing was
	Seq      uint64          // of the event that made it live
	Plan     plan.Plan
	Took     time.Duration
}

// Deploy makes an image live. When it fails after something was changed, what moved has gone back: the
// error's code is RolledBack, or HalfWay when it could not.
func (x *Executor) Deploy(ctx context.Context, d Deployment) (Deployed, error) {
	begin := x.world.Now()
	ref, r, err := x.resolve(ctx, d.Image)
	if err != nil {
		return Deployed{}, err
	}
	if d.Version != "" {
		if _, err := semver.StrictNewVersion(d.Version); err != nil {
			return Deployed{}, fault.Inputf("version %q: want SemVer without v, such as 1.4.2", d.Version)
		}
		r.Version = d.Version
	}
	if x.Config.Strategy == plan.Canary && len(x.Config.Verify.Probes) == 0 {
		return Deployed{}, fault.Inputf("strategy canary needs evidence between its weights, and no probe is configured").
			WithHint("add verify.probes to environment %s", x.Name)
	}
	newest, state, err := x.admit(ctx)
	if err != nil {
		return Deployed{}, err
	}
	out := Deployed{Release: r}
	admissible := func(s ledger.Snapshot) error {
		if err := s.Admit(r); err != nil || d.AllowOlder || s.Live == nil {
			return err
		}
		return older(r, s.Live.Release)
	}
	if err := admissible(newest.State); err != nil {
		return out, err
	}
	if err := x.preflight(ctx, r, newest.State); err != nil {
		return out, err
	}
	var keep []release.Digest
	if good := newest.State.LastGood; good != nil {
		keep = append(keep, good.Release.Digest)
	}
	if live := newest.State.Live; live != nil {
		out.Previous = live.Release
		if live.Release.Digest == r.Digest {
			out.Previous = release.Release{}
		}
	}
	out.Plan = plan.For(state, plan.Wanted{Release: r, Strategy: x.Config.Strategy, Weights: x.Config.Weights, Keep: keep})
	if d.DryRun {
		return out, nil
	}
	if err := x.unmoved(ctx, ref, r); err != nil {
		return out, err
	}
	started, err := x.Ledger.Commit(ctx, func(e ledger.Event) (ledger.Event, error) {
		if e.Seq != newest.Seq {
			if err := admissible(e.State); err != nil {
				return ledger.Event{}, err
			}
			if e.State.Intent != nil {
				return ledger.Event{}, locked(*e.State.Intent)
			}
			return ledger.Event{}, fault.Errorf(fault.Refused, "event %d of %s came in between", e.Seq, e.Author).
				WithHint("run it again")
		}
		return ledger.Start(e, ledger.Intent{Kind: ledger.DeployStarted, To: r, Plan: out.Plan,
			Deadline: x.deadline(out.Plan)}, x.Stamp()), nil
	})
	if err != nil {
		return out, err
	}
	defer x.hold(ctx, started.Seq)()
	if err := x.carryOut(ctx, started, out.Plan); err != nil {
		return out, err
	}
	finished, err := x.Ledger.Commit(ctx, func(e ledger.Event) (ledger.Event, error) {
		done, err := ledger.FinishDeploy(e, started.Seq, x.Stamp())
		done.Seconds = x.world.Now().Sub(begin).Seconds()
		return done, err
	})
	out.Seq, out.Took = finished.Seq, x.world.Now().Sub(begin)
	if err != nil {
		return out, fault.Errorf(fault.HalfWay, "%s serves, but the ledger does not say so: %w", r, err).
			WithHint("the next run repairs it")
	}
	x.log.Info("live", "release", r.Digest.Short(), "version", r.Version, "event", out.Seq)
	return out, nil
}

// carryOut pins the release and runs the plan; on any failure what moved goes back.
func (x *Executor) carryOut(ctx context.Context, started ledger.Event, p plan.Plan) error {
	r := started.State.Intent.To
	err := x.Ledger.Pin(ctx, started.Seq, r)
	if err == nil {
		if err = x.run(ctx, started.Seq, p); err == nil {
			return nil
		}
	} else {
		err = &PartialError{Failed: plan.Operation{Do: plan.Stage, Release: r}, NotTried: p, Err: fmt.Errorf("pin it: %w", err)}
	}
	if errors.Is(err, target.ErrFenced) {
		return fault.Errorf(fault.HalfWay, "deploy %s: %w", r, err).WithHint("look at what the other run did: backstep history")
	}
	// Going back has to happen even when the run was cancelled.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), x.Config.Drain+time.Minute)
	defer cancel()
	x.log.Error("the deploy failed, what moved goes back", "release", r.Digest.Short(), "error", err)
	if unreached(err) {
		back := x.commit(ctx, func(e ledger.Event) (ledger.Event, error) {
			return ledger.AbortDeploy(e, started.Seq, x.Stamp(), err.Error())
		})
		return failed(fault.Failed, r, err, back)
	}
	back := x.takeBack(ctx, started, r, err.Error())
	return failed(fault.RolledBack, r, err, back)
}

func failed(code fault.Code, r release.Release, err, back error) error {
	if back != nil {
		return errors.Join(fault.Errorf(fault.HalfWay, "deploy %s: %w", r, err), back)
	}
	e := fault.Errorf(code, "deploy %s: %w", r, err)
	e.Hint = fault.HintOf(err)
	return e
}

// resolve is the release behind image, which has to be in the repository of the configuration.
func (x *Executor) resolve(ctx context.Context, image string) (registry.Reference, release.Release, error) {
	ref, err := registry.ParseReference(image)
	if err != nil {
		return ref, release.Release{}, err
	}
	if ref.Repository != x.image {
		return ref, release.Release{}, fault.Inputf("image %s is not in the repository of the configuration, %s", image, x.image).
			WithHint("give an image of %s, or change repository in backstep.yml", x.image)
	}
	r, err := x.registry.Resolve(ctx, ref)
	if errors.Is(err, registry.ErrNotFound) {
		return ref, r, fault.Inputf("image %s does not exist: %w", image, err).
			WithHint("build and push it first: backstep build-image")
	}
	return ref, r, err
}

// unmoved makes sure that the tag we were given still means r.
func (x *Executor) unmoved(ctx context.Context, ref registry.Reference, r release.Release) error {
	if ref.Digest != "" {
		return nil
	}
	now, err := x.registry.Head(ctx, ref.Repository, ref.Tag)
	if err == nil && now != r.Digest {
		return fault.Inputf("tag %s moved from %s to %s while we looked", ref.Tag, r.Digest.Short(), now.Short()).
			WithHint("give the digest: %s", r.Reference())
	}
	return err
}

// older refuses r when its version is lower than that of live.
func older(r, live release.Release) error {
	a, errA := semver.StrictNewVersion(r.Version)
	b, errB := semver.StrictNewVersion(live.Version)
	if errA != nil || errB != nil || !a.LessThan(b) {
		return nil
	}
	return fault.Inputf("%s is older than %s, which is live", r, live).
		WithHint("to go back: backstep rollback; to deploy it all the same: --allow-older")
}

// preflight proves that the release is complete and that the way back is open. Everything is tried, each
// finding is one log line, and all faults are returned.
func (x *Executor) preflight(ctx context.Context, r release.Release, s ledger.Snapshot) error {
	checks := []struct {
		what string
		r    *release.Release
	}{{what: "image complete", r: &r}}
	if s.LastGood != nil && s.LastGood.Release.Digest != r.Digest {
		checks = append(checks, struct {
			what string
			r    *release.Release
		}{"last good release complete", &s.LastGood.Release})
	}
	var faults []error
	for _, c := range checks {
		if err := x.registry.Complete(ctx, *c.r); err != nil {
			faults = append(faults, fault.Inputf("preflight: %s: %s: %w", c.what, c.r, err).
				WithHint("%s", preflightHint(err)))
			continue
		}
		x.log.Info("preflight: "+c.what, "release", c.r.Digest.Short())
	}
	return errors.Join(faults...)
}

func preflightHint(err error) string {
	if hint := fault.HintOf(err); hint != "" {
		return hint
	}
	return "push it again; a registry clean-up may have removed a part of it"
}

func sorted(s []string) []string { slices.Sort(s); return s }
