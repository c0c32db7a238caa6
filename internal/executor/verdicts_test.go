package executor

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/config"
	"github.com/backstep/backstep/internal/verdict"
)

// behaviour is how a release and the one before it answer a check at a time after verify has begun, in one run with a phase of its own from 0 to 1.
type behaviour func(at time.Duration, phase float64) (fresh, old float64)

// within is 1 for a time, and else 0.
func within(at, from, length time.Duration) float64 {
	if at >= from && at < from+length {
		return 1
	}
	return 0
}

// judgedLive deploys a release beside a good one and verifies it in real time, with checks 50 times a second.
func judgedLive(t *testing.T, b behaviour, phase float64, seed uint64) (Verification, time.Duration) {
	p := newPlace(t)
	p.good("1.0.0")
	p.must(p.deploy("1.1.0"))
	var mu sync.Mutex
	random, begin := rand.New(rand.NewPCG(seed, 5)), time.Now()
	side := func(fresh bool) func(context.Context) bool {
		return func(context.Context) bool {
			rate, old := b(time.Since(begin), phase)
			if !fresh {
				rate = old
			}
			mu.Lock()
			defer mu.Unlock()
			return random.Float64() >= rate
		}
	}
	p.answers("1.1.0", side(true))
	p.answers("1.0.0", side(false))
	x := p.run()
	x.Config.Verify = config.Verify{Bake: 15 * time.Second, Patience: 45 * time.Second, WarmUp: time.Minute, Objective: 0.01, Intolerable: 0.02, Negligible: 0.05,
		Alpha: 0.01, Beta: 0.01, Harmless: 1, Probes: []config.ProbeConfig{{Name: "http", Every: 20 * time.Millisecond, Timeout: time.Second, Probe: p}}}
	v, err := x.Verify(t.Context(), rollsBack)
	if err != nil {
		t.Fatal(err)
	}
	return v, time.Since(begin)
}

// Good releases in bad weather, twenty of each, none of which is taken back; and bad ones, all of which are found. The log has the seconds.
func TestE2EVerdicts(t *testing.T) {
	if os.Getenv("BACKSTEP_E2E") == "" {
		t.Skip("it takes a minute: BACKSTEP_E2E=1")
	}
	var all sync.WaitGroup
	defer all.Wait()
	same := func(rate float64) behaviour {
		return func(time.Duration, float64) (float64, float64) { return rate, rate }
	}
	bad := func(from time.Duration, rate float64) behaviour {
		return func(at time.Duration, _ float64) (float64, float64) {
			if at < from {
				return 0, 0
			}
			return rate, 0
		}
	}
	for _, c := range []struct {
		name string
		runs int
		want verdict.Verdict // Unknown is anything but a fail
		b    behaviour
	}{
		{"the same program", 20, verdict.Pass, same(0)},
		{"2 % of the checks fail by nature", 20, verdict.Unknown, same(0.02)},
		{"a blip of 300 ms every ten seconds", 20, verdict.Unknown, func(at time.Duration, phase float64) (float64, float64) {
			return within(at%(10*time.Second), time.Second+time.Duration(phase*float64(8*time.Second)), 300*time.Millisecond), 0
		}},
		{"silent for a second", 20, verdict.Unknown, func(at time.Duration, phase float64) (float64, float64) {
			return within(at, time.Second+time.Duration(phase*float64(10*time.Second)), time.Second), 0
		}},
		{"a dependency of both is down for ten seconds", 20, verdict.Unknown, func(at time.Duration, phase float64) (float64, float64) {
			down := within(at, time.Duration(phase*float64(5*time.Second)), 10*time.Second)
			return down, down
		}},
		{"it never answers well", 5, verdict.Fail, bad(0, 1)},
		{"it fails after five seconds", 5, verdict.Fail, bad(5*time.Second, 1)},
		{"half of it fails", 5, verdict.Fail, bad(0, 0.5)},
		{"one endpoint of ten fails", 5, verdict.Fail, bad(0, 0.1)},
		{"it leaks, and fails more and more", 5, verdict.Fail, func(at time.Duration, _ float64) (float64, float64) { return min(1, at.Seconds()/30), 0 }},
	} {
		for i := range c.runs {
			// All at once, whatever -parallel says: they wait, and hardly work.
			all.Go(func() {
				t.Run(fmt.Sprint(c.name, " ", i+1), func(t *testing.T) {
					got, took := judgedLive(t, c.b, float64(i)/float64(c.runs), uint64(i))
					switch said := got.Evidence.Verdict; {
					case c.want == verdict.Unknown && said == verdict.Fail, c.want != verdict.Unknown && said != c.want:
						t.Errorf("%s after %.1f s: %s", said, took.Seconds(), got.Evidence.Reason)
					default:
						t.Logf("%s after %.1f s: %s", said, took.Seconds(), got.Evidence.Reason)
					}
				})
			})
		}
	}
}
