package ticks

import (
	"strings"
	"testing"
)

// FuzzReader looks for a file that is a panic, or lines that cannot be.
func FuzzReader(f *testing.F) {
	header := strings.Join(Header, ",")
	for _, seed := range []string{header, header + "\nx,1,1.5,10,1,10,0\n", header + ",region\nx,1,NaN,1,1,1,1,eu\n", header + ",candidate_over_0.25,baseline_over_0.25\nx,1,1,5,1,7,0,1,2\n",
		header + "\nx,1,1e308,1,1,1,1", header + "\nx,1,1,99999999999999999999,0,0,0", "\"", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := NewReader(strings.NewReader(text))
		for err == nil {
			var l Line
			if l, err = r.Read(); err != nil {
				break
			}
			if more(l.Candidate) || more(l.Baseline) || l.Candidate.Errors < 0 || l.Baseline.Errors < 0 {
				t.Errorf("%q has the tick %+v", text, l.Tick)
			}
			for _, s := range l.Slower {
				if more(s.Candidate) || more(s.Baseline) || s.Candidate.Errors < 0 || s.Baseline.Errors < 0 {
					t.Errorf("%q has the slow requests %+v", text, s)
				}
			}
		}
	})
}
