package executor

import (
	"slices"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/verdict"
)

func TestPhases(t *testing.T) {
	for _, one := range []struct {
		warmUp, duration, took time.Duration
		share                  int
		want                   []Phase
	}{
		{time.Minute, 5 * time.Minute, 200 * time.Millisecond, 100, []Phase{{"warm-up", 200 * time.Millisecond}}},
		{time.Minute, 5 * time.Minute, 5 * time.Minute, 100, []Phase{{"warm-up", time.Minute}, {"bake", 5 * time.Minute}}},
		{time.Minute, 5 * time.Minute, 30 * time.Minute, 10, []Phase{{"warm-up at 10 %", time.Minute}, {"bake at 10 %", 5 * time.Minute}, {"waiting for evidence at 10 %", 30 * time.Minute}}},
		{0, time.Minute, time.Minute, 0, []Phase{{"bake", time.Minute}}},
		{0, time.Minute, 0, 100, nil},
	} {
		if got := phases(one.warmUp, one.duration, one.took, Baking, one.share); !slices.Equal(got, one.want) {
			t.Errorf("%v: %v, want %v", one, got, one.want)
		}
	}
}

// A picture has enough points, however soon the verdict comes, and not too many, however late.
func TestPointsOfAPicture(t *testing.T) {
	for ticks, want := range map[int][2]int{1: {1, 1}, 4: {4, 4}, 100: {100, 100}, 36_000: {pictured, 2 * pictured}} {
		var e Evidence
		point := e.pictures()
		for i := range ticks {
			at := time.Duration(i+1) * tick
			point(at, i == ticks-1, func() Way { return Way{At: at} })
		}
		n := len(e.Ways)
		if n < want[0] || n > want[1] || e.Ways[n-1].At != time.Duration(ticks)*tick {
			t.Errorf("%d ticks are %d points, the last of them at %v", ticks, n, e.Ways[n-1].At)
		}
		if !slices.IsSortedFunc(e.Ways, func(a, b Way) int { return int(a.At - b.At) }) || ticks > 1000 && e.Ways[0].At > time.Minute {
			t.Errorf("%d ticks are %v", ticks, e.Ways)
		}
	}
}

// What is plain is no evidence that grows: the way ends all the same where the verdict is.
func TestTheWayOfAFailIsWhole(t *testing.T) {
	s := &source{rule: verdict.NewProbed(verdict.Options{Harmless: 1, Objective: 0.01, Ratio: 2.5, Intolerable: 0.05, Alpha: 0.01, Beta: 0.01, Bake: time.Minute})}
	if w := way([]*source{s}, time.Second, verdict.Fail); w.Fail != 1 || w.Pass >= 1 {
		t.Errorf("the way of a fail is %+v", w)
	}
	if w := way(nil, time.Second, verdict.Unknown); w != (Way{At: time.Second}) {
		t.Errorf("the way of nothing is %+v", w)
	}
}

// A deploy tells what came of each share of a canary.
func TestEachShareOfACanaryIsTold(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0")
	p.image("1.1.0")
	x := p.run()
	x.Config.Strategy, x.Config.Weights = plan.Canary, []int{10, 50}
	out, err := x.Deploy(t.Context(), Deployment{Image: p.repository + ":1.1.0"})
	p.must(err)
	if len(out.Canary) != 2 {
		t.Fatalf("%d shares", len(out.Canary))
	}
	for i, share := range []string{"bake at 10 %", "bake at 50 %"} {
		e := out.Canary[i]
		if e.Verdict != verdict.Pass || len(e.Phases) == 0 || e.Phases[0].Name != share || e.Other == nil || e.Other.Version != "1.0.0" {
			t.Errorf("%s: %s, %+v beside %v", share, e.Verdict, e.Phases, e.Other)
		}
	}
}
