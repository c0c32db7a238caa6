package deploy

import (
	"reflect"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/executor"
	"github.com/backstep/backstep/internal/verdict"
)

// The page of a deploy says what came of each share of a canary.
func TestShares(t *testing.T) {
	got := shares([]executor.Evidence{
		{Verdict: verdict.Pass, Reason: "within what is harmless", Phases: []executor.Phase{{Name: "warm-up at 10 %", Until: time.Second}, {Name: "bake at 10 %", Until: 90 * time.Second}}},
		{Verdict: verdict.Fail, Reason: "the release died: exit code 1"},
	})
	want := [][2]string{{"warm-up at 10 %, bake at 10 %", "pass after 90.0 s: within what is harmless"}, {"canary", "fail at once: the release died: exit code 1"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
