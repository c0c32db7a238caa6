package verdict

import (
	"math"
	"time"
)

// hopes are the ratios at which a good release may be, with the weight of each.
var hopes = []bet{{1, 0.5}, {0.7, 0.2}, {0.4, 0.1}, {0.1, 0.1}, {0.01, 0.1}}

// assurance is the evidence against "the release is intolerable": the likelihood of both sides' errors at a good ratio, over the
// greatest likelihood that any intolerable pair of rates has (universal inference of Wasserman, Ramdas and Balakrishnan, PNAS 2020;
// the numerator is profiled, so that it holds approximately), to the power of one over the size of an event.
type assurance struct {
	o  Options          // what is intolerable
	of map[string]*Pair // what counts, by region
	// How many blocks of half a minute had errors, of both sides and history, the blocks there were, and their errors.
	largest float64
	eras    []era // by side
	filled  int
	blocks  int
	errors  int
}

// era is the half-minute that is under way on one side.
type era struct {
	begun  bool
	number int64
	errors int
}

// eraLength is the block that rare events are counted in.
const eraLength = 30 * time.Second

// largestEvent is how many errors an event may bring that nobody has seen yet; of checks, which come evenly, it is fewer.
const (
	largestEvent = 12
	largestProbe = 3
)

func newAssurance(o Options, largest float64) *assurance {
	return &assurance{o: o, of: map[string]*Pair{}, largest: largest}
}

// watch counts the half-minutes with errors.
func (a *assurance) watch(of side, at time.Duration, c Counts) {
	if c.Requests == 0 {
		return
	}
	for len(a.eras) <= int(of) {
		a.eras = append(a.eras, era{})
	}
	number, e := numberOf(at, eraLength), &a.eras[of]
	if !e.begun || e.number != number {
		*e = era{begun: true, number: number}
		a.blocks++
	}
	if e.errors == 0 && c.Errors > 0 {
		a.filled++
	}
	e.errors += c.Errors
	a.errors += c.Errors
}

// add adds what counts.
func (a *assurance) add(region string, c, b Counts) {
	p := a.of[region]
	if p == nil {
		p = &Pair{}
		a.of[region] = p
	}
	p.Candidate, p.Baseline = p.Candidate.Add(c), p.Baseline.Add(b)
}

// forget begins anew.
func (a *assurance) forget(region string) { delete(a.of, region) }

// The number of half-minutes with errors, and their share, below which events are rare: then those that there are may be all of one kind.
const (
	rareBlocks = 20
	rareShare  = 0.3
)

// size is how many errors an event brings.
func (a *assurance) size(d *dispersion) float64 {
	size, longest := d.size()
	n := float64(a.filled)
	size = max(size, 1+(a.largest-1)*2/(2+n))
	rare := n < rareBlocks && n < rareShare*float64(a.blocks)
	if k := float64(a.errors); (longest < eraLength || rare) && k > 3*n {
		size = max(size, 1.5*k/n)
	}
	return size
}

// certainty is the log of the evidence; 0 is none.
func (a *assurance) certainty(size float64) float64 {
	var terms []float64
	var most []float64
	var at []Pair
	for _, p := range a.of {
		limit := a.o.beside(p.Baseline.rate())
		if p.Candidate.Requests == 0 || p.Baseline.Requests == 0 || p.Candidate.rate() > limit || limit >= 1 {
			return 0 // where half of the baseline fails, a pass says nothing
		}
		at, most = append(at, *p), append(most, a.most(*p))
	}
	if len(at) == 0 {
		return 0
	}
	for _, h := range hopes {
		sum := 0.0
		for i, p := range at {
			n, m := float64(p.Candidate.Requests), float64(p.Baseline.Requests)
			rate := float64(p.Candidate.Errors+p.Baseline.Errors) / (h.ratio*n + m)
			sum += poisson(p.Candidate, h.ratio*rate) + poisson(p.Baseline, rate) - most[i]
		}
		terms = append(terms, math.Log(h.stake)+sum/size)
	}
	return max(0, logSum(terms))
}

func (c Counts) rate() float64 { return float64(c.Errors) / float64(max(1, c.Requests)) }

// poisson is the log likelihood of errors at a rate, but for a constant.
func poisson(c Counts, rate float64) float64 {
	log := -float64(c.Requests) * rate
	if c.Errors > 0 { // 0 × -Inf is not a number
		log += float64(c.Errors) * math.Log(rate)
	}
	return log
}

// leastRate is taken for 0.
const leastRate = 1e-12

// most is the greatest log likelihood that an intolerable pair of rates has.
func (a *assurance) most(p Pair) float64 {
	of := func(log float64) float64 {
		rate := math.Exp(log)
		return poisson(p.Baseline, rate) + poisson(p.Candidate, max(a.o.beside(rate), p.Candidate.rate()))
	}
	// It has a peak, or two where the bound bends: the highest of some is made exact.
	const steps = 48
	low, high := math.Log(leastRate), 0.0
	if p.Baseline.Errors > 0 {
		middle := math.Log(p.Baseline.rate())
		low, high = middle-4, min(0, middle+2)
	}
	step := (high - low) / steps
	top, best := low, of(low)
	for i := 1; i <= steps; i++ {
		if x := low + float64(i)*step; of(x) > best {
			top, best = x, of(x)
		}
	}
	left, right := max(low, top-step), min(high, top+step)
	for range 30 {
		third := (right - left) / 3
		if of(left+third) < of(right-third) {
			left += third
		} else {
			right -= third
		}
	}
	return max(best, of((left+right)/2))
}
