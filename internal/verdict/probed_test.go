package verdict

import (
	"math/rand/v2"
	"testing"
	"time"
)

// The checks of these tests: ten a second of each side, read every 50 ms, for three minutes, with the options that verify has by default.
const (
	checkEvery = 100 * time.Millisecond
	readEvery  = 50 * time.Millisecond
	watchedFor = 3 * time.Minute
)

func defaultProbed() Rule {
	const alpha, beta = 0.009, 0.01
	return NewProbed(Options{Ratio: 2.5, Objective: 0.01, Negligible: 0.01, Intolerable: 0.02, Harmless: 1, WarmUp: time.Minute,
		Alpha: alpha, Beta: beta, Bake: watchedFor})
}

// law says how likely a check of each side fails at a time.
type law func(at time.Duration, r *rand.Rand) (candidate, baseline float64)

// judged runs a rule over one deploy of the law: the verdict, and when it came.
func judged(seed uint64, l law) (Verdict, time.Duration) {
	r := rand.New(rand.NewPCG(seed, 11))
	rule := defaultProbed()
	check := func(p float64) Counts {
		if r.Float64() < p {
			return Counts{1, 1}
		}
		return Counts{1, 0}
	}
	for at := readEvery; at <= watchedFor; at += readEvery {
		t := Tick{Elapsed: at}
		if at%checkEvery == 0 {
			c, b := l(at, r)
			t.Candidate, t.Baseline = check(c), check(b)
		}
		if v := rule.Observe(t); v != Unknown {
			return v, at
		}
	}
	return Unknown, watchedFor
}

// silent is 1 within the silence that begins at start.
func silent(at, start, length time.Duration) float64 {
	if at >= start && at < start+length {
		return 1
	}
	return 0
}

// A good release is one that does as the one before it does.
func TestProbedLeavesGoodReleasesAlone(t *testing.T) {
	natural := func(p float64) law {
		return func(time.Duration, *rand.Rand) (float64, float64) { return p, p }
	}
	blips := func(length, apart time.Duration) func(seed uint64) law {
		return func(seed uint64) law {
			first := time.Duration(rand.New(rand.NewPCG(seed, 3)).Int64N(int64(apart)))
			return func(at time.Duration, _ *rand.Rand) (float64, float64) {
				return silent((at+apart-first)%apart, 0, length), 0
			}
		}
	}
	same := func(l law) func(uint64) law { return func(uint64) law { return l } }
	for name, l := range map[string]func(seed uint64) law{
		"no errors":                      same(natural(0)),
		"a natural rate of 1 %":          same(natural(0.01)),
		"a natural rate of 2 %":          same(natural(0.02)),
		"a natural rate of 5 %":          same(natural(0.05)),
		"a natural rate of 20 %":         same(natural(0.2)),
		"a silence of 300 ms a minute":   blips(300*time.Millisecond, time.Minute),
		"a silence of a second a minute": blips(time.Second, time.Minute),
		"a dependency down for ten seconds": same(func(at time.Duration, _ *rand.Rand) (float64, float64) {
			p := silent(at, 20*time.Second, 10*time.Second)
			return p, p
		}),
		"a dependency half down": same(func(at time.Duration, _ *rand.Rand) (float64, float64) {
			p := silent(at, 20*time.Second, time.Minute) / 2
			return p, p
		}),
		"bursts of both sides for themselves": func(seed uint64) law {
			// Each side is worse for two seconds now and then.
			var until [2]time.Duration
			return func(at time.Duration, r *rand.Rand) (float64, float64) {
				var p [2]float64
				for i := range p {
					if at >= until[i] && r.Float64() < 0.002 {
						until[i] = at + 2*time.Second
					}
					if at < until[i] {
						p[i] = 0.3
					}
				}
				return p[0], p[1]
			}
		},
	} {
		const runs = 1000
		alarms := 0
		for seed := range uint64(runs) {
			if v, _ := judged(seed, l(seed)); v == Fail {
				alarms++
			}
		}
		if float64(alarms) > 0.015*runs {
			t.Errorf("%s: %d of %d good releases were found bad", name, alarms, runs)
		}
	}
}

// What is plain is found fast, and what is worse within the time that it takes to tell.
func TestProbedFindsBadReleases(t *testing.T) {
	from := func(start time.Duration, p, base float64) law {
		return func(at time.Duration, _ *rand.Rand) (float64, float64) {
			if at < start {
				return base, base
			}
			return p, base
		}
	}
	for name, c := range map[string]struct {
		law    law
		start  time.Duration
		within time.Duration // from then on, in nine of ten runs
	}{
		"never a success":            {from(0, 1, 0), 0, 350 * time.Millisecond},
		"fails after a minute":       {from(time.Minute, 1, 0), time.Minute, 2100 * time.Millisecond},
		"fails, and 2 % are natural": {from(30*time.Second, 1, 0.02), 30 * time.Second, 2100 * time.Millisecond},
		"half of it fails":           {from(30*time.Second, 0.5, 0), 30 * time.Second, 10 * time.Second},
		"a fifth of it fails":        {from(70*time.Second, 0.2, 0), 70 * time.Second, 60 * time.Second},
		"a tenth of it fails":        {from(0, 0.1, 0), 0, 2 * time.Minute},
	} {
		const runs = 200
		late := 0
		for seed := range uint64(runs) {
			v, at := judged(seed, c.law)
			if v != Fail || at > c.start+c.within {
				late++
			}
			if v == Fail && at < c.start {
				t.Fatalf("%s: found %s before it began", name, c.start-at)
			}
		}
		if late > runs/10 {
			t.Errorf("%s: %d of %d were not found within %s", name, late, runs, c.within)
		}
	}
}

// While the release before it is not there, the objective judges; and what was compared once is passed by the comparison only.
func TestProbedAlone(t *testing.T) {
	rule := defaultProbed()
	for at := checkEvery; at <= watchedFor; at += checkEvery {
		rule.Observe(Tick{Elapsed: at, Candidate: Counts{1, 0}})
	}
	if v := rule.Observe(Tick{Elapsed: watchedFor + time.Second}); v != Pass {
		t.Errorf("alone and well: %v, %s", v, rule.Reason())
	}
	rule = defaultProbed()
	rule.Observe(Tick{Elapsed: time.Second, Candidate: Counts{1, 0}, Baseline: Counts{1, 0}})
	for at := 2 * time.Second; at <= 15*time.Second; at += checkEvery {
		rule.Observe(Tick{Elapsed: at, Candidate: Counts{1, 1}})
	}
	if v := rule.Observe(Tick{Elapsed: 16 * time.Second}); v != Fail {
		t.Errorf("it fails since the other one is gone: %v, %s", v, rule.Reason())
	}
}

// What stops answering is found at any rate of checks, and a side that vanishes or comes late costs no verdict.
func TestProbedAtAnyRate(t *testing.T) {
	run := func(every, until time.Duration, tick func(at time.Duration) (c, b Counts)) (Verdict, time.Duration, Rule) {
		rule := defaultProbed()
		for at := readEvery; at <= until; at += readEvery {
			now := Tick{Elapsed: at}
			if at%every == 0 {
				now.Candidate, now.Baseline = tick(at)
			}
			if v := rule.Observe(now); v == Fail {
				return v, at, rule
			}
		}
		return rule.Observe(Tick{Elapsed: until + readEvery}), until, rule
	}
	well := Counts{1, 0}
	for _, every := range []time.Duration{100 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 10 * time.Second} {
		v, at, rule := run(every, 10*time.Minute, func(at time.Duration) (Counts, Counts) {
			if at < 20*time.Second {
				return well, well
			}
			return Counts{1, 1}, well
		})
		if limit := 20*time.Second + max(2100*time.Millisecond, 5*every); v != Fail || at > limit {
			t.Errorf("a check every %s: %v after %s, want a fail within %s: %s", every, v, at, limit, rule.Reason())
		}
	}
	// Both fail, and the other one is taken away as the target finds it unwell.
	v, at, rule := run(checkEvery, watchedFor, func(at time.Duration) (Counts, Counts) {
		down := at > 20*time.Second && at < 28*time.Second
		switch {
		case down && at > 20250*time.Millisecond:
			return Counts{1, 1}, Counts{}
		case down:
			return Counts{1, 1}, Counts{1, 1}
		}
		return well, well
	})
	if v == Fail && at < 22500*time.Millisecond {
		t.Errorf("both were down: %v after %s: %s", v, at, rule.Reason())
	}
	for name, there := range map[string]func(at time.Duration) bool{
		"it vanishes": func(at time.Duration) bool { return at < watchedFor/2 },
		"it comes for a moment": func(at time.Duration) bool {
			return at > watchedFor-time.Second && at < watchedFor-800*time.Millisecond
		},
	} {
		v, _, rule := run(checkEvery, watchedFor+2*apartProbed, func(at time.Duration) (Counts, Counts) {
			if there(at) {
				return well, well
			}
			return well, Counts{}
		})
		if v != Pass {
			t.Errorf("%s: %v: %s", name, v, rule.Reason())
		}
	}
	// After a pass the evidence goes on.
	rule = defaultProbed()
	for at := checkEvery; at <= watchedFor+10*time.Second; at += checkEvery {
		c := well
		if at > watchedFor+time.Second {
			c = Counts{1, 1}
		}
		v = rule.Observe(Tick{Elapsed: at, Candidate: c, Baseline: well})
	}
	if v != Fail {
		t.Errorf("it failed after the pass: %v", v)
	}
}

// At a hundred checks a second a blip right at the start is many checks, and no release that never answers.
func TestProbedBlipAtTheStart(t *testing.T) {
	for blip, want := range map[time.Duration]Verdict{150 * time.Millisecond: Unknown, time.Minute: Fail} {
		rule, v := defaultProbed(), Unknown
		at := 10 * time.Millisecond
		for ; at <= time.Second && v == Unknown; at += 10 * time.Millisecond {
			c := Counts{1, 0}
			if at <= blip {
				c.Errors = 1
			}
			v = rule.Observe(Tick{Elapsed: at, Candidate: c, Baseline: Counts{1, 0}})
		}
		if v != want || v == Fail && at > 250*time.Millisecond {
			t.Errorf("bad for %s: %s at %s", blip, v, at)
		}
	}
}
