package nginx

import (
	"testing"

	"github.com/backstep/backstep/internal/probe"
)

// FuzzLine looks for lines of a log that cost much memory, or count more errors or slow requests than requests.
func FuzzLine(f *testing.F) {
	for _, seed := range []string{`{"upstream":"10.0.0.1:80","status":"200","seconds":"0.1"}`, `{"upstream":"a, b : c","status":"502, 200 : 500","seconds":"-, 0.1 : x"}`,
		`{"upstream":", , ","status":"","seconds":"NaN, Inf"}`, `{"upstream":1}`, "[]", "null", "{"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m := meter{bounds: []float64{0.1, 1}, totals: map[string]*probe.Totals{}}
		for range 2 {
			m.line(text)
		}
		for address, n := range m.totals {
			if n.Errors > n.Requests || n.Requests < 2 || n.Slower[0] > n.Requests || n.Slower[1] > n.Slower[0] {
				t.Errorf("%q counts %+v of %q", text, *n, address)
			}
		}
	})
}
