package executor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
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
	Image         string // registry/name with a tag or a digest
	Version       string // SemVer without v; "" is what the image says, else its tag
	AllowOlder    bool   // also when its version is lower than that of what is live
	ThroughFreeze string // why it may pass a freeze; "" is not
	TakeOver      string // why it may take the place of a verify under way; "" is not
	DryRun        bool   // only plan
}

// Deployed is how a deploy ended.
type Deployed struct {
	Release  release.Release
	Previous release.Release // what was live before; zero when nothing was
	Seq      uint64          // of the event that made it live
	Changed  []string        // where its configuration differs from that of Previous; nil when that is not known
	Plan     plan.Plan
	Canary   []Evidence // at each share of the traffic that it came to, in their order
	Took     time.Duration
}

// Deploy makes an image live. When it fails after something was changed, what moved has gone back: the
// error's code is RolledBack, or HalfWay when it could not.
func (x *Executor) Deploy(ctx context.Context, d Deployment) (Deployed, error) {
	var out Deployed
	err := x.again(func() (err error) {
		out, err = x.deployOnce(ctx, d)
		return err
	})
	out.Canary = x.canary
	return out, err
}

// again calls run until no other run has come in between its look and its intent. A living run is refused by the look itself.
func (x *Executor) again(run func() error) error {
	const rounds = 5
	for range rounds {
		if err := run(); !errors.Is(err, errMoved) {
			return err
		}
	}
	return fault.Errorf(fault.Refused, "other runs are changing environment %s all the time", x.Name).WithHint("run it again")
}

func (x *Executor) deployOnce(ctx context.Context, d Deployment) (Deployed, error) {
	begin := x.world.Now()
	if err := x.deployable(d); err != nil {
		return Deployed{}, err
	}
	ref, r, now, err := x.resolveAndLook(ctx, d)
	out := Deployed{Release: r}
	if err != nil {
		return out, err
	}
	if err := x.moveIn(ctx, now, d.DryRun); err != nil {
		return out, err
	}
	if err := x.admit(d, r, now); err != nil {
		return out, err
	}
	out.Plan, out.Previous = x.planned(now, r)
	if out.Changed = x.changedSince(out.Previous, r); len(out.Changed) > 0 {
		x.log.Info("its configuration is not that of what is live", "differs", strings.Join(out.Changed, " "))
	}
	if err := x.preflight(ctx, ref, r, now); err != nil || d.DryRun {
		return out, err
	}
	started, err := x.startDeploy(ctx, d, now, r, out.Plan)
	if err != nil {
		return out, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, started.State.Intent.Deadline.Sub(x.world.Now()), errors.New("the deploy took too long"))
	defer cancel()
	ctx, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	defer x.hold(ctx, started, lost)()
	if err := x.carryOut(ctx, started, out.Plan); err != nil {
		return out, err
	}
	finished, err := x.record(ctx, nil, func(e ledger.Event) (ledger.Event, error) {
		done, err := ledger.FinishDeploy(e, started.State.Intent.Key(), x.Stamp())
		done.Seconds = x.world.Now().Sub(begin).Seconds()
		return done, err
	})
	out.Seq, out.Took = finished.Seq, x.world.Now().Sub(begin)
	if errors.Is(err, ledger.ErrTakenOver) {
		return out, x.overtaken(ctx, fmt.Errorf("deploy %s: %w", r, err))
	}
	if err != nil {
		return out, fault.Errorf(fault.HalfWay, "%s serves, but the ledger does not say so: %w", r, err).
			WithHint("the next run repairs it")
	}
	x.log.Info("live", "release", r.Digest.Short(), "version", r.Version, "event", out.Seq)
	x.settle(ctx, finished)
	return out, nil
}

// deployable checks what can be checked without a request.
func (x *Executor) deployable(d Deployment) error {
	if d.Version != "" {
		if err := release.ParseVersion(d.Version); err != nil {
			return err
		}
	}
	if x.Config.Strategy == plan.Canary && len(x.Config.Verify.Probes) == 0 {
		return fault.Inputf("strategy canary needs evidence between its weights, and no probe is configured").
			WithHint("add verify.probes to environment %s", x.Name)
	}
	return x.Config.Unset
}

// resolveAndLook finds the release and the state of the environment side by side. A dry run looks only; else what earlier runs
// left behind is ended.
func (x *Executor) resolveAndLook(ctx context.Context, d Deployment) (ref registry.Reference, r release.Release, now sight, err error) {
	var both sync.WaitGroup
	var unresolved error
	both.Go(func() { ref, r, unresolved = x.resolve(ctx, d.Image) })
	if d.DryRun {
		now, err = x.look(ctx)
	} else {
		var after healed
		after, err = x.heal(ctx, nil, policy{spares: func(in ledger.Intent) bool {
			return in.Kind == ledger.VerifyStarted && (d.TakeOver != "" || in.Watch)
		}})
		now = after.sight
	}
	both.Wait()
	r.Version, r.Config = x.versionOf(d, ref, r), x.configs.sealed()
	return ref, r, now, cmp.Or(unresolved, err)
}

// versionOf is what the caller says, else what the image says, else the tag when that is SemVer, with or without v, and the
// service before it, as semver-tag writes it in a repository of several services. A tag that says something else is told.
func (x *Executor) versionOf(d Deployment, ref registry.Reference, r release.Release) string {
	said := cmp.Or(d.Version, r.Version)
	tagged := strings.TrimPrefix(strings.TrimPrefix(ref.Tag, x.service+"-"), "v")
	if release.ParseVersion(tagged) != nil {
		return said
	}
	if said != "" && said != tagged {
		x.log.Warn("the tag is not the version of the release", "tag", ref.Tag, "version", said)
	}
	return cmp.Or(said, tagged)
}

// moveIn writes down what serves before the first release. The error is errMoved then.
func (x *Executor) moveIn(ctx context.Context, now sight, dryRun bool) error {
	if now.newest.State.Live != nil || dryRun {
		return nil
	}
	in := now.fleet[0].Serving()
	if in == nil || in.Release.Before == "" {
		return nil
	}
	x.log.Info("the first release: what serves now is the way back", "servers", in.Release.Before)
	_, err := x.Ledger.Commit(ctx, func(e ledger.Event) (ledger.Event, error) {
		if e.Seq != now.newest.Seq {
			return ledger.Event{}, errMoved
		}
		return ledger.MoveIn(e, in.Release, x.Stamp())
	})
	return cmp.Or(err, errMoved)
}

// admit says why the release may not be deployed now, by what the ledger and the targets know.
func (x *Executor) admit(d Deployment, r release.Release, now sight) error {
	for _, s := range now.fleet {
		if n := s.Condemned(r.ID()); n != nil && !now.newest.State.HasAdopted(n.ID) {
			return fault.Errorf(fault.Refused, "%s was found bad at %s by %s: %s", r, n.At.UTC().Format(time.RFC3339), n.Author, n.Why).
				WithHint("deploy another build")
		}
	}
	return x.admitBy(d, r, now.newest.State)
}

func (x *Executor) admitBy(d Deployment, r release.Release, s ledger.Snapshot) error {
	if err := s.Admit(r, x.world.Now(), d.ThroughFreeze != ""); err != nil || d.AllowOlder || s.Live == nil {
		return err
	}
	return older(r, s.Live.Release)
}

// planned is what is to be done, and what is live before it.
func (x *Executor) planned(now sight, r release.Release) (plan.Plan, release.Release) {
	keep := now.newest.State.Good(x.Config.Keep)
	var previous release.Release
	if good := now.newest.State.LastGood; good != nil {
		keep = append(keep, good.Release.ID())
	}
	if live := now.newest.State.Live; live != nil {
		keep = append(keep, live.Release.ID())
		if live.Release.ID() != r.ID() {
			previous = live.Release
		}
	}
	return plan.For(now.fleet[0], plan.Wanted{Release: r, Strategy: x.Config.Strategy, Try: x.Config.Try > 0 && len(x.triable()) > 0, Weights: x.Config.Weights, Keep: keep}), previous
}

// startDeploy writes the intent. The error is errMoved when the ledger has moved on since it was looked at.
func (x *Executor) startDeploy(ctx context.Context, d Deployment, now sight, r release.Release, p plan.Plan) (ledger.Event, error) {
	return x.Ledger.Commit(ctx, func(e ledger.Event) (ledger.Event, error) {
		if e.Seq != now.newest.Seq {
			return ledger.Event{}, errMoved
		}
		return ledger.Start(e, ledger.Intent{Kind: ledger.DeployStarted, Holder: x.holder, To: r, Plan: p, Deadline: x.deadline(p),
			Reason: strings.Trim(d.TakeOver+"; "+d.ThroughFreeze, "; ")}, x.Stamp()), nil
	})
}

// claimOf is the claim of a deploy's intent in one of its phases.
func (x *Executor) claimOf(started ledger.Event, aim plan.Aim) plan.Claim {
	in := started.State.Intent
	c := plan.Claim{Token: x.token(started, 0), Event: started.Digest, Ledger: x.Owner, Aim: aim,
		Wanted: in.To, Entry: in.Entry()}
	if in.From != nil {
		if c.Back = &in.From.Release; in.From.Release.ID() == in.To.ID() {
			c.Back = back(started.State)
		}
	}
	switch aim {
	case plan.Done:
		c.Number.Sub = 1
		after := started.State
		after.Live = &ledger.Entry{Release: in.To}
		c.Back = back(after)
	case plan.Undo:
		c.Number.Sub = 1
		if in.From != nil {
			c.Wanted, c.Entry, c.Restored, c.Back = in.From.Release, in.From.ID, in.From.Restored, back(started.State)
		}
	}
	return c
}

// carryOut claims the targets, pins the release and runs the plan; on any failure what moved goes back.
func (x *Executor) carryOut(ctx context.Context, started ledger.Event, p plan.Plan) error {
	r := started.State.Intent.To
	point("deploy started")
	if err := x.Ledger.Pin(ctx, started.Seq, r); err != nil {
		return x.untouched(ctx, started, fmt.Errorf("pin it: %w", err))
	}
	do := x.claimOf(started, plan.Do)
	if err := x.claim(ctx, do); err != nil {
		return x.untouched(ctx, started, err)
	}
	point("claimed do")
	err := x.undisturbed(ctx, started, do.Token)
	if errors.Is(err, errDisturbed) {
		return x.overtaken(ctx, err)
	}
	if err == nil {
		err = x.run(ctx, do.Token, p)
	}
	if err != nil {
		return x.takeBack(ctx, started, err)
	}
	return x.done(ctx, started)
}

// done claims that all the traffic has moved. From the first such claim on the deploy is never undone, and whether one was made is
// not known when its answer is lost: then the next run decides by what the target says.
func (x *Executor) done(ctx context.Context, started ledger.Event) error {
	ctx = context.WithoutCancel(ctx)
	r := started.State.Intent.To
	err := x.turn(plan.Claim{}, nil, x.patience).Persist(ctx, func() error { return x.claim(ctx, x.claimOf(started, plan.Done)) })
	point("claimed done")
	switch {
	case errors.Is(err, target.ErrFenced):
		return x.overtaken(ctx, fmt.Errorf("deploy %s: %w", r, err))
	case err != nil:
		return fault.Errorf(fault.HalfWay, "%s has the traffic, but the target does not take it down: %w", r, err).
			WithHint("the next run finishes the deploy, or takes it back")
	}
	return nil
}

// claim claims every target.
func (x *Executor) claim(ctx context.Context, c plan.Claim) error {
	for _, s := range x.sites {
		if err := s.Target.Claim(ctx, x.configs.claimed(c), nil); err != nil {
			return fmt.Errorf("claim target %s: %w", s.Name, err)
		}
	}
	return nil
}

// errDisturbed says that a rollback happened on a target while a run that read the ledger before it was under way.
var errDisturbed = errors.New("somebody rolled back in between")

// undisturbed makes sure that our claim stands on every target that can be reached, and that no rollback is noted there which the
// ledger of started does not know.
func (x *Executor) undisturbed(ctx context.Context, started ledger.Event, token plan.Token) error {
	now, err := x.survey(ctx, started)
	if err != nil {
		return err
	}
	for _, s := range now.fleet {
		for _, n := range s.Notes {
			if !started.State.HasAdopted(n.ID) {
				return fmt.Errorf("%w: %s, to %s", errDisturbed, n.Author, n.To)
			}
		}
		if s.Claim.Token != token {
			return fmt.Errorf("%w: claim %s", target.ErrFenced, s.Claim.Number)
		}
	}
	return nil
}

// overtaken ends our own intent as the notes on the targets say: nothing of ours is undone, since it would bring back what the
// rollback has left.
func (x *Executor) overtaken(ctx context.Context, why error) error {
	if _, err := x.heal(context.WithoutCancel(ctx), nil, policy{}); err != nil {
		x.log.Warn("the next run looks after the targets", "error", err)
	}
	return fault.Errorf(fault.Refused, "%w", why).WithHint("look at what is live now, and run it again: backstep status")
}

// untouched ends a deploy that has changed nothing.
func (x *Executor) untouched(ctx context.Context, started ledger.Event, err error) error {
	return x.abort(ctx, started, fault.Failed, err)
}

// abort writes that the deploy ended without its release being live.
func (x *Executor) abort(ctx context.Context, started ledger.Event, code fault.Code, err error) error {
	r := started.State.Intent.To
	e := fault.Errorf(code, "deploy %s: %w", r, err)
	e.Hint = fault.HintOf(err)
	aborted, unwritten := x.record(ctx, nil, func(newest ledger.Event) (ledger.Event, error) {
		return ledger.AbortDeploy(newest, started.State.Intent.Key(), x.Stamp(), err.Error(), nil)
	})
	if errors.Is(err, target.ErrFenced) || errors.Is(unwritten, ledger.ErrTakenOver) {
		return fault.Errorf(fault.Refused, "deploy %s: %w", r, err).WithHint("look at what the other run did: backstep history")
	}
	if unwritten != nil {
		x.sayUnwritten(unwritten)
		return e
	}
	x.settle(ctx, aborted)
	return e
}

// takeBack undoes a deploy that has failed, under the second number of its intent: the release that was live gets all the traffic
// again, and the new one is retired. It happens also when the run was cancelled.
func (x *Executor) takeBack(ctx context.Context, started ledger.Event, failure error) error {
	in := started.State.Intent
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), x.Config.Drain+x.Config.ReadyTimeout+x.patience+slack)
	defer cancel()
	if errors.Is(failure, target.ErrFenced) || errors.Is(failure, errEnded) {
		return x.overtaken(ctx, fmt.Errorf("deploy %s: %w", in.To, failure))
	}
	x.log.Error("the deploy failed, and what moved goes back", "release", in.To.Digest.Short(), "error", failure)
	undo := x.claimOf(started, plan.Undo)
	var err error
	if in.From != nil {
		if now, observeErr := x.survey(ctx, started); observeErr == nil && now.serves(in.From.Release.ID()) {
			err = x.claim(ctx, undo) // nothing had moved
		} else {
			err = x.turn(undo, nil, x.patience).Carry(ctx, x.sites).Err()
		}
	} else {
		err = x.claim(ctx, undo)
	}
	if errors.Is(err, target.ErrFenced) {
		return x.overtaken(ctx, fmt.Errorf("deploy %s: %w", in.To, err))
	}
	if err != nil {
		return errors.Join(fault.Errorf(fault.HalfWay, "deploy %s: %w", in.To, failure),
			fault.Errorf(fault.HalfWay, "take back %s: %w", in.To, err).WithHint("the next run tries again; or look at the target yourself"))
	}
	if in.From == nil || in.From.Release.ID() != in.To.ID() {
		if err := x.run(ctx, undo.Token, plan.Plan{{Do: plan.Retire, Release: in.To}}); err != nil {
			x.log.Warn("what failed could not be removed; the next deploy will", "error", err)
		}
	}
	code := fault.RolledBack
	if unreached(failure) {
		code = fault.Failed
	}
	return x.abort(ctx, started, code, failure)
}

// unreached says whether err came before the plan had changed anything.
func unreached(err error) bool {
	var partial *PartialError
	return errors.As(err, &partial) && len(partial.Done) == 0 && partial.Failed.Do == plan.Stage
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
