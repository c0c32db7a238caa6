package ledger

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/release"
)

// ErrTakenOver is wrapped by the error of a run that wants to finish an intent which is no longer its own.
var ErrTakenOver = errors.New("another run has taken over")

// Stamp is who makes a transition, and when.
type Stamp struct {
	Author Author
	At     time.Time
}

func (e Event) next(kind Kind, stamp Stamp) Event {
	state := e.State
	state.Quarantined = slices.Clone(state.Quarantined)
	state.Recent = slices.Clone(state.Recent)
	return Event{Seq: e.Seq + 1, Kind: kind, At: stamp.At, Author: stamp.Author, State: state}
}

// Start follows newest with an intent. From now on its run holds the lock, and the number of the event is
// the fencing number of all that it does. A foreign intent in newest is replaced: whether it may be is for
// the caller to know.
func Start(newest Event, intent Intent, stamp Stamp) Event {
	e := newest.next(intent.Kind, stamp)
	intent.Seq, intent.Author, intent.From = e.Seq, stamp.Author, newest.State.Live
	e.State.Intent = &intent
	e.Release, e.Reason = &intent.To, intent.Reason
	return e
}

// own checks that the intent numbered seq is still in flight.
func own(newest Event, seq uint64) (Intent, error) {
	if in := newest.State.Intent; in != nil && in.Seq == seq {
		return *in, nil
	}
	return Intent{}, fault.Errorf(fault.HalfWay, "finish %s: %w", seqName(seq), ErrTakenOver).
		WithHint("look at what it did: backstep history")
}

func seqName(seq uint64) string { return fmt.Sprintf("event %d", seq) }

// FinishDeploy makes the release of the intent live, and gives the lock back. It is not good yet.
func FinishDeploy(newest Event, seq uint64, stamp Stamp) (Event, error) {
	in, err := own(newest, seq)
	if err != nil {
		return Event{}, err
	}
	e := newest.next(DeployFinished, stamp)
	e.Release, e.State.Intent = &in.To, nil
	e.live(Entry{Release: in.To, Seq: e.Seq})
	return e, nil
}

// AbortDeploy gives the lock back and leaves live what was live.
func AbortDeploy(newest Event, seq uint64, stamp Stamp, reason string) (Event, error) {
	in, err := own(newest, seq)
	if err != nil {
		return Event{}, err
	}
	e := newest.next(DeployAborted, stamp)
	e.Release, e.Reason, e.State.Intent = &in.To, reason, nil
	return e, nil
}

// FinishRollback makes the release of the intent live, quarantines the one that it leaves and freezes the
// environment when the intent says so, and gives the lock back.
func FinishRollback(newest Event, seq uint64, stamp Stamp) (Event, error) {
	in, err := own(newest, seq)
	if err != nil {
		return Event{}, err
	}
	e := newest.next(RollbackFinished, stamp)
	e.Release, e.Reason, e.State.Intent = &in.To, in.Reason, nil
	left := newest.State.Live
	if in.Condemn && left != nil && left.Release.Digest != in.To.Digest {
		e.condemn(left.Release, stamp, in.Reason)
	}
	good := false
	for _, r := range e.State.Recent {
		good = good || r.Release.Digest == in.To.Digest && r.Good
	}
	e.live(Entry{Release: in.To, Seq: e.Seq, Good: good, Restored: true})
	return e, nil
}

// FailRollback gives the lock back with the environment frozen: a person is needed.
func FailRollback(newest Event, seq uint64, stamp Stamp, reason string) (Event, error) {
	in, err := own(newest, seq)
	if err != nil {
		return Event{}, err
	}
	e := newest.next(RollbackFailed, stamp)
	e.Release, e.Reason, e.State.Intent = &in.To, reason, nil
	e.State.Freeze = &Freeze{Author: stamp.Author, At: stamp.At, Reason: reason}
	return e, nil
}

// Judge writes the verdict on the release that is live. A pass makes it good, and the last good one.
func Judge(newest Event, judged release.Release, passed bool, evidence string, stamp Stamp) (Event, error) {
	live := newest.State.Live
	if live == nil || live.Release.Digest != judged.Digest {
		return Event{}, fault.Errorf(fault.Refused, "%s is no longer live: its verdict is not written", judged).
			WithHint("verify what is live now")
	}
	kind := Rejected
	if passed {
		kind = Verified
	}
	e := newest.next(kind, stamp)
	e.Release, e.Evidence = &judged, evidence
	if passed {
		good := *live
		good.Good = true
		e.live(good)
	}
	return e, nil
}

// live makes entry what is live, newest among the recent ones, and the last good one if it is good.
func (e *Event) live(entry Entry) {
	recent := []Entry{entry}
	for _, r := range e.State.Recent {
		if r.Release.Digest != entry.Release.Digest {
			recent = append(recent, r)
		}
	}
	e.State.Recent = trim(recent)
	e.State.Live = &entry
	if entry.Good {
		e.State.LastGood = &entry
	}
}

// trim keeps RecentLimit entries: a good one is never dropped while one that is not good can be.
func trim(recent []Entry) []Entry {
	for len(recent) > RecentLimit {
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

func (e *Event) condemn(r release.Release, stamp Stamp, reason string) {
	if e.State.QuarantineOf(r.Digest) == nil {
		e.State.Quarantined = append(e.State.Quarantined,
			Quarantine{Release: r, Author: stamp.Author, At: stamp.At, Reason: reason})
	}
	e.State.Freeze = &Freeze{Author: stamp.Author, At: stamp.At, Reason: reason}
}

// SetFreeze makes the environment refuse deploys.
func SetFreeze(newest Event, reason string, stamp Stamp) (Event, error) {
	e := newest.next(Frozen, stamp)
	e.Reason = reason
	e.State.Freeze = &Freeze{Author: stamp.Author, At: stamp.At, Reason: reason}
	return e, nil
}

// Unfreeze lets the environment take deploys again.
func Unfreeze(newest Event, reason string, stamp Stamp) (Event, error) {
	if newest.State.Freeze == nil {
		return Event{}, fault.Inputf("the environment is not frozen")
	}
	e := newest.next(Unfrozen, stamp)
	e.Reason, e.State.Freeze = reason, nil
	return e, nil
}

// Lift takes a digest out of quarantine.
func Lift(newest Event, d release.Digest, reason string, stamp Stamp) (Event, error) {
	q := newest.State.QuarantineOf(d)
	if q == nil {
		return Event{}, fault.Inputf("%s is not in quarantine", d.Short()).
			WithHint("list what is: backstep status")
	}
	r := q.Release
	e := newest.next(Lifted, stamp)
	e.Release, e.Reason = &r, reason
	e.State.Quarantined = slices.DeleteFunc(e.State.Quarantined, func(q Quarantine) bool { return q.Release.Digest == d })
	return e, nil
}

// Admit says why r may not be deployed now, or nil.
func (s Snapshot) Admit(r release.Release) error {
	if f := s.Freeze; f != nil {
		return fault.Errorf(fault.Refused, "the environment is frozen since %s by %s: %s",
			f.At.UTC().Format(time.RFC3339), f.Author, f.Reason).
			WithHint("when it is safe again: backstep unfreeze --reason …")
	}
	if q := s.QuarantineOf(r.Digest); q != nil {
		return fault.Errorf(fault.Refused, "%s is in quarantine since %s by %s: %s",
			r, q.At.UTC().Format(time.RFC3339), q.Author, q.Reason).
			WithHint("deploy another build, or lift it: backstep lift --digest %s --reason …", r.Digest)
	}
	return nil
}

// WayBack is the release that a rollback goes to, and why that one: the newest good release that is neither
// live nor in quarantine, or the one whose version or digest is to, when to is not empty.
func (s Snapshot) WayBack(to string) (release.Release, string, error) {
	var known []string
	for _, r := range s.Recent {
		if s.Live != nil && r.Release.Digest == s.Live.Release.Digest {
			continue
		}
		named := to != "" && (r.Release.Version == to || string(r.Release.Digest) == to)
		switch q := s.QuarantineOf(r.Release.Digest); {
		case named && q != nil:
			return release.Release{}, "", fault.Errorf(fault.Refused, "%s is in quarantine: %s", r.Release, q.Reason).
				WithHint("lift it first: backstep lift --digest %s --reason …", r.Release.Digest)
		case named:
			return r.Release, "it was asked for by name", nil
		case q == nil && to == "" && r.Good:
			return r.Release, fmt.Sprintf("it is the newest release that was verified and baked (event %d)", r.Seq), nil
		case q == nil:
			known = append(known, r.Release.String())
		}
	}
	if to != "" {
		return release.Release{}, "", fault.Inputf("release %q is not one that the ledger could go back to", to).
			WithHint("it knows %v", known)
	}
	return release.Release{}, "", fault.Errorf(fault.HalfWay, "there is no good release to go back to").
		WithHint("name one with --to; the ledger knows %v", known)
}

// Dead says that the run which holds the intent cannot be at work any more: its deadline is over, or it is
// an earlier attempt of the run that asks.
func (in Intent) Dead(stamp Stamp) bool {
	return stamp.At.After(in.Deadline) || in.Author.Run != "" && in.Author.Run == stamp.Author.Run
}

// String is the actor and where the run can be read.
func (a Author) String() string {
	switch {
	case a.Actor == "" && a.URL == "":
		return "somebody"
	case a.URL == "":
		return a.Actor
	case a.Actor == "":
		return a.URL
	}
	return a.Actor + " (" + a.URL + ")"
}
