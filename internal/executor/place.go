package executor

import (
	"crypto/rand"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/backstep/backstep/internal/config"
	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/host"
	"github.com/backstep/backstep/internal/input"
	ledgerregistry "github.com/backstep/backstep/internal/ledger/registry"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/router"
	"github.com/backstep/backstep/internal/target"
	"github.com/backstep/backstep/internal/wayback"
)

// Place is where a step works: an environment of a configuration. Its inputs are the same in every step.
type Place struct {
	environment string
	config      string
	login       registry.Login
}

// Inputs declares the place.
func (p *Place) Inputs() []input.Input {
	return append([]input.Input{
		input.String(&p.environment, "environment", "The environment, as backstep.yml names it.").Must(),
		input.String(&p.config, "config", "The path of backstep.yml.").Or("backstep.yml"),
	}, p.login.Inputs()...)
}

// Open reads the configuration and makes ready to work on the place. It changes nothing and sends no request.
func (p *Place) Open(world World, kinds config.Kinds) (*Executor, error) {
	c, err := config.Load(p.config, kinds, world.Getenv, world.Secrets)
	if err != nil {
		return nil, err
	}
	env, err := p.chosen(c)
	if err != nil {
		return nil, err
	}
	client, err := p.login.Client(world.Host, world.Secrets, c.Repository)
	if err != nil {
		return nil, err
	}
	book := c.Ledger
	if book == "" {
		book = c.Repository
	}
	owner := strings.Join([]string{book, c.Service, string(env.Name)}, " ")
	configs := newConfigurations(env, c.Sources, world.Getenv, world.Secrets)
	to, shift, err := open(env, target.Environment{Service: c.Service, Environment: env.Name,
		Ledger: owner, Drain: env.Drain, Start: configs.start, EngineAuth: client.EngineAuth})
	if err != nil {
		return nil, err
	}
	author, err := author(world.Host.Run())
	if err != nil {
		return nil, err
	}
	kept := ledgerregistry.New(client, book, c.Service, env.Name)
	kept.Report = func(found error) {
		world.Log.Warn("something in the ledger is not what it should be", "env", string(env.Name), "found", found)
	}
	return &Executor{
		Name: env.Name, Config: env, Ledger: keeping{bounded(kept), configs}, tidied: kept.Wait,
		Owner: owner, registry: client, service: c.Service, image: c.Repository, book: book,
		sites: []wayback.Site{{Name: string(env.Name), Target: to, Router: shift}}, configs: configs,
		world: world, log: world.Log.With("env", string(env.Name)), author: author, holder: strings.ToLower(rand.Text()), patience: targetPatience,
	}, nil
}

// chosen is the environment that the step was given.
func (p *Place) chosen(c *config.Config) (*config.Environment, error) {
	name, err := release.ParseEnvironment(p.environment)
	if err != nil {
		return nil, fault.Inputf("%w", err)
	}
	if env, ok := c.Environments[name]; ok {
		return env, nil
	}
	var known []string
	for n := range c.Environments {
		known = append(known, string(n))
	}
	slices.Sort(known)
	return nil, fault.Inputf("environment %q is not in %s", name, p.config).
		WithHint("it has %s", strings.Join(known, ", "))
}

// author is who acts: the run as its host knows it, and this process. The boot and the start of the process tell it from
// another with the same name and number.
func author(run host.Run) (release.Author, error) {
	a := release.Author{Actor: run.Actor, Run: run.ID, Attempt: run.Attempt, URL: run.URL, Process: os.Getpid()}
	name, err := os.Hostname()
	if err != nil {
		return a, fmt.Errorf("find the name of this machine: %w", err)
	}
	a.Machine = name + kernel()
	// Where /proc shows the processes of another numbering than ours, it says nothing of us.
	if self, err := os.Readlink("/proc/self"); err == nil && self == strconv.Itoa(a.Process) {
		a.Started = started(a.Process)
	}
	return a, nil
}

// kernel names the boot of this machine and the numbering of processes that we are in; "" where it is not Linux.
func kernel() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	space, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	return " " + strings.TrimSpace(string(boot)) + " " + space
}

// started is when a process of this machine began, in clock ticks since the boot; "" when there is none, or no telling. See
// proc(5): the fields of stat after the name, which is in parentheses, begin with the third.
func started(process int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", process))
	if err != nil {
		return ""
	}
	const startTime = 22 - 3
	_, rest, _ := strings.Cut(string(stat), ") ")
	if i := strings.LastIndex(string(stat), ") "); i >= 0 {
		rest = string(stat)[i+2:]
	}
	if fields := strings.Fields(rest); len(fields) > startTime && fields[0] != "Z" {
		return fields[startTime]
	}
	return ""
}

// open is the target of env, with the router in front of it.
func open(env *config.Environment, around target.Environment) (target.Target, router.Router, error) {
	if env.Router == nil {
		to, own, err := env.Target.Open(around)
		if err == nil && own == nil {
			err = fault.Inputf("target %s has no router", env.Target.Kind.Name)
		}
		return to, own, err
	}
	around.Routed = true
	to, _, err := env.Target.Open(around)
	if err != nil {
		return nil, nil, err
	}
	front, err := env.Router()
	if err != nil {
		return nil, nil, err
	}
	backend, ok := to.(target.Backend)
	if !ok {
		return nil, nil, fault.Inputf("target %s takes no router", env.Target.Kind.Name)
	}
	to, shift := target.Behind(backend, front)
	return to, shift, nil
}
