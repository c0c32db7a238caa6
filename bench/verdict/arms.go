package main

import (
	"math"
	"time"

	"github.com/backstep/backstep/internal/verdict"
)

// arm is a rule as it ships, and with the knob that its false alarms are set with.
type arm struct {
	name    string
	shipped func() verdict.Rule
	knob    func(k float64) verdict.Rule // the larger k, the fewer false alarms
	low     float64                      // the ends of the knob
	high    float64
	preset  bool // people run it today
	blind   bool // it sees nothing from before the deploy
}

// ours is the comparison with the protocol's null, a ratio of 1.
func ours(o verdict.Options) verdict.Rule {
	o.Harmless, o.Ratio, o.Objective, o.Negligible, o.Beta, o.Bake = 1, 2.5, 0.01, 0.001, 0.01, horizon
	return verdict.NewComparison(o)
}

// What verify allows a release that warms up, and what replay allows two sides that are read apart.
const (
	warmUp = time.Minute
	cold   = 3
	skew   = 5 * time.Second
)

func warm(alpha float64) verdict.Options {
	return verdict.Options{Alpha: alpha, WarmUp: warmUp, Skew: skew}
}

var arms = []arm{
	{name: "comparison", shipped: func() verdict.Rule { return ours(warm(0.01)) },
		knob: func(k float64) verdict.Rule { return ours(warm(math.Exp(-k))) }, low: 1, high: 12},
	{name: "comparison, no warm-up", shipped: func() verdict.Rule { return ours(verdict.Options{Alpha: 0.01}) },
		knob: func(k float64) verdict.Rule { return ours(verdict.Options{Alpha: math.Exp(-k)}) }, low: 1, high: 12},
	{name: "comparison, no history", shipped: func() verdict.Rule { return ours(warm(0.01)) },
		knob: func(k float64) verdict.Rule { return ours(warm(math.Exp(-k))) }, low: 1, high: 12, blind: true},
	{name: "argo", shipped: verdict.Argo, knob: func(k float64) verdict.Rule {
		return verdict.NewThreshold(verdict.ThresholdOptions{Interval: 5 * time.Minute, Limit: k, Failures: 3, Checks: 1e9})
	}, high: 1, preset: true},
	// Calibrated, this is a threshold that somebody has set who knows the error rate.
	{name: "argo, 1m and limit 0", shipped: func() verdict.Rule {
		return verdict.NewThreshold(verdict.ThresholdOptions{Interval: time.Minute, Limit: 0.05, Checks: 1e9})
	}, knob: func(k float64) verdict.Rule {
		return verdict.NewThreshold(verdict.ThresholdOptions{Interval: time.Minute, Limit: k, Checks: 1e9})
	}, high: 1},
	{name: "flagger", shipped: verdict.Flagger, knob: func(k float64) verdict.Rule {
		return verdict.NewThreshold(verdict.ThresholdOptions{Interval: time.Minute, Limit: k, Failures: 9, Late: true, Checks: 1e9})
	}, high: 1, preset: true},
	{name: "kayenta", shipped: verdict.Kayenta, knob: func(k float64) verdict.Rule {
		return verdict.NewMannWhitney(verdict.MannWhitneyOptions{Interval: time.Minute, Confidence: k, Tolerance: 0.25, Least: 5,
			Every: 5 * time.Minute, End: horizon})
	}, low: 0.5, high: 0.99999, preset: true},
	{name: "naive z", shipped: func() verdict.Rule { return &naive{limit: 2.326} },
		knob: func(k float64) verdict.Rule { return &naive{limit: k} }, low: 1, high: 20},
}

// naive is the two-proportion z test at each tick: what people who know one look's test write.
type naive struct {
	limit   float64
	c, b    verdict.Counts
	verdict verdict.Verdict
}

func (r *naive) Observe(t verdict.Tick) verdict.Verdict {
	if t.Elapsed <= 0 || r.verdict != verdict.Unknown {
		return r.verdict
	}
	r.c, r.b = r.c.Add(t.Candidate), r.b.Add(t.Baseline)
	n, m := float64(r.c.Requests), float64(r.b.Requests)
	p := float64(r.c.Errors+r.b.Errors) / (n + m)
	if z := (float64(r.c.Errors)/n - float64(r.b.Errors)/m) / math.Sqrt(p*(1-p)*(1/n+1/m)); z > r.limit {
		r.verdict = verdict.Fail
	}
	return r.verdict
}

func (r *naive) Reason() string               { return "z" }
func (r *naive) Progress() (float64, float64) { return 0, 0 }
