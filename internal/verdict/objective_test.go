package verdict

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var usual = Options{Objective: 0.01, Intolerable: 0.05, Alpha: 0.001, Beta: 0.01, Bake: 5 * time.Minute}

// judge feeds ticks of a second made by errors until a verdict or the end of the wait.
func judge(o Options, requests int, errors func(tick int) int) (Verdict, string, int) {
	r := NewObjective(o)
	ticks := int(2 * o.Bake / time.Second)
	for i := 1; ; i++ {
		v := r.Observe(Tick{Elapsed: time.Duration(i) * time.Second, Candidate: Counts{requests, errors(i)}})
		if v != Unknown || i == ticks {
			return v, r.Reason(), i
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

// The mean of each bet's factor over every outcome of a tick: 1 at the objective, less below.
func TestBetsAgainstTheObjectiveAreFair(t *testing.T) {
	o := usual
	o.Objective, o.Intolerable = 0.1, 0.3
	r := NewObjective(o).(*objective)
	r.begin()
	const n = 12
	for _, rate := range []float64{0.1, 0.09, 0.02} {
		for _, bet := range r.bets {
			mean := 0.0
			for k := range n + 1 {
				c := Counts{n, k}
				mean += binomial(n, k, rate) * math.Exp(bernoulli(c, bet)-bernoulli(c, r.null))
			}
			if rate == 0.1 && math.Abs(mean-1) > 1e-9 || mean > 1+1e-9 || rate < 0.1 && mean > 0.99 {
				t.Errorf("rate %g, bet on %.2f: the mean is %g", rate, bet, mean)
			}
		}
	}
}

func TestObjective(t *testing.T) {
	for _, c := range []struct {
		name     string
		requests int
		errors   func(int) int
		want     Verdict
		within   int // ticks
		why      string
	}{
		{"all well", 50, none, Pass, 300, "0 of 15000 failed in 5m0s; a release at 5 % would look this good"},
		{"fully bad", 50, func(int) int { return 50 }, Fail, 3, "half or more"},
		{"a fifth fails", 50, func(int) int { return 10 }, Fail, 300, "a release that keeps to 1 % would look this bad less than once in"},
		{"no data", 0, none, Unknown, 600, "nobody asked it: there was neither a check nor a request of a customer"},
		{"too little", 1, none, Unknown, 600, "0 of 600 failed: not enough to tell 1 % from 5 %"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, why, ticks := judge(usual, c.requests, c.errors)
			if v != c.want || ticks > c.within || !strings.Contains(why, c.why) {
				t.Errorf("%s after %d ticks: %q; want %s within %d: %q", v, ticks, why, c.want, c.within, c.why)
			}
		})
	}
}

// A release that turns bad in the 50th second is caught within three seconds, although 2 450 requests were well.
func TestLateOnset(t *testing.T) {
	v, why, ticks := judge(usual, 50, func(i int) int {
		if i >= 50 {
			return 50
		}
		return 0
	})
	if v != Fail || ticks > 53 {
		t.Errorf("%s after %d ticks: %s; want fail by tick 53", v, ticks, why)
	}
}

func TestVerdictStays(t *testing.T) {
	r := NewObjective(usual)
	for i := range 3 {
		r.Observe(Tick{Elapsed: time.Duration(i+1) * time.Second, Candidate: Counts{20, 20}})
	}
	if v := r.Observe(Tick{Elapsed: time.Minute, Candidate: Counts{100_000, 0}}); v != Fail {
		t.Errorf("after a fail: %s, want fail", v)
	}
}

// Where the release before had more errors than the objective, as many are natural, and many more are not; a pass says so too.
func TestNaturalErrors(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	run := func(rate float64) (Verdict, string) {
		o := usual
		o.Alpha = 0.01
		r := NewObjective(o)
		for i := -600; i <= 0; i++ {
			r.Observe(Tick{Elapsed: time.Duration(i) * time.Second, Baseline: Counts{50, flip(random, 50, 0.02)}})
		}
		for i := 1; i <= 300; i++ {
			if v := r.Observe(Tick{Elapsed: time.Duration(i) * time.Second, Candidate: Counts{50, flip(random, 50, rate)}}); v != Unknown {
				return v, r.Reason()
			}
		}
		return Unknown, r.Reason()
	}
	fails, found := 0, 0
	for range 100 {
		if v, _ := run(0.02); v == Fail {
			fails++
		}
		if v, _ := run(0.1); v == Fail {
			found++
		}
	}
	if fails > 2 || found < 95 {
		t.Errorf("2 %% as ever: %d of 100 found bad; 10 %%: %d", fails, found)
	}
	if v, why := run(0.02); v == Pass && strings.Contains(why, "a release at 5 %") {
		t.Errorf("passed: %s", why)
	}
}

// At the objective itself, over 1 000 whole bakes, fewer than 1 in 100 fail; also where an outage of three seconds hits a third of the requests.
func TestFalseAlarms(t *testing.T) {
	for name, at := range map[string]func(i int) float64{
		"one by one": func(int) float64 { return 0.01 },
		"an outage of three seconds": func(i int) float64 {
			if i >= 30 && i < 33 {
				return 0.3
			}
			return 0
		},
	} {
		random := rand.New(rand.NewPCG(7, 7))
		o := usual
		o.Alpha = 0.01
		fails := 0
		for range 1000 {
			v, _, _ := judge(o, 10, func(i int) int { return flip(random, 10, at(i)) })
			if v == Fail {
				fails++
			}
		}
		if fails > 15 {
			t.Errorf("%s: %d of 1000 good releases failed", name, fails)
		}
	}
}

func TestObjectiveAtExtremes(t *testing.T) {
	r := NewObjective(usual).(*objective)
	for i, c := range []Counts{{0, 0}, {1e16, 0}, {1e16, 5e13}, {1e16, 0}, {1, 1}} {
		r.Observe(Tick{Elapsed: time.Duration(i+1) * time.Second, Candidate: c})
		if math.IsNaN(r.wealth) || math.IsNaN(r.certainty()) {
			t.Fatalf("not a number after %v", c)
		}
	}
}
