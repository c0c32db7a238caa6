package ledger

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
)

// FuzzEvent looks for an event, as a registry may give it, of which a decision or a line of text is a panic. Who can write to a
// registry can write anything that is JSON.
func FuzzEvent(f *testing.F) {
	at := time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC)
	stamp := Stamp{At: at, Author: release.Author{Actor: "ada"}}
	one := release.Release{Repository: "r/x", Digest: "sha256:1", Version: "1.0.0"}
	event := Start(Event{Service: "shop", Environment: "production"}, Intent{Kind: DeployStarted, Holder: "h", To: one}, stamp)
	for _, e := range []Event{{}, event} {
		text, err := json.Marshal(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	for _, seed := range []string{`{"seq":18446744073709551615,"state":{"intent":{"kind":"verify.started"}}}`, `{"state":{"live":{},"intent":{"kind":"rollback.started","from":{}}}}`,
		`{"state":{"recent":[{},{}],"freezes":[{}],"quarantined":[{}]}}`, `{"state":{"intent":{"plan":[{"do":"shift"}]}}}`, `null`, `[]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var e Event
		if json.Unmarshal(text, &e) != nil {
			return
		}
		fleet := []plan.State{{}, {Claim: plan.Claim{Wanted: one}, Instances: []plan.Instance{{Release: one, Phase: plan.Ready, Weight: 100}}, Notes: []plan.Note{{ID: "n", Left: one, Condemn: true}}}}
		for _, f := range [][]plan.State{nil, fleet[:1], fleet[1:], fleet} {
			Recover(e, f)
		}
		s := e.State
		s.WayBack("")
		s.WayBack("1.0.0")
		s.Admit(one, at, false)
		s.Good(3)
		s.QuarantineOf(one.ID())
		var key Key
		if s.Intent != nil {
			key = s.Intent.Key()
			_ = s.Intent.String()
		}
		note := fleet[1].Notes[0]
		for _, change := range []func() (Event, error){
			func() (Event, error) { return Start(e, Intent{Kind: DeployStarted, To: one}, stamp), nil },
			func() (Event, error) { return FinishDeploy(e, key, stamp) },
			func() (Event, error) { return AbortDeploy(e, key, stamp, "x", &note) },
			func() (Event, error) { return FinishRollback(e, key, stamp, &note) },
			func() (Event, error) { return FailRollback(e, key, stamp, nil, "x") },
			func() (Event, error) { return AdoptNote(e, note, stamp) },
			func() (Event, error) { return Pass(e, key, "x", stamp) },
			func() (Event, error) { return Reject(e, key, "x", stamp) },
			func() (Event, error) { return Disarm(e, key, "x", "", stamp) },
			func() (Event, error) { return SetPause(e, "x", stamp) },
			func() (Event, error) { return Resume(e, "x", stamp) },
			func() (Event, error) { return SetFreeze(e, "x", nil, stamp) },
			func() (Event, error) { return Unfreeze(e, "", "x", stamp) },
			func() (Event, error) { return MoveIn(e, one, stamp) },
			func() (Event, error) { return Lift(e, one.ID(), "x", stamp) },
		} {
			if next, err := change(); err == nil {
				if _, err := json.Marshal(next); err != nil && e.At.Year() < 9999 {
					t.Errorf("what follows on %s cannot be written: %v", text, err)
				}
			}
		}
	})
}
