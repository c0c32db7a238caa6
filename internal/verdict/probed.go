package verdict

import (
	"fmt"
	"time"
)

// NewProbed is the rule for checks of our own, which ask the release and the one before it at the same instants: their ticks have
// both sides, and are compared. While the other one is not there to be asked a tick has the candidate only, and is judged by the
// objective. Two gates are for what is plain, and need no statistics.
func NewProbed(o Options) Rule {
	o.checks, o.Tick = true, block
	r := newPaired(o)
	r.gates = &gates{}
	r.apartAfter = apartProbed
	return r
}

// NewMetered is the rule for counts of what customers got. While the release before it has customers too, both are compared; else
// the release is judged by the objective, or by what was natural before.
func NewMetered(o Options) Rule { return newPaired(o) }

func newPaired(o Options) *paired {
	o.Alpha /= 2 // a fail of either is a fail: each gets half of the false alarms
	return &paired{both: NewComparison(o), alone: NewObjective(o), apartAfter: apartMetered}
}

// How long the other release may have no customers before a release is judged alone, since two sides are not always read at once; and
// how long it may not be asked: what took it away may have hit both.
const (
	apartMetered = time.Minute
	apartProbed  = 5 * time.Second
)

// paired compares two releases where a tick has both, and judges one alone where it has not.
type paired struct {
	both, alone Rule
	gates       *gates // nil: there are none
	apartAfter  time.Duration
	compared    bool          // the other release had requests,
	last        time.Duration // and when it had the last
	apart       bool          // the last tick was judged alone
	verdict     Verdict
	reason      string
}

func (r *paired) Observe(t Tick) Verdict {
	if r.verdict == Fail {
		return Fail
	}
	if r.gates != nil {
		if r.reason = r.gates.observe(t); r.reason != "" {
			r.verdict = Fail
			return Fail
		}
	}
	if t.Elapsed > 0 && t.Baseline.Requests > 0 {
		r.compared, r.last = true, t.Elapsed
	}
	r.apart = !r.compared || t.Elapsed-r.last > r.apartAfter
	// The rule whose evidence the tick is none of sees that time goes on.
	pair, single := t, Tick{Elapsed: t.Elapsed}
	switch {
	case t.Elapsed <= 0:
		single = t
	case r.apart:
		pair, single = Tick{Region: t.Region, Elapsed: t.Elapsed}, t
	}
	both, alone := r.both.Observe(pair), r.alone.Observe(single)
	switch {
	case both == Fail:
		r.verdict, r.reason = Fail, r.both.Reason()
	case alone == Fail:
		r.verdict, r.reason = Fail, r.alone.Reason()
	case both == Pass:
		r.verdict, r.reason = Pass, r.both.Reason()
	case alone == Pass && r.apart: // the other one is not there any more
		r.verdict, r.reason = Pass, r.alone.Reason()
	default:
		r.verdict = Unknown
	}
	return r.verdict
}

func (r *paired) Reason() string {
	switch {
	case r.verdict != Unknown:
		return r.reason
	case r.compared:
		return r.both.Reason()
	}
	return r.alone.Reason()
}

func (r *paired) Progress() (fail, pass float64) {
	fail, pass = r.both.Progress()
	aloneFail, alonePass := r.alone.Progress()
	if !r.compared {
		pass = alonePass
	}
	return max(fail, aloneFail), pass
}

// gates find what is plain: a release that has never answered well while the other one does, and one that was well and does not answer
// any more. A silence of a second meets three half-seconds at most, and is no verdict by itself.
type gates struct {
	other  Counts        // of the baseline, all of them
	first  Pair          // until the first success of the candidate
	from   time.Duration // when the first of them was
	begun  bool          // it had one
	cells  [8]Pair       // of the half-seconds, the last one being under way
	number int64         // of the half-second that is under way
	row    Pair          // the checks since the candidate has failed each time
	since  time.Duration // when the first of them was
}

// cell is the half-second that the gates count in.
const cell = 500 * time.Millisecond

// plain are the gates on what was well before: so many half-seconds in a row with a failure each, in which at least that share of the
// checks has failed.
var plain = [...]struct {
	cells int
	share float64
}{{4, 0.75}, {8, 0.4}}

// The other side is well when at most this share of its checks has failed in that time, and no more than usually of all so far: what
// fails by nature is nothing plain.
const (
	quiet   = 0.1
	usually = 0.05
)

// Checks that come more rarely than the half-seconds are found in a row: as many as rowChecks, over rowTime at least.
const (
	rowChecks = 5
	rowTime   = 2 * time.Second
)

// How many checks from the first on, and over how long, make a fail of a release that has never answered well.
const (
	neverWell    = 3
	neverWellFor = 200 * time.Millisecond
)

// observe says why the candidate has plainly failed, or "".
func (g *gates) observe(t Tick) string {
	g.other = g.other.Add(t.Baseline)
	if t.Candidate.Requests > t.Candidate.Errors {
		g.begun = true
	}
	if !g.begun {
		if g.first.Candidate.Requests == 0 {
			g.from = t.Elapsed
		}
		g.first = Pair{g.first.Candidate.Add(t.Candidate), g.first.Baseline.Add(t.Baseline)}
		if c, b := g.first.Candidate, g.first.Baseline; c.Requests >= neverWell && t.Elapsed-g.from >= neverWellFor && (b.Requests == 0 || b.Errors == 0) {
			return fmt.Sprintf("%d of %d failed, from the first on%s", c.Errors, c.Requests, beside(b))
		}
	}
	if said := g.inARow(t); said != "" {
		return said
	}
	newest := len(g.cells) - 1
	n := int64(t.Elapsed / cell)
	for range min(max(0, n-g.number), int64(len(g.cells))) {
		copy(g.cells[:], g.cells[1:])
		g.cells[newest] = Pair{}
	}
	g.number = n
	g.cells[newest] = Pair{g.cells[newest].Candidate.Add(t.Candidate), g.cells[newest].Baseline.Add(t.Baseline)}
	var all Pair
	for i := range g.cells {
		one := g.cells[newest-i]
		if one.Candidate.Errors == 0 || !g.quietSide() {
			return ""
		}
		all = Pair{all.Candidate.Add(one.Candidate), all.Baseline.Add(one.Baseline)}
		for _, p := range plain {
			if c, b := all.Candidate, all.Baseline; i+1 == p.cells && g.known(b) && float64(c.Errors) >= p.share*float64(c.Requests) && float64(b.Errors) <= quiet*float64(b.Requests) {
				return fmt.Sprintf("%d of %d failed within %s%s", c.Errors, c.Requests, time.Duration(p.cells)*cell, beside(b))
			}
		}
	}
	return ""
}

// quietSide says whether the other side fails no more than usually.
func (g *gates) quietSide() bool {
	return float64(g.other.Errors) <= usually*float64(g.other.Requests)+1
}

// known says whether b tells how the other side is, or there never was one. One that is gone may have been hit by the same.
func (g *gates) known(b Counts) bool { return b.Requests > 0 || g.other.Requests == 0 }

// inARow finds a candidate that fails each time while the other one does not.
func (g *gates) inARow(t Tick) string {
	switch {
	case t.Candidate.Requests == 0:
		return ""
	case t.Candidate.Errors < t.Candidate.Requests || t.Baseline.Errors > 0:
		g.row = Pair{}
		return ""
	}
	if g.row.Candidate.Requests == 0 {
		g.since = t.Elapsed
	}
	g.row = Pair{g.row.Candidate.Add(t.Candidate), g.row.Baseline.Add(t.Baseline)}
	c, b := g.row.Candidate, g.row.Baseline
	if c.Requests < rowChecks || t.Elapsed-g.since < rowTime || !g.known(b) || !g.quietSide() {
		return ""
	}
	return fmt.Sprintf("the last %d of %d failed%s", c.Errors, c.Requests, beside(b))
}

func beside(b Counts) string {
	if b.Requests == 0 {
		return ""
	}
	return fmt.Sprintf(", and of the other release %d of %d", b.Errors, b.Requests)
}
