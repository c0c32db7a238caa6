package verdict

import "math"

// alternative is an odds ratio that a process bets on, with its share of the stake.
type alternative struct{ odds, stake float64 }

// process is the evidence against "the odds ratio of an error, candidate against baseline, is null", as the wealth of
// one who bets against it with a stake of 1: an e-process. While that is true its mean is at most 1, whatever the split of the
// traffic and whatever hits both sides alike, and by Ville's inequality it reaches 1/α with probability α at most,
// however long and often one looks.
//
// In a tick with K errors, of which the candidate has k, each alternative multiplies its part by one of two factors.
// Which one depends on K and on earlier ticks only, so that both keep the mean.
//
//   - The likelihood ratio (P_ω(k|K) / P_null(k|K))^γ, P being Fisher's noncentral hypergeometric law, and γ = 1/φ for errors
//     that come φ at a time: the conditional test of Cochran, Mantel and Haenszel made valid at any time. Exact at φ = 1.
//   - The bet on the candidate's share x = k/K, x·q'/q + (1-x)·(1-q')/(1-q), in which q is the mean of x under the null
//     and q' under the alternative (Waudby-Smith and Ramdas, arXiv 2010.09686). Errors may come together in any way:
//     the mean of x stays q. It gains log(1/q) a tick at most, so it is for ticks with few errors for their φ.
//
// A part of the stake waits, and joins a little with each tick: that is Shiryaev's and Roberts's detector of a
// change that comes late, with weights that add up to one (Shin, Ramdas and Rinaldo, arXiv 2203.03532).
type process struct {
	alternatives []alternative
	above        bool      // the null is "the odds ratio is null or less", else "or more"
	parts        []float64 // the wealth of each alternative
	late         float64   // the share of the stake that waits at the start
	waiting      float64   // the share that still waits
}

// ceiling keeps wealth finite.
const ceiling = 1e300

func newProcess(above bool, late float64, alternatives []alternative) process {
	p := process{alternatives: alternatives, above: above, parts: make([]float64, len(alternatives)), late: late, waiting: late}
	for i, a := range alternatives {
		p.parts[i] = a.stake * (1 - late)
	}
	return p
}

// wealth is what the stake of 1 has become.
func (p *process) wealth() float64 {
	sum := p.waiting
	for _, part := range p.parts {
		sum += part
	}
	return min(sum, ceiling)
}

// join lets what waits join until only the share left of it waits on.
func (p *process) join(left float64) {
	joins := p.waiting - p.late*left
	if joins <= 0 {
		return
	}
	p.waiting -= joins
	for i, a := range p.alternatives {
		p.parts[i] += joins * a.stake
	}
}

// move moves the process on by the errors of one tick, under the null odds ratio. A tick without errors, or with
// nothing else, moves nothing.
func (p *process) move(c, b Counts, null float64, bursts burstiness) {
	all := c.Errors + b.Errors
	if c.Requests == 0 || b.Requests == 0 || all == 0 || all == c.Requests+b.Requests {
		return
	}
	if bursts.few(all) {
		p.bet(c, b, null)
		return
	}
	law, above := logFisher(c, b, null), p.above
	for i, a := range p.alternatives {
		if above && a.odds > null || !above && a.odds < null {
			p.parts[i] = min(p.parts[i]*math.Exp((logFisher(c, b, a.odds)-law)/bursts.size), ceiling)
		}
	}
}

func (p *process) bet(c, b Counts, null float64) {
	all := float64(c.Errors + b.Errors)
	x := float64(c.Errors) / all
	traffic := float64(c.Requests) / float64(b.Requests)
	q := meanShare(c, b, null, !p.above)
	for i, a := range p.alternatives {
		bet := a.odds * traffic / (1 + a.odds*traffic)
		if p.above && bet > q || !p.above && bet < q {
			p.parts[i] = min(p.parts[i]*(x*bet/q+(1-x)*(1-bet)/(1-q)), ceiling)
		}
	}
}

// meanShare is the mean share of the candidate in the errors of a tick, when the odds ratio is odds: the share of each
// burst that comes as one, and the mean of Fisher's law, which is the smaller one when there are no bursts and odds is above 1. From above, a
// null of "odds or less" is safe with the larger one; a null of "odds or more" with the smaller one.
func meanShare(c, b Counts, odds float64, least bool) float64 {
	all := c.Errors + b.Errors
	if !least || all == 1 {
		traffic := odds * float64(c.Requests) / float64(b.Requests)
		return traffic / (1 + traffic)
	}
	// The mean is k·P(k; n, m, K) / P(k-1; n-1, m, K-1) for every k above 0.
	k := max(c.Errors, 1)
	rest := Counts{b.Requests, all - k}
	return float64(k) / float64(all) *
		math.Exp(logFisher(Counts{c.Requests, k}, rest, odds)-logFisher(Counts{c.Requests - 1, k - 1}, rest, odds))
}

// logFisher is the log of the probability of c.Errors errors of the candidate, given all errors of both and the
// requests of both, when the odds ratio of an error is odds: Fisher's noncentral hypergeometric law. The sum over
// its support is taken outwards from c.Errors, each term from the one before, scaled before it can overflow, and
// ends where terms no longer count.
func logFisher(c, b Counts, odds float64) float64 {
	nc, nb, all := float64(c.Requests), float64(b.Requests), float64(c.Errors+b.Errors)
	at := float64(c.Errors)
	up, upScale := walk(func(j float64) float64 { // from j to j+1
		j += at
		return odds * (nc - j) * (all - j) / ((j + 1) * (nb - all + j + 1))
	}, min(nc, all)-at)
	down, downScale := walk(func(j float64) float64 { // from j to j-1
		j = at - j
		return j * (nb - all + j) / (odds * (nc - j + 1) * (all - j + 1))
	}, at-max(0, all-nb))
	if upScale == 0 && downScale == 0 {
		return -math.Log1p(up + down)
	}
	return -logAdd(0, logAdd(upScale+math.Log(up), downScale+math.Log(down)))
}

// walk is r(0) + r(0)r(1) + … with this many factors, to be multiplied by e to the power of scale; the products
// rise and then fall.
func walk(r func(j float64) float64, steps float64) (sum, scale float64) {
	term := 1.0
	for j := 0.0; j < steps; j++ {
		factor := r(j)
		term *= factor
		sum += term
		if sum > 1e200 {
			sum, term, scale = sum*1e-200, term*1e-200, scale+200*math.Ln10
		}
		if factor < 1 && term < 1e-17*sum {
			break
		}
	}
	return sum, scale
}

// burstiness is how many errors come together in a tick, as far as it is known.
type burstiness struct {
	size  float64 // at least 1
	known bool
}

// few says whether a tick has so few bursts that a law of large numbers does not hold for them.
func (b burstiness) few(errors int) bool {
	return !b.known || float64(errors) <= 1+fewBursts*(b.size-1)
}

// fewBursts is how many bursts in a tick are few; found with bench/verdict.
const fewBursts = 4

// dispersion estimates how many errors come together, from one side's errors in ticks one after the other. Two
// neighbours share their errors like coins thrown with their requests, when errors come one by one; the squared deviation from
// that, over its variance, is Pearson's dispersion. A drift or an incident changes both and says little.
type dispersion struct {
	last              Counts
	sum, weight, mass float64 // of weight times dispersion, of weights, and of their squares
}

func (d *dispersion) observe(now Counts) {
	if now.Requests == 0 {
		return
	}
	was := d.last
	d.last = now
	errors, requests := float64(was.Errors+now.Errors), float64(was.Requests+now.Requests)
	if was.Requests == 0 || errors == 0 || errors == requests {
		return
	}
	share := float64(now.Requests) / requests
	off := float64(now.Errors) - errors*share
	variance := errors * share * (1 - share) * (requests - errors) / (requests - 1)
	weight := min(errors, 10) // what a pair tells grows with its errors, to an end: an incident is one pair
	d.sum += weight * off * off / variance
	d.weight += weight
	d.mass += weight * weight
}

// The least number of independent pairs to trust an estimate with, and how many standard errors it is taken above itself.
const (
	trusted = 6
	caution = 1.645
)

// bursts is the estimate: 1 while nothing speaks against errors that come one by one, else one that is rather too
// high than too low.
func (d *dispersion) bursts() burstiness {
	if d.weight == 0 {
		return burstiness{}
	}
	degrees := d.weight * d.weight / d.mass * 2 / 3 // neighbouring pairs share a tick
	if degrees < trusted {
		return burstiness{}
	}
	estimate, spread := d.sum/d.weight, math.Sqrt(2/(9*degrees))
	// Wilson and Hilferty's approximation of the quantiles of χ².
	if high := 1 - 2/(9*degrees) + caution*spread; estimate <= high*high*high {
		return burstiness{1, true}
	}
	low := max(1-2/(9*degrees)-caution*spread, 0.2)
	return burstiness{max(1, estimate/(low*low*low)), true}
}
