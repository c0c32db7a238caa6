package ledger

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
)

func numbered(n int) release.Release {
	return release.Release{Digest: release.Digest("sha256:" + strings.Repeat(fmt.Sprintf("%02x", n), 32)), Version: fmt.Sprintf("1.%d.0", n)}
}

// history is what a property test does to an environment, and what it has to remember of it.
type history struct {
	*rapid.T
	e      Event
	clock  time.Time
	person bool  // a person's freeze is there
	ended  []Key // intents that have ended
}

func (h *history) stamp() Stamp {
	return Stamp{Author: release.Author{Actor: "ada"}, At: h.clock}
}

// take follows the newest event with another one, and checks what has to be true of any two.
func (h *history) take(next Event, err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
	if next.Seq != h.e.Seq+1 {
		h.Fatalf("event %d follows event %d", next.Seq, h.e.Seq)
	}
	before := h.e.State
	if in := h.e.State.Intent; in != nil && next.State.Intent == nil {
		h.ended = append(h.ended, in.Key())
	}
	h.e = next
	h.true(before)
}

// condemned says whether what is live is in quarantine.
func condemned(s Snapshot) bool { return s.Live != nil && s.QuarantineOf(s.Live.Release.ID()) != nil }

func (h *history) true(before Snapshot) {
	h.Helper()
	s := h.e.State
	if len(s.Recent) > recentLimit || len(s.Adopted) > adoptedLimit {
		h.Fatalf("%d recent releases, %d adopted notes", len(s.Recent), len(s.Adopted))
	}
	seen := map[release.ID]bool{}
	for _, r := range s.Recent {
		if seen[r.Release.ID()] {
			h.Fatalf("%s is twice among the recent ones", r.Release)
		}
		seen[r.Release.ID()] = true
	}
	var lastGood *Entry
	for i, r := range s.Recent {
		if r.Good && s.QuarantineOf(r.Release.ID()) == nil {
			lastGood = &s.Recent[i]
			break
		}
	}
	if (lastGood == nil) != (s.LastGood == nil) || lastGood != nil && *lastGood != *s.LastGood {
		h.Fatalf("last good is %+v, want %+v; before: %+v", s.LastGood, lastGood, before)
	}
	if s.Live == nil {
		return
	}
	if s.Recent[0] != *s.Live {
		h.Fatalf("live is %+v, the newest of the recent ones %+v", *s.Live, s.Recent[0])
	}
	if condemned(s) && !condemned(before) && s.LastGood != nil {
		h.Fatalf("%s is live and in quarantine after %s, although %s is good", s.Live.Release, h.e.Kind, s.LastGood.Release)
	}
	to, _, err := s.WayBack("")
	switch {
	case s.LastGood == nil && err == nil:
		h.Fatalf("the way back leads to %s, which is not good", to)
	case s.LastGood != nil && s.LastGood.Release != s.Live.Release && (err != nil || to != s.LastGood.Release):
		h.Fatalf("the way back leads to %s (%v), and %s is the last good one", to, err, s.LastGood.Release)
	case err == nil && (to.ID() == s.Live.Release.ID() || s.QuarantineOf(to.ID()) != nil):
		h.Fatalf("the way back leads to %s", to)
	}
	if freeze := s.FreezeBy(ByPerson); h.person != (freeze != nil) {
		h.Fatalf("after %s the freeze of a person is %+v", h.e.Kind, freeze)
	}
}

// Whatever is done in whatever order, a snapshot says what is true.
func TestSnapshotsStayTrue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := &history{T: t, clock: time.Unix(1, 0)}
		some := func() release.Release { return numbered(rapid.IntRange(1, 30).Draw(t, "release")) }
		notes := 0
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			h.clock = h.clock.Add(time.Minute)
			s := h.e.State
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0, 1, 2:
				r := some()
				if s.QuarantineOf(r.ID()) != nil {
					continue
				}
				good := false
				for _, known := range s.Recent {
					good = good || known.Release == r && known.Good
				}
				h.take(Start(h.e, Intent{Kind: DeployStarted, Holder: "ada", To: r}, h.stamp()), nil)
				if key := h.e.State.Intent.Key(); rapid.Bool().Draw(t, "works") {
					h.take(FinishDeploy(h.e, key, h.stamp()))
					if live := h.e.State.Live; live.Good != good || live.ID != fmt.Sprint(key.Seq) || live.Restored {
						t.Fatalf("deployed %s, which was good: %v; got %+v", r, good, *live)
					}
				} else {
					h.take(AbortDeploy(h.e, key, h.stamp(), "broken", nil))
					if now := h.e.State.Live; (now == nil) != (s.Live == nil) || now != nil && *now != *s.Live {
						t.Fatalf("an aborted deploy made %+v of %+v", now, s.Live)
					}
				}
			case 3, 4:
				if s.Live == nil {
					continue
				}
				h.take(Start(h.e, Intent{Kind: VerifyStarted, Holder: "ada"}, h.stamp()), nil)
				key := h.e.State.Intent.Key()
				switch rapid.IntRange(0, 3).Draw(t, "verdict") {
				case 0, 1:
					h.take(Pass(h.e, key, "seen", h.stamp()))
					if live := h.e.State.Live; !live.Good || live.Passed != key.Seq || live.ID != s.Live.ID {
						t.Fatalf("passed: %+v", *live)
					}
				case 2:
					h.take(Reject(h.e, key, "seen", h.stamp()))
					if h.e.State.Live.Good {
						t.Fatal("what is rejected is good")
					}
				case 3:
					h.take(Disarm(h.e, key, "no traffic", "seen", h.stamp()))
					if *h.e.State.Live != *s.Live {
						t.Fatalf("an unknown verdict made %+v of %+v", *h.e.State.Live, *s.Live)
					}
				}
			case 5, 6:
				to, _, err := s.WayBack("")
				if err != nil {
					continue
				}
				h.take(Start(h.e, Intent{Kind: RollbackStarted, Holder: "ada", To: to, Condemn: true, Reason: "slow"}, h.stamp()), nil)
				key := h.e.State.Intent.Key()
				var note *plan.Note
				id := fmt.Sprint(key.Seq)
				if rapid.Bool().Draw(t, "note") {
					notes++
					id = fmt.Sprintf("note %d", notes)
					note = &plan.Note{ID: id, Number: plan.Number{Seq: key.Seq}, Left: s.Live.Release, LeftEntry: s.Live.ID, To: to, Condemn: true, Freeze: true}
				}
				if rapid.Bool().Draw(t, "fails") {
					h.take(FailRollback(h.e, key, h.stamp(), note, "as bad"))
				} else {
					h.take(FinishRollback(h.e, key, h.stamp(), note))
				}
				now := h.e.State
				if now.Live.Release != to || now.Live.ID != id || !now.Live.Restored || now.QuarantineOf(s.Live.Release.ID()) == nil ||
					now.FreezeBy(ByRollback) == nil || note != nil && !now.HasAdopted(id) {
					t.Fatalf("rolled back from %s to %s: %+v", s.Live.Release, to, now)
				}
			case 7:
				if s.Live == nil || len(s.Recent) < 2 {
					continue
				}
				left := s.Recent[rapid.IntRange(0, len(s.Recent)-1).Draw(t, "left")]
				to := s.Recent[rapid.IntRange(0, len(s.Recent)-1).Draw(t, "to")].Release
				notes++
				note := plan.Note{ID: fmt.Sprintf("note %d", notes), Left: left.Release, LeftEntry: left.ID, To: to,
					Number:  plan.Number{Seq: uint64(rapid.IntRange(1, int(h.e.Seq)).Draw(t, "number")), Sub: 1},
					Condemn: left.Release != to && rapid.Bool().Draw(t, "condemn"), Freeze: true}
				h.take(AdoptNote(h.e, note, h.stamp()))
				if h.e.Kind != NoteAdopted || !h.e.State.HasAdopted(note.ID) {
					t.Fatalf("adopted %+v: %+v", note, h.e)
				}
				if _, err := AdoptNote(h.e, note, h.stamp()); !errors.Is(err, ErrTakenOver) {
					t.Fatalf("adopted twice: %v", err)
				}
			case 8:
				if rapid.Bool().Draw(t, "freeze") {
					end := h.clock.Add(time.Hour)
					h.person = true
					h.take(SetFreeze(h.e, "holiday", &end, h.stamp()))
					if f := h.e.State.FreezeBy(ByPerson); f.Over(end.Add(-1)) || !f.Over(end) {
						t.Fatalf("the freeze %+v ends at another time than %s", f, end)
					}
					continue
				}
				automatic := s.FreezeBy(ByRollback) != nil
				next, err := Unfreeze(h.e, "", "safe", h.stamp())
				if len(s.Freezes) == 0 {
					if err == nil {
						t.Fatal("there was nothing to unfreeze")
					}
					continue
				}
				if !automatic { // that of a rollback goes first: the one of a person survives it
					h.person = false
				}
				h.take(next, err)
			case 9:
				r := some()
				next, err := Lift(h.e, r.ID(), "mistake", h.stamp())
				if (err == nil) != (s.QuarantineOf(r.ID()) != nil) {
					t.Fatalf("lift %s: %v", r, err)
				}
				if err == nil {
					h.take(next, nil)
				}
			}
			for _, key := range h.ended {
				for _, end := range ends(h.e, key, h.stamp()) {
					if !errors.Is(end, ErrTakenOver) {
						t.Fatalf("intent %v ended again: %v", key, end)
					}
				}
			}
		}
	})
}

// ends are the errors of all that can end an intent.
func ends(newest Event, key Key, stamp Stamp) []error {
	_, finish := FinishDeploy(newest, key, stamp)
	_, abort := AbortDeploy(newest, key, stamp, "", nil)
	_, back := FinishRollback(newest, key, stamp, nil)
	_, fail := FailRollback(newest, key, stamp, nil, "")
	_, pass := Pass(newest, key, "", stamp)
	_, reject := Reject(newest, key, "", stamp)
	_, disarm := Disarm(newest, key, "", "", stamp)
	return []error{finish, abort, back, fail, pass, reject, disarm}
}

var at = Stamp{Author: release.Author{Actor: "ada"}, At: time.Unix(1, 0)}

func must(t *testing.T) func(Event, error) Event {
	return func(e Event, err error) Event {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
}

func deployed(t *testing.T, e Event, n int) Event {
	t.Helper()
	e = Start(e, Intent{Kind: DeployStarted, Holder: "ada", To: numbered(n)}, at)
	return must(t)(FinishDeploy(e, e.State.Intent.Key(), at))
}

func verified(t *testing.T, e Event, n int) Event {
	t.Helper()
	e = deployed(t, e, n)
	e = Start(e, Intent{Kind: VerifyStarted, Holder: "ada"}, at)
	return must(t)(Pass(e, e.State.Intent.Key(), "", at))
}

func TestOnlyTheRunThatHoldsAnIntentEndsIt(t *testing.T) {
	first := Start(Event{}, Intent{Kind: DeployStarted, Holder: "ada", To: numbered(1)}, at)
	second := Start(first, Intent{Kind: DeployStarted, Holder: "bob", To: numbered(2)}, at)
	for _, key := range []Key{{1, "ada"}, {2, "ada"}, {1, "bob"}, {2, ""}, {}} {
		for _, err := range ends(second, key, at) {
			want := fmt.Sprintf("finish event %d: another run has taken over", key.Seq)
			if err == nil || err.Error() != want || !errors.Is(err, ErrTakenOver) {
				t.Errorf("%v: got %v, want %s", key, err, want)
			}
		}
	}
	if _, err := FinishDeploy(second, Key{2, "bob"}, at); err != nil {
		t.Error(err)
	}
}

// What is live is deployed once more, and then something bad: the way back is still there.
func TestDeployingWhatIsLiveOnceMore(t *testing.T) {
	e := deployed(t, verified(t, Event{}, 1), 1)
	if live := e.State.Live; !live.Good || live.ID != "5" || e.State.LastGood == nil {
		t.Fatalf("live is %+v", *live)
	}
	e = deployed(t, e, 2)
	if to, _, err := e.State.WayBack(""); err != nil || to != numbered(1) {
		t.Errorf("the way back is %s, %v", to, err)
	}
}

func TestAdoptNote(t *testing.T) {
	good := verified(t, verified(t, Event{}, 1), 2) // events 1 to 8
	base := deployed(t, good, 3)                    // 9, 10: entry 9
	aborted := Start(base, Intent{Kind: DeployStarted, Holder: "ada", To: numbered(3)}, at)
	aborted = must(t)(AbortDeploy(aborted, aborted.State.Intent.Key(), at, "", nil)) // 11, 12
	passed := Start(base, Intent{Kind: VerifyStarted, Holder: "ada"}, at)
	passed = must(t)(Pass(passed, passed.State.Intent.Key(), "", at)) // 11, 12
	back := deployed(t, passed, 4)                                    // 13, 14
	back = Start(back, Intent{Kind: RollbackStarted, Holder: "ada", To: numbered(3), Condemn: true}, at)
	back = must(t)(FinishRollback(back, back.State.Intent.Key(), at, nil)) // 15, 16: 3 is restored
	note := func(seq uint64, left int, entry string, to int) plan.Note {
		return plan.Note{ID: "n", Number: plan.Number{Seq: seq, Sub: 1}, Left: numbered(left), LeftEntry: entry, To: numbered(to), Condemn: true, Freeze: true}
	}
	for _, c := range []struct {
		name        string
		newest      Event
		note        plan.Note
		live        int
		quarantined string
		freezes     int
	}{
		{"what it left is live", base, note(10, 3, "9", 2), 2, "[1.3.0]", 1},
		{"it was deployed once more", deployed(t, base, 3), note(10, 3, "9", 2), 3, "[]", 0},
		{"that was begun before, and came to nothing", aborted, note(11, 3, "11", 2), 2, "[1.3.0]", 1},
		{"it has passed since", passed, note(10, 3, "9", 2), 3, "[]", 0},
		{"it passed while the traffic left it", passed, note(11, 3, "9", 2), 2, "[1.3.0]", 1},
		{"another rollback went there, and it has not passed since", back, note(13, 3, "9", 2), 2, "[1.4.0 1.3.0]", 1},
		{"something else is live", deployed(t, base, 5), note(10, 3, "9", 2), 5, "[1.3.0]", 0},
		{"where it went is in quarantine", back, note(15, 3, "15", 4), 2, "[1.4.0 1.3.0]", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := must(t)(AdoptNote(c.newest, c.note, at))
			found := []string{}
			for _, q := range e.State.Quarantined {
				found = append(found, q.Release.Version)
			}
			if live := e.State.Live.Release; live != numbered(c.live) || fmt.Sprint(found) != c.quarantined {
				t.Errorf("live is %s, quarantined %v; want 1.%d.0, %s", live.Version, found, c.live, c.quarantined)
			}
			if n := len(e.State.Freezes); n != c.freezes {
				t.Errorf("%d freezes, want %d", n, c.freezes)
			}
		})
	}
	open := Start(base, Intent{Kind: DeployStarted, Holder: "ada", To: numbered(4)}, at)
	if _, err := AdoptNote(open, note(10, 3, "9", 2), at); !errors.Is(err, ErrTakenOver) {
		t.Errorf("adopted under an intent: %v", err)
	}
}

func TestFreezesAreApart(t *testing.T) {
	end := at.At.Add(time.Hour)
	e := must(t)(SetFreeze(deployed(t, verified(t, Event{}, 1), 2), "holiday", &end, at))
	e = Start(e, Intent{Kind: RollbackStarted, Holder: "ada", To: numbered(1), Condemn: true, Reason: "slow"}, at)
	e = must(t)(FinishRollback(e, e.State.Intent.Key(), at, nil))
	causes := func(e Event) string {
		var all []string
		for _, f := range e.State.Freezes {
			all = append(all, string(f.Cause))
		}
		slices.Sort(all)
		return fmt.Sprint(all)
	}
	if got := causes(e); got != "[person rollback]" {
		t.Fatal(got)
	}
	if err := e.State.Admit(numbered(3), end, false); err == nil {
		t.Error("the freeze of the rollback has no end")
	}
	e = must(t)(Unfreeze(e, "", "safe", at))
	if got := causes(e); got != "[person]" {
		t.Fatal(got)
	}
	want := "the environment is frozen since 1970-01-01T00:00:01Z until 1970-01-01T01:00:01Z by ada: holiday"
	if err := e.State.Admit(numbered(3), end.Add(-1), false); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := e.State.Admit(numbered(3), end, false); err != nil {
		t.Errorf("at its end: %v", err)
	}
	if err := e.State.Admit(numbered(3), at.At, true); err != nil {
		t.Errorf("through the freeze: %v", err)
	}
	want = numbered(2).String() + " is in quarantine since 1970-01-01T00:00:01Z by ada: slow"
	if err := e.State.Admit(numbered(2), end, true); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if _, err := Unfreeze(e, ByRollback, "safe", at); err == nil || err.Error() != "no freeze is set by a rollback" {
		t.Error(err)
	}
}
