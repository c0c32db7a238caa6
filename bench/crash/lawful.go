package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/release"
)

// endings are the events that may end an intent. A rollback is never aborted.
var endings = map[ledger.Kind][]ledger.Kind{
	ledger.DeployStarted: {ledger.DeployFinished, ledger.DeployAborted, ledger.RollbackFinished, ledger.RollbackFailed},
	ledger.VerifyStarted: {ledger.Verified, ledger.Rejected, ledger.Disarmed, ledger.RollbackFinished, ledger.RollbackFailed,
		ledger.RollbackStarted, ledger.DeployStarted},
	ledger.RollbackStarted: {ledger.RollbackFinished, ledger.RollbackFailed},
}

// The events that may change a part of the snapshot.
var (
	wentBack = []ledger.Kind{ledger.RollbackFinished, ledger.RollbackFailed, ledger.NoteAdopted}
	moves    = append([]ledger.Kind{ledger.DeployFinished}, wentBack...)
	freezes  = append([]ledger.Kind{ledger.Frozen}, wentBack...)
)

// lawful says what is wrong with the event after the one before it, or nil. An event that is built on an older one than
// that takes something back that was acknowledged.
func lawful(before, e ledger.Event) error {
	only := func(what string, changed bool, kinds ...ledger.Kind) error {
		if changed && !slices.Contains(kinds, e.Kind) {
			return fmt.Errorf("it changes %s", what)
		}
		return nil
	}
	added, removed := difference(quarantined(before.State), quarantined(e.State))
	frozen, thawed := difference(frozenBy(before.State), frozenBy(e.State))
	return errors.Join(
		intents(before, e),
		only("what is live", entry(before.State.Live) != entry(e.State.Live), moves...),
		only("the quarantine", added > 0, wentBack...),
		only("the quarantine", removed > 0, ledger.Lifted),
		only("the freezes", frozen > 0, freezes...),
		only("the freezes", thawed > 0, ledger.Unfrozen),
		sound(e.State))
}

// intents says whether an intent begins and ends as it may.
func intents(before, e ledger.Event) error {
	was, is := before.State.Intent, e.State.Intent
	if was != nil && (is == nil || is.Key() != was.Key()) && !slices.Contains(endings[was.Kind], e.Kind) {
		return fmt.Errorf("it ends the intent of %s, event %d", was.Kind, was.Seq)
	}
	if is != nil && (was == nil || is.Key() != was.Key()) && (is.Kind != e.Kind || is.Seq != e.Seq) {
		return fmt.Errorf("it has the intent of event %d, which is not the one before it", is.Seq)
	}
	if e.Kind == ledger.DeployFinished && (was == nil || e.State.Live == nil || e.State.Live.Release.ID() != was.To.ID()) {
		return errors.New("it makes another release live than was set out")
	}
	return nil
}

// sound says what can be true of no snapshot.
func sound(s ledger.Snapshot) error {
	for what, e := range map[string]*ledger.Entry{"what is live": s.Live, "the last good release": s.LastGood} {
		if e != nil && s.QuarantineOf(e.Release.ID()) != nil {
			return fmt.Errorf("%s, %s, is in quarantine", what, e.Release)
		}
	}
	return nil
}

func entry(e *ledger.Entry) string {
	if e == nil {
		return ""
	}
	return e.ID + " " + string(e.Release.ID())
}

func quarantined(s ledger.Snapshot) (all []string) {
	for _, q := range s.Quarantined {
		all = append(all, string(q.Release.ID()))
	}
	return all
}

func frozenBy(s ledger.Snapshot) (all []string) {
	for _, f := range s.Freezes {
		all = append(all, string(f.Cause))
	}
	return all
}

// difference is how many there are more, and how many fewer.
func difference(before, after []string) (added, removed int) {
	missing := func(from, in []string) (n int) {
		for _, s := range from {
			if !slices.Contains(in, s) {
				n++
			}
		}
		return n
	}
	return missing(after, before), missing(before, after)
}

// goodOnes are the releases that a rollback could go to, by what the snapshot says.
func goodOnes(s ledger.Snapshot) (all []release.Release) {
	for _, e := range s.Recent {
		if e.Good && s.QuarantineOf(e.Release.ID()) == nil {
			all = append(all, e.Release)
		}
	}
	return all
}
