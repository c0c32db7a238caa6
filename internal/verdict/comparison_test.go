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
		"a fifth of it fails":   {func(int) (Counts, Counts) { return Counts{10, 2}, Counts{90, 1} }, Fail, 8, "a good release would look this bad less than once in"},
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
	random := rand.New(rand.NewPCG(3, 4))
	series := func(burst int, drift bool) []Counts {
		ticks := make([]Counts, 400)
		for i := range ticks {
			p := 0.02
			if drift {
				p *= 1 + 0.9*math.Sin(float64(i)/60)
			}
			ticks[i].Requests = 2000
			for range 2000 / burst {
				if random.Float64() < p {
					ticks[i].Errors += burst
				}
			}
		}
		return ticks
	}
	for name, c := range map[string]struct {
		ticks     []Counts
		low, high float64
	}{
		"one by one":             {series(1, false), 1, 1},
		"one by one, in a drift": {series(1, true), 1, 1},
		"by the five":            {series(5, false), 4.5, 7},
		"by the twenty":          {series(20, false), 18, 28},
		"none":                   {nil, 1, 1},
		"no error":               {make([]Counts, 50), 1, 1},
		"one tick":               {[]Counts{{10, 3}}, 1, 1},
	} {
		var d dispersion
		for _, tick := range c.ticks {
			d.observe(tick)
		}
		if got := max(1, d.bursts().size); got < c.low || got > c.high {
			t.Errorf("%s: %g, want %g to %g", name, got, c.low, c.high)
		}
	}
}

// The bet on a tick has a mean of at most 1 for every table up to six requests a side, and of exactly 1 at an odds ratio of 1; its
// mirror has a mean of at most 1 at its own null. The errors may also come all at once.
func TestBetByEnumeration(t *testing.T) {
	unknown := burstiness{}
	factor := func(p process, c, b Counts, null float64) float64 {
		p.move(c, b, null, unknown)
		return p.wealth()
	}
	for nc := 1; nc <= 6; nc++ {
		for nb := 1; nb <= 6; nb++ {
			for all := 1; all < nc+nb; all++ {
				for _, truth := range []float64{1, 1.5, 2.5, 5} {
					up, down := 0.0, 0.0
					for k := max(0, all-nb); k <= min(nc, all); k++ {
						p, c, b := fisher(nc, nb, all, k, truth), Counts{nc, k}, Counts{nb, all - k}
						up += p * factor(newProcess(true, 0, scaled(worse, truth)), c, b, truth)
						down += p * factor(newProcess(false, 0, scaled(better, truth)), c, b, truth)
					}
					if up > 1+1e-12 || down > 1+1e-12 || truth == 1 && up < 1-1e-12 || all == 1 && (up < 1-1e-12 || down < 1-1e-12) {
						t.Fatalf("%d and %d requests, %d errors, odds %g: means %g and %g", nc, nb, all, truth, up, down)
					}
				}
				if all > min(nc, nb) {
					continue
				}
				for _, null := range []float64{1, 2.5} { // one burst: all of them on one side
					share := null * float64(nc) / (null*float64(nc) + float64(nb))
					mean := share*factor(newProcess(true, 0, scaled(worse, null)), Counts{nc, all}, Counts{nb, 0}, null) +
						(1-share)*factor(newProcess(true, 0, scaled(worse, null)), Counts{nc, 0}, Counts{nb, all}, null)
					if math.Abs(mean-1) > 1e-12 {
						t.Fatalf("a burst of %d on one of %d and %d at %g: mean %g", all, nc, nb, null, mean)
					}
				}
			}
		}
	}
}

// A stake that joins late keeps the mean: whatever ticks come, wealth stays 1 while the factors are 1, and the shares that join add up.
func TestLateStake(t *testing.T) {
	p := newProcess(true, 0.25, scaled(worse, 1))
	for i := 1; i < 1000; i++ {
		p.join(1 / (1 + float64(i)/100))
		if w := p.wealth(); math.Abs(w-1) > 1e-9 {
			t.Fatalf("after %d ticks the stake is %g", i, w)
		}
	}
	if p.waiting > 0.25*0.1 || p.waiting <= 0 {
		t.Errorf("%g still waits", p.waiting)
	}
}

// What a rule knows about bursts, warm-ups, latency, late faults, blocks and releases without errors.
func TestComparisonInPractice(t *testing.T) {
	const hour = 240
	random := rand.New(rand.NewPCG(5, 6))
	flip := func(n int, p float64) int {
		k := 0
		for range n {
			if random.Float64() < p {
				k++
			}
		}
		return k
	}
	type moment struct {
		i    int
		tick *Tick
	}
	for name, c := range map[string]struct {
		options ComparisonOptions
		of      func(moment)
		want    Verdict
		from    int // the first tick that will do
		to      int // the last
		why     string
	}{
		"a tenth fails, with an hour before": {ComparisonOptions{}, func(m moment) {
			m.tick.Candidate.Errors = flip(100, 0.1)
		}, Fail, 1, 2, "less than once in"},
		"three times the errors while it warms up": {ComparisonOptions{WarmUp: 20 * time.Second, Cold: 3.2}, func(m moment) {
			if m.i <= 20 {
				m.tick.Candidate.Errors = flip(100, 0.03)
			}
		}, Pass, 100, 300, ""},
		"three times the errors and no warm-up": {ComparisonOptions{}, func(m moment) {
			m.tick.Candidate.Errors = flip(100, 0.03)
		}, Fail, 1, 20, ""},
		"bad from the second minute on": {ComparisonOptions{Bake: 10 * time.Minute}, func(m moment) {
			if m.i > 120 {
				m.tick.Candidate.Errors = flip(100, 0.2)
			}
		}, Fail, 121, 123, ""},
		"slower": {ComparisonOptions{}, func(m moment) {
			m.tick.Slower = []Pair{{Counts{100, flip(100, 0.3)}, Counts{900, flip(900, 0.1)}}}
		}, Fail, 1, 15, "it is slower"},
		"as fast": {ComparisonOptions{}, func(m moment) {
			m.tick.Slower = []Pair{{Counts{100, flip(100, 0.1)}, Counts{900, flip(900, 0.1)}}}
		}, Pass, 100, 300, ""},
		"no errors at all": {ComparisonOptions{Rate: 0.05}, func(m moment) {
			m.tick.Candidate.Errors, m.tick.Baseline.Errors = 0, 0
		}, Pass, 100, 100, "5 % of them"},
		"in blocks of ten": {ComparisonOptions{Block: 10 * time.Second}, func(m moment) {
			m.tick.Candidate.Errors = flip(100, 0.1)
		}, Fail, 10, 20, ""},
	} {
		o := c.options
		o.Harmless, o.Intolerable, o.Alpha, o.Beta = 1, 2.5, 0.01, 0.01
		if o.Bake == 0 {
			o.Bake = 100 * time.Second
		}
		r := NewComparison(o)
		v, i := Unknown, -hour
		for ; i < 600 && v == Unknown; i++ {
			tick := Tick{Elapsed: time.Duration(i) * time.Second, Baseline: Counts{900, flip(900, 0.01)}}
			if i > 0 {
				tick.Candidate = Counts{100, flip(100, 0.01)}
				c.of(moment{i, &tick})
			}
			v = r.Observe(tick)
		}
		fail, pass := r.Progress()
		if v != c.want || i-1 < c.from || i-1 > c.to || !strings.Contains(r.Reason(), c.why) || v == Fail && fail != 1 && !strings.Contains(r.Reason(), "half") || v == Pass && pass != 1 {
			t.Errorf("%s: %s at %d, want %s from %d to %d (%s; %g, %g)", name, v, i-1, c.want, c.from, c.to, r.Reason(), fail, pass)
		}
	}
}

// Two regions as strata: a shift of traffic between a good and a bad region is no evidence (Simpson's paradox), and two regions that are
// both worse add up.
func TestStrata(t *testing.T) {
	o := ComparisonOptions{Harmless: 1, Intolerable: 2.5, Alpha: 0.01, Beta: 0.01, Bake: time.Hour, Block: 2 * time.Second}
	regions := func(worse float64, ticks int) Verdict {
		r := NewComparison(o)
		v := Unknown
		for i := range ticks {
			at := time.Duration(i+1) * time.Second
			// The candidate has most of its traffic where errors are common.
			for _, t := range []Tick{{Region: "eu", Elapsed: at, Candidate: Counts{900, int(90 * worse)}, Baseline: Counts{100, 10}},
				{Region: "cn", Elapsed: at, Candidate: Counts{100, int(worse)}, Baseline: Counts{900, 9}}} {
				v = r.Observe(t)
			}
		}
		return v
	}
	if v := regions(1, 60); v != Unknown {
		t.Errorf("as good in both regions: %s", v)
	}
	if v := regions(2, 60); v != Fail {
		t.Errorf("twice as bad in both regions: %s", v)
	}
}

// At a million requests a tick, and at none, nothing overflows.
func TestComparisonAtExtremes(t *testing.T) {
	for _, tick := range []Tick{
		{Candidate: Counts{1_000_000, 1_000_000}, Baseline: Counts{1_000_000, 0}},
		{Candidate: Counts{1_000_000, 500_000}, Baseline: Counts{1_000_000, 500_000}},
		{Candidate: Counts{1_000_000, 0}, Baseline: Counts{1_000_000, 1_000_000}},
		{Candidate: Counts{1, 1}, Baseline: Counts{1_000_000, 0}},
		{}, {Candidate: Counts{5, 5}}, {Baseline: Counts{5, 5}},
	} {
		for _, dispersion := range []float64{0, 1, 30} {
			r := NewComparison(ComparisonOptions{Harmless: 1, Intolerable: 2.5, Dispersion: dispersion, Alpha: 1e-200, Beta: 1e-200, Bake: time.Hour}).(*comparison)
			for i := range 20 {
				tick.Elapsed = time.Duration(i+1) * time.Second
				r.Observe(tick)
			}
			if c := r.certainty(); math.IsNaN(r.wealth) || math.IsNaN(c) || math.IsInf(r.wealth, 1) || math.IsInf(c, 1) {
				t.Errorf("%+v at %g: %g, %g", tick, dispersion, r.wealth, c)
			}
		}
	}
}

func BenchmarkComparisonTick(b *testing.B) {
	r := NewComparison(ComparisonOptions{Harmless: 1, Intolerable: 2.5, Dispersion: 1, Alpha: 1e-300, Beta: 1e-300, Bake: time.Hour})
	t := Tick{Candidate: Counts{100, 1}, Baseline: Counts{900, 9}}
	b.ReportAllocs()
	for b.Loop() {
		r.Observe(t)
	}
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(20*time.Microsecond), "of-20-µs")
}
