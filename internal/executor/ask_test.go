package executor

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/config"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/probe"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/verdict"
	"github.com/backstep/backstep/internal/verdict/ticks"
)

// Two readings make a tick; a reading that failed, a side that is not known, and a counter that began anew are no data.
func TestReadings(t *testing.T) {
	var said strings.Builder
	r := &reading{begin: time.Now(), log: slog.New(slog.NewTextHandler(&said, nil))}
	totals := func(c, cBad, b, bBad int) []*probe.Totals {
		return []*probe.Totals{{Requests: c, Errors: cBad, Slower: []int{cBad}}, {Requests: b, Errors: bBad, Slower: []int{0}}}
	}
	for _, step := range []struct {
		name  string
		read  []*probe.Totals
		err   error
		ticks []verdict.Tick
	}{
		{"the first says nothing", totals(100, 10, 900, 9), nil, nil},
		{"the difference", totals(110, 13, 990, 9), nil, []verdict.Tick{{Candidate: verdict.Counts{Requests: 10, Errors: 3}, Baseline: verdict.Counts{Requests: 90},
			Slower: []verdict.Pair{{Candidate: verdict.Counts{Requests: 10, Errors: 3}, Baseline: verdict.Counts{Requests: 90}}}}}},
		{"no answer", nil, errors.New("no answer"), nil},
		{"no answer, told once", nil, errors.New("no answer"), nil},
		{"what came meanwhile is there", totals(120, 13, 1080, 9), nil, []verdict.Tick{{Candidate: verdict.Counts{Requests: 10}, Baseline: verdict.Counts{Requests: 90},
			Slower: []verdict.Pair{{Candidate: verdict.Counts{Requests: 10}, Baseline: verdict.Counts{Requests: 90}}}}}},
		{"the candidate's counter began anew", totals(3, 3, 1170, 9), nil, nil},
		{"and goes on", totals(5, 3, 1170, 9), nil, []verdict.Tick{{Candidate: verdict.Counts{Requests: 2},
			Slower: []verdict.Pair{{Candidate: verdict.Counts{Requests: 2}}}}}},
		{"more errors than requests", totals(6, 5, 1170, 9), nil, nil},
		{"the baseline is not known", []*probe.Totals{{Requests: 16, Errors: 5, Slower: []int{5}}, nil}, nil, []verdict.Tick{{Candidate: verdict.Counts{Requests: 10},
			Slower: []verdict.Pair{{Candidate: verdict.Counts{Requests: 10}}}}}},
	} {
		r.add(step.read, step.err)
		got := r.taken()
		if len(got) != len(step.ticks) {
			t.Errorf("%s: %+v, want %+v", step.name, got, step.ticks)
			continue
		}
		for i, want := range step.ticks {
			if got[i].Candidate != want.Candidate || got[i].Baseline != want.Baseline || len(got[i].Slower) != len(want.Slower) ||
				len(want.Slower) > 0 && got[i].Slower[0] != want.Slower[0] {
				t.Errorf("%s: %+v, want %+v", step.name, got[i], want)
			}
		}
	}
	if n := strings.Count(said.String(), "no answer"); n != 1 {
		t.Errorf("a meter that does not answer was told %d times:\n%s", n, said.String())
	}
}

// recorder is a meter that remembers.
type recorder struct{ history []*probe.Totals }

func (recorder) Bounds() []float64 { return nil }
func (m recorder) Read(context.Context, []probe.Subject) ([]*probe.Totals, error) {
	return []*probe.Totals{{}, {}}, nil
}
func (m recorder) History(context.Context, probe.Subject, time.Duration) ([]*probe.Totals, error) {
	return m.history, nil
}

// What was before the release comes first, before the start of the bake.
func TestHistory(t *testing.T) {
	r := &reading{begin: time.Now(), log: slog.New(slog.NewTextHandler(io.Discard, nil)), of: make([]probe.Subject, 2),
		meter: config.ProbeConfig{Every: 10 * time.Millisecond, Timeout: time.Second,
			Meter: recorder{history: []*probe.Totals{{Requests: 10}, {Requests: 30, Errors: 2}, {Requests: 5}, {Requests: 9, Errors: 1}}}}}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { r.run(ctx); close(done) }()
	var got []verdict.Tick
	for len(got) < 3 {
		got = append(got, r.taken()...)
		time.Sleep(time.Millisecond)
	}
	stop()
	<-done
	if a, b := got[0], got[1]; a.Baseline != (verdict.Counts{Requests: 20, Errors: 2}) || b.Baseline != (verdict.Counts{Requests: 4, Errors: 1}) ||
		a.Elapsed >= b.Elapsed || b.Elapsed >= 0 || got[2].Elapsed < 0 {
		t.Errorf("%+v", got)
	}
}

// settled is a rule that has said something.
type settled struct {
	verdict.Rule
	why string
}

func (s settled) Reason() string { return s.why }

func TestTogether(t *testing.T) {
	from := func(name string, said verdict.Verdict) *source {
		return &source{record: ticks.Series{Name: name}, said: said, rule: settled{why: said.String()}}
	}
	for _, c := range []struct {
		sources []*source
		want    verdict.Verdict
		why     string
	}{
		{nil, verdict.Unknown, "there is no evidence"},
		{[]*source{from("a", verdict.Pass)}, verdict.Pass, "pass"},
		{[]*source{from("a", verdict.Pass), from("b", verdict.Unknown)}, verdict.Unknown, "a: pass; b: unknown"},
		{[]*source{from("a", verdict.Pass), from("b", verdict.Fail)}, verdict.Fail, "b: fail"},
		{[]*source{from("a", verdict.Pass), from("b", verdict.Pass)}, verdict.Pass, "a: pass; b: pass"},
	} {
		if got, why := together(c.sources); got != c.want || why != c.why {
			t.Errorf("%s, %q; want %s, %q", got, why, c.want, c.why)
		}
	}
}

// The release that is compared with is the one with the most traffic beside it.
func TestBeside(t *testing.T) {
	in := func(d string, weight int) plan.Instance {
		return plan.Instance{Release: release.Release{Digest: release.Digest(d)}, Weight: weight}
	}
	state := plan.State{Instances: []plan.Instance{in("old", 0), in("new", 10), in("other", 20), in("good", 70)}}
	if got := beside(state, release.Release{Digest: "new"}); got == nil || got.Release.Digest != "good" {
		t.Errorf("beside the canary: %+v", got)
	}
	state = plan.State{Instances: []plan.Instance{in("old", 0), in("new", 100)}}
	if got := beside(state, release.Release{Digest: "new"}); got != nil {
		t.Errorf("beside what has all the traffic: %+v", got)
	}
}
