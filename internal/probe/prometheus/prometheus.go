// Package prometheus is the meter that asks Prometheus, or whatever speaks its HTTP API.
package prometheus

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/probe"
	"github.com/backstep/backstep/internal/secret"
)

// Kind is the prometheus meter.
func Kind() probe.Kind {
	return probe.Kind{
		Name: "prometheus",
		Help: "Counts the requests of a release by queries to Prometheus. In a query, $digest, $version, $address and $host are those of the release: " +
			"write sum(http_requests_total{version=\"$version\"}), a counter, with neither rate nor increase around it. A query that does not give exactly one series is no data.",
		Every: 5 * time.Second,
		Skew:  5 * time.Second, // two instances are scraped at times of their own
		NewMeter: func() ([]input.Input, func() (probe.Meter, error)) {
			var m meter
			return []input.Input{
				input.String(&m.address, "url", "The address of Prometheus.").Must(),
				input.String(&m.total, "total", "The query of all requests; the histogram's count when there is a histogram.").Or(""),
				input.String(&m.errors, "errors", "The query of the requests that failed; or give good."),
				input.String(&m.good, "good", "The query of the requests that did not fail."),
				input.String(&m.histogram, "histogram", "The query of the latency's buckets, by le: sum by (le) (http_request_duration_seconds_bucket{version=\"$version\"})."),
				input.List(&m.chosen, "bounds", "The bounds of the histogram that are looked at, in seconds; at most five, which have to be buckets."),
				input.Secrets(&m.headers, "headers", "Headers of each query, for example Authorization."),
			}, func() (probe.Meter, error) { return m.open() }
		},
	}
}

type meter struct {
	address, total, errors, good, histogram string
	chosen                                  []string
	bounds                                  []float64
	headers                                 map[string]secret.Value
	api                                     *probe.API
}

func (m meter) open() (probe.Meter, error) {
	var err error
	if m.api, err = probe.NewAPI(m.address, "http://prometheus:9090", m.headers); err != nil {
		return nil, err
	}
	switch {
	case m.total == "" && m.histogram == "":
		return nil, fault.Inputf("a prometheus meter needs total, histogram, or both")
	case m.total != "" && (m.errors == "") == (m.good == ""):
		return nil, fault.Inputf("beside total, give either errors or good")
	case m.total == "" && m.errors+m.good != "":
		return nil, fault.Inputf("errors and good need total")
	case (m.histogram == "") != (len(m.chosen) == 0):
		return nil, fault.Inputf("histogram and bounds go together")
	case len(m.chosen) > 5:
		return nil, fault.Inputf("%d bounds: want five at most, around the latency that customers feel", len(m.chosen))
	}
	m.bounds, err = probe.ParseBounds(m.chosen)
	return m, err
}

// Bounds are the bounds of the histogram that are looked at.
func (m meter) Bounds() []float64 { return m.bounds }

// Read asks for the totals as they are now.
func (m meter) Read(ctx context.Context, of []probe.Subject) ([]*probe.Totals, error) {
	totals := make([]*probe.Totals, len(of))
	now := url.Values{"time": {seconds(time.Now())}} // one moment for all queries
	for i, s := range of {
		read, err := m.read(ctx, s, "/api/v1/query", now)
		if err != nil {
			return nil, err
		}
		for _, t := range read { // one moment at most
			totals[i] = t
		}
	}
	return totals, nil
}

// History asks for the hour before now.
func (m meter) History(ctx context.Context, of probe.Subject, step time.Duration) ([]*probe.Totals, error) {
	end := time.Now()
	read, err := m.read(ctx, of, "/api/v1/query_range", url.Values{"start": {seconds(end.Add(-time.Hour))}, "end": {seconds(end)},
		"step": {strconv.FormatFloat(step.Seconds(), 'f', -1, 64)}})
	if err != nil || len(read) == 0 {
		return nil, err
	}
	var moments []float64
	for at := range read {
		moments = append(moments, at)
	}
	slices.Sort(moments)
	var totals []*probe.Totals
	for i, at := range moments {
		if i > 0 && at-moments[i-1] > 1.5*step.Seconds() {
			totals = append(totals, nil)
		}
		totals = append(totals, read[at])
	}
	return totals, nil
}

func seconds(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }

// read is the totals by their moment, where all queries have a value.
func (m meter) read(ctx context.Context, of probe.Subject, path string, when url.Values) (map[float64]*probe.Totals, error) {
	host, _, err := net.SplitHostPort(of.Address)
	if err != nil {
		host = of.Address
	}
	fill := strings.NewReplacer("$digest", escape(string(of.Release.Digest)), "$version", escape(of.Release.Version), "$address", escape(of.Address), "$host", escape(host))
	ask := func(query string) ([]series, error) { return m.query(ctx, path, fill.Replace(query), when) }
	totals := map[float64]*probe.Totals{}
	if m.histogram != "" {
		buckets, err := ask(m.histogram)
		if err != nil {
			return nil, err
		}
		if err := m.fromBuckets(buckets, totals); err != nil {
			return nil, err
		}
	}
	if m.total == "" {
		return totals, nil
	}
	all, err := single(ask, m.total)
	if err != nil {
		return nil, err
	}
	some, err := single(ask, m.errors+m.good) // one of them is empty
	if err != nil {
		return nil, err
	}
	for at, requests := range all {
		part, known := some[at]
		if m.histogram != "" && totals[at] == nil {
			continue
		}
		if !known { // a counter of errors that has not come up yet; a counter of good ones tells nothing
			if m.good != "" || len(some) > 0 {
				delete(totals, at)
				continue
			}
		}
		if m.good != "" {
			part = requests - part
		}
		t := totals[at]
		if t == nil {
			t = &probe.Totals{}
			totals[at] = t
		}
		t.Requests, t.Errors = whole(requests), whole(max(0, min(part, requests)))
	}
	for at := range totals {
		if _, known := all[at]; !known {
			delete(totals, at)
		}
	}
	return totals, nil
}

// escape makes s safe within a string of PromQL, in whichever quotes, and within a comment: all that could end one is a hexadecimal escape.
func escape(s string) string {
	var out strings.Builder
	for _, b := range []byte(s) {
		if b >= '0' && b <= '9' || b >= 'A' && b <= 'Z' || b >= 'a' && b <= 'z' || strings.IndexByte("+-._:/@[]%", b) >= 0 {
			out.WriteByte(b)
			continue
		}
		fmt.Fprintf(&out, `\x%02x`, b)
	}
	return out.String()
}

// fromBuckets makes totals of the buckets of a histogram: cumulative, le being the largest value in them.
func (m meter) fromBuckets(buckets []series, totals map[float64]*probe.Totals) error {
	find := func(want float64) (map[float64]float64, error) {
		var found map[float64]float64
		for _, s := range buckets {
			if le, err := strconv.ParseFloat(s.labels["le"], 64); err == nil && le == want {
				if found != nil {
					return nil, fmt.Errorf("prometheus: several series with le=%q: the query has to sum by (le)", s.labels["le"])
				}
				found = s.values
			}
		}
		if found == nil && len(buckets) > 0 {
			return nil, fmt.Errorf("prometheus: the histogram has no bucket %g", want)
		}
		return found, nil
	}
	all, err := find(math.Inf(1))
	if err != nil {
		return err
	}
	for at, n := range all {
		totals[at] = &probe.Totals{Requests: whole(n), Slower: make([]int, len(m.bounds))}
	}
	for i, bound := range m.bounds {
		within, err := find(bound)
		if err != nil {
			return err
		}
		for at, n := range within {
			if t := totals[at]; t != nil {
				t.Slower[i] = max(0, t.Requests-whole(n))
			}
		}
	}
	return nil
}

// countLimit is up to where a float64 holds every whole number.
const countLimit = 1 << 53

func whole(f float64) int { return int(math.Round(f)) }

// single is the values of a query that has to give one series. None is no data, and so are no values.
func single(ask func(string) ([]series, error), query string) (map[float64]float64, error) {
	found, err := ask(query)
	switch {
	case err != nil:
		return nil, err
	case len(found) > 1:
		return nil, fmt.Errorf("prometheus: %d series instead of one: sum what %s selects", len(found), probe.Line(query))
	case len(found) == 0:
		return nil, nil
	}
	return found[0].values, nil
}

// series is one series: its values by their moment, in seconds.
type series struct {
	labels map[string]string
	values map[float64]float64
}

// answer is the answer of https://prometheus.io/docs/prometheus/latest/querying/api/.
type answer struct {
	Status string `json:"status"`
	Error  string `json:"error"`
	Data   struct {
		Result []struct {
			Metric map[string]string `json:"metric"`
			Value  *point            `json:"value"`
			Values []point           `json:"values"`
		} `json:"result"`
	} `json:"data"`
}

// point is [seconds, "value"].
type point struct{ at, value float64 }

func (p *point) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &[]any{&p.at, &text}); err != nil {
		return err
	}
	var err error
	p.value, err = strconv.ParseFloat(text, 64)
	return err
}

func (m meter) query(ctx context.Context, path, query string, when url.Values) ([]series, error) {
	form := url.Values{"query": {query}}
	for key, values := range when {
		form[key] = values
	}
	got, err := m.api.Post(ctx, path, form)
	if err != nil {
		return nil, fmt.Errorf("prometheus: %w", err)
	}
	var said answer
	if err := json.Unmarshal(got.Body, &said); err != nil || said.Status != "success" {
		return nil, fmt.Errorf("prometheus: status %d: %s", got.Status, probe.Line(said.Error+string(got.Body)))
	}
	var found []series
	for _, r := range said.Data.Result {
		s := series{labels: r.Metric, values: map[float64]float64{}}
		if r.Value != nil {
			r.Values = append(r.Values, *r.Value)
		}
		for _, p := range r.Values {
			if p.value >= 0 && p.value <= countLimit { // what is no number, and no count, is no data
				s.values[p.at] = p.value
			}
		}
		found = append(found, s)
	}
	return found, nil
}
