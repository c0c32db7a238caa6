package ledger

import (
	"fmt"
	"testing"

	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
)

// The table of docs/protocol.md. A is good, B is live with entry 7, C is what the deploy of event 11 brings.
func TestRecover(t *testing.T) {
	const z, a, b, c = 1, 2, 3, 4
	const newest = 11
	plain := func(live, other int) []plan.Instance {
		return []plan.Instance{{Release: numbered(live), Phase: plan.Ready, Weight: 100}, {Release: numbered(other), Phase: plan.Ready}}
	}
	target := func(seq, sub uint64, holder string, aim plan.Aim, serves int, notes ...plan.Note) plan.State {
		return plan.State{Claim: plan.Claim{Token: plan.Token{Number: plan.Number{Seq: seq, Sub: sub}, Holder: holder}, Aim: aim},
			Instances: plain(serves, a), Notes: notes}
	}
	note := func(id string, seq, sub uint64, left int, entry string, to int, condemn bool) plan.Note {
		return plan.Note{ID: id, Number: plan.Number{Seq: seq, Sub: sub}, Left: numbered(left), LeftEntry: entry, To: numbered(to), Condemn: condemn}
	}
	live := func(kind Kind) Event {
		e := Event{Seq: newest, State: Snapshot{Live: &Entry{Release: numbered(b), ID: "7", Seq: 8}, Adopted: []string{"old"}}}
		if kind != "" {
			e.Kind = kind
			e.State.Intent = &Intent{Kind: kind, Seq: newest, Holder: "own", From: e.State.Live, To: numbered(a)}
		}
		if kind == DeployStarted {
			e.State.Intent.To = numbered(c)
		}
		return e
	}
	idle, verify, rollback, deploy := live(""), live(VerifyStarted), live(RollbackStarted), live(DeployStarted)
	nothingLive := Event{Seq: newest}
	first := live(DeployStarted)
	first.State.Live, first.State.Intent.From = nil, nil
	at := func(serves int, notes ...plan.Note) plan.State {
		return target(newest, 0, plan.LedgerHolder, plan.Follow, serves, notes...)
	}
	under := func(sub uint64, aim plan.Aim, serves int, notes ...plan.Note) plan.State {
		return target(newest, sub, "own", aim, serves, notes...)
	}
	failed := at(b)
	failed.Instances[0].Phase, failed.Instances[0].Weight = plan.Failed, 0
	astray := at(b)
	astray.Instances[0].Phase, astray.Instances[0].Weight, astray.Instances[1].Weight = plan.Failed, 0, 100
	half := at(b)
	half.Instances[0].Weight, half.Instances[1].Weight = 50, 50
	cold := at(b)
	cold.Instances = cold.Instances[1:]

	old := note("old", 9, 1, b, "7", a, true)
	byVerify := note("fired", newest, 1, b, "7", a, true)
	elsewhere := note("else", newest, 2, z, "3", a, true)
	fromLive := note("live", 8, 1, b, "7", a, true)
	stranger := note("stranger", 8, 3, z, "3", a, true)
	undone := note("undone", newest, 1, c, "11", b, false)
	condemned := note("condemned", newest, 2, c, "11", b, true)

	for _, row := range []struct {
		name   string
		newest Event
		fleet  []plan.State
		do     Action
		note   string
	}{
		{"any: a record above the newest event", idle, []plan.State{at(b), target(newest+1, 0, "x", plan.Do, b)}, ReadAgain, ""},
		{"any: a record above, and an intent", verify, []plan.State{target(newest+1, 0, "x", plan.Fire, a, byVerify)}, ReadAgain, ""},
		{"any: a record above, and a note", idle, []plan.State{target(newest+4, 1, "x", plan.Fire, a, fromLive)}, ReadAgain, ""},
		{"any: a sub of the newest event is not above", idle, []plan.State{target(newest, 3, "x", plan.Fire, b)}, Nothing, ""},

		{"verify: a note of its number", verify, []plan.State{under(0, plan.Arm, b), under(1, plan.Fire, a, byVerify)}, EndRollback, "fired"},
		{"verify: a note of its number that leaves something else", verify, []plan.State{under(1, plan.Fire, a, elsewhere)}, EndRollback, "else"},
		{"verify: a note that leaves the judged entry", verify, []plan.State{target(8, 1, "x", plan.Fire, a, fromLive)}, EndRollback, "live"},
		{"verify: the highest of two notes", verify, []plan.State{under(0, plan.Arm, b, fromLive), under(1, plan.Fire, a, byVerify)}, EndRollback, "fired"},
		{"verify: a fitting note below one that does not fit", verify, []plan.State{target(8, 3, "x", plan.Fire, a, stranger, fromLive)}, EndRollback, "live"},
		{"verify: a foreign note", verify, []plan.State{under(0, plan.Arm, b, stranger)}, EndVerify, ""},
		{"verify: an adopted note", verify, []plan.State{under(0, plan.Arm, b, old)}, EndVerify, ""},
		{"verify: armed", verify, []plan.State{under(0, plan.Arm, b)}, EndVerify, ""},
		{"verify: never reached the target", verify, []plan.State{target(9, 0, "x", plan.Done, b)}, EndVerify, ""},
		{"verify: weights do not matter", verify, []plan.State{under(0, plan.Arm, a)}, EndVerify, ""},
		{"verify: nothing can be reached", verify, nil, EndVerify, ""},

		{"rollback: nothing touched", rollback, []plan.State{target(9, 0, "x", plan.Done, b)}, EndRollback, ""},
		{"rollback: its note", rollback, []plan.State{under(0, plan.Fire, a, note("own", newest, 0, b, "7", a, true))}, EndRollback, "own"},
		{"rollback: a note of its number decides, not a lower one", rollback, []plan.State{under(1, plan.Fire, z, fromLive, elsewhere)}, EndRollback, "else"},
		{"rollback: a note of another number", rollback, []plan.State{target(8, 1, "x", plan.Fire, a, fromLive)}, EndRollback, ""},
		{"rollback: carried out, whatever the weights", rollback, []plan.State{under(0, plan.Fire, b)}, EndRollback, ""},
		{"rollback: nothing can be reached", rollback, nil, EndRollback, ""},

		{"deploy: a note that leaves it, nothing condemned", deploy, []plan.State{under(1, plan.Fire, b, undone)}, TakeDeployBack, "undone"},
		{"deploy: the same, although it is done elsewhere", deploy, []plan.State{under(1, plan.Done, c), target(newest, 1, "x", plan.Fire, b, undone)}, TakeDeployBack, "undone"},
		{"deploy: a note that leaves and condemns it", deploy, []plan.State{target(newest, 2, "x", plan.Fire, b, condemned)}, EndRollback, "condemned"},
		{"deploy: a note that leaves what is live", deploy, []plan.State{under(0, plan.Do, b), target(8, 1, "x", plan.Fire, a, fromLive)}, EndRollback, "live"},
		{"deploy: a note that leaves what is live, done", deploy, []plan.State{under(1, plan.Done, c, fromLive)}, EndRollback, "live"},
		{"deploy: what is not condemned goes first", deploy, []plan.State{target(newest, 2, "x", plan.Fire, b, condemned, undone)}, TakeDeployBack, "undone"},
		{"deploy: a foreign note", deploy, []plan.State{under(1, plan.Done, c, stranger)}, EndDeploy, ""},
		{"deploy: an adopted note", deploy, []plan.State{under(0, plan.Do, c, old)}, TakeDeployBack, ""},
		{"deploy: done everywhere", deploy, []plan.State{under(1, plan.Done, c), under(1, plan.Done, c)}, EndDeploy, ""},
		{"deploy: done somewhere", deploy, []plan.State{under(0, plan.Do, c), under(1, plan.Done, c)}, EndDeploy, ""},
		{"deploy: done, whatever the weights", deploy, []plan.State{under(1, plan.Done, b)}, EndDeploy, ""},
		{"deploy: done somewhere and undone somewhere", deploy, []plan.State{under(1, plan.Done, c), under(1, plan.Undo, b)}, TakeDeployBack, ""},
		{"deploy: undone", deploy, []plan.State{under(1, plan.Undo, b)}, TakeDeployBack, ""},
		{"deploy: done, says another holder", deploy, []plan.State{target(newest, 1, "x", plan.Done, c)}, TakeDeployBack, ""},
		{"deploy: done, under another number", deploy, []plan.State{target(9, 1, "own", plan.Done, c)}, TakeDeployBack, ""},
		{"deploy: serves everywhere and is not done", deploy, []plan.State{under(0, plan.Do, c), under(0, plan.Do, c)}, TakeDeployBack, ""},
		{"deploy: nothing touched", deploy, []plan.State{target(9, 0, "x", plan.Done, b)}, TakeDeployBack, ""},
		{"deploy: nothing can be reached", deploy, nil, TakeDeployBack, ""},
		{"deploy: the first one, done", first, []plan.State{under(1, plan.Done, c)}, EndDeploy, ""},
		{"deploy: the first one, with a note that names no entry", first, []plan.State{under(0, plan.Do, c, note("x", 8, 1, z, "", a, true))}, TakeDeployBack, ""},

		{"none: a new note", idle, []plan.State{at(b), target(newest, 1, "x", plan.Fire, a, note("new", newest, 1, b, "7", a, true))}, TakeNote, "new"},
		{"none: the highest of two", idle, []plan.State{at(b, stranger), at(b, fromLive, elsewhere)}, TakeNote, "else"},
		{"none: a new note and an adopted one", idle, []plan.State{at(b, old, fromLive)}, TakeNote, "live"},
		{"none: a new note goes before a lagging target", idle, []plan.State{target(9, 0, "x", plan.Done, c, fromLive)}, TakeNote, "live"},
		{"none: a record below", idle, []plan.State{at(b), target(9, 1, "x", plan.Done, b)}, BringAlong, ""},
		{"none: a record just below", idle, []plan.State{target(newest-1, 7, "x", plan.Done, b)}, BringAlong, ""},
		{"none: no record", idle, []plan.State{{Instances: plain(b, a)}}, BringAlong, ""},
		{"none: another release serves", idle, []plan.State{at(b), at(c)}, BringAlong, ""},
		{"none: what is live has ended, and another release serves", idle, []plan.State{astray}, BringAlong, ""},
		{"none: half the traffic", idle, []plan.State{half}, BringAlong, ""},
		{"none: what is live is not there", idle, []plan.State{cold}, BringAlong, ""},
		{"none: what is live has failed", idle, []plan.State{failed}, Nothing, ""},
		{"none: a lagging target goes before adopted notes", idle, []plan.State{at(c, old)}, BringAlong, ""},
		{"none: adopted notes", idle, []plan.State{at(b), at(b, old)}, ForgetNotes, ""},
		{"none: at rest", idle, []plan.State{at(b), at(b)}, Nothing, ""},
		{"none: nothing can be reached", idle, nil, Nothing, ""},
		{"none: nothing is live", nothingLive, []plan.State{at(c)}, Nothing, ""},
		{"none: nothing is live, and a record below", nothingLive, []plan.State{target(9, 0, "x", plan.Undo, c)}, BringAlong, ""},
		{"none: no event and no record", Event{}, []plan.State{{}}, Nothing, ""},
		{"none: no event, and a release that somebody started", Event{}, []plan.State{{Instances: plain(c, a)}}, Nothing, ""},
		{"none: no event and a record", Event{}, []plan.State{target(1, 0, "x", plan.Do, c)}, ReadAgain, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := Recover(row.newest, row.fleet)
			id := ""
			if got.Note != nil {
				id = got.Note.ID
			}
			if got.Do != row.do || id != row.note {
				t.Errorf("got %q with note %q, want %q with %q", got.Do, id, row.do, row.note)
			}
			if want := "[old]"; row.do == ForgetNotes && fmt.Sprint(got.Notes) != want {
				t.Errorf("got notes %v, want %s", got.Notes, want)
			}
		})
	}
}

// Jobs work where the traffic is, and nowhere else; what has failed is evidence, and left alone.
func TestServedByJobs(t *testing.T) {
	live := release.Release{Digest: "sha256:a"}
	s := Snapshot{Live: &Entry{Release: live}}
	for name, c := range map[string]struct {
		own, other plan.Jobs
		phase      plan.Phase
		want       bool
	}{
		"no jobs":                  {"", "", plan.Ready, true},
		"as it should be":          {plan.Working, plan.Idle, plan.Ready, true},
		"never started":            {plan.Idle, plan.Idle, plan.Ready, false},
		"some started":             {plan.Mixed, plan.Idle, plan.Ready, false},
		"the others still work":    {plan.Working, plan.Working, plan.Ready, false},
		"one of the others works":  {plan.Working, plan.Mixed, plan.Ready, false},
		"only the others have any": {"", plan.Working, plan.Ready, false},
		"it has failed":            {plan.Mixed, plan.Idle, plan.Failed, true},
	} {
		got := s.ServedBy(plan.State{Instances: []plan.Instance{{Release: live, Weight: 100, Phase: c.phase, Jobs: c.own},
			{Release: release.Release{Digest: "sha256:b"}, Phase: plan.Ready, Jobs: c.other}}})
		if got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
