package executor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/verdict"
)

// Return is what a rollback is asked to do.
type Return struct {
	To        string // a version or digest that the ledger knows; "" is the last good release
	Reason    string
	Automatic bool // a verdict asks, not a person: a rollback is then never rolled back
	DryRun    bool

	evidence string // of the verdict that asks
}

// Returned is how a rollback ended.
type Returned struct {
	Release release.Release // what serves now
	Left    release.Release // what served before
	Why     string          // why this release was picked
	Seq     uint64
	Plan    plan.Plan
	Took    time.Duration // until the release had all the traffic
}

// Rollback makes the last good release live again, quarantines the one it leaves and freezes the environment.
func (x *Executor) Rollback(ctx context.Context, r Return) (Returned, error) {
	begin := x.world.Now()
	newest, state, err := x.admit(ctx)
	if err != nil {
		return Returned{}, err
	}
	live := newest.State.Live
	switch {
	case live == nil:
		return Returned{}, fault.Inputf("nothing is live in environment %s", x.Name)
	case r.Automatic && live.Restored:
		return Returned{}, fault.Errorf(fault.HalfWay, "%s became live by a rollback, and a rollback is never rolled back", live.Release).
			WithHint("look at it yourself; a person may go further back: backstep rollback --to …")
	}
	to, why, err := newest.State.WayBack(r.To)
	if err != nil {
		return Returned{}, err
	}
	out := Returned{Release: to, Left: live.Release, Why: why, Plan: wayBack(state, to)}
	if r.DryRun {
		return out, nil
	}
	x.log.Info("rolling back", "from", live.Release.String(), "to", to.String(), "why", why)
	done, err := x.goBack(ctx, newest, state, ledger.Intent{To: to, Reason: r.Reason, Condemn: true}, r.evidence)
	out.Seq, out.Took = done.seq, done.shifted.Sub(begin)
	return out, err
}

// wayBack is the plan to make to live: warm, it is one shift. What has lost the traffic is retired at the end.
func wayBack(state plan.State, to release.Release) plan.Plan {
	p := plan.For(state, plan.Wanted{Release: to, Strategy: plan.BlueGreen, Keep: digests(state)})
	for _, in := range state.Instances {
		if in.Release.Digest != to.Digest {
			p = append(p, plan.Operation{Do: plan.Retire, Release: in.Release})
		}
	}
	return p
}

func digests(s plan.State) []release.Digest {
	var all []release.Digest
	for _, in := range s.Instances {
		all = append(all, in.Release.Digest)
	}
	return all
}

// returned is the number of the event that ended a rollback, and when the traffic was back.
type returned struct {
	seq     uint64
	shifted time.Time
}

// goBack carries a rollback to its end: it claims the lock, moves the traffic, checks the result, and only
// then removes what failed. It is also how an interrupted rollback is resumed.
func (x *Executor) goBack(ctx context.Context, newest ledger.Event, state plan.State, intent ledger.Intent, evidence string) (returned, error) {
	to := intent.To
	p := wayBack(state, to)
	begin := x.world.Now()
	if warm := state.Find(to.Digest); warm == nil || warm.Phase != plan.Ready {
		if err := x.registry.Complete(ctx, to); err != nil {
			return returned{}, fault.Errorf(fault.HalfWay, "the way back to %s is not open: %w", to, err).
				WithHint("name another release with --to, or push the image again")
		}
	}
	started, err := x.Ledger.Commit(ctx, func(e ledger.Event) (ledger.Event, error) {
		if in := e.State.Intent; in != nil && (newest.State.Intent == nil || in.Seq != newest.State.Intent.Seq) {
			return ledger.Event{}, locked(*in) // it came in between; the one in newest is known to be dead
		}
		if (e.State.Live == nil) != (newest.State.Live == nil) ||
			e.State.Live != nil && e.State.Live.Release.Digest != newest.State.Live.Release.Digest {
			return ledger.Event{}, fault.Errorf(fault.Refused, "event %d of %s came in between", e.Seq, e.Author).
				WithHint("look at what is live now: backstep status")
		}
		intent.Kind, intent.Plan, intent.Deadline = ledger.RollbackStarted, p, x.deadline(p)
		event := ledger.Start(e, intent, x.Stamp())
		event.Evidence = strings.TrimPrefix(evidence+"\n"+lastWords(state, e.State.Live), "\n")
		return event, nil
	})
	if err != nil {
		return returned{}, err
	}
	defer x.hold(ctx, started.Seq)()
	// From here on going back is finished even when the run is cancelled.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), x.deadline(p).Sub(x.world.Now()))
	defer cancel()
	var moves, removals plan.Plan
	for _, op := range p {
		if op.Do == plan.Retire {
			removals = append(removals, op)
		} else {
			moves = append(moves, op)
		}
	}
	err = x.run(ctx, started.Seq, moves)
	out := returned{shifted: x.world.Now()}
	if err == nil {
		x.log.Info("the traffic is back", "release", to.Digest.Short(), "version", to.Version,
			"seconds", fmt.Sprintf("%.3f", out.shifted.Sub(begin).Seconds()))
		err = x.confirm(ctx, to)
	}
	if err != nil {
		note, commitErr := x.Ledger.Commit(ctx, func(e ledger.Event) (ledger.Event, error) {
			return ledger.FailRollback(e, started.Seq, x.Stamp(), err.Error())
		})
		if commitErr != nil {
			x.log.Error("the failed rollback could not be written down", "error", commitErr)
		}
		out.seq = note.Seq
		return out, fault.Errorf(fault.HalfWay, "roll back to %s: %w", to, err).
			WithHint("a person is needed: see docs/reference/rollback.md")
	}
	finished, err := x.Ledger.Commit(ctx, func(e ledger.Event) (ledger.Event, error) {
		done, err := ledger.FinishRollback(e, started.Seq, x.Stamp())
		done.Seconds = out.shifted.Sub(begin).Seconds()
		return done, err
	})
	if err != nil {
		return out, fault.Errorf(fault.HalfWay, "%s serves again, but the ledger does not say so: %w", to, err).
			WithHint("the next run repairs it")
	}
	out.seq = finished.Seq
	if err := x.run(ctx, finished.Seq, removals); err != nil {
		x.log.Warn("what was left behind could not be removed; the next deploy will", "error", err)
	}
	return out, nil
}

// lastWords keeps the log of what is about to be removed.
func lastWords(state plan.State, live *ledger.Entry) string {
	if live == nil {
		return ""
	}
	in := state.Find(live.Release.Digest)
	if in == nil || len(in.Log) == 0 {
		return ""
	}
	const lines, bytes = 10, 4096
	var text string
	for _, line := range in.Log[max(0, len(in.Log)-lines):] {
		text += line + "\n"
	}
	return text[:min(len(text), bytes)]
}

// confirmations is how many ticks the restored release is looked at before the rollback counts as done.
const confirmations = 3

// confirm makes sure that the restored release answers. With no probe configured, ready is enough. Only a
// fail verdict is against it: there is no time to wait for a pass.
func (x *Executor) confirm(ctx context.Context, to release.Release) error {
	if err := x.await(ctx, to); err != nil {
		return err
	}
	if len(x.Config.Verify.Probes) == 0 {
		return nil
	}
	e, err := x.observe(ctx, to, confirmations*tick, tick)
	if err != nil {
		return err
	}
	if e.Verdict == verdict.Fail {
		return fmt.Errorf("the restored release fails as well: %s", e.text())
	}
	return nil
}
