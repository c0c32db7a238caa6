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
	"strconv"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/step"
	"github.com/backstep/backstep/internal/verdict"
	"github.com/backstep/backstep/internal/verdict/ticks"
)

// Step declares verdict.
func Step() step.Step {
	var do, file, rule string
	var o verdict.Options
	var skew time.Duration
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
			"longer than a bound, in seconds: `candidate_over_0.25` and `baseline_over_0.25`; others are ignored. A column `region` says that a series has several: each is compared within itself. The ticks before " +
			"the candidate's first request are those before the release: they tell how many errors come together. The rules `argo`, " +
			"`flagger` and `kayenta` are the documented examples of those systems. `backstep verify --record FILE` writes such a file, with the rule of each series: " +
			"without `rule` it is judged by that again, with the same verdict at the same second.",
		Inputs: []input.Input{
			input.String(&do, "do", "What to do with the ticks.").Must().OneOf("replay"),
			input.String(&file, "file", "The CSV file, or - for the standard input.").Must(),
			input.String(&rule, "rule", "The rule; the one that was recorded, or the comparison, when it is left out. probed compares checks of both releases, metered counts of customers.").OneOf(verdict.Rules()...),
			input.Duration(&o.Bake, "bake", "No pass before it is over.").Or("1m"),
			input.Share(&o.Objective, "objective", "The error rate that a good release stays under.").Or("1%"),
			input.Share(&o.Intolerable, "intolerable", "objective: the error rate that a pass has to exclude.").Or("2%"),
			ratio(&o.Harmless, "harmless", "comparison: the ratio of error rates that a good release stays under.").Or("1"),
			ratio(&o.Ratio, "ratio", "comparison: the ratio of error rates that a pass has to exclude, unless the difference is negligible.").Or("2.5"),
			input.Share(&o.Negligible, "negligible", "comparison: the difference of error rates that nobody minds.").Or("0.1%"),
			ratio(&o.Size, "dispersion", "comparison: how many errors come together; what the ticks say when it is left out."),
			input.Span(&o.WarmUp, "warm-up", "comparison: how long a good release may have up to three times the errors, with cold caches.").Or("1m"),
			input.Span(&skew, "skew", "comparison: how far apart the two sides of a tick may have been read.").Or("5s"),
			input.Share(&o.Alpha, "alpha", "At most this share of good releases gets the verdict fail.").Or("1%"),
			input.Share(&o.Beta, "beta", "At most this share of intolerable releases gets the verdict pass.").Or("1%"),
		},
		Run: func(ctx context.Context, rt *step.Runtime) error {
			var in io.Reader = os.Stdin
			if file != "-" {
				f, err := os.Open(file)
				if err != nil {
					return fault.Inputf("%w", err)
				}
				defer f.Close()
				in = f
			}
			o.Skew = skew
			return replay(ctx, in, rt.Stdout, file, verdict.Setting{Rule: rule, Options: o})
		},
	}
}

// series is where a rule stands with one series.
type series struct {
	name     string
	rule     verdict.Rule
	recorded bool // the rule is the one that it was judged by
	said     verdict.Verdict
	tick     string
	seconds  float64
	begun    bool          // the candidate has had requests
	before   time.Duration // how late the file's clock is: where the last tick without a candidate ended
}

// begin is a series, judged by the rule that was asked for, or the recorded one, or the comparison.
func begin(name string, from *ticks.Reader, asked verdict.Setting) (*series, error) {
	s := &series{name: name}
	if asked.Rule == "" {
		if recorded, ok := from.Rule(name); ok {
			asked, s.recorded = recorded, true
		} else {
			asked.Rule = verdict.Compared
		}
	}
	var err error
	s.rule, err = asked.New()
	return s, err
}

// observe takes a tick. A recorded series goes on as verify did: a pass holds for as long as the evidence does. Of another one, the
// ticks before the candidate's first request are those before the release, and the first verdict ends it.
func (s *series) observe(l ticks.Line) {
	if s.said == verdict.Fail || s.said != verdict.Unknown && !s.recorded {
		return
	}
	s.tick, s.seconds = l.Name, l.Seconds
	switch {
	case s.recorded:
	case s.begun:
		l.Elapsed -= s.before
	case l.Candidate.Requests > 0:
		s.begun = true
		l.Elapsed -= s.before
	default:
		s.before = max(0, l.Elapsed)
		l.Elapsed = min(0, l.Elapsed)
	}
	s.said = s.rule.Observe(l.Tick)
}

// replay runs a fresh rule over each series.
func replay(ctx context.Context, in io.Reader, out io.Writer, place string, asked verdict.Setting) error {
	from, err := ticks.NewReader(in)
	if err != nil {
		return fault.Inputf("%w", err).At(place)
	}
	results := csv.NewWriter(out)
	write := func(fields ...string) { _ = results.Write(fields) } // its error comes with Flush
	write("series", "verdict", "tick", "seconds", "reason")
	var now *series
	conclude := func() {
		if now != nil {
			write(now.name, now.said.String(), now.tick, strconv.FormatFloat(now.seconds, 'f', -1, 64), now.rule.Reason())
		}
	}
	for ctx.Err() == nil {
		l, err := from.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fault.Inputf("%w", err).At(place)
		}
		if now == nil || l.Series != now.name {
			conclude()
			if now, err = begin(l.Series, from, asked); err != nil {
				return fault.Inputf("%w", err).At(place)
			}
		}
		now.observe(l)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	conclude()
	results.Flush()
	return results.Error()
}
