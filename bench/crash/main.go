// The command crash deploys, verifies and rolls back releases at random, changes their configurations, kills the runs that do it,
// starts two of them at once and spoils or takes away their registry. On Docker engines of its own it also kills, restarts and reorders
// containers, stops and kills the engines, and lets another project with the same names try its luck. Whenever a run has ended, and whenever nobody is at work, it checks what
// backstep promises. It ends with exit code 1 on the first promise that is broken, and shows how it came to that.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

// options are what the command line says.
type options struct {
	seed     uint64
	worlds   int
	steps    int
	deploys  int
	kills    int
	during   time.Duration
	registry string
	target   string
	restore  string
	verbose  bool
}

func main() {
	var o options
	flag.Uint64Var(&o.seed, "seed", 0, "decides what is done; 0 is another one each time")
	flag.StringVar(&o.target, "target", onProcess, "what releases run on: process, in this process; or docker, on engines that the suite starts for itself,\n"+
		"two services on each. That needs Linux, root, and the packages docker.io, haproxy and iproute2")
	flag.StringVar(&o.restore, "live-restore", alternating, "docker: whether containers go on while their engine is away: on, off, or alternating, one engine so and the next one not")
	flag.IntVar(&o.worlds, "worlds", 0, "how many environments, or services on Docker engines, there are side by side; 0 is 3, or 4 on engines")
	flag.IntVar(&o.steps, "steps", 0, "end after so many steps; 0 is when there were enough deploys and kills")
	flag.IntVar(&o.deploys, "deploys", 500, "how many deploys are enough")
	flag.IntVar(&o.kills, "kills", 150, "how many kills are enough")
	flag.DurationVar(&o.during, "for", 4*time.Minute, "end after this time in any case")
	flag.StringVar(&o.registry, "registry", embedded, "embedded, debian or distribution")
	flag.BoolVar(&o.verbose, "v", false, "print every step")
	flag.Parse()
	if err := o.complete(); err != nil {
		fmt.Fprintln(os.Stderr, "crash:", err)
		os.Exit(2)
	}
	if o.seed == 0 {
		o.seed = uint64(time.Now().UnixNano() % 1e6)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := 0, error(nil)
	if o.target == onDocker && os.Getenv(stageVariable) != stageInside {
		code, err = sandbox(ctx)
	} else if err = suite(ctx, o); err != nil {
		code = 1
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "crash:", err)
	}
	os.Exit(code)
}

// What releases can run on, and what becomes of containers while their engine is away.
const (
	onProcess   = "process"
	onDocker    = "docker"
	alternating = "alternating"
)

// complete fills in what was left out, and says what cannot be.
func (o *options) complete() error {
	if o.target != onProcess && o.target != onDocker {
		return fmt.Errorf("-target %q: want %s or %s", o.target, onProcess, onDocker)
	}
	if o.restore != "on" && o.restore != "off" && o.restore != alternating {
		return fmt.Errorf("-live-restore %q: want on, off or %s", o.restore, alternating)
	}
	if o.worlds == 0 {
		o.worlds = map[string]int{onProcess: 3, onDocker: 2 * len(residents)}[o.target]
	}
	if o.target == onDocker { // houses are full
		o.worlds = (o.worlds + len(residents) - 1) / len(residents) * len(residents)
	}
	return nil
}

// restores says whether the containers of the engine numbered n go on while it is away.
func (o options) restores(n int) bool {
	return o.restore == "on" || o.restore == alternating && n%2 == 0
}

// suite runs all worlds, and reports.
func suite(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "crash")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program := os.Getenv(programVariable)
	if program == "" {
		if program, err = buildProgram(ctx, dir); err != nil {
			return err
		}
	}
	upstream, end, err := startRegistry(ctx, o.registry, dir)
	if err != nil {
		return err
	}
	defer end()
	if err := pushShops(ctx, program, upstream+image, shops); err != nil {
		return err
	}
	if err := pushShops(ctx, program, upstream+rivalImage, shops[:1]); o.target == onDocker && err != nil {
		return err
	}
	begin := time.Now()
	enough := &limit{until: begin.Add(o.during), steps: o.steps, deploys: o.deploys, kills: o.kills, done: map[*world][3]int{}}
	fmt.Printf("seed %d, %d worlds, target %s, registry %s\n", o.seed, o.worlds, o.target, o.registry)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	passed := &points{known: map[string]map[string]*point{}}
	worlds, endAll, err := newWorlds(ctx, dir, program, upstream, o)
	defer endAll()
	if err != nil {
		return err
	}
	faults := make([]error, len(worlds))
	var all sync.WaitGroup
	for n, w := range worlds {
		w.limit, w.points, w.verbose = enough, passed, o.verbose
		all.Go(func() {
			if faults[n] = w.live(ctx); faults[n] != nil {
				cancel()
			}
		})
	}
	all.Wait()
	return report(o, worlds, faults, time.Since(begin))
}

// newWorlds makes all worlds; what it returns besides ends them, also when there is an error.
func newWorlds(ctx context.Context, dir, program, upstream string, o options) (worlds []*world, endAll func(), err error) {
	var ends []func()
	endAll = func() {
		for _, end := range ends {
			end()
		}
	}
	for n := 0; len(worlds) < o.worlds; n++ {
		var made []*world
		var end func()
		if o.target == onDocker {
			var h *house
			if h, end, err = newHouse(ctx, dir, program, upstream, o, n); err == nil {
				made = h.worlds
			}
		} else {
			made = make([]*world, 1)
			made[0], end, err = newWorld(ctx, dir, program, upstream, o.seed, n)
		}
		if err != nil {
			return nil, endAll, err
		}
		worlds, ends = append(worlds, made...), append(ends, end)
	}
	return worlds, endAll, nil
}

// live does steps until it is enough, or something is wrong.
func (w *world) live(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	for _, r := range []run{w.deploy(shops[0]), w.named("verify"), w.deploy(shops[1]), w.named("verify")} {
		newest, err := w.past.newest(ctx)
		if err == nil {
			done := w.hold(sky{})
			_, err = w.under(ctx, sky{}, newest, []run{r})
			done()
		}
		if err != nil {
			return err
		}
	}
	asking.Go(func() { w.customers.run(ctx) })
	for !w.limit.over() {
		look, err := w.step(ctx)
		if err == nil && look {
			err = w.heal(ctx)
		}
		if err != nil {
			return err
		}
	}
	return w.heal(ctx)
}

// report prints what was done, and what is wrong.
func report(o options, worlds []*world, faults []error, took time.Duration) error {
	var sum tally
	var violations []error
	for n, w := range worlds {
		w.tally.bad, w.tally.stalled = w.customers.longest, w.customers.stalled
		if h := w.house; h == nil || h.worlds[0] == w { // they share it
			w.tally.faults = w.weather.spoiled()
		}
		w.count()
		w.tally.events, w.tally.voids = len(w.past.events), w.past.voids
		sum = sum.plus(w.tally)
		if err := faults[n]; err != nil && !errors.Is(err, context.Canceled) {
			err = fmt.Errorf("%s %s, step %d: %w", w.service, w.env, w.tally.steps, err)
			violations = append(violations, err)
			w.explain(err)
		}
	}
	killed, passed := worlds[0].points.covered()
	fmt.Printf("%s\nkilled at         %d of %d points\nviolations        %d\n", sum, killed, passed, len(violations))
	switch {
	case len(violations) > 0: // said again: of a long report, a CI host shows the end
		return fmt.Errorf("a promise is broken; seed %d, target %s, registry %s\n%w", o.seed, o.target, o.registry, errors.Join(violations...))
	case sum.deploys == 0 || errors.Join(faults...) != nil:
		return errors.New("interrupted")
	}
	fmt.Printf("%d deploys and %d kills in %s: nothing was lost, and nobody was left behind\n", sum.deploys, sum.kills, took.Round(time.Second))
	return nil
}

// explained is how many events a report shows.
const explained = 30

// explain prints how it came to a violation.
func (w *world) explain(violation error) {
	fmt.Printf("\nVIOLATION in %v\n", violation)
	fmt.Printf("\nthe last steps:\n%s\n", strings.Join(w.last, "\n"))
	fmt.Println("the history, newest last; each event with its own digest and that of the one before it:")
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	text, err := w.past.text(ctx, explained)
	if err != nil {
		text += err.Error()
	}
	fmt.Println(text)
	if w.house != nil {
		fmt.Printf("the containers:\n%s\nand what the engine has said last:\n%s\n", w.house.engine.text(ctx), w.house.engine.said())
	}
}
