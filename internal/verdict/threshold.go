package verdict

import (
	"fmt"
	"time"
)

// ThresholdOptions are a rule as people write it for Argo Rollouts and Flagger: once an interval, the error rate of
// the candidate in that interval is compared with a limit, and failed checks are counted.
type ThresholdOptions struct {
	Interval time.Duration
	Limit    float64 // the error rate above which a check has failed
	Failures int     // a fail when more checks than these have failed
	Late     bool    // the fail is acted on with the next check
	Checks   int     // a pass after as many
}

// Argo is the example of the documentation of Argo Rollouts: the success rate of five minutes has to be 95 %, three
// failed measurements are let pass (https://argo-rollouts.readthedocs.io/en/stable/features/analysis/). The code's own
// default is to let none pass.
func Argo() Rule {
	return NewThreshold(ThresholdOptions{Interval: 5 * time.Minute, Limit: 0.05, Failures: 3, Checks: 6})
}

// Flagger is the example of its documentation: a success rate of 99 % a minute, ten failed checks, which the next
// check acts on (https://docs.flagger.app/usage/how-it-works; pkg/controller/scheduler.go).
func Flagger() Rule {
	return NewThreshold(ThresholdOptions{Interval: time.Minute, Limit: 0.01, Failures: 9, Late: true, Checks: 30})
}

// threshold is a rule without statistics: what it promises depends on the traffic and on how often it looks.
type threshold struct {
	o                ThresholdOptions
	now              Counts
	next             time.Duration
	checks, failures int
	due              bool // the next check fails
	verdict          Verdict
}

// NewThreshold is the rule of a threshold an interval.
func NewThreshold(o ThresholdOptions) Rule {
	return &threshold{o: o, next: o.Interval}
}

// Observe takes one tick. An interval without requests is no check.
func (r *threshold) Observe(t Tick) Verdict {
	if r.verdict != Unknown {
		return r.verdict
	}
	r.now = r.now.Add(t.Candidate)
	if t.Elapsed < r.next {
		return Unknown
	}
	for t.Elapsed >= r.next {
		r.next += r.o.Interval
	}
	if r.due {
		r.verdict = Fail
		return r.verdict
	}
	if r.now.Requests > 0 {
		r.checks++
		if float64(r.now.Errors) > r.o.Limit*float64(r.now.Requests) {
			r.failures++
		}
		r.now = Counts{}
	}
	switch {
	case r.failures > r.o.Failures && r.o.Late:
		r.due = true
	case r.failures > r.o.Failures:
		r.verdict = Fail
	case r.checks >= r.o.Checks:
		r.verdict = Pass
	}
	return r.verdict
}

func (r *threshold) Reason() string {
	if r.checks == 0 {
		return "no check yet"
	}
	return fmt.Sprintf("%d of %d checks above %s", r.failures, r.checks, percent(r.o.Limit))
}

// Progress is the share of the failed checks that make a fail, and of the checks that make a pass.
func (r *threshold) Progress() (fail, pass float64) {
	return min(1, float64(r.failures)/float64(r.o.Failures+1)), min(1, float64(r.checks)/float64(r.o.Checks))
}
