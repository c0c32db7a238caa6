package prometheus

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"

	"github.com/backstep/backstep/internal/probe"
)

// said is a Prometheus that always says the same.
type said []byte

func (s said) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(s))}, nil
}

// FuzzAnswer looks for an answer that is a panic, or totals that cannot be.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		`{"status":"success","data":{"result":[{"metric":{"le":"+Inf"},"value":[1,"5"]},{"metric":{"le":"0.25"},"value":[1,"3"]}]}}`,
		`{"status":"success","data":{"result":[{"metric":{},"value":[1,"5"]}]}}`, `{"status":"success","data":{"result":[{"value":[1,"1e300"]}]}}`,
		`{"status":"success","data":{"result":[{"value":[1,"-7"]}]}}`, `{"status":"success","data":{"result":[{"value":[]}]}}`,
		`{"status":"success","data":{"result":[{"values":[[1,"NaN"],[2,"-Inf"],[3,"0.5"]]}]}}`, `{"status":"error","error":"x"}`, `[]`, ``} {
		f.Add([]byte(seed))
	}
	open := func(m meter) probe.Meter {
		m.address = "http://prometheus:9090"
		opened, err := m.open()
		if err != nil {
			f.Fatal(err)
		}
		return opened
	}
	meters := []probe.Meter{open(meter{total: "a", errors: "b"}), open(meter{total: "a", good: "b"}), open(meter{histogram: "h", chosen: []string{"0.25"}})}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, one := range meters {
			m := one.(meter)
			m.api.Client = &http.Client{Transport: said(body)}
			for _, read := range []func(context.Context) ([]*probe.Totals, error){
				func(ctx context.Context) ([]*probe.Totals, error) { return m.Read(ctx, []probe.Subject{subject}) },
				func(ctx context.Context) ([]*probe.Totals, error) { return m.History(ctx, subject, 1e9) },
			} {
				all, err := read(t.Context())
				if err != nil {
					continue
				}
				for _, n := range all {
					if n != nil && (n.Requests < 0 || n.Errors < 0 || n.Errors > n.Requests || len(n.Slower) > 0 && (n.Slower[0] < 0 || n.Slower[0] > n.Requests)) {
						t.Errorf("%q is %+v", body, *n)
					}
				}
			}
		}
	})
}
