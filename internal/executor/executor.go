// Package executor carries plans out. Deploy, verify, rollback and recovery share it: each writes what it
// sets out to do into the ledger, changes the target under the number of that event, and writes how it ended.
package executor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/backstep/backstep/internal/config"
	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/host"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/ledger"
	ledgerregistry "github.com/backstep/backstep/internal/ledger/registry"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/router"
	"github.com/backstep/backstep/internal/target"
)

// Place is where a step works: an environment of a configuration. Its inputs are the same in every step.
type Place struct {
	environment string
	config      string
	login       registry.Login
}

// Inputs declares the place.
func (p *Place) Inputs() []input.Input {
	return append([]input.Input{
		input.String(&p.environment, "environment", "The environment, as backstep.yml names it.").Must(),
		input.String(&p.config, "config", "The path of backstep.yml.").Or("backstep.yml"),
	}, p.login.Inputs()...)
}

// World is what an executor has of the world around it.
type World struct {
	Host   host.Host
	Log    *slog.Logger
	Now    func() time.Time
	Getenv func(string) string
}

// Executor changes one environment.
type Executor struct {
	Name     release.Environment
	Config   *config.Environment
	Ledger   ledger.Ledger
	registry *registry.Client
	image    string // the repository that releases come from
	target   target.Target
	router   router.Router
	world    World
	log      *slog.Logger
	author   ledger.Author
}

// Open reads the configuration and makes ready to work on the place. It changes nothing and asks nobody.
func (p *Place) Open(world World, kinds config.Kinds) (*Executor, error) {
	c, err := config.Load(p.config, kinds, world.Getenv)
	if err != nil {
		return nil, err
	}
	if m, ok := world.Host.(host.Masker); ok {
		for _, s := range c.Secrets {
			m.Mask(s)
		}
	}
	name, err := release.ParseEnvironment(p.environment)
	if err != nil {
		return nil, fault.Inputf("%w", err)
	}
	env, ok := c.Environments[name]
	if !ok {
		var known []string
		for n := range c.Environments {
			known = append(known, string(n))
		}
		return nil, fault.Inputf("environment %q is not in %s", name, p.config).
			WithHint("it has %s", strings.Join(sorted(known), ", "))
	}
	client, err := p.login.Client(world.Host, c.Repository)
	if err != nil {
		return nil, err
	}
	to, shift, err := open(env, target.Environment{Service: c.Service, Environment: name, Variables: env.Variables, EngineAuth: client.EngineAuth})
	if err != nil {
		return nil, err
	}
	book := c.Ledger
	if book == "" {
		book = c.Repository
	}
	run := world.Host.Run()
	machine, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("find the name of this machine: %w", err)
	}
	// Containers can share the name of their machine and still number their processes apart.
	if space, err := os.Readlink("/proc/self/ns/pid"); err == nil {
		machine += " " + space
	}
	return &Executor{
		Name: name, Config: env, Ledger: bounded(ledgerregistry.New(client, book, name)),
		registry: client, image: c.Repository, target: to, router: shift,
		world: world, log: world.Log.With("env", string(name)),
		author: ledger.Author{Actor: run.Actor, Run: run.ID, Attempt: run.Attempt, URL: run.URL,
			Machine: machine, Process: os.Getpid()},
	}, nil
}

// open is the target of env, with the router in front of it.
func open(env *config.Environment, around target.Environment) (target.Target, router.Router, error) {
	if env.Router == nil {
		to, own, err := env.Target.Open(around)
		if err == nil && own == nil {
			err = fault.Inputf("target %s has no router", env.Target.Kind.Name)
		}
		return to, own, err
	}
	around.Routed = true
	to, _, err := env.Target.Open(around)
	if err != nil {
		return nil, nil, err
	}
	front, err := env.Router()
	if err != nil {
		return nil, nil, err
	}
	backend, ok := to.(target.Backend)
	if !ok {
		return nil, nil, fault.Inputf("target %s takes no router", env.Target.Kind.Name)
	}
	to, shift := target.Behind(backend, front)
	return to, shift, nil
}

// Stamp is who acts, and now.
func (x *Executor) Stamp() ledger.Stamp {
	return ledger.Stamp{Author: x.author, At: x.world.Now().UTC()}
}

// PartialError says how far a plan came.
type PartialError struct {
	Done     plan.Plan
	Failed   plan.Operation
	NotTried plan.Plan
	Err      error
}

var _ error = (*PartialError)(nil)

func (e *PartialError) Error() string { return fmt.Sprintf("%s: %v", e.Failed, e.Err) }
func (e *PartialError) Unwrap() error { return e.Err }

// run does what p says, in order, under the fencing number.
func (x *Executor) run(ctx context.Context, fence uint64, p plan.Plan) error {
	for i, op := range p {
		x.log.Info(op.String(), "release", op.Release.Digest.Short())
		if err := x.apply(ctx, fence, op); err != nil {
			return &PartialError{Done: p[:i], Failed: op, NotTried: p[i+1:], Err: err}
		}
		boundary()
	}
	return nil
}

func (x *Executor) apply(ctx context.Context, fence uint64, op plan.Operation) error {
	switch op.Do {
	case plan.Stage:
		return x.target.Stage(ctx, fence, op.Release)
	case plan.Await:
		return x.await(ctx, op.Release)
	case plan.Shift:
		weights := map[release.Digest]int{op.Release.Digest: op.Weight}
		if op.From != nil && op.Weight < 100 {
			weights[*op.From] = 100 - op.Weight
		}
		return x.router.Shift(ctx, fence, weights)
	case plan.Watch:
		return x.watchCanary(ctx, op.Release)
	case plan.Retire:
		return x.target.Retire(ctx, fence, op.Release.Digest, x.Config.Drain)
	}
	return fmt.Errorf("operation %q is not known", op.Do)
}

// await waits until r is ready, and ends at once when it has failed.
func (x *Executor) await(ctx context.Context, r release.Release) error {
	ctx, cancel := context.WithTimeoutCause(ctx, x.Config.ReadyTimeout,
		fmt.Errorf("not ready after %s", x.Config.ReadyTimeout))
	defer cancel()
	pause := 10 * time.Millisecond
	for {
		state, err := x.target.Observe(ctx)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if in := state.Find(r.Digest); err == nil {
			switch {
			case in == nil:
				return fmt.Errorf("it is gone from the target")
			case in.Phase == plan.Ready:
				return nil
			case in.Phase == plan.Failed:
				return died(in)
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
			pause = min(2*pause, time.Second)
		}
	}
}

// died tells why an instance failed, with its last words.
func died(in *plan.Instance) error {
	e := fault.Errorf(fault.Failed, "%s", in.Reason)
	if len(in.Log) > 0 {
		e = e.WithHint("its last lines were:\n  %s", strings.Join(in.Log[max(0, len(in.Log)-10):], "\n  "))
	}
	return e
}

// deadline is when a run that holds the lock for p has to be over.
func (x *Executor) deadline(p plan.Plan) time.Time {
	bound := time.Minute
	for _, op := range p {
		switch op.Do {
		case plan.Await:
			bound += x.Config.ReadyTimeout
		case plan.Retire:
			bound += x.Config.Drain
		case plan.Watch:
			bound += x.Config.Verify.Bake + x.Config.Verify.Patience
		}
	}
	return x.world.Now().Add(bound).UTC()
}

// admit reads the ledger and takes back, finishes or resumes what a dead run left behind.
func (x *Executor) admit(ctx context.Context) (ledger.Event, plan.State, error) {
	newest, err := x.Ledger.Newest(ctx)
	if err != nil {
		return newest, plan.State{}, err
	}
	state, err := x.target.Observe(ctx)
	if err != nil {
		return newest, state, err
	}
	if state.Fence > newest.Seq {
		return newest, state, fault.Errorf(fault.HalfWay,
			"the target was changed by event %d, but the ledger ends with event %d", state.Fence, newest.Seq).
			WithHint("the registry has lost events: restore them before anything is changed")
	}
	if newest.State.Intent == nil {
		return newest, state, nil
	}
	if err := x.recover(ctx, newest, state); err != nil {
		return newest, state, err
	}
	if newest, err = x.Ledger.Newest(ctx); err != nil {
		return newest, state, err
	}
	state, err = x.target.Observe(ctx)
	return newest, state, err
}

// recover ends the intent of a run that died. Nothing touched: aborted. The release serves: it is live. In
// between: what moved goes back. An interrupted rollback is always resumed.
func (x *Executor) recover(ctx context.Context, newest ledger.Event, state plan.State) error {
	in := *newest.State.Intent
	if err := x.free(ctx, in); err != nil {
		return err
	}
	x.log.Warn("an earlier run died half-way", "event", in.Seq, "kind", in.Kind, "release", in.To.Digest.Short())
	if in.Kind == ledger.RollbackStarted {
		_, err := x.goBack(ctx, newest, state, ledger.Intent{To: in.To, Reason: in.Reason, Condemn: in.Condemn}, "")
		return err
	}
	to := state.Find(in.To.Digest)
	switch {
	case state.Fence < in.Seq:
		return x.commit(ctx, func(e ledger.Event) (ledger.Event, error) {
			return ledger.AbortDeploy(e, in.Seq, x.Stamp(), "the run died before it changed anything")
		})
	case to != nil && to.Weight == 100 && to.Phase == plan.Ready:
		return x.commit(ctx, func(e ledger.Event) (ledger.Event, error) {
			return ledger.FinishDeploy(e, in.Seq, x.Stamp())
		})
	}
	return x.takeBack(ctx, newest, in.To, "the run died half-way")
}

// free makes sure that the run which holds the intent is not at work any more: see Intent.Dead; besides, a
// process of this machine that is gone is dead, and so is a run that is no longer heard.
func (x *Executor) free(ctx context.Context, in ledger.Intent) error {
	if in.Dead(x.Stamp()) {
		return nil
	}
	if in.Author.Process > 0 && in.Author.Machine == x.author.Machine {
		if errors.Is(syscall.Kill(in.Author.Process, 0), syscall.ESRCH) {
			return nil
		}
		return locked(in)
	}
	x.log.Info("another run holds the lock; listening whether it is alive", "event", in.Seq, "by", in.Author.String())
	if alive, err := x.Ledger.Beating(ctx, in.Seq); err != nil || alive {
		return cmp.Or(err, locked(in))
	}
	return nil
}

// hold beats for the intent numbered seq until the function it returns is called.
func (x *Executor) hold(ctx context.Context, seq uint64) (release func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var beating sync.WaitGroup
	beating.Go(func() {
		pace := time.NewTicker(ledger.BeatEvery)
		defer pace.Stop()
		for {
			if err := x.Ledger.Beat(ctx, seq); err != nil && ctx.Err() == nil {
				x.log.Debug("a beat was lost", "error", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-pace.C:
			}
		}
	})
	return func() {
		cancel()
		beating.Wait()
	}
}

func locked(in ledger.Intent) error {
	return fault.Errorf(fault.Refused, "%s of %s by %s is under way (event %d)",
		strings.TrimSuffix(string(in.Kind), ".started"), in.To, in.Author, in.Seq).
		WithHint("wait for it; if it dies, the next run takes over, at the latest at %s", in.Deadline.UTC().Format(time.RFC3339))
}

// takeBack undoes a deploy of r that has not ended, under a number of its own: the release that was live gets
// all the traffic again and r is retired. It ends the intent of newest.
func (x *Executor) takeBack(ctx context.Context, newest ledger.Event, r release.Release, reason string) error {
	state, err := x.target.Observe(ctx)
	if err != nil {
		return err
	}
	undo := undoing(state, newest.State.Live, r)
	started, err := x.Ledger.Commit(ctx, func(e ledger.Event) (ledger.Event, error) {
		if e.State.Intent == nil || e.State.Intent.Seq != newest.State.Intent.Seq {
			return ledger.Event{}, fault.Errorf(fault.HalfWay, "take back %s: %w", r, ledger.ErrTakenOver)
		}
		return ledger.Start(e, ledger.Intent{Kind: ledger.DeployStarted, To: r, Plan: undo,
			Deadline: x.deadline(undo), Reason: reason}, x.Stamp()), nil
	})
	if err != nil {
		return err
	}
	defer x.hold(ctx, started.Seq)()
	if err := x.run(ctx, started.Seq, undo); err != nil {
		return fault.Errorf(fault.HalfWay, "take back %s: %w", r, err).
			WithHint("the next run tries again; or look at the target yourself")
	}
	return x.commit(ctx, func(e ledger.Event) (ledger.Event, error) {
		return ledger.AbortDeploy(e, started.Seq, x.Stamp(), reason)
	})
}

// undoing is the plan that leaves live with all the traffic and r gone.
func undoing(state plan.State, live *ledger.Entry, r release.Release) plan.Plan {
	var p plan.Plan
	if live != nil && live.Release.Digest != r.Digest {
		p = plan.For(state, plan.Wanted{Release: live.Release, Strategy: plan.BlueGreen, Keep: []release.Digest{r.Digest}})
	}
	return append(p, plan.Operation{Do: plan.Retire, Release: r})
}

func (x *Executor) commit(ctx context.Context, change func(ledger.Event) (ledger.Event, error)) error {
	_, err := x.Ledger.Commit(ctx, change)
	return err
}

// unreached says whether err came before p had changed anything.
func unreached(err error) bool {
	var partial *PartialError
	return errors.As(err, &partial) && len(partial.Done) == 0 && partial.Failed.Do == plan.Stage
}
