package targettest_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/target/targettest"
)

func TestMemory(t *testing.T) {
	m := targettest.NewMemory()
	s := targettest.Subject{Target: m.Target(), Router: m.Router(), Good: targettest.Release("1.0.0"), Other: targettest.Release("1.1.0"),
		Crashing: targettest.Release("1.2.0"), Mute: targettest.Release("1.3.0"), Missing: targettest.Release("1.4.0"),
		Kill: func(id release.ID) { m.SetPhase(id, plan.Failed, "it was killed") }, Busy: m.Busy}
	m.SetPhase(s.Crashing.ID(), plan.Failed, "it ended with exit code 3")
	m.SetPhase(s.Mute.ID(), plan.Starting, "connection refused")
	m.Lose(s.Missing.ID())
	targettest.Run(t, s)
}

// An operation that fails changes nothing, and each is told of when it has taken effect.
func TestMemoryFails(t *testing.T) {
	m, r, ctx := targettest.NewMemory(), targettest.Release("1.0.0"), t.Context()
	token := plan.Token{Number: plan.Number{Seq: 1}, Holder: "a"}
	broken := errors.New("broken")
	var fails bool
	var before, after []string
	m.Fail = func(op string) error {
		before = append(before, op)
		if fails {
			return broken
		}
		return nil
	}
	m.After = func(op string) { after = append(after, op) }
	for _, fails = range []bool{true, false} {
		_, observe := m.Observe(ctx)
		_, find := m.Find(ctx, r.ID())
		_, has := m.Has(ctx, r)
		_, logs := m.Logs(ctx, r.ID(), 1)
		for i, err := range []error{observe, find, has, logs, m.Claim(ctx, plan.Claim{Token: token}, nil), m.Stage(ctx, token, r),
			m.Shift(ctx, token, map[release.ID]int{r.ID(): 100}), m.Retire(ctx, token, r.ID(), 0), m.Forget(ctx, token, nil)} {
			if fails != errors.Is(err, broken) || !fails && err != nil {
				t.Errorf("operation %d, fails %v: %v", i, fails, err)
			}
		}
	}
	want := strings.Fields("observe find has logs claim stage shift retire forget")
	if !slices.Equal(before, append(slices.Clone(want), want...)) || !slices.Equal(after, want) {
		t.Errorf("told of %q, and afterwards of %q", before, after)
	}
}
