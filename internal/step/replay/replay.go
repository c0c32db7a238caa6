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
)

// header is the first line of a file of ticks; further columns are let pass.
var header = []string{"series", "tick", "seconds", "candidate_requests", "candidate_errors", "baseline_requests", "baseline_errors"}

// options are what a rule is made of.
type options struct {
	bake                          time.Duration
	objective, alpha, beta        float64
	harmless, intolerable, bursts float64
}

// rules are the rules that there are, in the order of the help.
var rules = []struct {
	name string
	make func(options) verdict.Rule
}{
	{"comparison", func(o options) verdict.Rule {
		return verdict.NewComparison(verdict.ComparisonOptions{Harmless: o.harmless, Intolerable: o.intolerable, Dispersion: o.bursts,
			Alpha: o.alpha, Beta: o.beta, Bake: o.bake})
	}},
	{"objective", func(o options) verdict.Rule {
		return verdict.NewObjective(verdict.ObjectiveOptions{Objective: o.objective, Intolerable: min(5*o.objective, 0.9),
			Alpha: o.alpha, Beta: o.beta, Bake: o.bake, Patience: o.bake, Tick: time.Second})
	}},
	{"argo", func(options) verdict.Rule { return verdict.Argo() }},
	{"flagger", func(options) verdict.Rule { return verdict.Flagger() }},
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
			"`series,tick,seconds,candidate_requests,candidate_errors,baseline_requests,baseline_errors` (further columns are let pass), " +
			"the ticks of a series one after the other, and prints `series,verdict,tick,seconds,reason`, one line a series. The rules `argo` and " +
			"`flagger` are the documented examples of those systems; they look at the candidate only.",
		Inputs: []input.Input{
			input.String(&do, "do", "What to do with the ticks.").Must().OneOf("replay"),
			input.String(&file, "file", "The CSV file, or - for the standard input.").Must(),
			input.String(&rule, "rule", "The rule.").OneOf(names...).Or(names[0]),
			input.Duration(&o.bake, "bake", "No pass before it is over.").Or("1m"),
			input.Share(&o.objective, "objective", "objective: the error rate that a good release stays under.").Or("1%"),
			ratio(&o.harmless, "harmless", "comparison: the odds ratio of an error that a good release stays under.").Or("1.2"),
			ratio(&o.intolerable, "intolerable", "comparison: the odds ratio that a pass has to exclude.").Or("2.5"),
			ratio(&o.bursts, "dispersion", "comparison: how many errors come together, from the baseline before the deploy.").Or("1"),
			input.Share(&o.alpha, "alpha", "At most this share of good releases gets the verdict fail.").Or("0.1%"),
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
}

// replay runs a fresh rule over each series.
func replay(in io.Reader, out io.Writer, place string, fresh func() verdict.Rule) error {
	ticks := csv.NewReader(in)
	ticks.ReuseRecord = true
	results := csv.NewWriter(out)
	first, err := ticks.Read()
	if err != nil && !errors.Is(err, io.EOF) {
		return fault.Inputf("%w", err).At(place)
	}
	for i, want := range header {
		if i >= len(first) || first[i] != want {
			return fault.Inputf("the header has to begin with %v", header).At(place + ":1")
		}
	}
	write := func(fields ...string) { _ = results.Write(fields) } // its error comes with Flush
	write("series", "verdict", "tick", "seconds", "reason")
	var now series
	tell := func() {
		if now.rule != nil {
			write(now.name, now.said.String(), now.tick, strconv.FormatFloat(now.seconds, 'f', -1, 64), now.rule.Reason())
		}
	}
	for line := 2; ; line++ {
		fields, err := ticks.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fault.Inputf("%w", err).At(place)
		}
		if now.rule == nil || fields[0] != now.name {
			tell()
			now = series{name: fields[0], rule: fresh()}
		}
		if now.said != verdict.Unknown {
			continue
		}
		seconds, tick, err := parse(fields)
		if err != nil {
			return fault.Inputf("%w", err).At(fmt.Sprintf("%s:%d", place, line))
		}
		now.tick, now.seconds = fields[1], seconds
		now.said = now.rule.Observe(tick)
	}
	tell()
	results.Flush()
	return results.Error()
}

// parse reads one line of ticks.
func parse(fields []string) (float64, verdict.Tick, error) {
	seconds, err := strconv.ParseFloat(fields[2], 64)
	if err != nil || !(seconds >= 0 && seconds < 1e9) {
		return 0, verdict.Tick{}, fmt.Errorf("seconds %q: want a number from 0 upwards", fields[2])
	}
	var n [4]int
	for i := range n {
		if n[i], err = strconv.Atoi(fields[3+i]); err != nil || n[i] < 0 {
			return 0, verdict.Tick{}, fmt.Errorf("%s %q: want a whole number from 0 upwards", header[3+i], fields[3+i])
		}
	}
	if n[1] > n[0] || n[3] > n[2] {
		return 0, verdict.Tick{}, errors.New("there are more errors than requests")
	}
	return seconds, verdict.Tick{Elapsed: time.Duration(seconds * float64(time.Second)),
		Candidate: verdict.Counts{Requests: n[0], Errors: n[1]}, Baseline: verdict.Counts{Requests: n[2], Errors: n[3]}}, nil
}
