package executor

import (
	"time"

	"github.com/backstep/backstep/internal/verdict"
)

// Forecast is what a verify can know in its time, of one source of evidence.
type Forecast struct {
	Source      string          `json:"source"`
	Candidate   float64         `json:"candidate"` // requests, or checks, a second
	Baseline    float64         `json:"baseline"`  // likewise; 0 is nobody to compare with
	Pass, Late  time.Duration   `json:"-"`         // usually, and for 95 of 100 good releases
	PassSeconds float64         `json:"pass_seconds"`
	LateSeconds float64         `json:"late_seconds"`
	Enough      bool            `json:"enough"` // the bake and the patience are as long as Late
	Finds       []Finding       `json:"finds"`
	Bounds      verdict.Options `json:"bounds"`
}

// Finding is how long it usually takes to find a release with so many times the errors.
type Finding struct {
	Times   float64       `json:"times"`
	Takes   time.Duration `json:"-"`
	Seconds float64       `json:"seconds"`
}

// forecastTimes are how many times the errors are told of.
var forecastTimes = []float64{2, 4, 10}

// Forecast says what verify can know of a release that has this error rate by nature, beside the one before it: by the checks, and by
// the meters when customers make so many requests a second of both. A share is what the release gets of those, from 0 to 1.
func (x *Executor) Forecast(traffic, share, errors float64) []Forecast {
	v := x.Config.Verify
	b := baking{duration: v.Bake, patience: v.Patience}
	checks, meters := 0.0, 0
	for _, p := range v.Probes {
		switch {
		case p.Meter != nil:
			meters++
		case p.Err == nil:
			checks += 1 / p.Every.Seconds()
		}
	}
	sources := meters
	if checks > 0 {
		sources++
	}
	alpha := x.alphaOfVerify() / float64(max(1, sources))
	var all []Forecast
	if checks > 0 {
		all = append(all, x.forecast("checks", verdict.ForChecks(x.ruleOptions(b, negligibleOfChecks, alpha)), verdict.Traffic{Candidate: checks, Baseline: checks, Errors: errors}))
	}
	if traffic > 0 && meters > 0 {
		all = append(all, x.forecast("customers", x.ruleOptions(b, negligibleOfCustomers, alpha),
			verdict.Traffic{Candidate: share * traffic, Baseline: (1 - share) * traffic, Errors: errors}))
	}
	return all
}

func (x *Executor) forecast(source string, o verdict.Options, t verdict.Traffic) Forecast {
	f := Forecast{Source: source, Candidate: t.Candidate, Baseline: t.Baseline, Bounds: o}
	f.Pass, f.Late = o.Passing(t)
	f.PassSeconds, f.LateSeconds = f.Pass.Seconds(), f.Late.Seconds()
	f.Enough = f.Late <= x.Config.Verify.Bake+x.Config.Verify.Patience
	for _, times := range forecastTimes {
		takes := o.Finding(t, times)
		f.Finds = append(f.Finds, Finding{times, takes, takes.Seconds()})
	}
	return f
}
