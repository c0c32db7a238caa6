package ledger

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/backstep/backstep/internal/release"
)

func rel(n int) release.Release {
	return release.Release{Digest: release.Digest("sha256:" + strings.Repeat(fmt.Sprintf("%02x", n), 32)), Version: fmt.Sprintf("1.%d.0", n)}
}

// Whatever is done in whatever order: last good is good and remembered, nothing in quarantine is admitted or
// gone back to, and a rollback never goes to what is live.
func TestSnapshotsStayTrue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var e Event
		stamp := Stamp{Author: Author{Actor: "ada"}, At: time.Unix(1, 0)}
		take := func(next Event, err error) {
			if err == nil {
				next.Seq = e.Seq + 1
				e = next
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			r := rel(rapid.IntRange(1, 30).Draw(t, "release"))
			switch rapid.IntRange(0, 6).Draw(t, "what") {
			case 0, 1:
				if e.State.Intent == nil && e.State.Admit(r) == nil {
					take(Start(e, Intent{Kind: DeployStarted, To: r}, stamp), nil)
					if rapid.Bool().Draw(t, "works") {
						take(FinishDeploy(e, e.Seq, stamp))
					} else {
						take(AbortDeploy(e, e.Seq, stamp, "broken"))
					}
				}
			case 2, 3:
				if live := e.State.Live; live != nil {
					take(Judge(e, live.Release, rapid.Bool().Draw(t, "passed"), "seen", stamp))
				}
			case 4:
				if to, _, err := e.State.WayBack(""); err == nil {
					left := *e.State.Live
					take(Start(e, Intent{Kind: RollbackStarted, To: to, Condemn: true}, stamp), nil)
					take(FinishRollback(e, e.Seq, stamp))
					if e.State.Live.Release.Digest == left.Release.Digest || e.State.QuarantineOf(left.Release.Digest) == nil || e.State.Freeze == nil {
						t.Fatalf("rolled back from %s to %s, quarantined %v", left.Release, e.State.Live.Release, e.State.Quarantined)
					}
				}
			case 5:
				take(Unfreeze(e, "safe", stamp))
			case 6:
				take(Lift(e, r.Digest, "mistake", stamp))
			}
			s := e.State
			if s.LastGood != nil && !s.LastGood.Good {
				t.Fatal("the last good release is not good")
			}
			if len(s.Recent) > RecentLimit {
				t.Fatalf("%d recent releases", len(s.Recent))
			}
			if s.Live != nil && (len(s.Recent) == 0 || s.Recent[0].Release.Digest != s.Live.Release.Digest) {
				t.Fatal("what is live is not the newest of the recent ones")
			}
			if to, _, err := s.WayBack(""); err == nil && (s.QuarantineOf(to.Digest) != nil || to.Digest == s.Live.Release.Digest) {
				t.Fatalf("the way back leads to %s", to)
			}
		}
	})
}

func TestATakenOverRunCannotFinish(t *testing.T) {
	stamp := Stamp{At: time.Unix(1, 0)}
	first := Start(Event{}, Intent{Kind: DeployStarted, To: rel(1)}, stamp)
	second := Start(first, Intent{Kind: DeployStarted, To: rel(2)}, stamp)
	if _, err := FinishDeploy(second, first.Seq, stamp); err == nil || err.Error() != "finish event 1: another run has taken over" {
		t.Errorf("got %v", err)
	}
}
