// Package replay declares the command that runs a rule over recorded ticks.
package replay

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/step"
	"github.com/backstep/backstep/internal/verdict"
	"github.com/backstep/backstep/internal/verdict/ticks"
)

// options are what a rule is made of.
type options struct {
	bake, warmUp                  time.Duration
	objective, alpha, beta        float64
	harmless, intolerable, bursts float64
}

// comparison is the comparison, and standard the objective, of the options.
func (o options) comparison() verdict.ComparisonOptions {
	return verdict.ComparisonOptions{Harmless: o.harmless, Intolerable: o.intolerable, Rate: min(5*o.objective, 0.9),
		WarmUp: o.warmUp, Cold: verdict.Cold, Dispersion: o.bursts, Alpha: o.alpha, Beta: o.beta, Bake: o.bake}
}

func (o options) standard() verdict.ObjectiveOptions {
	return verdict.ObjectiveOptions{Objective: o.objective, Intolerable: min(5*o.objective, 0.9),
		Alpha: o.alpha, Beta: o.beta, Bake: o.bake, Patience: o.bake, Tick: time.Second}
}

// rules are the rules that there are, in the order of the help.
var rules = []struct {
	name string
	make func(options) verdict.Rule
}{
	{"comparison", func(o options) verdict.Rule { return verdict.NewComparison(o.comparison()) }},
	{"objective", func(o options) verdict.Rule { return verdict.NewObjective(o.standard()) }},
	{"probed", func(o options) verdict.Rule { return verdict.NewProbed(o.comparison(), o.standard()) }},
	{"argo", func(options) verdict.Rule { return verdict.Argo() }},
	{"flagger", func(options) verdict.Rule { return verdict.Flagger() }},
	{"kayenta", func(options) verdict.Rule { return verdict.Kayenta() }},
}

// Step declares verdict.
func Step() step.Step {
	var do, file, rule string
	var o options
	var names []string
	for _, r := range rules {
		names = append(names, r.name)
	}
	ratio := func(p *float64, name, help string) input.Input {
		return input.Bind(p, name, help, func(s string) (float64, error) {
			f, err := strconv.ParseFloat(s, 64)
			if err != nil || !(f >= 1) || math.IsInf(f, 0) {
				return 0, fmt.Errorf("%q: want a number from 1 upwards", s)
			}
			return f, nil
		})
	}
	return step.Step{
		Name: "verdict", Words: []string{"do", "file"}, Operator: true,
		Summary: "Run a rule over recorded ticks, to compare rules on your own traffic",
		Doc: "`backstep verdict replay ticks.csv --rule comparison` reads a CSV with the header " +
			"`series,tick,seconds,candidate_requests,candidate_errors,baseline_requests,baseline_errors`, " +
			"the ticks of a series one after the other, and prints `series,verdict,tick,seconds,reason`, one line a series. Further columns may count the requests that took " +
			"longer than a bound, in seconds: `candidate_over_0.25` and `baseline_over_0.25`; others are let pass. A column `region` says that a series has several: each is compared within itself. The ticks before " +
			"the candidate's first request are those before the release: they tell how many errors come together. The rules `argo`, " +
			"`flagger` and `kayenta` are the documented examples of those systems. `backstep verify --record FILE` writes such a file.",
		Inputs: []input.Input{
			input.String(&do, "do", "What to do with the ticks.").Must().OneOf("replay"),
			input.String(&file, "file", "The CSV file, or - for the standard input.").Must(),
			input.String(&rule, "rule", "The rule.").OneOf(names...).Or(names[0]),
			input.Duration(&o.bake, "bake", "No pass before it is over.").Or("1m"),
			input.Share(&o.objective, "objective", "objective: the error rate that a good release stays under.").Or("1%"),
			ratio(&o.harmless, "harmless", "comparison: the odds ratio of an error that a good release stays under.").Or("1"),
			ratio(&o.intolerable, "intolerable", "comparison: the odds ratio that a pass has to exclude.").Or("2.5"),
			ratio(&o.bursts, "dispersion", "comparison: how many errors come together in a tick; what the ticks of the baseline say when it is left out."),
			input.Span(&o.warmUp, "warm-up", "comparison: how long a good release may have up to three times the errors, with cold caches.").Or("1m"),
			input.Share(&o.alpha, "alpha", "At most this share of good releases gets the verdict fail.").Or("1%"),
			input.Share(&o.beta, "beta", "At most this share of intolerable releases gets the verdict pass.").Or("1%"),
		},
		Run: func(_ context.Context, rt *step.Runtime) error {
			var in io.Reader = os.Stdin
			if file != "-" {
				f, err := os.Open(file)
				if err != nil {
					return fault.Inputf("%w", err)
				}
				defer f.Close()
				in = f
			}
			fresh := rules[slices.Index(names, rule)].make // one of the options above
			return replay(in, rt.Stdout, file, func() verdict.Rule { return fresh(o) })
		},
	}
}

// series is where a rule stands with one series.
type series struct {
	name    string
	rule    verdict.Rule
	said    verdict.Verdict
	tick    string
	seconds float64
	begun   bool          // the candidate has had requests
	before  time.Duration // how late the file's clock is: where the last tick without a candidate ended
}

// replay runs a fresh rule over each series. The ticks before the candidate's first request are those before the release.
func replay(in io.Reader, out io.Writer, place string, fresh func() verdict.Rule) error {
	from, err := ticks.NewReader(in)
	if err != nil {
		return fault.Inputf("%w", err).At(place)
	}
	results := csv.NewWriter(out)
	write := func(fields ...string) { _ = results.Write(fields) } // its error comes with Flush
	write("series", "verdict", "tick", "seconds", "reason")
	var now series
	tell := func() {
		if now.rule != nil {
			write(now.name, now.said.String(), now.tick, strconv.FormatFloat(now.seconds, 'f', -1, 64), now.rule.Reason())
		}
	}
	for {
		l, err := from.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fault.Inputf("%w", err).At(place)
		}
		if now.rule == nil || l.Series != now.name {
			tell()
			now = series{name: l.Series, rule: fresh()}
		}
		if now.said != verdict.Unknown {
			continue
		}
		now.tick, now.seconds = l.Name, l.Seconds
		switch {
		case now.begun:
			l.Elapsed -= now.before
		case l.Candidate.Requests > 0:
			now.begun = true
			l.Elapsed -= now.before
		default:
			now.before = max(0, l.Elapsed)
			l.Elapsed = min(0, l.Elapsed)
		}
		now.said = now.rule.Observe(l.Tick)
	}
	tell()
	results.Flush()
	return results.Error()
}
