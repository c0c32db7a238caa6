package verdict

import (
	"math"
	"testing"
	"time"
)

// The estimate and the interval are those of R: wilcox.test(x, y, conf.int=TRUE, exact=FALSE) on the data of its own example
// (Hollander and Wolfe 1973, permeability constants of the human chorioamnion).
func TestShift(t *testing.T) {
	x := []float64{0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46}
	y := []float64{1.15, 0.88, 0.90, 0.74, 1.21}
	low, estimate := shift(x, y, 0.95)
	if math.Abs(estimate-0.305) > 1e-9 || low < -0.76 || low > -0.1 {
		t.Errorf("estimate %g from %g upwards", estimate, low)
	}
	// Every difference of all-equal points is theirs.
	if low, estimate := shift([]float64{2, 2, 2, 2, 2}, []float64{1, 1, 1, 1, 1}, 0.98); low != 1 || estimate != 1 {
		t.Errorf("one more everywhere: %g from %g", estimate, low)
	}
}

func TestKayenta(t *testing.T) {
	for name, c := range map[string]struct {
		errors int // of 100 requests a tick of 15 s
		want   Verdict
		at     time.Duration
	}{
		"bad from the start": {20, Fail, 5 * time.Minute},
		"as good":            {1, Pass, 30 * time.Minute},
		"no requests":        {-1, Unknown, 40 * time.Minute},
	} {
		r := Kayenta()
		for i := 1; ; i++ {
			at := time.Duration(i) * 15 * time.Second
			candidate := Counts{100, max(c.errors+i/4%3-1, 0)}
			if c.errors < 0 {
				candidate = Counts{}
			}
			v := r.Observe(Tick{Elapsed: at, Candidate: candidate, Baseline: Counts{900, 9 + i/4%5}})
			if v != Unknown || at == 40*time.Minute {
				if v != c.want || at != c.at {
					t.Errorf("%s: %s at %s (%s), want %s at %s", name, v, at, r.Reason(), c.want, c.at)
				}
				break
			}
		}
	}
}
