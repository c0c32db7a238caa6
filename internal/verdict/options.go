package verdict

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Options say what a good release is, what a pass has to exclude, and how sure a verdict has to be. Ratios are those of error rates, of
// a release and of the one that it is compared with.
type Options struct {
	Harmless    float64       `json:"harmless,omitempty"`    // the ratio that a good release stays under, at least 1; of slow requests, at least 1.25
	Objective   float64       `json:"objective,omitempty"`   // the error rate that a good release stays under where there is none to compare with
	WarmUp      time.Duration `json:"warmUp,omitempty"`      // in ns: how long a good release may have three times the errors, with cold caches
	Ratio       float64       `json:"ratio,omitempty"`       // the ratio that a pass excludes,
	Negligible  float64       `json:"negligible,omitempty"`  // unless the difference of the rates is less
	Intolerable float64       `json:"intolerable,omitempty"` // the error rate that a pass excludes where there is none to compare with
	Alpha       float64       `json:"alpha,omitempty"`       // at most this share of good releases ever fails
	Beta        float64       `json:"beta,omitempty"`        // at most this share of intolerable releases ever passes
	Bake        time.Duration `json:"bake,omitempty"`        // in ns: no pass before it is over
	Tick        time.Duration `json:"tick,omitempty"`        // in ns: how often there is evidence; 0 is as the first two ticks say
	Skew        time.Duration `json:"skew,omitempty"`        // in ns: how far apart both sides of a tick may have been read; 0 is at one instant
	Share       float64       `json:"share,omitempty"`       // of the traffic that the candidate should get; 0 is not known
	Size        float64       `json:"size,omitempty"`        // how many errors come together; 0 is what the ticks say
	checks      bool          // the ticks are those of checks of our own, and their user has gates of its own
}

// cold is the ratio of error rates that a good release may have while it warms up.
const cold = 3

// leastRatio is the least ratio that a pass can exclude, in multiples of Harmless.
const leastRatio = 1.25

// beside is the error rate from which on a release is intolerable beside a baseline with this rate: one that is near the objective
// is allowed twice its own, and a difference that is negligible is no difference.
func (o Options) beside(baseline float64) float64 {
	return min(1, max(baseline+o.Negligible, min(o.Ratio*baseline, max(o.Objective, 2*baseline))))
}

// Setting is a rule and its options, so that what was judged can be judged again.
type Setting struct {
	Rule string `json:"rule"` // one of Rules
	Options
}

// The names of the rules.
const (
	Compared = "comparison"
	Absolute = "objective"
	Probed   = "probed"
	Metered  = "metered"
)

// named is a rule by its name.
type named struct {
	name  string
	fresh func(Options) Rule
}

// rules are all of them, in the order of the help.
var rules = []named{
	{Compared, NewComparison},
	{Absolute, NewObjective},
	{Probed, NewProbed},
	{Metered, NewMetered},
	{"argo", func(Options) Rule { return Argo() }},
	{"flagger", func(Options) Rule { return Flagger() }},
	{"kayenta", func(Options) Rule { return Kayenta() }},
}

// Rules are the names of the rules.
func Rules() []string {
	var names []string
	for _, r := range rules {
		names = append(names, r.name)
	}
	return names
}

// New is a fresh rule. Its error is that there is none with that name.
func (s Setting) New() (Rule, error) {
	i := slices.IndexFunc(rules, func(r named) bool { return r.name == s.Rule })
	if i < 0 {
		return nil, fmt.Errorf("rule %q: want one of %s", s.Rule, strings.Join(Rules(), ", "))
	}
	return rules[i].fresh(s.Options), nil
}
