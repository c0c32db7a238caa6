package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
)

// ErrTakenOver is wrapped by the error of a run that wants to finish an intent which is no longer its own.
var ErrTakenOver = errors.New("another run has taken over")

// Stamp is who makes a transition, and when.
type Stamp struct {
	Author release.Author
	At     time.Time
}

func (e Event) next(kind Kind, stamp Stamp) Event {
	state := e.State
	state.Freezes = slices.Clone(state.Freezes)
	state.Quarantined = slices.Clone(state.Quarantined)
	state.Recent = slices.Clone(state.Recent)
	state.Adopted = slices.Clone(state.Adopted)
	return Event{Seq: e.Seq + 1, Kind: kind, At: stamp.At, Author: stamp.Author, State: state}
}

// Start follows newest with an intent. From now on its run holds the lock, and the number of the event is
// the number under which it claims the target. A foreign intent in newest is replaced: whether it may be is for
// the caller to know.
func Start(newest Event, intent Intent, stamp Stamp) Event {
	e := newest.next(intent.Kind, stamp)
	intent.Seq, intent.Author, intent.From = e.Seq, stamp.Author, newest.State.Live
	e.State.Intent = &intent
	e.Release, e.Reason = &intent.To, intent.Reason
	if intent.Kind == VerifyStarted {
		e.Release = &intent.From.Release
	}
	return e
}

// end follows newest with the end of the intent that key names. It wraps ErrTakenOver when that is no longer in flight.
func end(newest Event, key Key, kind Kind, stamp Stamp) (Intent, Event, error) {
	in := newest.State.Intent
	if in == nil || in.Key() != key {
		return Intent{}, Event{}, fault.Errorf(fault.Refused, "finish event %d: %w", key.Seq, ErrTakenOver).
			WithHint("look at what it did: backstep history")
	}
	e := newest.next(kind, stamp)
	e.State.Intent, e.Release = nil, &in.To
	return *in, e, nil
}

// FinishDeploy makes the release of the intent live, and gives the lock back. It is good only if it was good before.
func FinishDeploy(newest Event, key Key, stamp Stamp) (Event, error) {
	in, e, err := end(newest, key, DeployFinished, stamp)
	if err != nil {
		return Event{}, err
	}
	e.live(Entry{Release: in.To, ID: in.Entry(), Seq: e.Seq})
	return e, nil
}

// AbortDeploy gives the lock back and leaves live what was live. Note is that of the rollback that took the deploy back
// without the ledger, or nil.
func AbortDeploy(newest Event, key Key, stamp Stamp, reason string, note *plan.Note) (Event, error) {
	_, e, err := end(newest, key, DeployAborted, stamp)
	if err != nil {
		return Event{}, err
	}
	e.Reason = reason
	e.adopt(note)
	return e, nil
}

// FinishRollback makes the release that the intent goes back to live, quarantines the one that it leaves and freezes the
// environment when the intent says so, and gives the lock back. It ends a rollback, or a verify or a deploy during which
// the traffic went back. What a note says goes before what the intent says; it may be nil for a rollback.
func FinishRollback(newest Event, key Key, stamp Stamp, note *plan.Note) (Event, error) {
	in, e, err := end(newest, key, RollbackFinished, stamp)
	if err != nil {
		return Event{}, err
	}
	if note == nil {
		note = &plan.Note{To: in.To, Condemn: in.Condemn, Freeze: in.Condemn, Why: in.Reason, ID: in.Entry(), Author: in.Author, At: stamp.At}
		if in.From != nil {
			note.Left = in.From.Release
		}
	} else {
		e.adopt(note)
	}
	e.Author, e.Reason, e.Evidence = note.Author, cmp.Or(note.Why, in.Reason), note.Evidence
	e.goneBack(*note, stamp)
	return e, nil
}

// goneBack makes it true that the traffic went where the note says.
func (e *Event) goneBack(note plan.Note, stamp Stamp) {
	if note.Left.ID() != note.To.ID() {
		e.sentence(note, stamp)
	}
	to := note.To
	if e.State.QuarantineOf(to.ID()) != nil && e.State.LastGood != nil {
		to = e.State.LastGood.Release // it was found bad after the traffic went there
	}
	e.Release = &to
	e.live(Entry{Release: to, ID: note.ID, Seq: e.Seq, Restored: true})
}

// sentence quarantines what a rollback left, and freezes, as its note says.
func (e *Event) sentence(note plan.Note, stamp Stamp) {
	if note.Condemn && e.State.QuarantineOf(note.Left.ID()) == nil {
		e.State.Quarantined = append(e.State.Quarantined,
			Quarantine{Release: note.Left, Author: note.Author, At: when(note, stamp), Reason: note.Why})
		e.State.LastGood = lastGood(e.State)
	}
	if note.Freeze {
		e.freeze(Freeze{Cause: ByRollback, Author: note.Author, At: when(note, stamp), Reason: note.Why})
	}
}

// when is the time of a rollback that somebody else may write down later.
func when(note plan.Note, stamp Stamp) time.Time {
	if note.At.IsZero() {
		return stamp.At
	}
	return note.At
}

// FailRollback is FinishRollback for a release that has the traffic again and fails as well: a person is needed.
func FailRollback(newest Event, key Key, stamp Stamp, note *plan.Note, reason string) (Event, error) {
	e, err := FinishRollback(newest, key, stamp, note)
	if err != nil {
		return Event{}, err
	}
	e.Kind, e.Reason = RollbackFailed, reason
	e.freeze(Freeze{Cause: ByRollback, Author: stamp.Author, At: stamp.At, Reason: reason})
	return e, nil
}

// adopt remembers that a note is part of the history.
func (e *Event) adopt(note *plan.Note) {
	if note == nil || slices.Contains(e.State.Adopted, note.ID) {
		return
	}
	e.State.Adopted = append(e.State.Adopted, note.ID)
	e.State.Adopted = e.State.Adopted[max(0, len(e.State.Adopted)-adoptedLimit):]
}

// AdoptNote makes a rollback that happened without the ledger, and outside of any intent, part of the history. When what
// it left is still live, or live again only because another rollback went there, where it went is live now. When that release
// has passed since, or was deployed once more, nothing but the history changes; else it is quarantined at least.
func AdoptNote(newest Event, note plan.Note, stamp Stamp) (Event, error) {
	if newest.State.Intent != nil {
		return Event{}, fault.Errorf(fault.Refused, "adopt a rollback of %s: %w", note.Left, ErrTakenOver)
	}
	if slices.Contains(newest.State.Adopted, note.ID) {
		return Event{}, fault.Errorf(fault.Refused, "adopt a rollback of %s: %w: it is adopted", note.Left, ErrTakenOver)
	}
	e := newest.next(NoteAdopted, Stamp{Author: note.Author, At: stamp.At})
	e.Reason, e.Evidence, e.Release = note.Why, note.Evidence, &note.To
	e.adopt(&note)
	live := newest.State.Live
	same := live != nil && live.Release.ID() == note.Left.ID()
	switch {
	case same && live.Passed > note.Number.Seq:
	case same && live.ID != note.LeftEntry && !live.Restored && live.Seq > note.Number.Seq: // deployed once more
	case same:
		e.goneBack(note, stamp)
	default:
		note.Freeze = false
		e.sentence(note, stamp)
	}
	return e, nil
}

// endVerify is end for a verify, whose intent says what it judges. One that does not was not written by us.
func endVerify(newest Event, key Key, kind Kind, stamp Stamp) (Intent, Event, error) {
	in, e, err := end(newest, key, kind, stamp)
	if err == nil && in.From == nil {
		err = fault.Errorf(fault.HalfWay, "finish event %d: it does not say what it judges", key.Seq).WithHint("look at who wrote it: backstep history")
	}
	return in, e, err
}

// Pass ends a verify: what it judged is good, and the last good release.
func Pass(newest Event, key Key, evidence string, stamp Stamp) (Event, error) {
	in, e, err := endVerify(newest, key, Verified, stamp)
	if err != nil {
		return Event{}, err
	}
	good := *in.From
	good.Good, good.Passed = true, in.Seq
	e.Release, e.Evidence = &good.Release, evidence
	e.live(good)
	return e, nil
}

// Reject ends a verify with a fail verdict that moves nothing: what it judged is not good.
func Reject(newest Event, key Key, evidence string, stamp Stamp) (Event, error) {
	in, e, err := endVerify(newest, key, Rejected, stamp)
	if err != nil {
		return Event{}, err
	}
	bad := *in.From
	bad.Good, bad.Passed = false, 0
	e.Release, e.Evidence = &bad.Release, evidence
	e.State.Recent = slices.DeleteFunc(e.State.Recent, func(r Entry) bool { return r.Release.ID() == bad.Release.ID() })
	e.live(bad)
	return e, nil
}

// Disarm ends a verify that came to no verdict.
func Disarm(newest Event, key Key, reason, evidence string, stamp Stamp) (Event, error) {
	in, e, err := endVerify(newest, key, Disarmed, stamp)
	if err != nil {
		return Event{}, err
	}
	e.Release, e.Reason, e.Evidence = &in.From.Release, reason, evidence
	return e, nil
}

// live makes entry what is live, and newest among the recent ones. What was good stays good.
func (e *Event) live(entry Entry) {
	recent := []Entry{entry}
	for _, r := range e.State.Recent {
		if r.Release.ID() != entry.Release.ID() {
			recent = append(recent, r)
			continue
		}
		recent[0].Good = recent[0].Good || r.Good
		recent[0].Passed = max(recent[0].Passed, r.Passed)
	}
	e.State.Recent = trim(recent)
	e.State.Live = &e.State.Recent[0]
	e.State.LastGood = lastGood(e.State)
}

// lastGood is the newest release that was verified and baked and is not in quarantine, or nil.
func lastGood(s Snapshot) *Entry {
	for i, r := range s.Recent {
		if r.Good && s.QuarantineOf(r.Release.ID()) == nil {
			return &s.Recent[i]
		}
	}
	return nil
}

// Good are the n newest releases, besides what is live, that were verified and baked and are not in quarantine.
func (s Snapshot) Good(n int) []release.ID {
	var good []release.ID
	for _, r := range s.Recent {
		if len(good) < n && r.Good && s.QuarantineOf(r.Release.ID()) == nil && (s.Live == nil || r.Release.ID() != s.Live.Release.ID()) {
			good = append(good, r.Release.ID())
		}
	}
	return good
}

// trim keeps recentLimit entries: a good one is never dropped while one that is not good can be.
func trim(recent []Entry) []Entry {
	for len(recent) > recentLimit {
		drop := len(recent) - 1
		for i := drop; i > 0; i-- {
			if !recent[i].Good {
				drop = i
				break
			}
		}
		recent = slices.Delete(recent, drop, drop+1)
	}
	return recent
}

// SetPause holds what is under way: it goes no further forward, and goes back as before when it fails. Resume lets it go on.
func SetPause(newest Event, reason string, stamp Stamp) (Event, error) {
	return pause(newest, Paused, &Pause{Author: stamp.Author, At: stamp.At, Reason: reason}, reason, stamp)
}

// Resume lets what is held go on.
func Resume(newest Event, reason string, stamp Stamp) (Event, error) {
	if in := newest.State.Intent; in != nil && in.Paused == nil {
		return Event{}, fault.Inputf("%s is not paused", in)
	}
	return pause(newest, Resumed, nil, reason, stamp)
}

func pause(newest Event, kind Kind, p *Pause, reason string, stamp Stamp) (Event, error) {
	in := newest.State.Intent
	switch {
	case in == nil:
		return Event{}, fault.Inputf("nothing is under way in the environment")
	case in.Kind == RollbackStarted:
		return Event{}, fault.Errorf(fault.Refused, "%s: a rollback is never held", in)
	}
	held := *in
	held.Paused = p
	e := newest.next(kind, stamp)
	e.State.Intent, e.Release, e.Reason = &held, &in.To, reason
	if in.Kind == VerifyStarted && in.From != nil {
		e.Release = &in.From.Release
	}
	return e, nil
}

// freeze replaces the freeze with the same cause.
func (e *Event) freeze(f Freeze) {
	e.State.Freezes = slices.DeleteFunc(e.State.Freezes, func(old Freeze) bool { return old.Cause == f.Cause })
	e.State.Freezes = append(e.State.Freezes, f)
}

// SetFreeze makes the environment refuse deploys, until a time when that is not nil.
func SetFreeze(newest Event, reason string, until *time.Time, stamp Stamp) (Event, error) {
	if until != nil && !until.After(stamp.At) {
		return Event{}, fault.Inputf("a freeze until %s would be over already", until.UTC().Format(time.RFC3339))
	}
	e := newest.next(Frozen, stamp)
	e.Reason = reason
	e.freeze(Freeze{Cause: ByPerson, Author: stamp.Author, At: stamp.At, Until: until, Reason: reason})
	return e, nil
}

// Unfreeze ends the freeze with this cause. "" is the one set by a rollback when there is one, else the one set by a person.
func Unfreeze(newest Event, cause Cause, reason string, stamp Stamp) (Event, error) {
	var known []string
	for _, f := range newest.State.Freezes {
		known = append(known, string(f.Cause))
	}
	switch {
	case len(known) == 0:
		return Event{}, fault.Inputf("the environment is not frozen")
	case cause == "" && slices.Contains(known, string(ByRollback)):
		cause = ByRollback
	case cause == "":
		cause = ByPerson
	case !slices.Contains(known, string(cause)):
		return Event{}, fault.Inputf("no freeze is set by a %s", cause).WithHint("there is one set by a %s", known[0])
	}
	e := newest.next(Unfrozen, stamp)
	e.Reason = reason
	e.State.Freezes = slices.DeleteFunc(e.State.Freezes, func(f Freeze) bool { return f.Cause == cause })
	return e, nil
}

// MoveIn makes what served before the first release live: it is what a bad first release goes back to.
func MoveIn(newest Event, r release.Release, stamp Stamp) (Event, error) {
	if newest.State.Live != nil || newest.State.Intent != nil {
		return Event{}, fault.Errorf(fault.Refused, "move in: something is live, or under way, already")
	}
	e := newest.next(MovedIn, stamp)
	e.Release = &r
	e.live(Entry{Release: r, ID: strconv.FormatUint(e.Seq, 10), Seq: e.Seq, Good: true})
	return e, nil
}

// Estate is what targets know that a ledger takes over.
type Estate struct {
	Epoch  uint64
	Former []string    // the ledgers that had the targets
	Live   Entry       // its ID is "" when it has none yet
	Good   []Entry     // what can be gone back to, newest first
	Notes  []plan.Note // of rollbacks that no ledger has; the highest number first
}

// Adopt makes what targets know part of the history. What the ledger says itself, of another past, stays as far as it does not
// contradict them.
func Adopt(newest Event, estate Estate, reason string, stamp Stamp) (Event, error) {
	if in := newest.State.Intent; in != nil {
		return Event{}, fault.Errorf(fault.Refused, "adopt the targets: %s has begun event %d of this ledger", in.Author, in.Seq).
			WithHint("end it first: run verify or rollback against the targets of this ledger, or write into a ledger of its own")
	}
	e := newest.next(Adopted, stamp)
	e.Reason, e.Release = reason, &estate.Live.Release
	e.State.Epoch, e.State.Former = max(estate.Epoch, newest.State.Epoch+1), estate.Former
	for _, n := range slices.Backward(estate.Notes) {
		e.adopt(&n)
		e.sentence(n, stamp)
	}
	for _, g := range slices.Backward(estate.Good) {
		g.ID, g.Seq = fmt.Sprintf("%d-%s", e.Seq, g.Release.ID().Short()), e.Seq
		e.live(g)
	}
	live := estate.Live
	live.ID, live.Seq = cmp.Or(live.ID, strconv.FormatUint(e.Seq, 10)), e.Seq
	e.live(live)
	return e, nil
}

// Lift takes a release out of quarantine; a digest alone is every release of that image.
func Lift(newest Event, id release.ID, reason string, stamp Stamp) (Event, error) {
	meant := func(q Quarantine) bool { return q.Release.Named(string(id)) }
	i := slices.IndexFunc(newest.State.Quarantined, meant)
	if i < 0 {
		return Event{}, fault.Inputf("%s is not in quarantine", id.Short()).
			WithHint("list what is: backstep status")
	}
	r := newest.State.Quarantined[i].Release
	e := newest.next(Lifted, stamp)
	e.Release, e.Reason = &r, reason
	e.State.Quarantined = slices.DeleteFunc(e.State.Quarantined, meant)
	e.State.LastGood = lastGood(e.State)
	return e, nil
}

// Admit says why r may not be deployed at this time, or nil. A freeze is passed when through is true; a quarantine never.
func (s Snapshot) Admit(r release.Release, now time.Time, through bool) error {
	for _, f := range s.Freezes {
		if through || f.Over(now) {
			continue
		}
		until := ""
		if f.Until != nil {
			until = " until " + f.Until.UTC().Format(time.RFC3339)
		}
		return fault.Errorf(fault.Refused, "the environment is frozen since %s%s by %s: %s",
			f.At.UTC().Format(time.RFC3339), until, f.Author, f.Reason).
			WithHint("when it is safe again: backstep unfreeze --reason …; for a hotfix: deploy --through-freeze REASON")
	}
	if q := s.QuarantineOf(r.ID()); q != nil {
		return fault.Errorf(fault.Refused, "%s is in quarantine since %s by %s: %s",
			r, q.At.UTC().Format(time.RFC3339), q.Author, q.Reason).
			WithHint("deploy another build, or lift it: backstep lift --digest %s --reason …", r.ID())
	}
	return nil
}

// WayBack is the release that a rollback goes to, and why that one: the newest good release that is neither
// live nor in quarantine, or the one that is named to, when to is not empty.
func (s Snapshot) WayBack(to string) (release.Release, string, error) {
	known := []string{}
	var forbidden *Quarantine // of the first that is named
	for _, r := range s.Recent {
		if s.Live != nil && r.Release.ID() == s.Live.Release.ID() {
			continue
		}
		named := r.Release.Named(to)
		switch q := s.QuarantineOf(r.Release.ID()); {
		case named && q != nil:
			forbidden = cmp.Or(forbidden, q)
		case named:
			return r.Release, "it was given by name", nil
		case q == nil && to == "" && r.Good:
			return r.Release, fmt.Sprintf("it is the newest release that was verified and baked (event %d)", r.Seq), nil
		case q == nil:
			known = append(known, r.Release.String())
		}
	}
	if forbidden != nil {
		return release.Release{}, "", fault.Errorf(fault.Refused, "%s is in quarantine: %s", forbidden.Release, forbidden.Reason).
			WithHint("lift it first: backstep lift --digest %s --reason …", forbidden.Release.ID())
	}
	if to != "" {
		return release.Release{}, "", fault.Inputf("release %q is not one that the ledger could go back to", to).
			WithHint("it knows %v", known)
	}
	return release.Release{}, "", fault.Errorf(fault.HalfWay, "there is no good release to go back to").
		WithHint("name one with --to; the ledger knows %v", known)
}
