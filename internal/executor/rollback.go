package executor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/target"
	"github.com/backstep/backstep/internal/verdict"
)

// Rollback is what a person asks for.
type Rollback struct {
	To     string // a version or digest; "" is the last good release
	Reason string
	DryRun bool

	decided *release.Release // by the ledger, before it was gone
}

// RolledBack is how a rollback ended.
type RolledBack struct {
	Release   release.Release // what serves now
	Left      release.Release // what served before; zero when nothing was left
	Condemned bool            // what was left is in quarantine
	Why       string          // why this release was picked
	Seq       uint64          // of the event that says so; 0 when it is not written yet
	Plan      plan.Plan
	Took      time.Duration // until the release had all the traffic
	Already   bool          // nothing had to be moved
	Moved     bool          // it has all the traffic again
	Changed   []string      // the secrets of Release that are not what they were when it was deployed
	Unwritten error         // why the ledger does not say so yet; it is kept on the target
}

// Rollback makes the last good release live again, quarantines the one it leaves and freezes the environment. When the ledger
// does not answer, it goes on from what the targets know.
func (x *Executor) Rollback(ctx context.Context, r Rollback) (RolledBack, error) {
	var out RolledBack
	err := x.again(func() (err error) {
		out, err = x.rollbackOnce(ctx, r)
		return err
	})
	return out, err
}

func (x *Executor) rollbackOnce(ctx context.Context, r Rollback) (RolledBack, error) {
	begin := x.world.Now()
	first, err := x.firstLook(ctx)
	if err != nil {
		return x.sightless(ctx, r, begin, err)
	}
	if r.DryRun {
		return x.chosen(first, r)
	}
	now, err := x.heal(ctx, &first.newest, policy{spares: func(in ledger.Intent) bool { return in.Kind == ledger.VerifyStarted }})
	if err != nil {
		return x.sightless(ctx, r, begin, err)
	}
	if done, ok := tookBack(first, now); ok && r.To == "" {
		return done, standing(now.sight, done.Release)
	}
	if err := unchanged(first, now); err != nil {
		return RolledBack{}, err
	}
	out, err := x.chosen(now.sight, r)
	if err == nil && out.Already {
		err = standing(now.sight, out.Release)
	}
	if err != nil || out.Already {
		return out, err
	}
	if err := x.open(ctx, now.sight, out.Release); err != nil {
		return out, fault.Errorf(fault.HalfWay, "the way back to %s is not open: %w", out.Release, err).
			WithHint("name another release with --to, or push the image again%s", x.cleaned(err, out.Release))
	}
	x.log.Info("rolling back", "from", out.Left.String(), "to", out.Release.String(), "why", out.Why)
	started, err := x.startRollback(ctx, now.sight, out, r.Reason)
	switch {
	case err != nil && (errors.Is(err, errMoved) || fault.CodeOf(err) == fault.Refused || ctx.Err() != nil):
		return out, err
	case err != nil:
		r.decided = &out.Release
		return x.withoutLedger(ctx, r, begin, err)
	}
	defer x.hold(ctx, started, nil)()
	note := x.note(started, out, r.Reason)
	claim := plan.Claim{Token: x.token(started, 0), Event: started.Digest, Ledger: x.Owner, Aim: plan.Fire,
		Wanted: out.Release, Entry: note.ID, Restored: true}
	return x.goBack(ctx, begin, out, claim, started.State.Intent.Key(), note)
}

// sightless is a rollback whose look has failed: it goes on without the ledger, unless it is a target that cannot be reached, or
// something that is not the ledger's fault.
func (x *Executor) sightless(ctx context.Context, r Rollback, begin time.Time, err error) (RolledBack, error) {
	switch code := fault.CodeOf(err); {
	case errors.Is(err, ledger.ErrForged): // it is there, and says nothing that can be believed
	case errors.Is(err, target.ErrUnreachable):
		return RolledBack{}, unreachable(err)
	case code == fault.Refused || code == fault.HalfWay:
		return RolledBack{}, err
	}
	return x.withoutLedger(ctx, r, begin, err)
}

// unreachable is the error of a rollback that could not begin.
func unreachable(err error) error {
	return fault.Errorf(fault.Failed, "roll back: nothing was changed: %w", err).
		WithHint("see to the engine or the load balancer first, then run it again")
}

// firstLook reads the ledger, for a while only: a person does not wait for a registry that is down. Then it looks at the targets.
func (x *Executor) firstLook(ctx context.Context) (sight, error) {
	reading, cancel := context.WithTimeout(ctx, ledgerAnswers)
	defer cancel()
	newest, err := x.Ledger.Newest(reading)
	if err != nil {
		return sight{}, err
	}
	return x.survey(ctx, newest)
}

// standing makes sure that what a rollback has nothing to do for really serves.
func standing(now sight, r release.Release) error {
	if now.serves(r.ID()) {
		return nil
	}
	return fault.Errorf(fault.HalfWay, "nothing was moved: the ledger is back on %s already, but it does not serve", r).
		WithHint("see to the target first; or go to another release: backstep rollback --to …, or deploy one")
}

// tookBack says whether the rollback was done by ending what a dead run had begun, whoever ended it: a deploy that was under way
// when we looked first is not live, nor is its release.
func tookBack(first sight, now healed) (RolledBack, bool) {
	in, live := first.newest.State.Intent, now.newest.State.Live
	if in == nil || live == nil || in.Kind != ledger.DeployStarted || live.Restored || live.Release.ID() == in.To.ID() {
		return RolledBack{}, false
	}
	return RolledBack{Release: live.Release, Left: in.To, Seq: now.newest.Seq, Already: true,
		Why: fmt.Sprintf("an earlier run had died half-way, and what it had begun is taken back to %s; to leave that as well, roll back once more", live.Release)}, true
}

// unchanged makes sure that what is live is what was live, or had the traffic, when we looked first.
func unchanged(first sight, now healed) error {
	was, is := first.newest.State.Live, now.newest.State.Live
	if is == nil || was != nil && was.Release.ID() == is.Release.ID() || first.serves(is.Release.ID()) {
		return nil
	}
	for _, r := range now.did {
		if r.Do == ledger.EndRollback || r.Do == ledger.TakeNote {
			return nil // we have written that ourselves, of what was decided before we looked
		}
	}
	return fault.Errorf(fault.Refused, "%s became live in between, by event %d", is.Release, is.Seq).
		WithHint("look at it, and run it again: backstep status")
}

// chosen is where a rollback goes, by what the ledger says.
func (x *Executor) chosen(now sight, r Rollback) (RolledBack, error) {
	live := now.newest.State.Live
	if live == nil {
		return RolledBack{}, fault.Inputf("nothing is live in environment %s", x.Name)
	}
	to, why, err := now.newest.State.WayBack(r.To)
	// One image in another configuration has the same version and digest: only when there is no other of that name is it here already.
	here := live.Release.Named(r.To) && (err != nil || r.To == string(live.Release.ID()))
	if live.Restored && r.To == "" || here {
		return RolledBack{Release: live.Release, Already: true, Seq: now.newest.Seq,
			Why: fmt.Sprintf("already back on %s, by event %d; further back takes --to", live.Release, live.Seq)}, nil
	}
	if err == nil {
		err = x.own(now, to)
	}
	if err != nil {
		return RolledBack{}, err
	}
	return RolledBack{Release: to, Left: live.Release, Condemned: true, Why: why, Plan: plan.Back(now.fleet[0], to)}, nil
}

// startRollback writes the intent. It takes the place of a verify; any other that came in between is a refusal.
func (x *Executor) startRollback(ctx context.Context, now sight, out RolledBack, reason string) (ledger.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, ledgerPatience)
	defer cancel()
	return x.Ledger.Commit(ctx, func(e ledger.Event) (ledger.Event, error) {
		if in := e.State.Intent; in != nil && in.Kind != ledger.VerifyStarted {
			return ledger.Event{}, errMoved // whether its run lives is for heal to find out
		}
		if e.State.Live == nil || e.State.Live.ID != now.newest.State.Live.ID {
			return ledger.Event{}, fault.Errorf(fault.Refused, "event %d of %s came in between", e.Seq, e.Author).
				WithHint("look at what is live now: backstep status")
		}
		return ledger.Start(e, ledger.Intent{Kind: ledger.RollbackStarted, Holder: x.holder, To: out.Release, Plan: out.Plan,
			Deadline: x.deadline(out.Plan), Reason: reason, Condemn: true}, x.Stamp()), nil
	})
}

// note is what a rollback under the intent of started leaves on the targets.
func (x *Executor) note(started ledger.Event, out RolledBack, why string) *plan.Note {
	n := &plan.Note{ID: strings.ToLower(rand.Text()), Number: started.Number(0), Left: out.Left, To: out.Release,
		Condemn: true, Freeze: true, Author: x.author, At: x.world.Now().UTC(), Why: x.world.Secrets.Redact(why)}
	if from := started.State.Intent.From; from != nil {
		n.LeftEntry = from.ID
	}
	return n
}

// goBack moves the traffic under the claim, and only then writes it down: it is also what fires after a fail verdict. It is
// carried to its end even when the run was cancelled.
func (x *Executor) goBack(ctx context.Context, begin time.Time, out RolledBack, claim plan.Claim, key ledger.Key, note *plan.Note) (RolledBack, error) {
	ctx = context.WithoutCancel(ctx)
	turned := x.turn(claim, note, x.patience).Carry(ctx, x.sites)
	out.Took = turned.At.Sub(begin)
	err := turned.Err()
	switch {
	case err != nil && errors.Is(err, target.ErrFenced):
		return out, fault.Errorf(fault.Refused, "roll back to %s: %w", out.Release, err).
			WithHint("look at what the other run did: backstep history")
	case err != nil:
		// The intent stays open, so that whoever comes next carries it to its end.
		return out, fault.Errorf(fault.HalfWay, "roll back to %s: %w", out.Release, err).
			WithHint("the next run of any step finishes it; the runbook says what to look at")
	}
	out.Moved, out.Changed = true, x.secretsChanged(out.Release)
	x.log.Info("the traffic is back", "release", out.Release.Digest.Short(), "version", out.Release.Version,
		"seconds", fmt.Sprintf("%.3f", out.Took.Seconds()))
	disconnected := func() {}
	if note.Condemn && out.Left.Digest != "" && out.Left.ID() != out.Release.ID() {
		disconnected = x.disconnect(ctx, claim.Token, out.Left)
	}
	failing := x.confirm(ctx, out.Release)
	words := x.lastWords(ctx, out.Left.ID())
	event, unwritten := x.record(ctx, note, func(e ledger.Event) (ledger.Event, error) {
		done, err := ledger.FinishRollback(e, key, x.Stamp(), note)
		if failing != nil {
			done, err = ledger.FailRollback(e, key, x.Stamp(), note, failing.Error())
		}
		done.Seconds, done.Evidence = out.Took.Seconds(), strings.Trim(done.Evidence+"\n"+words, "\n")
		return done, err
	})
	disconnected()
	if unwritten != nil {
		out.Unwritten = unwritten
		x.sayUnwritten(unwritten)
	} else {
		out.Seq = event.Seq
		x.clear(ctx, x.settle(ctx, event))
	}
	if failing != nil {
		return out, fault.Errorf(fault.HalfWay, "roll back to %s: %w", out.Release, failing).
			WithHint("a person is needed: see docs/runbook.md")
	}
	return out, nil
}

// underWay is how long a request that a customer has sent already may take on a release that was found bad.
const underWay = time.Second

// disconnect ends what customers still have open with a release that was found bad, side by side with what follows: kept
// connections would go on with it. The function that it returns waits for the end.
func (x *Executor) disconnect(ctx context.Context, by plan.Token, bad release.Release) (wait func()) {
	ctx, cancel := context.WithTimeout(ctx, observeTimeout)
	var all sync.WaitGroup
	for _, s := range x.sites {
		all.Go(func() {
			if err := s.Router.Close(ctx, by, bad.ID(), underWay); err != nil {
				x.log.Warn("connections with the release that was left stay open", "target", s.Name, "release", bad.Digest.Short(), "error", err)
			}
		})
	}
	return func() {
		all.Wait()
		cancel()
	}
}

// The last lines of a release that is left, as the ledger keeps them.
const (
	wordLines = 10
	wordBytes = 4096
)

// lastWords is the end of the log of what is left, before anything of it is removed; "" when the configuration keeps no logs. A
// secret is taken out before a line is cut.
func (x *Executor) lastWords(ctx context.Context, left release.ID) string {
	if !x.Config.KeepLogs {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, observeTimeout)
	defer cancel()
	var lines []string
	for _, s := range x.sites {
		own, err := s.Target.Logs(ctx, left, wordLines)
		if err != nil {
			x.log.Warn("the last lines of the release that is left cannot be read", "target", s.Name, "error", err)
		}
		lines = append(lines, own...)
	}
	text := x.world.Secrets.Redact(strings.Join(lines, "\n"))
	return strings.ToValidUTF8(text[max(0, len(text)-wordBytes):], "")
}

// confirmations is how many ticks the restored release is judged before the rollback counts as done: long enough for one that never answers to be found.
const confirmations = 6

// confirm makes sure that the restored release answers. With no probe that can be asked, ready is enough. Only a
// fail verdict is against it: there is no time to wait for a pass.
func (x *Executor) confirm(ctx context.Context, to release.Release) error {
	if !x.probed() {
		return nil
	}
	e, err := x.bake(ctx, baking{release: to, alpha: x.Config.Verify.Alpha, duration: confirmations * tick, patience: tick})
	e.wait()
	if err != nil {
		x.log.Warn("the restored release could not be probed", "error", err)
		return nil
	}
	if e.Verdict == verdict.Fail {
		return fmt.Errorf("the restored release fails as well: %s", e.text())
	}
	return nil
}

// withoutLedger goes back by what the targets know: each keeps who is to serve and where the way back leads. What is done is
// noted on them, and the next run writes it into the ledger.
func (x *Executor) withoutLedger(ctx context.Context, r Rollback, begin time.Time, silent error) (RolledBack, error) {
	if ctx.Err() != nil {
		return RolledBack{}, context.Cause(ctx)
	}
	x.log.Warn("the ledger cannot be used; going on from what the target knows", "error", silent)
	now, err := x.survey(ctx, ledger.Event{})
	if err != nil {
		return RolledBack{}, errors.Join(unreachable(err), silent)
	}
	record := now.fleet[0].Claim
	for _, s := range now.fleet {
		if s.Claim.Number.Compare(record.Number) > 0 {
			record = s.Claim
		}
	}
	if record.Ledger != x.Owner {
		return RolledBack{}, errors.Join(fault.Errorf(fault.Failed, "roll back: the target holds no record of %s", x.Owner), silent)
	}
	out, note, err := x.chosenByTarget(now, record, r)
	if err != nil || r.DryRun || out.Already {
		return out, err
	}
	if err := x.reachable(ctx, now, out.Release); err != nil {
		return out, fault.Errorf(fault.HalfWay, "the way back to %s is not open: %w: %w", out.Release, err, silent).
			WithHint("name another release with --to, or see to the registry first%s", x.cleaned(err, out.Release))
	}
	record.Number.Sub++
	note.ID, note.Number, note.Author, note.At, note.Why = strings.ToLower(rand.Text()), record.Number, x.author, x.world.Now().UTC(), r.Reason
	claim := plan.Claim{Token: plan.Token{Number: record.Number, Holder: x.holder}, Event: record.Event, Ledger: x.Owner, Aim: plan.Fire,
		Wanted: out.Release, Entry: note.ID, Restored: true}
	turned := x.turn(claim, &note, x.patience).Carry(context.WithoutCancel(ctx), x.sites)
	out.Took, out.Unwritten = turned.At.Sub(begin), silent
	err = turned.Err()
	if errors.Is(err, target.ErrFenced) {
		return out, fault.Errorf(fault.Refused, "roll back to %s: %w", out.Release, err).
			WithHint("somebody else rolls back at the same time: look at what serves, backstep status")
	}
	if out.Moved = err == nil; err != nil {
		return out, fault.Errorf(fault.HalfWay, "roll back to %s: %w", out.Release, err).
			WithHint("the next run of any step finishes it; the runbook says what to look at")
	}
	if note.Condemn && out.Left.Digest != "" {
		defer x.disconnect(context.WithoutCancel(ctx), claim.Token, out.Left)()
	}
	out.Changed = x.secretsChanged(out.Release)
	x.sayUnwritten(silent)
	if failing := x.confirm(ctx, out.Release); failing != nil {
		return out, fault.Errorf(fault.HalfWay, "roll back to %s: %w", out.Release, failing).WithHint("a person is needed: see docs/runbook.md")
	}
	return out, nil
}

// open says why r cannot be given the traffic, or nil: it runs everywhere, or only has to be started there, or its image and its
// secrets can be had.
func (x *Executor) open(ctx context.Context, now sight, r release.Release) error {
	if now.startable(r.ID()) {
		return nil
	}
	if _, err := x.configs.start(r); err != nil {
		return err
	}
	return x.available(ctx, r)
}

// reachable is open for a while only: a registry that takes no events may still give images.
func (x *Executor) reachable(ctx context.Context, now sight, r release.Release) error {
	ctx, cancel := context.WithTimeout(ctx, ledgerAnswers)
	defer cancel()
	return x.open(ctx, now, r)
}

// chosenByTarget is where a rollback goes, by the record on the targets, with the note that it leaves.
func (x *Executor) chosenByTarget(now sight, record plan.Claim, r Rollback) (RolledBack, plan.Note, error) {
	out := RolledBack{Left: record.Wanted, Why: fmt.Sprintf("the target says that it is the way back from %s (claim %s)", record.Wanted, record.Number)}
	note := plan.Note{Left: record.Wanted, LeftEntry: record.Entry, Condemn: true, Freeze: true}
	back := record.Back
	switch {
	case r.decided != nil && r.decided.ID() != record.Wanted.ID():
		back, out.Why = r.decided, "the ledger said so before it was gone"
	case record.Wanted.Named(r.To) && (back == nil || !back.Named(r.To) || r.To == string(record.Wanted.ID())):
		out.Release, out.Left, out.Already = record.Wanted, release.Release{}, now.serves(record.Wanted.ID())
		out.Why = fmt.Sprintf("already on %s", record.Wanted)
		return out, note, standing(now, record.Wanted)
	case back != nil && back.Named(r.To):
		out.Why = "it was given by name"
	case r.To != "":
		back = nil
		for _, s := range now.fleet {
			for _, in := range s.Instances {
				if in.Release.Named(r.To) {
					back, out.Why = &in.Release, "it was given by name"
				}
			}
		}
	case record.Restored || record.Aim == plan.Fire:
		out.Release, out.Left = record.Wanted, release.Release{}
		out.Why = fmt.Sprintf("already back on %s; further back takes --to", record.Wanted)
		if out.Already = now.serves(record.Wanted.ID()); out.Already {
			return out, note, nil
		}
		back = &record.Wanted
		note = continued(now, note)
	case record.Aim == plan.Undo && !now.serves(record.Wanted.ID()):
		// Somebody was on the way there: that is carried to its end, and nobody is found bad by it.
		back = &record.Wanted
		note.Condemn, note.Freeze = false, false
		note.Left = release.Release{}
		note.LeftEntry = strconv.FormatUint(record.Number.Seq, 10)
		if serving := now.fleet[0].Serving(); serving != nil {
			note.Left = serving.Release
		}
		out.Left = note.Left
		out.Why = fmt.Sprintf("an earlier run was on the way back to it (claim %s)", record.Number)
	case !now.serves(record.Wanted.ID()) && !now.failed(record.Wanted.ID()):
		note.Condemn, note.Freeze = false, false // nobody has seen it serve everywhere: nothing says that it is bad
	}
	if back == nil {
		return out, note, fault.Errorf(fault.HalfWay, "the ledger does not answer, and the target knows no way back from %s", record.Wanted).
			WithHint("name a release that is on the target with --to, or see to the registry first")
	}
	for _, s := range now.fleet {
		if n := s.Condemned(back.ID()); n != nil {
			return out, note, fault.Errorf(fault.Refused, "%s was found bad: %s", back, n.Why)
		}
	}
	out.Release, note.To, out.Condemned = *back, *back, note.Condemn
	out.Plan = plan.Back(now.fleet[0], *back)
	return out, note, nil
}

// continued is the note of a rollback that carries on another one: it says the same as the highest that is there.
func continued(now sight, fallback plan.Note) plan.Note {
	var highest *plan.Note
	for _, s := range now.fleet {
		for i := range s.Notes {
			if n := &s.Notes[i]; highest == nil || n.Number.Compare(highest.Number) > 0 {
				highest = n
			}
		}
	}
	if highest == nil {
		fallback.Condemn, fallback.Freeze = false, false
		return fallback
	}
	return *highest
}
