package ticks

import (
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/verdict"
)

// What is written is read again, with the bounds of each series in columns of their own.
func TestWriteAndRead(t *testing.T) {
	pair := func(c, slowC, b, slowB int) verdict.Pair {
		return verdict.Pair{Candidate: verdict.Counts{Requests: c, Errors: slowC}, Baseline: verdict.Counts{Requests: b, Errors: slowB}}
	}
	all := []Series{
		{Name: "haproxy", Ticks: []verdict.Tick{{Elapsed: -2 * time.Second, Baseline: verdict.Counts{Requests: 9, Errors: 1}},
			{Elapsed: 1234567891, Candidate: verdict.Counts{Requests: 3, Errors: 2}, Baseline: verdict.Counts{Requests: 9}}}},
		{Name: "nginx", Rule: verdict.Setting{Rule: verdict.Metered, Options: verdict.Options{Alpha: 0.009, Bake: time.Minute}}, Bounds: []float64{0.25}, Ticks: []verdict.Tick{{Elapsed: time.Second, Candidate: verdict.Counts{Requests: 5},
			Baseline: verdict.Counts{Requests: 7}, Slower: []verdict.Pair{pair(5, 1, 7, 2)}}}},
	}
	var b strings.Builder
	if err := Write(&b, all); err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(strings.NewReader(b.String()))
	if err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}
	var got []Series
	for {
		l, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 || got[len(got)-1].Name != l.Series {
			rule, _ := r.Rule(l.Series)
			got = append(got, Series{Name: l.Series, Rule: rule})
		}
		tick := l.Tick
		tick.Slower = nil
		if l.Series == "nginx" {
			tick.Slower = append(tick.Slower, l.Slower...)
			got[len(got)-1].Bounds = []float64{0.25}
		}
		got[len(got)-1].Ticks = append(got[len(got)-1].Ticks, tick)
	}
	if !reflect.DeepEqual(got, all) {
		t.Errorf("%+v\nis not\n%+v\n%s", got, all, b.String())
	}
}

func TestFaults(t *testing.T) {
	const head = "series,tick,seconds,candidate_requests,candidate_errors,baseline_requests,baseline_errors"
	for text, want := range map[string]string{
		"":                                      "the header has to begin with",
		"series,tick":                           "the header has to begin with",
		head + "\na,1,soon,1,0,1,0":             "line 2: seconds \"soon\": want a number",
		head + "\na,1,NaN,1,0,1,0":              "line 2: seconds \"NaN\": want a number",
		head + "\na,1,1,-1,0,1,0":               "line 2: \"-1\": want a number of requests",
		head + "\na,1,1,1,0,1,0\na,2,2,1,2,1,0": "line 3: there are more errors than requests",
		head + "\na,1,1,1":                      "wrong number of fields",
		head + "\na,1,2,1,0,1,0\nb,1,1,1,0,1,0\na,2,1.5,1,0,1,0": "line 4: seconds 1.5: the tick before it ended at 2; they must be in order",
		"#rule {\"series\":\"a\",\"rule\":\"guess\"}\n" + head:   "line 1: rule \"guess\": want one of comparison, objective, probed",
		"#rule {\n" + head: "line 1: ",
		head + ",candidate_over_1,baseline_over_1\na,1,1,5,0,5,0,6,0": "line 2: there are more slow requests than requests",
		head + ",candidate_over_1\na,1,1,5,0,5,0,6":                   "none baseline_over_1",
	} {
		r, err := NewReader(strings.NewReader(text))
		for err == nil {
			_, err = r.Read()
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
