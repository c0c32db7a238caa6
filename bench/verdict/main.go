// The command verdict measures rules on simulated deploys: how often they take back a good release, and how long they
// take to see a bad one. docs/verdict.md explains the protocol and keeps its figures.
package main

import (
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/backstep/backstep/internal/verdict"
)

// contestant is an arm in a cell: as it ships, or with its knob set there.
type contestant struct {
	arm
	fresh func() verdict.Rule
}

// score is how a contestant did in a cell.
type score struct {
	runs   int
	early  int             // it failed the release before it was bad
	delays []time.Duration // of the other fails, sorted
}

// rate is the share of runs that ended with a fail.
func (s score) rate() float64 { return float64(len(s.delays)+s.early) / float64(s.runs) }

// quantile is the delay that the share q of the runs stayed under, or -1 when fewer ended.
func (s score) quantile(q float64) time.Duration {
	if i := int(q * float64(s.runs)); i < len(s.delays) {
		return s.delays[i]
	}
	return -1
}

// wilson is the confidence interval of 95 % of a share, k of n.
func wilson(k, n int) (low, high float64) {
	const z = 1.96
	p, m := float64(k)/float64(n), float64(n)
	middle := p + z*z/(2*m)
	half := z * math.Sqrt(p*(1-p)/m+z*z/(4*m*m))
	return max(0, (middle-half)/(1+z*z/m)), (middle + half) / (1 + z*z/m)
}

// measure runs all contestants over the same runs of a world. The seed makes it repeatable.
func measure(s setting, w world, in []contestant, runs int, seed uint64) []score {
	scores := make([]score, len(in))
	var mu sync.Mutex
	parallel(func(worker, workers int) {
		mine := make([]score, len(in))
		var ticks []verdict.Tick
		for run := worker; run < runs; run += workers {
			ticks = newGenerator(seed, uint64(run)).run(ticks, s, w)
			for i, c := range in {
				mine[i].runs++
				if at, failed := judge(c.fresh(), ticks, c.blind); failed && at > w.onset {
					mine[i].delays = append(mine[i].delays, at-w.onset)
				} else if failed {
					mine[i].early++
				}
			}
		}
		mu.Lock()
		defer mu.Unlock()
		for i, m := range mine {
			scores[i].runs += m.runs
			scores[i].early += m.early
			scores[i].delays = append(scores[i].delays, m.delays...)
		}
	})
	for i := range scores {
		slices.Sort(scores[i].delays)
	}
	return scores
}

func parallel(work func(worker, workers int)) {
	var each sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for worker := range workers {
		each.Go(func() { work(worker, workers) })
	}
	each.Wait()
}

// judge is when the rule fails the run, if it does.
func judge(rule verdict.Rule, ticks []verdict.Tick, blind bool) (time.Duration, bool) {
	for _, t := range ticks {
		if blind && t.Elapsed <= 0 {
			continue
		}
		switch rule.Observe(t) {
		case verdict.Fail:
			return t.Elapsed, true
		case verdict.Pass:
			return 0, false
		}
	}
	return 0, false
}

// calibrated sets the knob of each arm so that about 1 % of the runs of a null fail.
func calibrated(s setting, null world, runs int) []contestant {
	var in []contestant
	low, high := make([]float64, len(arms)), make([]float64, len(arms))
	for i, a := range arms {
		in = append(in, contestant{arm: a})
		low[i], high[i] = a.low, a.high
	}
	for range 9 {
		for i, a := range arms {
			k := (low[i] + high[i]) / 2
			in[i].fresh = func() verdict.Rule { return a.knob(k) }
		}
		for i, got := range measure(s, null, in, runs, 3) {
			if k := (low[i] + high[i]) / 2; got.rate() > level {
				low[i] = k
			} else {
				high[i] = k
			}
		}
	}
	for i, a := range arms {
		in[i].fresh = func() verdict.Rule { return a.knob(high[i]) }
	}
	return in
}

// level is the share of good releases that the protocol lets fail.
const level = 0.01

// protocol is what is measured.
type protocol struct {
	settings  []setting
	runs, bad int
	ratios    []float64
	only      string // measure the nulls whose names begin so, as shipped, and no more; "" is everything
}

func full() protocol {
	p := protocol{ratios: []float64{1.5, 2, 4, 10, 40, 0}}
	for _, rate := range []float64{10, 100, 1000} {
		for _, share := range []float64{0.01, 0.05, 0.1, 0.5} {
			for _, base := range []float64{0.0005, 0.005, 0.02} {
				p.settings = append(p.settings, setting{rate, share, base, 15 * time.Second})
			}
		}
	}
	return p
}

// reduced is one setting at two ticks.
func reduced() protocol {
	return protocol{ratios: []float64{2, 4, 10, 0}, settings: []setting{{100, 0.1, 0.005, 15 * time.Second}, {100, 0.1, 0.005, 5 * time.Second}}}
}

// total is the fails of a contestant in a null, over all settings.
type total struct {
	fails, runs int
	worst       float64 // of the upper ends of the confidence intervals of the settings
	where       setting
}

func (t *total) add(s score, at setting) {
	k := len(s.delays) + s.early
	t.fails, t.runs = t.fails+k, t.runs+s.runs
	if _, high := wilson(k, s.runs); high > t.worst {
		t.worst, t.where = high, at
	}
}

// measurement is everything that run found.
type measurement struct {
	shipped, equal [][]total // by null, then by arm
	cells          []cell
}

// cell is a bad release in a setting.
type cell struct {
	setting
	world
	bound, warm    time.Duration // the bound, and the one of a null that allows for the warm-up
	shipped, equal []score
}

// aim is the aim for the median delay that goes with a bound.
func (c cell) aim(bound time.Duration) time.Duration {
	if c.burst == 1 {
		return bound*13/10 + c.tick
	}
	if c.ratio == 0 { // the bound does not know of bursts then; the aim does
		bound *= time.Duration(2*c.burst - 1)
	}
	return 2*bound + c.tick
}

// within says whether an arm as shipped is in time.
func (c cell) within(arm int, bound time.Duration) bool {
	delay := c.shipped[arm].quantile(0.5)
	return delay >= 0 && delay <= c.aim(bound)
}

// beaten says whether a preset is faster at equal false alarms.
func (c cell) beaten() bool {
	best := c.equal[0].quantile(0.5)
	for i, a := range arms {
		if theirs := c.equal[i].quantile(0.5); a.preset && theirs >= 0 && (best < 0 || theirs < best) {
			return true
		}
	}
	return false
}

func (p protocol) run(progress io.Writer) measurement {
	m := measurement{shipped: grid(), equal: grid()}
	var shipped []contestant
	for _, a := range arms {
		shipped = append(shipped, contestant{a, a.shipped})
	}
	for i, s := range p.settings {
		fmt.Fprintf(progress, "%d of %d: %s\n", i+1, len(p.settings), s)
		if p.only != "" {
			for n, w := range nulls {
				if strings.HasPrefix(w.name, p.only) {
					for a, got := range measure(s, w, shipped, p.runs, 1) {
						m.shipped[n][a].add(got, s)
					}
				}
			}
			continue
		}
		equal := calibrated(s, nulls[0], min(p.runs, 1000))
		both := append(slices.Clone(shipped), equal...)
		for n, w := range nulls {
			in, runs := both, p.runs
			if w.latency { // ten times the work
				in, runs = shipped, max(p.runs/10, 100)
			}
			for a, got := range measure(s, w, in, runs, 1) {
				if a < len(arms) {
					m.shipped[n][a].add(got, s)
				} else {
					m.equal[n][a-len(arms)].add(got, s)
				}
			}
		}
		for _, burst := range []float64{1, 5, 20} {
			if burst > 1 {
				equal = calibrated(s, world{burst: burst, ratio: 1}, min(p.runs, 1000))
			}
			both := append(slices.Clone(shipped), equal...)
			for _, onset := range []time.Duration{0, 10 * time.Minute} {
				for _, ratio := range p.ratios {
					w := world{burst: burst, onset: onset, ratio: ratio}
					if ratio*s.base >= 1 {
						continue
					}
					c := cell{setting: s, world: w, bound: bound(s, w, level, 0, 1), warm: bound(s, w, level, warmUp, cold)}
					if c.aim(c.bound)+onset > horizon {
						continue // there is not enough time
					}
					got := measure(s, w, both, p.bad, 2)
					c.shipped, c.equal = got[:len(arms)], got[len(arms):]
					m.cells = append(m.cells, c)
				}
			}
		}
	}
	return m
}

func grid() [][]total {
	g := make([][]total, len(nulls))
	for i := range g {
		g[i] = make([]total, len(arms))
	}
	return g
}

func (s setting) String() string {
	return fmt.Sprintf("%g/s, %g %% of it, %g %% errors, ticks of %s", s.rate, 100*s.share, 100*s.base, s.tick)
}

func (w world) String() string {
	what := fmt.Sprintf("%g times the errors", w.ratio)
	if w.ratio == 0 {
		what = "all requests fail"
	}
	if w.burst > 1 {
		what += fmt.Sprintf(", bursts of %g", w.burst)
	}
	if w.onset > 0 {
		what += ", from " + w.onset.String()
	}
	return what
}

func main() {
	p := full()
	short := flag.Bool("short", false, "one setting, at two ticks")
	runs := flag.Int("runs", 10000, "healthy runs of each null in each setting")
	only := flag.String("only", "", "measure only good releases as shipped, in the nulls whose names begin so, for example N")
	bad := flag.Int("bad", 400, "runs of each bad release in each setting")
	flag.Parse()
	if *short {
		p = reduced()
	}
	p.runs, p.bad, p.only = *runs, *bad, *only
	p.run(os.Stderr).write(os.Stdout, p)
}

// write writes the tables as Markdown.
func (m measurement) write(out io.Writer, p protocol) {
	head := func(first string) {
		names := []string{first}
		for _, a := range arms {
			names = append(names, a.name)
		}
		fmt.Fprintf(out, "| %s |\n|%s\n", strings.Join(names, " | "), strings.Repeat("---|", len(names)))
	}
	for _, t := range []struct {
		name string
		of   [][]total
	}{{"as shipped", m.shipped}, {"with 1 % false alarms in N1, per setting", m.equal}} {
		fmt.Fprintf(out, "\n### Good releases taken back, %%, %s\n\n%d runs (a tenth where latency is simulated) of each of %d settings: all of them (the upper end of the 95 %% confidence interval of the worst setting).\n\n",
			t.name, p.runs, len(p.settings))
		head("null")
		for n, row := range t.of {
			if row[0].runs == 0 {
				continue
			}
			fmt.Fprintf(out, "| %s", nulls[n].name)
			for _, c := range row {
				fmt.Fprintf(out, " | %.2f (%.2f)", 100*float64(c.fails)/float64(c.runs), 100*c.worst)
			}
			fmt.Fprintln(out, " |")
		}
	}
	within, warm, bare, fastest := 0, 0, 0, 0
	var slow, beaten []string
	for _, c := range m.cells {
		mine := c.shipped[0].quantile(0.5)
		if c.within(0, c.bound) {
			within++
		}
		if c.within(1, c.bound) {
			bare++
		}
		if c.within(0, c.warm) {
			warm++
		} else {
			slow = append(slow, fmt.Sprintf("%s; %s: %s, aim %.0f s", c.setting, c.world, seconds(mine), c.aim(c.warm).Seconds()))
		}
		if !c.beaten() {
			fastest++
			continue
		}
		line := fmt.Sprintf("%s; %s: %s", c.setting, c.world, seconds(c.equal[0].quantile(0.5)))
		for i, a := range arms {
			if theirs := c.equal[i].quantile(0.5); a.preset && theirs >= 0 {
				line += fmt.Sprintf(", %s %s", a.name, seconds(theirs))
			}
		}
		beaten = append(beaten, line)
	}
	fmt.Fprintf(out, "\n### Bad releases\n\n%d cells whose aim lies within %s. The median delay, as shipped, is within its aim in %d; by the bound of a null that "+
		"allows for the warm-up in %d; and without a warm-up in %d. At equal false alarms (1 %% of the null with the same bursts) no preset is faster in %d.\n",
		len(m.cells), horizon, within, warm, bare, fastest)
	for i, s := range p.settings {
		if len(p.settings) > 2 && s != (setting{100, 0.1, 0.005, 15 * time.Second}) && s != (setting{10, 0.1, 0.02, 15 * time.Second}) {
			continue
		}
		fmt.Fprintf(out, "\n#### %s\n\nMedian seconds to the verdict as shipped; for the first arm also the 90th and 99th percentile, the undetected, the bad requests until then, and the delay by the bound.\n\n", p.settings[i])
		head("bad release | bound | with warm-up | p90 | p99 | undetected | lost | ÷ bound")
		for _, c := range m.cells {
			if c.setting != s {
				continue
			}
			mine := c.shipped[0]
			median := mine.quantile(0.5)
			p1 := c.ratio * c.base
			if c.ratio == 0 {
				p1 = 1
			}
			fmt.Fprintf(out, "| %s | %.1f | %.1f | %s | %s | %.1f %% | %.0f | %.2f", c.world, c.bound.Seconds(), c.warm.Seconds(), seconds(mine.quantile(0.9)), seconds(mine.quantile(0.99)),
				100*(1-mine.rate()), median.Seconds()*c.rate*c.share*p1, median.Seconds()/c.bound.Seconds())
			for _, other := range c.shipped {
				fmt.Fprintf(out, " | %s", seconds(other.quantile(0.5)))
			}
			fmt.Fprintln(out, " |")
		}
	}
	list := func(title string, lines []string) {
		fmt.Fprintf(out, "\n### %s: %d\n\n", title, len(lines))
		for _, l := range lines {
			fmt.Fprintln(out, "-", l)
		}
	}
	list("Cells that are later than the aim of a null with a warm-up", slow)
	list("Cells in which a preset is faster at equal false alarms", beaten)
}

func seconds(d time.Duration) string {
	if d < 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f s", d.Seconds())
}
