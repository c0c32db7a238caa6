package verdict

import (
	"math"
	"slices"
	"time"
)

// bet is an alternative to a good release: the ratio of its error rate to that of the baseline, and the share of the stake on it.
type bet struct{ ratio, stake float64 }

type stakes []bet

// worse are the bets against a release that is as good as its baseline, by the log of the ratio. Small ones, for which evidence is
// slow, get the most. The stakes add up to 1.
func worse(harmless float64) stakes {
	var all stakes
	for _, b := range []bet{{0.2, 0.10}, {0.4, 0.15}, {0.7, 0.18}, {1.1, 0.16}, {1.6, 0.12}, {2.4, 0.11}, {3.4, 0.08}, {4.6, 0.06}, {7, 0.04}} {
		all = append(all, bet{harmless * math.Exp(b.ratio), b.stake})
	}
	return all
}

// A part of the stake waits for a release that turns bad late, and joins little by little: half of it has joined after halfJoined.
const (
	lateness   = 0.25
	halfJoined = 10 * time.Minute
)

// waiting is the stake that has not joined yet.
type waiting struct{ left float64 }

// joins takes out what joins until this time.
func (w *waiting) joins(at time.Duration) float64 {
	left := lateness * float64(halfJoined) / float64(halfJoined+max(0, at))
	joins := max(0, w.left-left)
	w.left -= joins
	return joins
}

// ceiling keeps wealth finite.
const ceiling = 1e300

// startEvery is the time between two moments at which a release may have turned bad.
const startEvery = 30 * time.Second

// One event never fails a release: within eventBlock, or eventTicks, no bet wins more than it does by oneEvent times the size of an
// event in errors, when events are large or nothing is known of them.
const (
	eventBlock = time.Minute
	eventTicks = 8
	largeEvent = 3
)

var oneEvent = math.Ln10

// events is the evidence against a null while errors come in events of some size: for each bet the likelihood ratio against the null, to
// the power of one over that size. It is an e-process: while the null is true its mean is at most 1, and by Ville's inequality it
// reaches 1/α with probability α at most, however long and often one looks. Starts at many moments, with weights that add up to one,
// make a detector of a change that comes late (Shin, Ramdas and Rinaldo, arXiv 2203.03532). With an estimated size all of it holds approximately.
type events struct {
	stakes  []float64 // of each bet
	worth   float64   // of the stake of 1
	by      weather   // that it was found with
	stale   bool      // since then a bet has moved
	log     []float64 // of the likelihood ratio, for each bet
	low     []float64 // the least of each in this block
	block   time.Duration
	waiting waiting
	starts  []start
}

// start is a moment at which the release may have turned bad.
type start struct {
	at    time.Duration
	stake float64
	log   []float64 // what the logs were then
}

func newEvents(stakes []float64) *events {
	e := &events{stakes: stakes, log: make([]float64, len(stakes)), low: make([]float64, len(stakes)), waiting: waiting{left: lateness}}
	e.worth = 1
	e.starts = []start{{stake: 1 - lateness, log: make([]float64, len(stakes))}}
	return e
}

// add adds the log of the likelihood ratio of each bet in a tick of this length that ended at this time.
func (e *events) add(at, tick time.Duration, logs []float64, w weather) {
	if last := e.starts[len(e.starts)-1]; at-last.at >= max(startEvery, tick) {
		e.starts = append(e.starts, start{at, e.waiting.joins(at), slices.Clone(e.log)})
	}
	for i, log := range logs {
		e.stale = e.stale || log != 0
		e.log[i] = e.bounded(i, w) + log
		e.low[i] = min(e.low[i], e.log[i])
		e.log[i] = e.bounded(i, w)
	}
	if at-e.block >= max(eventBlock, eventTicks*tick) {
		e.block = at
		copy(e.low, e.log)
	}
}

// bounded is a bet's log with no more than one event in this block, by what is known now.
func (e *events) bounded(i int, w weather) float64 {
	if !w.even && (w.event >= largeEvent || !w.longer) {
		return min(e.log[i], e.low[i]+w.event*oneEvent)
	}
	return e.log[i]
}

// wealth is what the stake of 1 has become.
func (e *events) wealth(w weather) float64 {
	if !e.stale && w == e.by {
		return e.worth
	}
	e.stale, e.by = false, w
	sum := e.waiting.left
	for i, stake := range e.stakes {
		log := e.bounded(i, w)
		for _, s := range e.starts {
			sum += s.stake * stake * math.Exp(min((log-s.log[i])/w.event, 690))
		}
	}
	e.worth = min(sum, ceiling)
	return e.worth
}

// against are the logs of the likelihood ratio of one tick of both sides, for each bet against the null: given all errors, those of
// the candidate are binomial with the share n·ω/(n·ω+m) at ratio ω, whatever hits both sides. That is the conditional test of
// Cochran, Mantel and Haenszel, for rates.
func (s stakes) against(null float64, p Pair) []float64 {
	traffic := float64(p.Candidate.Requests) / float64(p.Baseline.Requests)
	k, all := float64(p.Candidate.Errors), float64(p.Candidate.Errors+p.Baseline.Errors)
	logs := make([]float64, len(s))
	if all == 0 {
		return logs
	}
	for i, bet := range s {
		if bet.ratio > null {
			logs[i] = k*math.Log(bet.ratio/null) - all*(math.Log1p(bet.ratio*traffic)-math.Log1p(null*traffic))
		}
	}
	return logs
}

func (s stakes) stakes() []float64 {
	all := make([]float64, len(s))
	for i, b := range s {
		all[i] = b.stake
	}
	return all
}
