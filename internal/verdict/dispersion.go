package verdict

import (
	"math"
	"time"
)

// The lengths at which dispersion is looked at: doubled from the tick on, up to longestScale.
const longestScale = 300 * time.Second

// pairCap bounds what the errors of one pair of blocks count for: an incident is one pair, however many errors it has.
const pairCap = 20

// history is how long a release has to have been watched before the deploy for its dispersion to be believed.
const enoughHistory = 10 * time.Minute

// dispersion estimates how far errors hang together, from the errors of each side in blocks one after the other, at all lengths
// from the tick up to some minutes (batch means at growing lengths; the idea is that of Flegal and Jones 2010). Two neighbours
// share their errors like coins thrown with their requests when errors come one by one; the squared deviation from that over its
// variance is Pearson's dispersion, with mean 1. What hangs together for longer than a tick shows at greater lengths.
type dispersion struct {
	tick    time.Duration
	even    bool // the requests are checks of our own: they come evenly, and an event cannot bring more of them than its seconds do
	scales  []scale
	earlier time.Duration // how long before the deploy its first block was; 0 is none
	now     weather       // what the scales say,
	stale   bool          // unless a pair came since
}

// side is the series that blocks are neighbours in: twice the number of its region, and one more for the candidate.
type side int

func sideOf(region int, candidate bool) side {
	if candidate {
		return side(2*region + 1)
	}
	return side(2 * region)
}

func (s side) candidate() bool { return s%2 == 1 }

// scale is what is known at one length.
type scale struct {
	length time.Duration
	open   []blocks // by side
	sum    pairs
	worst  [2]pairs // the pairs of the candidate that say most, the first one most of all
}

// pairs are sums over pairs of neighbours: of weight times deviation, of weights, of their squares, and of weight times the mean
// number of errors a block.
type pairs struct{ deviation, weight, squares, mass float64 }

func (p pairs) minus(o pairs) pairs {
	return pairs{p.deviation - o.deviation, p.weight - o.weight, p.squares - o.squares, p.mass - o.mass}
}

func (p pairs) plus(o pairs) pairs {
	return pairs{p.deviation + o.deviation, p.weight + o.weight, p.squares + o.squares, p.mass + o.mass}
}

// blocks are the one that is open, and the one before it.
type blocks struct {
	begun  bool
	number int64
	now    Counts
	before Counts
	beside bool // before is the neighbour of now
}

// newDispersion looks at ticks of this length. Even says that the requests are checks of our own.
func newDispersion(tick time.Duration, even bool) *dispersion {
	d := &dispersion{tick: tick, even: even, stale: true}
	for length := tick; length <= longestScale; length *= 2 {
		d.scales = append(d.scales, scale{length: length})
	}
	return d
}

// add adds what one side counted in the tick that ended at this time.
func (d *dispersion) add(of side, at time.Duration, c Counts) {
	if c.Requests == 0 {
		return
	}
	d.earlier = max(d.earlier, -at)
	for i := range d.scales {
		d.stale = d.scales[i].add(of, at, c) || d.stale
	}
}

// add says whether a pair has come.
func (s *scale) add(of side, at time.Duration, c Counts) (paired bool) {
	for len(s.open) <= int(of) {
		s.open = append(s.open, blocks{})
	}
	number, b := numberOf(at, s.length), &s.open[of]
	switch {
	case !b.begun:
		*b = blocks{begun: true, number: number, now: c}
		return false
	case number == b.number:
		b.now = b.now.Add(c)
		return false
	}
	paired = b.beside && s.pair(of, b.before, b.now)
	*b = blocks{begun: true, number: number, now: c, before: b.now, beside: number == b.number+1}
	return paired
}

// numberOf is the number of the block of this length that a time is the end of, or lies within.
func numberOf(at, length time.Duration) int64 {
	n := int64((at - 1) / length)
	if at <= 0 { // rounded down, not to 0
		n--
	}
	return n
}

// pair counts two neighbours, and says whether they say anything.
func (s *scale) pair(of side, a, b Counts) bool {
	errors, requests := float64(a.Errors+b.Errors), float64(a.Requests+b.Requests)
	if errors == 0 || errors >= requests {
		return false
	}
	share := float64(b.Requests) / requests
	off := float64(b.Errors) - errors*share
	deviation := off * off / (errors * share * (1 - share) * (requests - errors) / (requests - 1))
	weight := min(errors, pairCap)
	p := pairs{weight * deviation, weight, weight * weight, weight * errors / 2}
	s.sum = s.sum.plus(p)
	switch {
	case !of.candidate():
	case p.deviation > s.worst[0].deviation:
		s.worst = [2]pairs{p, s.worst[0]}
	case p.deviation > s.worst[1].deviation:
		s.worst[1] = p
	}
	return true
}

// known is the dispersion at a length: its estimate, the degrees of freedom behind it, and the mean number of errors a block.
type known struct {
	length                  time.Duration
	estimate, degrees, mass float64
}

// known leaves out what says most of the candidate: turning bad is no dispersion. Within a block it is two pairs, of which
// checks have both left out.
func (s *scale) known(even bool) known {
	p := s.sum.minus(s.worst[0])
	if even {
		p = p.minus(s.worst[1])
	}
	if p.weight <= 0 || p.squares <= 0 {
		return known{length: s.length}
	}
	// A block is in two pairs: neighbouring pairs are not independent.
	return known{s.length, p.deviation / p.weight, 2. / 3 * p.weight * p.weight / p.squares, p.mass / p.weight}
}

// quantile is the one of χ² over its degrees of freedom at z standard deviations, by Wilson and Hilferty, and never quite 0.
func quantile(degrees, z float64) float64 {
	root := 1 - 2/(9*degrees) + z*math.Sqrt(2/(9*degrees))
	return math.Pow(max(0.15, root), 3)
}

// weather is what dispersion leaves as explanations for errors that come together.
type weather struct {
	event  float64    // how many errors one event brings, at least 1
	wander [2]float64 // for each of wanderings, the variance of intensities that wander by themselves, over their squared mean
	longer bool       // something is known at a minute or more
	even   bool       // an event brings no more errors than checks in its seconds
}

// What is believed: how many standard deviations an estimate is taken above itself, with and without history.
type belief struct{ one, wander float64 }

var (
	watched   = belief{one: 2, wander: 0.3}
	unwatched = belief{one: 1, wander: 2}
)

func (d *dispersion) belief() belief {
	if d.earlier >= enoughHistory {
		return watched
	}
	return unwatched
}

// The least degrees of freedom to trust an estimate of events, and of wandering, with.
const (
	trustedEvents = 6
	trustedWander = 3
)

// unknownEvent is how many errors an event may bring while nothing is known.
const unknownEvent = 8

// The length of correlation that an estimate must reach, or else counts for less: by how much it grows when only less is known.
const (
	knownEvents = 120 * time.Second
	minute      = 60 * time.Second
	shortEvents = 3.5
)

// weather is the most sceptical explanation that the data still admit.
func (d *dispersion) weather() weather {
	if d.stale {
		d.now, d.stale = d.explained(), false
	}
	return d.now
}

func (d *dispersion) explained() weather {
	b := d.belief()
	w := weather{event: unknownEvent}
	for i, one := range wanderings {
		w.wander[i] = one.prior
	}
	event, longest := d.size()
	for i := range d.scales {
		k := d.scales[i].known(d.even)
		if k.degrees < trustedWander || k.mass == 0 {
			continue
		}
		for j, one := range wanderings {
			if k.length > 4*one.length {
				continue
			}
			most := max(0, k.estimate/quantile(k.degrees, -b.wander)-1) / (k.mass * one.between(k.length))
			w.wander[j] = min(w.wander[j], most)
		}
	}
	w.longer, w.even = longest >= minute, d.even
	switch {
	case longest == 0:
	case longest < knownEvents:
		l := longest.Seconds()
		w.event = max(1+(event-1)*knownEvents.Seconds()/l, 1+shortEvents*max(0, math.Log(minute.Seconds()/l)/math.Log(minute.Seconds())))
	default:
		w.event = event
	}
	return w
}

// size is how many errors an event brings: 1 while nothing speaks against errors that come one by one, else rather too many.
func (k known) size(b belief) float64 {
	if k.estimate <= quantile(k.degrees, b.one) {
		return 1
	}
	return max(1, k.estimate/quantile(k.degrees, -1))
}

// size is the largest size of an event at the lengths that are known; longest is the greatest of them, or 0.
func (d *dispersion) size() (size float64, longest time.Duration) {
	b := d.belief()
	size = 1
	for i := range d.scales {
		if k := d.scales[i].known(d.even); k.degrees >= trustedEvents {
			size, longest = max(size, k.size(b)), k.length
		}
	}
	return size, longest
}
