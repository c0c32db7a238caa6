package verdict

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// MannWhitneyOptions are a rule in the manner of Kayenta: the error rates of each interval are points, and the points of
// the candidate are compared with those of the baseline.
type MannWhitneyOptions struct {
	Interval   time.Duration // of one point
	Confidence float64       // of the interval of the difference
	Tolerance  float64       // how large the difference may be, as a share of its estimate
	Least      int           // points of each side before a look
	Every      time.Duration // between looks
	End        time.Duration // a pass at the look that comes then
}

// Kayenta is a canary analysis as Spinnaker's documentation sets it up, with the judge's own settings: points of one
// minute, a confidence of 98 %, a tolerance of a quarter (NetflixACAJudge.scala, MannWhitneyClassifier.scala), here with a look
// every 5 minutes for half an hour.
func Kayenta() Rule {
	return NewMannWhitney(MannWhitneyOptions{Interval: time.Minute, Confidence: 0.98, Tolerance: 0.25, Least: 5,
		Every: 5 * time.Minute, End: 30 * time.Minute})
}

// mannWhitney fails when the confidence interval of the difference lies above the tolerated part of its estimate (Hodges and
// Lehmann). How sure it is holds for one look only, and how many requests a point stands for does not count.
type mannWhitney struct {
	o                   MannWhitneyOptions
	now                 Tick
	point, look         time.Duration // when the next one is due
	candidate, baseline []float64
	looks               int
	verdict             Verdict
	low, estimate       float64
}

// NewMannWhitney is the rule of ranks.
func NewMannWhitney(o MannWhitneyOptions) Rule {
	return &mannWhitney{o: o, point: o.Interval, look: o.Every}
}

// Observe takes one tick. An interval in which a side has no requests is no point of it.
func (r *mannWhitney) Observe(t Tick) Verdict {
	if r.verdict != Unknown || t.Elapsed <= 0 {
		return r.verdict
	}
	r.now.add(t)
	if t.Elapsed >= r.point {
		r.candidate = append(r.candidate, rates(r.now.Candidate)...)
		r.baseline = append(r.baseline, rates(r.now.Baseline)...)
		r.now = Tick{}
		for t.Elapsed >= r.point {
			r.point += r.o.Interval
		}
	}
	if t.Elapsed < r.look {
		return Unknown
	}
	for t.Elapsed >= r.look {
		r.look += r.o.Every
	}
	if min(len(r.candidate), len(r.baseline)) < r.o.Least {
		return Unknown
	}
	r.looks++
	r.low, r.estimate = shift(r.candidate, r.baseline, r.o.Confidence)
	switch {
	case r.low > r.o.Tolerance*math.Abs(r.estimate):
		r.verdict = Fail
	case t.Elapsed >= r.o.End:
		r.verdict = Pass
	}
	return r.verdict
}

// rates is the error rate, when there is one.
func rates(c Counts) []float64 {
	if c.Requests == 0 {
		return nil
	}
	return []float64{float64(c.Errors) / float64(c.Requests)}
}

// shift is the Hodges-Lehmann estimate of how much higher a lies than b, with the lower end of its confidence interval: the
// differences of all pairs, in their order, of which Mann and Whitney's statistic counts those above zero; normal approximation with
// the correction for ties and for continuity, as R's wilcox.test has them.
func shift(a, b []float64, confidence float64) (low, estimate float64) {
	m, n := float64(len(a)), float64(len(b))
	differences := make([]float64, 0, len(a)*len(b))
	for _, x := range a {
		for _, y := range b {
			differences = append(differences, x-y)
		}
	}
	slices.Sort(differences)
	half := len(differences) / 2
	estimate = differences[half]
	if len(differences)%2 == 0 {
		estimate = (estimate + differences[half-1]) / 2
	}
	all := append(slices.Clone(a), b...)
	slices.Sort(all)
	ties := 0.0
	for i, run := 0, 1; i < len(all); i, run = i+run, 1 {
		for i+run < len(all) && all[i+run] == all[i] {
			run++
		}
		ties += math.Pow(float64(run), 3) - float64(run)
	}
	sigma := math.Sqrt(m * n / 12 * (m + n + 1 - ties/((m+n)*(m+n-1))))
	z := math.Sqrt2 * math.Erfinv(confidence) // both ends together
	// The lower end is the shift at which so many pairs lie above it that U is z·sigma over its mean.
	k := int(math.Floor(m*n/2 - z*sigma - 0.5))
	return differences[min(max(k, 0), len(differences)-1)], estimate
}

func (r *mannWhitney) Reason() string {
	if r.looks == 0 {
		return fmt.Sprintf("%d and %d points: no look yet", len(r.candidate), len(r.baseline))
	}
	return fmt.Sprintf("look %d: the error rate lies %s higher, at least %s", r.looks, percent(r.estimate), percent(r.low))
}

// Progress knows only how many of the looks for a pass are over.
func (r *mannWhitney) Progress() (fail, pass float64) {
	if r.verdict == Fail {
		return 1, 0
	}
	return 0, min(1, float64(r.looks)*float64(r.o.Every)/float64(r.o.End))
}
