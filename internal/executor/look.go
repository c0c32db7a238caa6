package executor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/target"
	"github.com/backstep/backstep/internal/wayback"
)

// sight is what a run has looked at.
type sight struct {
	newest ledger.Event
	fleet  []plan.State // of the sites that can be reached, in the order of their names
	sites  []wayback.Site
}

// observeTimeout bounds one look at a target.
const observeTimeout = 15 * time.Second

// look reads the ledger and then looks at the targets. It changes nothing.
func (x *Executor) look(ctx context.Context) (sight, error) {
	newest, err := x.Ledger.Newest(ctx)
	if err != nil {
		return sight{}, err
	}
	return x.survey(ctx, newest)
}

// Status is what the ledger and the first target that can be reached say. Each can be missing, and why.
type Status struct {
	Newest     ledger.Event
	LedgerErr  error
	Target     *plan.State
	TargetErr  error
	Difference string // where a target is not as the ledger says; "" when it is
	Foreign    bool   // the difference is that the target belongs to another ledger: no run sees to that
}

// Status looks at both and changes nothing. It waits for the ledger for a while only.
func (x *Executor) Status(ctx context.Context) (Status, error) {
	reading, cancel := context.WithTimeout(ctx, ledgerAnswers)
	defer cancel()
	var s Status
	s.Newest, s.LedgerErr = x.Ledger.Newest(reading)
	if ctx.Err() != nil {
		return s, context.Cause(ctx)
	}
	now, err := x.observe(ctx, s.Newest)
	if s.TargetErr = err; err != nil {
		return s, nil
	}
	s.Target = &now.fleet[0]
	s.Target.Claim.Key = ""
	if now.newest, err = x.descended(reading, now); err != nil {
		s.LedgerErr = cmp.Or(s.LedgerErr, err)
	}
	s.Newest = now.newest
	if foreign := x.lawful(now); foreign != nil && s.LedgerErr == nil {
		s.Difference, s.Foreign = foreign.Error(), true
		return s, nil
	}
	if s.LedgerErr == nil && s.Newest.State.Intent == nil {
		s.Difference = differs(now)
	}
	return s, nil
}

// differs says how a target is not where the ledger says, by the rules of recovery.
func differs(now sight) string {
	r := ledger.Recover(now.newest, now.fleet)
	switch {
	case r.Do == ledger.ReadAgain:
		return "a target knows of an event that the ledger does not have"
	case r.Do == ledger.TakeNote:
		return fmt.Sprintf("a rollback from %s to %s by %s is not written yet: %s", r.Note.Left, r.Note.To, r.Note.Author, r.Note.Why)
	}
	for _, s := range now.fleet {
		if live := now.newest.State.Live; live != nil {
			switch in := s.Find(live.Release.ID()); {
			case in == nil:
				return fmt.Sprintf("%s is not there", live.Release)
			case in.Phase == plan.Failed:
				return fmt.Sprintf("%s has failed: %s", live.Release, in.Reason)
			case in.Weight != 100:
				return fmt.Sprintf("%s has %d %% of the traffic", live.Release, in.Weight)
			case !now.newest.State.ServedBy(s):
				return "the jobs of another release work, or not all of those of " + live.Release.String()
			}
		}
	}
	return ""
}

// survey looks at all targets side by side. One that cannot be reached is reported and left out; it holds nobody up. What belongs to
// another ledger is refused.
func (x *Executor) survey(ctx context.Context, newest ledger.Event) (sight, error) {
	now, err := x.observe(ctx, newest)
	if err == nil {
		now.newest, err = x.descended(ctx, now)
	}
	if err == nil {
		err = x.lawful(now)
	}
	if err == nil {
		x.configs.learn(now.newest.State, now.fleet)
	}
	return now, err
}

// descended is the newest event of the ledger that descends from what the targets have seen of it. Before the ledger has an event, or
// when a target is ahead of it, there is nothing to be held to.
func (x *Executor) descended(ctx context.Context, now sight) (ledger.Event, error) {
	if now.newest.Seq == 0 {
		return now.newest, nil
	}
	var seen plan.Claim
	for _, s := range now.fleet {
		c := s.Claim
		if c.Event != "" && c.Ledger == x.Owner && c.Number.Epoch == now.newest.State.Epoch && c.Number.Compare(seen.Number) > 0 {
			seen = c
		}
	}
	if seen.Number.Seq > now.newest.Seq {
		return now.newest, nil
	}
	return x.Ledger.After(ctx, seen.Number.Seq, seen.Event)
}

// observe is survey for whoever changes nothing.
func (x *Executor) observe(ctx context.Context, newest ledger.Event) (sight, error) {
	ctx, cancel := context.WithTimeout(ctx, observeTimeout)
	defer cancel()
	states, faults := make([]plan.State, len(x.sites)), make([]error, len(x.sites))
	var all sync.WaitGroup
	for i, s := range x.sites {
		all.Go(func() { states[i], faults[i] = s.Target.Observe(ctx) })
	}
	all.Wait()
	now := sight{newest: newest}
	for i, s := range x.sites {
		if faults[i] != nil {
			x.log.Debug("a target is left out", "target", s.Name, "error", faults[i])
			continue
		}
		now.fleet, now.sites = append(now.fleet, states[i]), append(now.sites, s)
	}
	if len(now.fleet) == 0 {
		return now, errors.Join(faults...)
	}
	return now, nil
}

// find is the first instance of the release on any target, or nil.
func (s sight) find(id release.ID) *plan.Instance {
	for _, state := range s.fleet {
		if in := state.Find(id); in != nil {
			return in
		}
	}
	return nil
}

// startable says whether every target has an instance of the release that runs, or only has to be started.
func (s sight) startable(id release.ID) bool {
	for _, state := range s.fleet {
		if in := state.Find(id); in == nil || in.Phase != plan.Ready && in.Phase != plan.Parked {
			return false
		}
	}
	return true
}

// failed says whether the release has failed on a target.
func (s sight) failed(id release.ID) bool {
	in := s.find(id)
	return in != nil && in.Phase == plan.Failed
}

// serves says whether the release has all the traffic of every target.
func (s sight) serves(id release.ID) bool {
	for _, state := range s.fleet {
		if in := state.Find(id); in == nil || in.Weight != 100 {
			return false
		}
	}
	return true
}

// errMoved says that the ledger has moved on since it was looked at.
var errMoved = errors.New("another event came in between")

// healingRounds bounds heal: each round is one remedy, and a round that changes nothing ends it.
const healingRounds = 30

// healed is what heal found and did on its way.
type healed struct {
	sight
	did []ledger.Remedy // the remedies that were carried out, in their order
}

// heal ends what earlier runs have left behind, and brings the targets to where the ledger says, until there is nothing
// left to do. It begins with the event known, which was just read or written, or reads the newest when that is nil. An intent
// whose run is alive is a refusal, unless the policy spares or overrules it.
func (x *Executor) heal(ctx context.Context, known *ledger.Event, p policy) (healed, error) {
	var out healed
	dead, ahead := ledger.Key{}, uint64(0)
	for range healingRounds {
		if known == nil {
			newest, err := x.Ledger.Newest(ctx)
			if err != nil {
				return out, err
			}
			known = &newest
		}
		now, err := x.survey(ctx, *known)
		if out.sight = now; err != nil {
			return out, err
		}
		remedy := ledger.Recover(now.newest, now.fleet)
		if in := now.newest.State.Intent; in != nil && remedy.Do != ledger.ReadAgain && in.Key() != dead {
			if p.does(p.spares, *in) && remedy.Do != ledger.EndRollback {
				return out, nil
			}
			if p.does(p.overrules, *in) {
				known = &now.newest
			} else if known, err = x.free(ctx, *in, now.newest.Seq); err != nil {
				return out, err
			} else if known.Seq != now.newest.Seq {
				continue // it went on while we listened
			}
			dead = in.Key()
		}
		switch remedy.Do {
		case ledger.Nothing:
			return out, nil
		case ledger.ReadAgain:
			if ahead == now.newest.Seq+1 { // it was read again, and is still the newest
				return out, x.lostEvents(now)
			}
			ahead = now.newest.Seq + 1
			known = nil
			continue
		}
		if remedy.Do != ledger.BringAlong && remedy.Do != ledger.ForgetNotes {
			x.log.Warn("an earlier run left something behind", "remedy", string(remedy.Do), "event", now.newest.Seq)
		}
		err = x.treat(ctx, now, remedy, cmp.Or(p.why, "its run died"))
		if err != nil || remedy.Do != ledger.BringAlong && remedy.Do != ledger.ForgetNotes {
			known = nil // the others write an event
		}
		switch {
		case errors.Is(err, errMoved), errors.Is(err, ledger.ErrTakenOver), errors.Is(err, target.ErrFenced):
			continue
		case err != nil && remedy.Do == ledger.BringAlong:
			x.log.Warn("a target could not be brought to where the ledger says; the next run tries again", "error", err)
			return out, nil
		case err != nil:
			return out, err
		}
		out.did = append(out.did, remedy)
	}
	return out, fault.Errorf(fault.Refused, "other runs are changing environment %s all the time", x.Name).WithHint("run it again")
}

// free makes sure that the run which holds the intent is dead, and returns the newest event afterwards: when that is no longer
// the one numbered seen, nothing is said of the run.
func (x *Executor) free(ctx context.Context, in ledger.Intent, seen uint64) (*ledger.Event, error) {
	alive, err := x.alive(ctx, in)
	if err != nil {
		return nil, err
	}
	newest, err := x.Ledger.Newest(ctx)
	if err == nil && alive && newest.Seq == seen {
		err = locked(in)
	}
	return &newest, err
}

// lostEvents is the fault of a target that was changed by an event which the ledger does not have.
func (x *Executor) lostEvents(now sight) error {
	var highest plan.Number
	for _, s := range now.fleet {
		if s.Claim.Number.Compare(highest) > 0 {
			highest = s.Claim.Number
		}
	}
	return fault.Errorf(fault.HalfWay, "the target was changed by event %s, but the ledger ends with event %d", highest, now.newest.Seq).
		WithHint("the registry has lost events: restore them, or take over what the target knows: backstep adopt --environment %s. If a clean-up has removed them: %s",
			now.newest.Environment, x.registry.CleanUp(x.book))
}

// treat carries out one remedy.
func (x *Executor) treat(ctx context.Context, now sight, r ledger.Remedy, died string) error {
	var key ledger.Key
	if in := now.newest.State.Intent; in != nil {
		key = in.Key()
	}
	write := func(change func(ledger.Event) (ledger.Event, error)) error {
		_, err := x.Ledger.Commit(ctx, func(e ledger.Event) (ledger.Event, error) {
			if e.Seq != now.newest.Seq {
				return ledger.Event{}, errMoved
			}
			return change(e)
		})
		return err
	}
	switch r.Do {
	case ledger.EndRollback:
		return write(func(e ledger.Event) (ledger.Event, error) { return ledger.FinishRollback(e, key, x.Stamp(), r.Note) })
	case ledger.EndVerify:
		return write(func(e ledger.Event) (ledger.Event, error) { return ledger.Disarm(e, key, died, "", x.Stamp()) })
	case ledger.EndDeploy:
		return write(func(e ledger.Event) (ledger.Event, error) { return ledger.FinishDeploy(e, key, x.Stamp()) })
	case ledger.TakeDeployBack:
		return write(func(e ledger.Event) (ledger.Event, error) { return ledger.AbortDeploy(e, key, x.Stamp(), died, r.Note) })
	case ledger.TakeNote:
		return write(func(e ledger.Event) (ledger.Event, error) { return ledger.AdoptNote(e, *r.Note, x.Stamp()) })
	case ledger.ForgetNotes:
		by := shared(now.newest)
		for _, s := range now.sites {
			if err := s.Target.Forget(ctx, by, r.Notes); err != nil {
				return err
			}
		}
		return nil
	}
	return x.follow(ctx, now)
}

// follow brings every target to where the ledger says, under the number of its newest event. All who follow it share the claim.
func (x *Executor) follow(ctx context.Context, now sight) error {
	claim := plan.Claim{Token: shared(now.newest), Event: now.newest.Digest, Ledger: x.Owner, Aim: plan.Follow}
	live := now.newest.State.Live
	if live != nil {
		claim.Wanted, claim.Entry, claim.Restored, claim.Back = live.Release, live.ID, live.Restored, back(now.newest.State)
	}
	var astray []wayback.Site
	for i, s := range now.sites {
		// What died is evidence for verify, not something to start again.
		if now.newest.State.ServedBy(now.fleet[i]) {
			if err := s.Target.Claim(ctx, x.configs.claimed(claim), nil); err != nil {
				return err
			}
			continue
		}
		astray = append(astray, s)
	}
	if len(astray) > 0 {
		x.log.Warn("a target is not where the ledger says: it is brought along", "release", live.Release.Digest.Short(), "version", live.Release.Version)
	}
	return x.turn(claim, nil, 0).Carry(ctx, astray).Err()
}

// back is where a rollback of what is live goes, or nil.
func back(s ledger.Snapshot) *release.Release {
	if to, _, err := s.WayBack(""); err == nil {
		return &to
	}
	return nil
}

func (x *Executor) turn(claim plan.Claim, note *plan.Note, patience time.Duration) wayback.Turn {
	return wayback.Turn{Claim: x.configs.claimed(claim), Note: note, Ready: x.Config.ReadyTimeout, Patience: patience, Log: x.log, Point: point}
}

// policy is what heal does about an intent whose run may live. By itself it is refused.
type policy struct {
	spares    func(ledger.Intent) bool // it is let stand
	overrules func(ledger.Intent) bool // it is ended, whether its run lives or not
	why       string                   // for the ledger; "" is that its run died
}

func (p policy) does(which func(ledger.Intent) bool, in ledger.Intent) bool {
	return which != nil && which(in)
}

// settle is the second look, after a run has done its work: what came up meanwhile is ended, and the targets are where the
// ledger says. What fails is left to the next run.
func (x *Executor) settle(ctx context.Context, written ledger.Event) healed {
	now, err := x.heal(context.WithoutCancel(ctx), &written, policy{})
	if err != nil && fault.CodeOf(err) != fault.Refused {
		x.log.Warn("the next run looks after the targets", "error", err)
	}
	return now
}

// clear parks the last good releases, and retires what else has no traffic, apart from what is live. It is what makes a warm
// release cold, so it follows the event that allows it.
func (x *Executor) clear(ctx context.Context, now healed) {
	s := now.newest.State
	if s.Live == nil || s.Intent != nil {
		return
	}
	by := shared(now.newest)
	kept := s.Good(x.Config.Keep)
	for i, state := range now.fleet {
		for _, in := range state.Instances {
			op := plan.Operation{Do: plan.Retire, Release: in.Release}
			if slices.Contains(kept, in.Release.ID()) {
				op.Do = plan.Park
			}
			if in.Weight > 0 || in.Release.Before != "" || in.Release.ID() == s.Live.Release.ID() || op.Do == plan.Park && in.Phase == plan.Parked {
				continue
			}
			if err := x.apply(ctx, now.sites[i], by, op); err != nil {
				x.log.Warn("what was left behind could not be removed; the next deploy will", "release", in.Release.Digest.Short(), "error", err)
			}
			point("cleared")
		}
	}
}
