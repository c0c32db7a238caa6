package verdict

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// flip is how many of n requests fail at a rate.
func flip(random *rand.Rand, n int, rate float64) int {
	k := 0
	for range n {
		if random.Float64() < rate {
			k++
		}
	}
	return k
}

// options are those of these tests; none of the releases has a warm-up unless it says so.
func options(bake time.Duration) Options {
	return Options{Ratio: 2.5, Objective: 0.01, Negligible: 0.001, Harmless: 1, Alpha: 0.01, Beta: 0.01, Bake: bake}
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

// While the null is true, the mean of each bet's factor is 1: summed over all that can happen in a tick, at the null ratio; and at a ratio
// below it is less.
func TestBetsAreFair(t *testing.T) {
	const errors = 9
	for _, null := range []float64{1, 1.25, 3} {
		for _, traffic := range []Pair{{Counts{10, 0}, Counts{90, 0}}, {Counts{500, 0}, Counts{20, 0}}} {
			for _, below := range []float64{1, 0.5} {
				n, m := float64(traffic.Candidate.Requests)*null*below, float64(traffic.Baseline.Requests)
				bets := worse(1)
				mean := make([]float64, len(bets))
				for k := range errors + 1 {
					p := traffic
					p.Candidate.Errors, p.Baseline.Errors = k, errors-k
					for i, log := range bets.against(null, p) {
						mean[i] += binomial(errors, k, n/(n+m)) * math.Exp(log)
					}
				}
				for i, got := range mean {
					if below == 1 && math.Abs(got-1) > 1e-9 || got > 1+1e-9 || below < 1 && bets[i].ratio > 1.1*null && got > 0.999 {
						t.Errorf("null %g, %+v, ratio %.2f at %g: the mean is %g", null, traffic, bets[i].ratio, below, got)
					}
				}
			}
		}
	}
}

// A block's likelihood at a spread of ratios is fair as well, at any ratio that is spread as the null says.
func TestWanderingIsFair(t *testing.T) {
	const errors = 6
	p := Pair{Counts{50, 0}, Counts{80, 0}}
	at, variance := 20*time.Second, 0.7
	bets := worse(1)
	mean := make([]float64, len(bets))
	spread := wanderings[0].spread(at, variance)
	for k := range errors + 1 {
		c, b := Counts{50, k}, Counts{80, errors - k}
		w := newWander(wanderings[0], bets)
		w.add(Pair{c, b})
		likely, weights := 0.0, 0.0
		for j := range gridSteps {
			x := gridFrom + gridStep*float64(j)
			weight := math.Exp(-x * x / 2 / spread / spread)
			n, m := float64(p.Candidate.Requests)*math.Exp(x), float64(p.Baseline.Requests)
			likely, weights = likely+weight*binomial(errors, k, n/(n+m)), weights+weight
		}
		for i, e := range w.values(at, 1, variance) {
			mean[i] += e * likely / weights
		}
	}
	for i, got := range mean {
		if math.Abs(got-1) > 1e-9 {
			t.Errorf("ratio %.2f: the mean is %g", bets[i].ratio, got)
		}
	}
}

// A stake that joins late keeps the mean: whatever ticks come, wealth stays 1 while they say nothing, and the shares that join add up.
func TestLateStake(t *testing.T) {
	e, w := newEvents(worse(1).stakes()), newWander(wanderings[0], worse(1))
	for at := time.Second; at < time.Hour; at += time.Second {
		e.add(at, time.Second, make([]float64, len(e.stakes)), weather{event: 1, longer: true})
		if w.due(at) {
			w.closeBlock(at, 1, 1)
		}
		if got, other := e.wealth(weather{event: 3, longer: true}), w.wealth(at, 1, 1); math.Abs(got-1) > 1e-9 || math.Abs(other-1) > 1e-9 {
			t.Fatalf("after %s the stakes are %g and %g", at, got, other)
		}
	}
	if e.waiting.left > 0.25*0.15 || e.waiting.left <= 0 || w.waiting.left != e.waiting.left && w.waiting.left > 0.05 {
		t.Errorf("%g and %g still wait", e.waiting.left, w.waiting.left)
	}
}

// What hangs together is seen at the length at which it does, and not before.
func TestDispersion(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 7))
	series := func(seconds int, rate func(second int) float64) *dispersion {
		d := newDispersion(time.Second, false)
		for i := range seconds {
			d.add(0, time.Duration(i+1)*time.Second-time.Hour, Counts{200, flip(random, 200, rate(i))})
		}
		return d
	}
	steady := series(3600, func(int) float64 { return 0.02 })
	if size, longest := steady.size(); size > 1.2 || longest < 2*time.Minute {
		t.Errorf("errors one by one: events of %g, known up to %s", size, longest)
	}
	if w := steady.weather(); w.wander[0] > 0.1 || w.wander[1] > 0.1 {
		t.Errorf("a steady intensity may wander by %v", w.wander)
	}
	// A minute of three times the errors, now and then.
	slow := series(3600, func(i int) float64 {
		if i/60%7 == 3 {
			return 0.06
		}
		return 0.02
	})
	second, long := slow.scales[0].known(false), slow.scales[5].known(false)
	if second.estimate > 1.5 || long.estimate < 3 {
		t.Errorf("within a second %g, within %s %g", second.estimate, long.length, long.estimate)
	}
	if w := slow.weather(); w.event < 3 || w.wander[0] < 0.1 {
		t.Errorf("what hangs together for a minute: events of %g, wandering by %v", w.event, w.wander)
	}
	if w := newDispersion(time.Second, false).weather(); w.event != unknownEvent || w.wander[0] != wanderings[0].prior || w.longer {
		t.Errorf("nothing is known, and it is %+v", w)
	}
}

func TestComparison(t *testing.T) {
	for name, c := range map[string]struct {
		of   func(i int) (Counts, Counts)
		want Verdict
		from int // the first tick that will do
		to   int // the last
		why  string
	}{
		"all of it fails":      {func(int) (Counts, Counts) { return Counts{10, 10}, Counts{90, 0} }, Fail, 1, 3, "candidate"},
		"both are down":        {func(int) (Counts, Counts) { return Counts{10, 9}, Counts{90, 81} }, Unknown, 300, 300, ""},
		"as good as the other": {func(int) (Counts, Counts) { return Counts{50, 1}, Counts{450, 9} }, Pass, 60, 300, "would look this good"},
		"no baseline":          {func(int) (Counts, Counts) { return Counts{10, 0}, Counts{} }, Unknown, 300, 300, "no tick has requests of both"},
		"few requests":         {func(int) (Counts, Counts) { return Counts{2, 0}, Counts{18, 0} }, Unknown, 300, 300, "not enough to tell"},
		"no errors at all":     {func(int) (Counts, Counts) { return Counts{500, 0}, Counts{500, 0} }, Pass, 60, 300, "fails in 0.1 %"},
		"half of it from a minute": {func(i int) (Counts, Counts) {
			return Counts{20, 10 * min(1, i/60)}, Counts{180, 0}
		}, Fail, 60, 64, "half or more"},
	} {
		v, at, why := play(NewComparison(options(60*time.Second)), 300, c.of)
		if v != c.want || at < c.from || at > c.to || !strings.Contains(why, c.why) {
			t.Errorf("%s: %s at tick %d: %s", name, v, at, why)
		}
	}
}

// What a rule knows about an hour of history, warm-ups, latency and late faults.
func TestComparisonInPractice(t *testing.T) {
	type moment struct {
		i      int
		tick   *Tick
		random *rand.Rand
	}
	slow := func(m moment, rate float64) {
		p := Pair{Baseline: Counts{900, flip(m.random, 900, 0.1)}}
		if m.i > 0 {
			p.Candidate = Counts{100, flip(m.random, 100, rate)}
		}
		m.tick.Slower = []Pair{p}
	}
	for name, c := range map[string]struct {
		warmUp time.Duration
		of     func(moment)
		want   Verdict
		from   int // the first tick that will do
		to     int // the last
		why    string
	}{
		"a tenth fails": {0, func(m moment) {
			m.tick.Candidate.Errors = flip(m.random, m.tick.Candidate.Requests, 0.1)
		}, Fail, 1, 15, "less than once in"},
		"three times the errors while it warms up": {20 * time.Second, func(m moment) {
			if m.i > 0 && m.i <= 20 {
				m.tick.Candidate.Errors = flip(m.random, m.tick.Candidate.Requests, 0.03)
			}
		}, Pass, 100, 300, ""},
		"three times the errors and no warm-up": {0, func(m moment) {
			m.tick.Candidate.Errors = flip(m.random, m.tick.Candidate.Requests, 0.03)
		}, Fail, 1, 60, ""},
		"bad from the second minute on": {0, func(m moment) {
			if m.i > 90 {
				m.tick.Candidate.Errors = flip(m.random, 100, 0.2)
			}
		}, Fail, 91, 97, ""},
		"slower": {0, func(m moment) {
			slow(m, 0.3)
		}, Fail, 1, 60, "it is slower"},
		"as fast": {0, func(m moment) {
			slow(m, 0.1)
		}, Pass, 100, 300, ""},
	} {
		o := options(100 * time.Second)
		o.WarmUp = c.warmUp
		r := NewComparison(o)
		random := rand.New(rand.NewPCG(5, 6))
		v, i := Unknown, -3600
		for ; i < 600 && v == Unknown; i++ {
			tick := Tick{Elapsed: time.Duration(i) * time.Second, Baseline: Counts{900, flip(random, 900, 0.01)}}
			if i > 0 {
				tick.Candidate = Counts{100, flip(random, 100, 0.01)}
			}
			c.of(moment{i, &tick, random})
			v = r.Observe(tick)
		}
		fail, pass := r.Progress()
		if v != c.want || i-1 < c.from || i-1 > c.to || !strings.Contains(r.Reason(), c.why) || v == Fail && fail != 1 && !strings.Contains(r.Reason(), "half") || v == Pass && pass != 1 {
			t.Errorf("%s: %s at %d, want %s from %d to %d (%s; %g, %g)", name, v, i-1, c.want, c.from, c.to, r.Reason(), fail, pass)
		}
	}
}

// share is which part of so many runs of a release ends with a verdict. Each has minutes of ticks of 15 s, at 100 requests a second, a tenth of which
// the candidate gets.
func share(want Verdict, runs, minutes int, seconds func(random *rand.Rand) func(i int) (candidate, baseline float64)) float64 {
	random, hits := rand.New(rand.NewPCG(2, 9)), 0
	for range runs {
		o := options(time.Duration(minutes) * time.Minute / 2)
		o.Skew = 5 * time.Second
		r := NewComparison(o)
		rates := seconds(random)
		var t Tick
		for i := -1800; i <= minutes*60; i++ {
			c, b := rates(i)
			if i > 0 {
				t.add(Tick{Candidate: Counts{10, flip(random, 10, c)}, Baseline: Counts{90, flip(random, 90, b)}})
			} else {
				t.add(Tick{Baseline: Counts{100, flip(random, 100, b)}})
			}
			if i%15 != 0 {
				continue
			}
			t.Elapsed = time.Duration(i) * time.Second
			v := r.Observe(t)
			t = Tick{}
			if v == want {
				hits++
			}
			if v != Unknown {
				break
			}
		}
	}
	return float64(hits) / float64(runs)
}

// What hangs together for longer than a tick, on each side by itself or on both, fails no good release.
func TestComparisonInBadWeather(t *testing.T) {
	both := func(of func(i int) float64) func(*rand.Rand) func(int) (float64, float64) {
		return func(*rand.Rand) func(int) (float64, float64) {
			return func(i int) (float64, float64) { return of(i), of(i) }
		}
	}
	for name, law := range map[string]func(*rand.Rand) func(int) (float64, float64){
		"an incident of both": both(func(i int) float64 {
			if i > 300 && i < 420 {
				return 0.2
			}
			return 0.01
		}),
		"each side wanders for minutes": func(random *rand.Rand) func(int) (float64, float64) {
			keep, logs := math.Exp(-1./120), [2]float64{}
			return func(int) (float64, float64) {
				for n := range logs {
					logs[n] = keep*logs[n] + 0.5*math.Sqrt(1-keep*keep)*random.NormFloat64()
				}
				return 0.01 * math.Exp(logs[0]), 0.01 * math.Exp(logs[1])
			}
		},
		"a bad minute of each side now and then": func(random *rand.Rand) func(int) (float64, float64) {
			until := [2]int{-1 << 30, -1 << 30}
			return func(i int) (float64, float64) {
				var rate [2]float64
				for n := range rate {
					if i > until[n] && random.Float64() < 1./400 {
						until[n] = i + 60
					}
					rate[n] = 0.005
					if i < until[n] {
						rate[n] = 0.03
					}
				}
				return rate[0], rate[1]
			}
		},
	} {
		if got := share(Fail, 200, 15, law); got > 0.03 { // at 1 %, less than once in a hundred times
			t.Errorf("%s: %.1f %% of good releases are found bad", name, 100*got)
		}
	}
}

// A release at what a pass excludes never passes, with errors one by one or in bursts.
func TestPassMeansSomething(t *testing.T) {
	for _, burst := range []float64{1, 5} {
		law := func(random *rand.Rand) func(int) (float64, float64) {
			rate := func(mean float64) float64 { // all errors of a second in one of so many
				if random.Float64() < 1/burst {
					return min(1, mean*burst)
				}
				return 0
			}
			return func(int) (float64, float64) { return rate(0.013), rate(0.005) }
		}
		if got := share(Pass, 150, 30, law); got > 0.02 {
			t.Errorf("bursts of %g: %.1f %% of intolerable releases pass", burst, 100*got)
		}
	}
}

// Two scrapers that are out of step, and read more often than they scrape: a release that fails is found all the same.
func TestMisalignedScrapes(t *testing.T) {
	r := NewComparison(options(time.Hour))
	for at := 5 * time.Second; at <= 10*time.Minute; at += 5 * time.Second {
		tick := Tick{Elapsed: at}
		if at%(15*time.Second) == 0 {
			tick.Candidate = Counts{150, 150}
		}
		if at%(15*time.Second) == 5*time.Second {
			tick.Baseline = Counts{1350, 0}
		}
		if r.Observe(tick) == Fail {
			if at > 3*time.Minute {
				t.Errorf("found after %s", at)
			}
			return
		}
	}
	t.Errorf("not found: %s", r.Reason())
}

// An incident of both that begins while the split changes within a tick is no evidence.
func TestSplitChangesWithinATick(t *testing.T) {
	r := NewComparison(options(time.Hour))
	for i := 1; i <= 240; i++ {
		tick := Tick{Elapsed: time.Duration(i) * 15 * time.Second, Candidate: Counts{150, 1}, Baseline: Counts{1350, 9}}
		switch {
		case i == 40: // 10 % until the middle, then half of it, and from then on everything fails
			tick.Candidate, tick.Baseline = Counts{75 + 375, 375}, Counts{675 + 375, 375}
		case i > 40:
			tick.Candidate, tick.Baseline = Counts{750, 5}, Counts{750, 5}
		}
		if v := r.Observe(tick); v == Fail {
			t.Fatalf("%s: %s", tick.Elapsed, r.Reason())
		}
	}
	s := split{}
	for i, want := range []fitting{fits, fits, drop, drop, anew, fits} {
		tick := Tick{Elapsed: time.Duration(i) * 20 * time.Second, Candidate: Counts{100, 0}, Baseline: Counts{900, 0}}
		if i > 1 {
			tick.Candidate.Requests = 500
		}
		if got := s.fits(tick); got != want {
			t.Errorf("tick %d: %d, want %d", i, got, want)
		}
	}
}

// Two regions as strata: a shift of traffic between a good and a bad region is no evidence (Simpson's paradox), and two regions that are
// both worse add up.
func TestStrata(t *testing.T) {
	regions := func(worse float64, ticks int) Verdict {
		o := options(time.Hour)
		o.Size = 1
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

// At 10^16 requests a tick, and at none, nothing overflows, and nothing takes longer.
func TestComparisonAtExtremes(t *testing.T) {
	const many = 10_000_000_000_000_000
	for _, tick := range []Tick{
		{Candidate: Counts{many, many}, Baseline: Counts{many, 0}},
		{Candidate: Counts{many, many / 2}, Baseline: Counts{many, many / 2}},
		{Candidate: Counts{many, 0}, Baseline: Counts{many, many}},
		{Candidate: Counts{1, 1}, Baseline: Counts{many, 0}},
		{}, {Candidate: Counts{5, 5}}, {Baseline: Counts{5, 5}},
	} {
		for _, size := range []float64{0, 1, 30} {
			o := options(time.Hour)
			o.Size, o.Alpha, o.Beta, o.Skew = size, 1e-200, 1e-200, 5*time.Second
			r := NewComparison(o).(*comparison)
			for i := range 20 {
				tick.Elapsed = time.Duration(i+1) * time.Second
				r.Observe(tick)
			}
			if math.IsNaN(r.wealth) || math.IsNaN(r.certainty()) || math.IsInf(r.wealth, 1) || math.IsInf(r.certainty(), 1) {
				t.Errorf("%+v at %g: %g, %g", tick, size, r.wealth, r.certainty())
			}
		}
	}
}

func BenchmarkComparisonTick(b *testing.B) {
	for _, errors := range []int{1, 500_000_000} {
		b.Run(fmt.Sprint(errors, " errors"), func(b *testing.B) {
			r := NewComparison(Options{Alpha: 1e-300, Beta: 1e-300, Bake: time.Hour, Skew: 5 * time.Second})
			t := Tick{Candidate: Counts{100 * errors, errors}, Baseline: Counts{900 * errors, 9 * errors}}
			for b.Loop() {
				t.Elapsed += time.Second
				r.Observe(t)
			}
			b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(100*time.Microsecond), "of-100-µs")
		})
	}
}

// A candidate that gets another part of the requests than its weight has evidence that is none: no pass, with both numbers. A right split
// passes.
func TestSampleRatioMismatch(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, c := range []struct {
		got  float64
		want Verdict
		why  string
	}{
		{0.1, Pass, "would look this good"},
		{0.13, Unknown, "the release should get 10 % of the requests, and got "},
		{0.07, Unknown, "the release should get 10 % of the requests, and got "},
	} {
		o := options(time.Minute)
		o.Share = 0.1
		v, _, why := play(NewComparison(o), 200, func(int) (Counts, Counts) {
			n := flip(random, 5000, c.got)
			return Counts{n, 0}, Counts{5000 - n, 0}
		})
		if v != c.want || !strings.Contains(why, c.why) {
			t.Errorf("%g of the requests: %s: %s", c.got, v, why)
		}
	}
	if alarms := func() (n int) {
		for range 2000 {
			c := flip(random, 2000, 0.1)
			if mismatch(Counts{c, 0}, Counts{2000 - c, 0}, 0.1) != "" {
				n++
			}
		}
		return n
	}(); alarms > 8 {
		t.Errorf("%d of 2000 right splits are wrong", alarms)
	}
}
