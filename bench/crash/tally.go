package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/backstep/backstep/internal/fault"
)

// tally is what was done so far.
type tally struct {
	steps, deploys, verifies, rollbacks, kills, pairs, faults, outages, events, voids int
	codes                                                                             map[fault.Code]int
	recovery                                                                          time.Duration // the longest run after kills that came to an end in calm weather
	bad                                                                               time.Duration // the longest that customers got nothing but a bad release
	stalled                                                                           int           // requests of customers that nobody answered while the machine had stalled
	engines                                                                           onEngines
}

// onEngines is what was done on Docker engines.
type onEngines struct {
	storms, restarts int // of containers and engines, and those of engines alone
	rivals           int // runs of another project with the same names
	changes          int // requests to engines that change something
	addresses        int // answers of addresses that were looked at
	failed           int // requests of customers that nobody answered after a storm
}

func (e onEngines) plus(o onEngines) onEngines {
	return onEngines{e.storms + o.storms, e.restarts + o.restarts, e.rivals + o.rivals, e.changes + o.changes, e.addresses + o.addresses, e.failed + o.failed}
}

func (e onEngines) String() string {
	if e == (onEngines{}) {
		return ""
	}
	return fmt.Sprintf("\nstorms            %d\nengine restarts   %d\nrivals refused    %d\nengine changes    %d\naddresses asked   %d\ncustomers lost    %d, after storms",
		e.storms, e.restarts, e.rivals, e.changes, e.addresses, e.failed)
}

func (t tally) plus(o tally) tally {
	codes := map[fault.Code]int{}
	for _, from := range []map[fault.Code]int{t.codes, o.codes} {
		for c, n := range from {
			codes[c] += n
		}
	}
	return tally{t.steps + o.steps, t.deploys + o.deploys, t.verifies + o.verifies, t.rollbacks + o.rollbacks, t.kills + o.kills, t.pairs + o.pairs,
		t.faults + o.faults, t.outages + o.outages, t.events + o.events, t.voids + o.voids, codes, max(t.recovery, o.recovery), max(t.bad, o.bad), t.stalled + o.stalled, t.engines.plus(o.engines)}
}

func (t tally) String() string {
	text := fmt.Sprintf("steps             %d\n  deploys         %d\n  verifies        %d\n  rollbacks       %d\n  pairs at once   %d\nkills             %d\n"+
		"registry faults   %d\nregistry outages  %d\nevents            %d, and %d that came too late\nlongest recovery  %.1f s\nlongest bad time  %.1f s\nmachine stalled   %d requests\nexit codes       ",
		t.steps, t.deploys, t.verifies, t.rollbacks, t.pairs, t.kills, t.faults, t.outages, t.events, t.voids, t.recovery.Seconds(), t.bad.Seconds(), t.stalled)
	for code := fault.Done; code <= fault.Refused; code++ {
		text += fmt.Sprintf(" %d: %d", code, t.codes[code])
	}
	return text + t.engines.String()
}

// remembered is how many steps are kept for a report.
const remembered = 14

// remember counts a run, and keeps what it was for a report.
func (w *world) remember(o outcome, s sky) {
	t := &w.tally
	t.steps++
	switch o.step {
	case "deploy":
		t.deploys++
	case "verify":
		t.verifies++
	case "rollback":
		t.rollbacks++
	}
	if t.codes == nil {
		t.codes = map[fault.Code]int{}
	}
	if o.code == -1 {
		t.kills++
		w.owing++
	} else {
		t.codes[fault.Code(o.code)]++
		if w.owing > 0 && s.calm() {
			t.recovery = max(t.recovery, o.took)
		}
		w.owing = 0
	}
	w.points.seen(o)
	w.limit.count(t.deploys, t.kills, w)
	line := fmt.Sprintf("%d. %s; %s", t.steps, o, s)
	if w.verbose {
		fmt.Println(line + o.complaint())
	}
	w.last = append(w.last, line+"\n"+o.said)
	w.last = w.last[max(0, len(w.last)-remembered):]
}

// limit says when it is enough, for all worlds together.
type limit struct {
	until          time.Time
	steps          int // 0: until both of the next are reached
	deploys, kills int

	mu   sync.Mutex
	done map[*world][3]int
}

func (l *limit) count(deploys, kills int, w *world) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done[w] = [3]int{w.tally.steps, deploys, kills}
}

func (l *limit) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	var sum [3]int
	for _, n := range l.done {
		for i := range sum {
			sum[i] += n[i]
		}
	}
	enough := sum[1] >= l.deploys && sum[2] >= l.kills
	if l.steps > 0 {
		enough = sum[0] >= l.steps
	}
	return enough || time.Now().After(l.until)
}
