// Package config reads backstep.yml: what there is to deploy to, and how.
package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/probe"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/router"
	"github.com/backstep/backstep/internal/secret"
	"github.com/backstep/backstep/internal/target"
)

// Kinds are the kinds that a configuration can name.
type Kinds struct {
	Targets []target.Kind
	Routers []router.Kind
	Probes  []probe.Kind
}

// Config is a whole backstep.yml.
type Config struct {
	Service      string
	Repository   string // of the images, registry/name
	Ledger       string // of the ledger; "" is Repository
	Environments map[release.Environment]*Environment
	Sources      []string // the environment variables that the file takes secrets from
}

// Environment is one place to deploy to.
type Environment struct {
	Name         release.Environment
	Target       Target
	Router       func() (router.Front, error) // nil when there is none
	Strategy     plan.Strategy
	Weights      []int
	OnUnknown    string                // canary: what a share without a verdict does
	Start        release.Configuration // what a release is started with today; its secrets have no fingerprints yet
	Unset        error                 // the faults of secrets in Start that are not set
	KeepLogs     bool                  // the last lines of a release that is left are kept in the ledger
	Keep         int                   // good releases that stay on a target besides what is live
	Drain        time.Duration
	ReadyTimeout time.Duration
	Try          time.Duration // how long a release is asked before it gets traffic, at most; 0 is not at all
	Settle       time.Duration // how long a release must stay ready before it gets traffic
	Verify       Verify
}

// What a canary does at a share without a verdict.
const (
	OnUnknownBack = "rollback"
	OnUnknownGoOn = "promote"
)

// Target is a configured target.
type Target struct {
	Kind target.Kind
	Open func(target.Environment) (target.Target, router.Router, error)
}

// Verify is how a release is judged.
type Verify struct {
	Probes                              []ProbeConfig
	Bake, Patience, WarmUp              time.Duration
	Objective, Intolerable, Alpha, Beta float64
	Harmless, Negligible                float64 // Negligible is 0 when it was left out
}

// ProbeConfig is configured evidence: a probe, a meter or a watch.
type ProbeConfig struct {
	Name    string        // the kind, and its place when there are several
	Every   time.Duration // between two checks, or two readings
	Timeout time.Duration
	Skew    time.Duration // how far apart a meter may read two releases
	Probe   probe.Probe
	Meter   probe.Meter
	Watch   probe.Watch
	Err     error // the faults of secrets that are not set: there is none of them then
}

// The inputs of each part of the file. One declaration gives the parser, the defaults and the schema.

func (c *Config) inputs() []input.Input {
	return []input.Input{
		input.String(&c.Service, "service", "The name of what is deployed.").Must().
			Matching(regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`), "shop"),
		input.String(&c.Repository, "repository", "The repository of the images, registry/name. The ledger lives in it too.").Must().
			Matching(repositoryShape, "registry.example.com/acme/shop"),
		input.String(&c.Ledger, "ledger", "Another repository for the ledger: its tags are out of the list of your images, and its clean-up rules are its own. The pins of images (bs.*.k.*) stay beside them.").
			Matching(repositoryShape, "registry.example.com/acme/shop-ledger"),
	}
}

// repositoryShape is roughly registry/name; the registry package knows the rest.
var repositoryShape = regexp.MustCompile(`^[a-zA-Z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$`)

func (e *Environment) inputs(strategy *string, weights *[]string, variables *map[string]secret.Value) []input.Input {
	return []input.Input{
		input.String(strategy, "strategy", "How traffic goes from one release to the next; the target's first strategy when it is left out.").Like("canary"),
		input.List(weights, "weights", "canary: the shares of the traffic before all of it, in percent, rising.").Like("[10, 50]"),
		input.String(&e.OnUnknown, "on-unknown", "canary: what a step does that has seen requests of both releases and come to no verdict: roll back, or go on to the next share, since verify judges it again.").OneOf(OnUnknownBack, OnUnknownGoOn).Or(OnUnknownBack).Like("promote"),
		input.Env(variables, "env", "What each release runs with. A secret is given as {env: NAME}, the variable to take it from.").OfRelease().Like("{LOG: info, DB_URL: {env: SHOP_DB_URL}}"),
		input.Bool(&e.KeepLogs, "keep-logs", "Whether the ledger keeps the last lines that a release has logged when it is left for another one: at most 10 lines and 4 KiB, without the secrets that are known. Whoever can read the registry can read them.").Or("true").Like("false"),
		input.Int(&e.Keep, "keep", "How many good releases stay on the target, stopped, besides what is live: going back to one of them is a start and no pull.", 0, 20).Or("2").Like("3"),
		input.Duration(&e.Drain, "drain", "How long a release may finish its requests before it is removed.").Or("10s").Like("30s"),
		input.Duration(&e.ReadyTimeout, "ready-timeout", "How long a release may take to become ready.").Or("60s").Like("3m"),
		input.Span(&e.Try, "try", "How long the probes of verify ask a release before it gets traffic, at most, and what serves beside it: what fails every time never serves a customer. A second is enough when nothing fails; 0s is not at all.").Or("5s").Like("5s"),
		input.Span(&e.Settle, "settle", "How long a release must stay ready before it gets traffic: one that ends right after its start never does.").Or("3s").Like("10s"),
	}
}

func (v *Verify) inputs() []input.Input {
	return []input.Input{
		input.Duration(&v.Bake, "bake", "How long a release must stay well before it counts as good.").Or("5m"),
		input.Duration(&v.Patience, "patience", "How much longer than the bake to wait for enough evidence; five times the bake when it is left out."),
		input.Span(&v.WarmUp, "warm-up", "How long a good release may have up to three times the errors of the one before, with cold caches; a third of the bake at most.").Or("1m"),
		input.Bind(&v.Harmless, "harmless", "Beside the release before it: the ratio of error rates that a good release stays under.", parseOdds).Or("1"),
		input.Share(&v.Negligible, "negligible", "Beside the release before it: a pass excludes two to two and a half times its error rate, unless the difference is below this, which nobody minds. One point for checks, a tenth of a point for what customers got, when it is left out.").Like("0.5%"),
		input.Share(&v.Objective, "objective", "The error rate that a good release stays under, where there is none to compare it with.").Or("1%"),
		input.Share(&v.Intolerable, "intolerable", "The error rate that a pass has to exclude, where there is no release to compare with; twice the objective when it is left out."),
		input.Share(&v.Alpha, "alpha", "At most this share of good releases gets the verdict fail.").Or("1%"),
		input.Share(&v.Beta, "beta", "At most this share of intolerable releases gets the verdict pass.").Or("1%"),
	}
}

func parseOdds(s string) (float64, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f >= 1 && f <= 1000) {
		return 0, fmt.Errorf("%q: want a number from 1 to 1000", s)
	}
	return f, nil
}

// inputs are those that all kinds have. A probe is asked at a rate, a meter and a watch are read now and then.
func (p *ProbeConfig) inputs(k probe.Kind) []input.Input {
	pace := input.Bind(&p.Every, "rate", "Checks a second, from 0.01 to 1000.", parseRate).
		Or(strconv.FormatFloat(1/k.Every.Seconds(), 'f', -1, 64))
	switch {
	case k.NewMeter != nil:
		pace = input.Duration(&p.Every, "every", "How often the counters are read.").Or(k.Every.String())
	case k.NewWatch != nil:
		pace = input.Duration(&p.Every, "every", "How often the alerts are read.").Or(k.Every.String())
	}
	return []input.Input{pace, input.Duration(&p.Timeout, "timeout", "How long one check may take.").Or(max(2*time.Second, k.Every).String())}
}

// parseRate is the time between two checks.
func parseRate(s string) (time.Duration, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f >= 0.01 && f <= 1000) {
		return 0, fmt.Errorf("%q: want checks a second, from 0.01 to 1000", s)
	}
	return time.Duration(float64(time.Second) / f), nil
}

// Load reads the file at path. Its secrets are known before anything can fail.
func Load(path string, kinds Kinds, getenv func(string) string, known *secret.Known) (*Config, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fault.Inputf("there is no %s", path).WithHint("write it, or name another one with --config")
	}
	if err != nil {
		return nil, fault.Inputf("%w", err)
	}
	defer f.Close()
	data, err := readLimited(f)
	if err != nil {
		return nil, fault.Inputf("%w", err).At(path)
	}
	return Parse(path, data, kinds, getenv, known)
}

// Parse reads the text of a file. All faults are returned at once, each with its place. A variable that a secret
// is taken from and that is not set is no fault of the file: what needs the secret has it.
func Parse(file string, data []byte, kinds Kinds, getenv func(string) string, known *secret.Known) (*Config, error) {
	r := &reader{file: file, getenv: getenv, secrets: known}
	root, err := parseYAML(file, data)
	if err != nil {
		return nil, err
	}
	r.learn(root)
	c := &Config{Environments: map[release.Environment]*Environment{}}
	fields := r.mapping(root, "")
	if err := r.err(); err != nil && len(fields) == 0 {
		return nil, err // no mapping at all: what it lacks says nothing
	}
	r.inputs(root, fields, c.inputs(), "environments")
	if environments := fields["environments"]; environments.key == nil {
		r.fault(root, "environments is missing: want at least one environment with a target")
	} else {
		for name, f := range r.mapping(environments.value, "environments") {
			env, err := release.ParseEnvironment(name)
			if err != nil {
				r.fault(f.key, "%v", err)
				continue
			}
			c.Environments[env] = r.environment(env, f, kinds)
		}
	}
	c.Sources = r.sources
	return c, r.err()
}

func (r *reader) environment(name release.Environment, f field, kinds Kinds) *Environment {
	e := &Environment{Name: name}
	path := "environments." + string(name)
	fields := r.mapping(f.value, path)
	var strategy string
	var weights []string
	var variables map[string]secret.Value
	e.Start = r.inputs(f.value, fields, e.inputs(&strategy, &weights, &variables), "target", "router", "verify")
	if to := fields["target"]; to.key == nil {
		r.fault(f.key, "%s has no target: want for example target: {kind: %s, …}", path, kinds.Targets[0].Name)
	} else {
		r.target(e, to, kinds.Targets)
		if before := fields["router"]; before.key != nil {
			r.router(e, before, kinds.Routers)
		}
		r.strategy(e, fields, strategy, weights)
	}
	e.Unset = r.startless()
	verify := fields["verify"]
	r.verify(e, verify, kinds.Probes)
	return e
}

func (r *reader) target(e *Environment, f field, kinds []target.Kind) {
	fields := r.mapping(f.value, "target")
	i := r.kind(f, fields, len(kinds), func(i int) string { return kinds[i].Name })
	if i < 0 {
		return
	}
	inputs, open := kinds[i].New()
	maps.Copy(e.Start, r.inputs(f.value, fields, inputs, "kind"))
	if unset := r.missing(); unset != nil {
		open = func(target.Environment) (target.Target, router.Router, error) { return nil, nil, unset }
	}
	e.Target = Target{Kind: kinds[i], Open: open}
}

func (r *reader) router(e *Environment, f field, kinds []router.Kind) {
	fields := r.mapping(f.value, "router")
	i := r.kind(f, fields, len(kinds), func(i int) string { return kinds[i].Name })
	if i < 0 {
		return
	}
	if name := e.Target.Kind.Name; name != "" && len(e.Target.Kind.Routed) == 0 {
		r.fault(f.key, "target %s takes no router: it brings its own", name)
		return
	}
	inputs, open := kinds[i].New()
	r.inputs(f.value, fields, inputs, "kind")
	if unset := r.missing(); unset != nil {
		open = func() (router.Front, error) { return nil, unset }
	}
	e.Router = open
}

func (r *reader) strategy(e *Environment, fields map[string]field, strategy string, weights []string) {
	known, where := e.Target.Kind.Strategies, "target "+e.Target.Kind.Name
	if e.Router != nil {
		known, where = e.Target.Kind.Routed, where+" behind a router"
	} else if len(e.Target.Kind.Routed) > 0 {
		where += " without a router"
	}
	if len(known) == 0 {
		return // the kind is at fault, and has been told
	}
	e.Strategy = known[0]
	if strategy != "" {
		e.Strategy = plan.Strategy(strategy)
		if !slices.Contains(known, e.Strategy) {
			r.fault(fields["strategy"].value, "%s cannot do strategy %q: it can %s", where, strategy, joined(known))
		}
	}
	if e.Strategy != plan.Canary {
		if len(weights) > 0 {
			r.fault(fields["weights"].key, "weights belong to strategy canary, not %s", e.Strategy)
		}
		return
	}
	if len(weights) == 0 {
		weights = []string{"10", "50"}
	}
	last := 0
	for _, w := range weights {
		n, err := strconv.Atoi(w)
		if err != nil || n <= last || n > 99 {
			r.fault(fields["weights"].value, "weights %s: want rising whole numbers from 1 to 99", strings.Join(weights, ", "))
			return
		}
		e.Weights, last = append(e.Weights, n), n
	}
}

// patienceOfBake is how many times the bake evidence is waited for.
const patienceOfBake = 5

func (r *reader) verify(e *Environment, f field, kinds []probe.Kind) {
	v := &e.Verify
	var fields map[string]field
	if f.key != nil {
		fields = r.mapping(f.value, "verify")
	}
	before := len(r.faults)
	r.inputs(f.value, fields, v.inputs(), "probes")
	if v.Patience == 0 {
		v.Patience = patienceOfBake * v.Bake
	}
	if v.Intolerable == 0 {
		v.Intolerable = min(2*v.Objective, 0.9)
	}
	if len(r.faults) == before && v.Intolerable <= v.Objective {
		r.fault(f.key, "intolerable %g is not above objective %g", v.Intolerable, v.Objective)
	}
	probes := fields["probes"]
	if probes.key == nil {
		return
	}
	watches, known := 0, len(r.faults)
	for i, item := range r.sequence(probes.value, "probes") {
		at := field{key: item, value: item}
		fields := r.mapping(item, fmt.Sprintf("probes[%d]", i))
		k := r.kind(at, fields, len(kinds), func(i int) string { return kinds[i].Name })
		if k < 0 {
			continue
		}
		p := ProbeConfig{Name: kinds[k].Name}
		if len(probes.value.Content) > 1 {
			p.Name = fmt.Sprintf("%s %d", p.Name, i+1)
		}
		if kinds[k].NewWatch != nil {
			watches++
		}
		inputs, open := opener(kinds[k], &p)
		known := len(r.faults)
		r.inputs(item, fields, append(p.inputs(kinds[k]), inputs...), "kind")
		p.Err = r.missing()
		if len(r.faults) > known {
			continue
		}
		if p.Every < time.Millisecond {
			r.fault(item, "every %s: want a millisecond at least", p.Every)
			continue
		}
		if p.Err == nil {
			if err := open(); err != nil {
				r.fault(item, "%v", err)
				continue
			}
		}
		v.Probes = append(v.Probes, p)
	}
	if watches > 0 && watches == len(v.Probes) && len(r.faults) == known {
		r.fault(probes.key, "alerts say only what is bad, and a pass takes evidence of its own: add a probe or a meter")
	}
}

// opener is the inputs of a kind, and what makes p's probe, meter or watch of them.
func opener(k probe.Kind, p *ProbeConfig) ([]input.Input, func() error) {
	switch {
	case k.NewMeter != nil:
		p.Skew = k.Skew
		inputs, open := k.NewMeter()
		return inputs, func() (err error) { p.Meter, err = open(); return err }
	case k.NewWatch != nil:
		inputs, open := k.NewWatch()
		return inputs, func() (err error) { p.Watch, err = open(); return err }
	}
	inputs, open := k.New()
	return inputs, func() (err error) { p.Probe, err = open(); return err }
}
