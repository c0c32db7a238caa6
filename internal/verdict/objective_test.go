package verdict

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var usual = ObjectiveOptions{Objective: 0.01, Intolerable: 0.05, Alpha: 0.001, Beta: 0.01,
	Bake: 10 * time.Second, Patience: 10 * time.Second, Tick: 100 * time.Millisecond}

// judge feeds ticks made by errors until a verdict or the end of the wait.
func judge(o ObjectiveOptions, requests int, errors func(tick int) int) (Verdict, string, int) {
	r := NewObjective(o)
	ticks := int((o.Bake + o.Patience) / o.Tick)
	for i := 1; ; i++ {
		v := r.Observe(Tick{Elapsed: time.Duration(i) * o.Tick, Candidate: Counts{requests, errors(i)}})
		why := r.Reason()
		if v != Unknown || i == ticks {
			return v, why, i
		}
	}
}

func none(int) int { return 0 }

// binomial is the probability of k errors in n requests at rate p.
func binomial(n, k int, p float64) float64 {
	a, _ := math.Lgamma(float64(n + 1))
	b, _ := math.Lgamma(float64(k + 1))
	c, _ := math.Lgamma(float64(n - k + 1))
	return math.Exp(a-b-c) * math.Pow(p, float64(k)) * math.Pow(1-p, float64(n-k))
}

// The expectation of the fail process over every outcome of three ticks: 1 at the objective, at most 1 below.
func TestFailProcessIsATestMartingale(t *testing.T) {
	o := usual
	o.Objective, o.Intolerable = 0.1, 0.3
	o.Bake, o.Patience = 200*time.Millisecond, 100*time.Millisecond
	const n = 4
	expect := func(p float64) float64 {
		sum := 0.0
		for a := range n + 1 {
			for b := range n + 1 {
				for c := range n + 1 {
					r := NewObjective(o).(*objective)
					e := 0.0
					for _, k := range []int{a, b, c} {
						e = r.fail(Counts{n, k}, arm.of)
					}
					sum += binomial(n, a, p) * binomial(n, b, p) * binomial(n, c, p) * math.Exp(e)
				}
			}
		}
		return sum
	}
	if got := expect(0.1); math.Abs(got-1) > 1e-9 {
		t.Errorf("expectation at the objective is %v, want 1", got)
	}
	for _, p := range []float64{0.001, 0.02, 0.05, 0.09} {
		if got := expect(p); got > 1+1e-9 {
			t.Errorf("expectation at %v is %v, want at most 1", p, got)
		}
	}
}

func TestObjective(t *testing.T) {
	always := func(int) int { return 5 }
	for _, c := range []struct {
		name     string
		requests int
		errors   func(int) int
		want     Verdict
		within   int // ticks
		why      string
	}{
		{"all well", 5, none, Pass, 100, "0 of 500 failed in 10s; a release at 5 % would look this good"},
		{"fully bad", 5, always, Fail, 1, "5 of 5 failed; a release that keeps to 1 % would look this bad less than once in"},
		{"no data", 0, none, Unknown, 200, "nobody asked it: there was neither a check nor a request of a customer"},
		{"too little", 1, none, Pass, 200, "0 of 1"},
		{"in between", 1, func(i int) int {
			if i%50 == 0 {
				return 1
			}
			return 0
		}, Unknown, 200, "not enough to tell 1 % from 5 %"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, why, ticks := judge(usual, c.requests, c.errors)
			if v != c.want || ticks > c.within || !strings.Contains(why, c.why) {
				t.Errorf("%s after %d ticks: %q; want %s within %d: %q", v, ticks, why, c.want, c.within, c.why)
			}
		})
	}
}

// A release that turns bad in the 90th tick is caught in the tick after, although 450 checks were well.
func TestLateOnset(t *testing.T) {
	v, why, ticks := judge(usual, 5, func(i int) int {
		if i >= 90 {
			return 5
		}
		return 0
	})
	if v != Fail || ticks > 91 {
		t.Errorf("%s after %d ticks: %s; want fail by tick 91", v, ticks, why)
	}
}

func TestVerdictStays(t *testing.T) {
	r := NewObjective(usual)
	r.Observe(Tick{Elapsed: time.Second, Candidate: Counts{20, 20}})
	if v := r.Observe(Tick{Elapsed: time.Minute, Candidate: Counts{100_000, 0}}); v != Fail {
		t.Errorf("after a fail: %s, want fail", v)
	}
}

func TestHardGate(t *testing.T) {
	o := usual
	o.Objective, o.Intolerable, o.Alpha = 0.5, 0.8, 1e-9
	if v, why, _ := judge(o, 20, func(int) int { return 10 }); v != Fail || why != "10 of 20 failed: half or more" {
		t.Errorf("%s: %q", v, why)
	}
}

// At the objective itself, over 2 000 whole bakes of 100 ticks, fewer than Alpha fail; 1 in 1000 is promised,
// and 8 of 2 000 would happen less than once in 4 000 times.
func TestFalseAlarms(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	o := usual
	o.Bake, o.Patience = 5*time.Second, 5*time.Second
	fails := 0
	for range 2000 {
		v, _, _ := judge(o, 5, func(int) int {
			k := 0
			for range 5 {
				if random.Float64() < o.Objective {
					k++
				}
			}
			return k
		})
		if v == Fail {
			fails++
		}
	}
	if fails >= 8 {
		t.Errorf("%d of 2000 good releases failed", fails)
	}
}

func TestExtremeNumbers(t *testing.T) {
	r := NewObjective(usual).(*objective)
	for i, c := range []Counts{{0, 0}, {1_000_000, 0}, {1_000_000, 5_000}, {1_000_000, 0}} {
		r.Observe(Tick{Elapsed: time.Duration(i) * time.Second, Candidate: c})
		if math.IsNaN(r.strength) {
			t.Fatalf("not a number after %v", c)
		}
	}
	if n := testing.AllocsPerRun(100, func() { r.fail(Counts{1000, 3}, arm.of); r.pass(Counts{1000, 3}) }); n != 0 {
		t.Errorf("%v allocations a tick, want 0", n)
	}
}

// In blocks, a burst of errors is one event: a good release with bursts does not fail, one that is bad does within some blocks.
func TestObjectiveInBlocks(t *testing.T) {
	run := func(block time.Duration, errors func(i int) int) (Verdict, int) {
		r := NewObjective(ObjectiveOptions{Objective: 0.01, Intolerable: 0.05, Alpha: 0.01, Beta: 0.01, Bake: time.Minute,
			Patience: time.Minute, Tick: max(block, 100*time.Millisecond), Block: block})
		for i := 1; i <= 1200; i++ {
			if v := r.Observe(Tick{Elapsed: time.Duration(i) * 100 * time.Millisecond, Candidate: Counts{10, errors(i)}}); v != Unknown {
				return v, i
			}
		}
		return Unknown, 1200
	}
	burst := func(i int) int {
		if i == 250 || i == 251 {
			return 10 // one in a hundred over a minute, all of them at once
		}
		return 0
	}
	if v, _ := run(time.Second, burst); v != Pass {
		t.Errorf("a burst in a block: %s", v)
	}
	if v, _ := run(0, burst); v != Fail {
		t.Errorf("the same burst one by one: %s; the test shows nothing", v)
	}
	if v, i := run(time.Second, func(i int) int { return i % 3 }); v != Fail || i > 60 {
		t.Errorf("a tenth fails: %s at %d", v, i)
	}
}
