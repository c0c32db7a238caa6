// Package executor carries plans out. Deploy, verify and rollback share it: each ends what earlier runs left behind,
// writes what it sets out to do into the ledger, changes the targets under the number of that event, and writes how it
// ended.
package executor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/backstep/backstep/internal/config"
	"github.com/backstep/backstep/internal/host"
	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/secret"
	"github.com/backstep/backstep/internal/target"
	"github.com/backstep/backstep/internal/wayback"
)

// World is what an executor has of the world around it.
type World struct {
	Host    host.Host
	Log     *slog.Logger
	Now     func() time.Time
	Getenv  func(string) string
	Secrets *secret.Known
}

// Executor changes one environment.
type Executor struct {
	Name     release.Environment
	Config   *config.Environment
	Ledger   ledger.Ledger
	Owner    string // names the ledger on the targets
	registry *registry.Client
	service  string // what is deployed
	image    string // the repository that releases come from
	book     string // the repository of the ledger
	sites    []wayback.Site
	configs  *configurations
	world    World
	log      *slog.Logger
	author   release.Author
	holder   string        // a text that only this run has
	patience time.Duration // with a target or a router that cannot be reached on the way back
	tidied   func()
	alarms   map[string]*alarm // by the names of the watches
	canary   []Evidence        // at each share of the traffic that a canary came to
	paused   atomic.Bool       // a person holds what we do
	ending   atomic.Bool       // we are about to write how our intent ended: that it is gone then is no news
}

// Close waits for what the ledger still tidies up. A run ends with it.
func (x *Executor) Close() { x.tidied() }

// The bounds of what a run does. A wait for a release has its own, ready-timeout.
const (
	stageTimeout   = 15 * time.Minute // an image that is pulled
	slack          = time.Minute      // for everything that is not a wait
	ledgerPatience = 10 * time.Second // to write down what is done already
	ledgerAnswers  = 3 * time.Second  // by hand: a ledger that has not answered by then is left out
	targetPatience = 30 * time.Second // Executor.patience
)

// Stamp is who acts, and now.
func (x *Executor) Stamp() ledger.Stamp {
	return ledger.Stamp{Author: x.author, At: x.world.Now().UTC()}
}

// token is the right of our own intent to change a target.
func (x *Executor) token(started ledger.Event, sub uint64) plan.Token {
	return plan.Token{Number: started.Number(sub), Holder: x.holder}
}

// shared is the right of all who do only what the event says.
func shared(e ledger.Event) plan.Token {
	return plan.Token{Number: e.Number(0), Holder: plan.LedgerHolder}
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

// run does what p says, in order, under the token.
func (x *Executor) run(ctx context.Context, by plan.Token, p plan.Plan) error {
	for i, op := range p {
		if err := x.held(ctx); err != nil {
			return &PartialError{Done: p[:i], Failed: op, NotTried: p[i+1:], Err: context.Cause(ctx)}
		}
		for _, s := range x.sites {
			if err := x.apply(ctx, s, by, op); err != nil {
				return &PartialError{Done: p[:i], Failed: op, NotTried: p[i+1:], Err: err}
			}
		}
		point(string(op.Do))
	}
	return nil
}

func (x *Executor) apply(ctx context.Context, s wayback.Site, by plan.Token, op plan.Operation) error {
	x.log.Info(op.String(), "release", op.Release.Digest.Short())
	switch op.Do {
	case plan.Stage:
		return s.Target.Stage(ctx, by, op.Release)
	case plan.Await:
		return wayback.Await(ctx, s.Target, op.Release, x.Config.ReadyTimeout, x.Config.Settle)
	case plan.Try:
		return x.try(ctx, s, op.Release)
	case plan.Shift:
		weights := map[release.ID]int{op.Release.ID(): op.Weight}
		if op.From != nil && op.Weight < 100 {
			weights[*op.From] = 100 - op.Weight
		}
		if err := s.Router.Shift(ctx, by, weights); err != nil || op.Weight < 100 {
			return err
		}
		return target.Employ(ctx, s.Target, by, op.Release.ID())
	case plan.Watch:
		return x.watchCanary(ctx, op.Release)
	case plan.Park:
		return s.Target.Park(ctx, by, op.Release.ID(), x.Config.Drain)
	case plan.Retire:
		return s.Target.Retire(ctx, by, op.Release.ID(), x.Config.Drain)
	}
	return fmt.Errorf("operation %q is not known", op.Do)
}

// deadline is when a run that carries out p ends by itself.
func (x *Executor) deadline(p plan.Plan) time.Time {
	bound := slack
	for _, op := range p {
		switch op.Do {
		case plan.Stage:
			bound += stageTimeout
		case plan.Await:
			bound += x.Config.ReadyTimeout + x.Config.Settle
		case plan.Try:
			bound += x.Config.Try + slack
		case plan.Retire:
			bound += x.Config.Drain
		case plan.Watch:
			bound += x.Config.Verify.Bake + x.Config.Verify.Patience
		}
	}
	return x.world.Now().Add(bound).UTC()
}

// record writes what has happened already, also when the run was cancelled, and tries for as long as ledgerPatience. An
// event that another run has written in our place counts: it was made from what we left on the target.
func (x *Executor) record(ctx context.Context, note *plan.Note, change func(ledger.Event) (ledger.Event, error)) (ledger.Event, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ledgerPatience)
	defer cancel()
	x.ending.Store(true)
	event, err := x.Ledger.Commit(ctx, change)
	if errors.Is(err, ledger.ErrTakenOver) && note != nil {
		if newest, readErr := x.Ledger.Newest(ctx); readErr == nil && newest.State.HasAdopted(note.ID) {
			return newest, nil
		}
	}
	return event, err
}

// sayUnwritten reports that the ledger lags behind.
func (x *Executor) sayUnwritten(err error) {
	x.log.Warn("the ledger could not be written; what happened is kept on the target, and the next run writes it down", "error", err)
}
