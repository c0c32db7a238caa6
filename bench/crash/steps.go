package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/backstep/backstep/internal/ledger"
)

// byHand is the reason of a person's rollback: only that may quarantine a healthy release.
const byHand = "by hand"

// chance is true in one of so many cases.
func (w *world) chance(share float64) bool { return w.random.Float64() < share }

// named makes a run out of a step and its arguments.
func (w *world) named(step string, args ...string) run {
	w.runs++
	args = append(args, "--config", w.colour+".yml")
	return run{id: fmt.Sprintf("%s-%s-%d", w.service, w.env, w.runs), step: step, args: args, secret: w.secret}
}

// colours are what releases can be configured with.
var colours = []string{"red", "green", "blue"}

// colours are those of the world; where two services are side by side, each has its own.
func (w *world) colours() []string {
	if w.house == nil {
		return colours
	}
	var all []string
	for _, c := range colours {
		all = append(all, w.service+"-"+c)
	}
	return all
}

// deploy is one with the configuration of now, or with another one from now on.
func (w *world) deploy(s shop, more ...string) run {
	if w.chance(0.3) {
		all := w.colours()
		w.colour = all[w.random.IntN(len(all))]
	}
	if w.chance(0.1) {
		w.secret = fmt.Sprint("secret-", w.random.IntN(1e6))
	}
	r := w.named("deploy", append([]string{"--allow-older", "--image", w.repository + ":" + s.version}, more...)...)
	if w.chance(0.35) {
		r.args[len(r.args)-1] = w.colour + canary
	}
	r.about = s
	return r
}

// some is one of the shops that are bad, or good.
func (w *world) some(bad bool) shop {
	var all []shop
	for _, s := range shops {
		if s.bad == bad {
			all = append(all, s)
		}
	}
	return all[w.random.IntN(len(all))]
}

// next is what is done in a state.
func (w *world) next(s ledger.Snapshot) run {
	if s.Live == nil {
		return w.deploy(w.some(false))
	}
	if len(s.Freezes) > 0 && w.chance(0.6) {
		return w.named("unfreeze", "--reason", "drill")
	}
	if len(s.Quarantined) > 0 && (len(s.Quarantined) > 2 || w.chance(0.3)) {
		q := s.Quarantined[w.random.IntN(len(s.Quarantined))]
		return w.named("lift", "--reason", "drill", "--digest", string(q.Release.ID()))
	}
	bad := shopOf(s.Live.Release.Version).bad
	if bad && w.chance(0.85) || !s.Live.Good && w.chance(0.6) {
		return w.verify(s)
	}
	good := goodOnes(s)
	switch what := w.random.Float64(); {
	case what < 0.06:
		return w.deploy(w.some(w.chance(0.5)), "--take-over", "drill") // it leaves a verify alone when it is refused
	case what < 0.62 || len(good) < 2 && what < 0.92:
		return w.deploy(w.some(w.chance(0.5)))
	case what < 0.78:
		return w.verify(s)
	case what < 0.92:
		return w.named("rollback", "--reason", byHand)
	case what < 0.96 && len(good) > 0:
		to := good[w.random.IntN(len(good))]
		name := to.Version // the newest configuration of it
		if w.chance(0.5) {
			name = string(to.ID())
		}
		return w.named("rollback", "--reason", byHand, "--to", name)
	}
	return w.named("freeze", "--reason", "drill")
}

func (w *world) verify(s ledger.Snapshot) run {
	r := w.named("verify", "--on-fail", "rollback")
	if w.chance(0.1) {
		r = w.named("verify") // it reports only
	}
	r.about = shopOf(s.Live.Release.Version)
	return r
}

// longestLife is after how long a run is killed at the latest, times the haste of its world.
const longestLife = 600 * time.Millisecond

// doomed is the run with a way to die, or without. The way back is where dying does most harm: it is aimed at.
func (w *world) doomed(r run) run {
	aimed := 0.24
	if r.step == "verify" && r.about.bad || r.step == "rollback" {
		aimed = 0.5
	}
	switch what := w.random.Float64(); {
	case what < aimed:
		r.point = w.points.choose(r.scene())
	case what < aimed+0.16:
		r.after = time.Duration(w.random.Int64N(int64(longestLife) * int64(w.haste)))
	case what < aimed+0.2:
		r.point = strconv.Itoa(1 + w.random.IntN(16))
	}
	if canBeElsewhere() && r.point == "" && w.chance(0.03) {
		r.elsewhere = true
	}
	return r
}

// sky is the weather of the next step.
func (w *world) sky() sky {
	if w.house != nil && w.chance(0.3) {
		return sky{storm: storm(1 + w.random.IntN(int(storms)-1))}
	}
	switch what := w.random.Float64(); {
	case what < 0.5:
		return sky{}
	case what < 0.92:
		return sky{share: 0.01 + 0.14*w.random.Float64()}
	}
	return sky{gone: outage(1 + w.random.IntN(int(outages)-1))}
}

// step does the next thing, or two at once, and checks what came of it. It says whether all is to be looked at now.
func (w *world) step(ctx context.Context) (look bool, err error) {
	newest, err := w.past.newest(ctx)
	if err != nil {
		return false, err
	}
	runs := []run{w.doomed(w.next(newest.State))}
	if w.chance(0.16) {
		runs = append(runs, w.doomed(w.next(newest.State)))
		w.tally.pairs++
	}
	if w.house != nil && w.chance(0.15) {
		runs = append(runs, w.intruder())
	}
	s := w.sky()
	defer w.hold(s)()
	_, err = w.under(ctx, s, newest, runs)
	if err != nil {
		return false, err
	}
	return len(runs) > 1 || w.chance(0.2), nil
}

// hold waits until the weather does not disturb the others in the house, and returns what lets them go on.
func (w *world) hold(s sky) (release func()) {
	if s.calm() {
		w.turn.RLock()
		return w.turn.RUnlock
	}
	w.turn.Lock()
	return w.turn.Unlock
}

// intruder is a run of another project that has the same names, and a ledger of its own.
func (w *world) intruder() run {
	w.tally.engines.rivals++
	step := []string{"deploy", "rollback", "verify"}[w.random.IntN(3)]
	r := w.named(step)
	r.args, r.rival = []string{"--config", "rival.yml"}, true
	if step == "deploy" {
		r.args = append(r.args, "--image", w.weather.host()+rivalImage+":"+shops[0].version)
	}
	return r
}

// disturb lets a storm loose, at some time while runs are under way, and returns what waits for its end.
func (w *world) disturb(ctx context.Context, s storm) (wait func() error) {
	if s == stillness {
		return func() error { return nil }
	}
	w.tally.engines.storms++
	for _, other := range w.house.worlds {
		other.shaken = true
	}
	random := rand.New(rand.NewPCG(w.random.Uint64(), 1))
	begin := time.Duration(w.random.Int64N(int64(longestLife) * int64(w.haste)))
	ended, since := make(chan error, 1), time.Now()
	go func() {
		sleep(ctx, begin)
		ended <- w.house.rage(ctx, s, random)
	}()
	return func() error {
		err := <-ended
		if took := time.Since(since); w.verbose && took > 10*time.Second {
			fmt.Printf("    %s took %.1f s\n%s\n", s, took.Seconds(), w.house.engine.said())
		}
		return err
	}
}

// under carries runs out in a weather, and checks how they ended.
func (w *world) under(ctx context.Context, s sky, newest ledger.Event, runs []run) ([]outcome, error) {
	if s.gone == none {
		w.weather.set(s.share, none)
	} else {
		w.tally.outages++
		begin, end := time.Duration(0), time.Duration(300+w.random.IntN(2500))*time.Millisecond
		if w.chance(0.7) {
			begin = time.Duration(w.random.Int64N(int64(longestLife) * int64(w.haste)))
		}
		on := time.AfterFunc(begin, func() { w.weather.set(0, s.gone) })
		off := time.AfterFunc(begin+end, func() { w.weather.set(0, none) })
		defer on.Stop()
		defer off.Stop()
	}
	passed := w.disturb(ctx, s.storm)
	all, err := w.together(ctx, runs)
	w.weather.set(0, none)
	if err := errors.Join(err, passed()); err != nil {
		return nil, err
	}
	var outcomes []outcome
	for _, o := range all {
		if !o.rival {
			outcomes = append(outcomes, o)
		} else if err := w.repelled(o, s); err != nil {
			return nil, err
		}
	}
	after, err := w.past.newest(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	for _, o := range outcomes {
		w.remember(o, s)
		for _, m := range promised(o, len(outcomes) == 1) {
			m.since = newest.Seq
			w.promises = append(w.promises, m)
		}
	}
	for _, o := range outcomes {
		if err := answered(o, circumstances{sky: s, alone: len(outcomes) == 1, after: after.State, shaken: w.shaken}); err != nil {
			return nil, fmt.Errorf("%w\n  %s", err, o)
		}
	}
	return outcomes, nil
}
