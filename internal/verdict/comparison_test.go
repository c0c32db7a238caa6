package verdict

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// choose is the binomial coefficient.
func choose(n, k int) float64 {
	if k < 0 || k > n {
		return 0
	}
	c := 1.0
	for i := range k {
		c = c * float64(n-i) / float64(i+1)
	}
	return c
}

// fisher is the law written down as its definition has it.
func fisher(nc, nb, all, k int, odds float64) float64 {
	sum := 0.0
	for j := range nc + 1 {
		sum += choose(nc, j) * choose(nb, all-j) * math.Pow(odds, float64(j))
	}
	return choose(nc, k) * choose(nb, all-k) * math.Pow(odds, float64(k)) / sum
}

// Every table up to six requests a side: the law is the definition's, the factor of a tick has a mean of exactly 1
// at the null, and at most 1 below it.
func TestComparisonByEnumeration(t *testing.T) {
	const null = 1.5
	for nc := 1; nc <= 6; nc++ {
		for nb := 1; nb <= 6; nb++ {
			for all := range nc + nb + 1 {
				for _, alternative := range []float64{null * 1.15, null * 3, null * 1000} {
					for _, truth := range []float64{null, 1.2, 1, 0.3} {
						expected := 0.0
						for k := max(0, all-nb); k <= min(nc, all); k++ {
							c, b := Counts{nc, k}, Counts{nb, all - k}
							if got, want := math.Exp(logFisher(c, b, alternative)), fisher(nc, nb, all, k, alternative); math.Abs(got-want) > 1e-12 {
								t.Fatalf("P(%d of %d, %d of %d) at %g is %g, want %g", k, nc, all-k, nb, alternative, got, want)
							}
							expected += fisher(nc, nb, all, k, truth) * math.Exp(logFisher(c, b, alternative)-logFisher(c, b, null))
						}
						if truth == null && math.Abs(expected-1) > 1e-12 || expected > 1+1e-12 {
							t.Fatalf("%d and %d requests, %d errors: the mean at odds %g is %g", nc, nb, all, truth, expected)
						}
					}
				}
			}
		}
	}
}

// Large numbers neither overflow nor lose the law: it sums to 1.
func TestFisherAtLargeNumbers(t *testing.T) {
	for _, c := range []struct {
		nc, nb, all int
		odds        float64
	}{{100_000, 900_000, 3000, 1000}, {500_000, 500_000, 2000, 1.5}, {1, 1_000_000, 500, 50}, {1_000_000, 1, 500, 0.01}} {
		sum := math.Inf(-1)
		for k := max(0, c.all-c.nb); k <= min(c.nc, c.all); k++ {
			sum = logAdd(sum, logFisher(Counts{c.nc, k}, Counts{c.nb, c.all - k}, c.odds))
		}
		if math.Abs(sum) > 1e-6 {
			t.Errorf("%+v: the law sums to %g", c, math.Exp(sum))
		}
	}
}

func rule(bake time.Duration) Rule {
	return NewComparison(ComparisonOptions{Harmless: 1.2, Intolerable: 2.5, Alpha: 0.001, Beta: 0.01, Bake: bake})
}

func play(r Rule, ticks int, of func(i int) (candidate, baseline Counts)) (Verdict, int, string) {
	for i := range ticks {
		c, b := of(i)
		if v := r.Observe(Tick{Elapsed: time.Duration(i+1) * time.Second, Candidate: c, Baseline: b}); v != Unknown {
			return v, i + 1, r.Reason()
		}
	}
	return Unknown, ticks, r.Reason()
}

func TestComparison(t *testing.T) {
	for name, c := range map[string]struct {
		of   func(i int) (Counts, Counts)
		want Verdict
		at   int // the last tick that will do
		why  string
	}{
		"all of it fails":       {func(int) (Counts, Counts) { return Counts{10, 10}, Counts{90, 0} }, Fail, 2, "candidate"},
		"a fifth of it fails":   {func(int) (Counts, Counts) { return Counts{10, 2}, Counts{90, 1} }, Fail, 6, "a good release would look this bad less than once in"},
		"both are down":         {func(int) (Counts, Counts) { return Counts{10, 9}, Counts{90, 81} }, Unknown, 60, ""},
		"as good as the other":  {func(int) (Counts, Counts) { return Counts{50, 2}, Counts{450, 18} }, Pass, 60, "a release with 2.5 times the odds of an error would look this good"},
		"no baseline":           {func(int) (Counts, Counts) { return Counts{10, 0}, Counts{} }, Unknown, 60, "no tick has requests of both"},
		"no errors say nothing": {func(int) (Counts, Counts) { return Counts{10, 0}, Counts{90, 0} }, Unknown, 60, "not enough to tell"},
	} {
		v, at, why := play(rule(10*time.Second), 60, c.of)
		if v != c.want && name != "both are down" || v == Fail && name == "both are down" || at > c.at || !strings.Contains(why, c.why) {
			t.Errorf("%s: %s at tick %d: %s", name, v, at, why)
		}
	}
}

// A good release beside a shared incident of 20 times the errors fails in less than 1 of 100 runs.
func TestComparisonHoldsInASharedIncident(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	binomial := func(n int, p float64) int {
		k := 0
		for range n {
			if random.Float64() < p {
				k++
			}
		}
		return k
	}
	const runs = 400
	failed := 0
	for range runs {
		v, _, _ := play(NewComparison(ComparisonOptions{Harmless: 1, Intolerable: 3, Alpha: 0.01, Beta: 0.01, Bake: time.Hour}), 120, func(i int) (Counts, Counts) {
			rate := 0.005
			if i >= 40 && i < 60 {
				rate *= 20
			}
			return Counts{20, binomial(20, rate)}, Counts{180, binomial(180, rate)}
		})
		if v == Fail {
			failed++
		}
	}
	if failed > runs/50 { // twice the level: the chance of more is below 1 in 1000 when the level holds
		t.Errorf("%d of %d good releases failed", failed, runs)
	}
}

func TestDispersion(t *testing.T) {
	alone := make([]Counts, 200)
	bursts := make([]Counts, 200)
	for i := range alone {
		alone[i] = Counts{1000, 5 + i%3 - 1}
		bursts[i] = Counts{1000, 0}
		if i%10 == 0 {
			bursts[i].Errors = 50
		}
	}
	if got := Dispersion(alone); got != 1 {
		t.Errorf("errors one by one: %g", got)
	}
	if got := Dispersion(bursts); got < 20 {
		t.Errorf("errors by the fifty: %g", got)
	}
	for _, none := range [][]Counts{nil, {{10, 1}}, {{10, 0}, {10, 0}}, {{}, {}}} {
		if got := Dispersion(none); got != 1 {
			t.Errorf("%v: %g", none, got)
		}
	}
}

func BenchmarkComparisonTick(b *testing.B) {
	r := NewComparison(ComparisonOptions{Harmless: 1.2, Intolerable: 2.5, Alpha: 1e-300, Beta: 1e-300, Bake: time.Hour})
	t := Tick{Candidate: Counts{100, 1}, Baseline: Counts{900, 9}}
	b.ReportAllocs()
	for b.Loop() {
		r.Observe(t)
	}
}
