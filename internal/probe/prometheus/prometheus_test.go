package prometheus

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/probe"
	"github.com/backstep/backstep/internal/probe/probetest"
	"github.com/backstep/backstep/internal/release"
)

// shop exports counters in Prometheus's text format.
type shop struct {
	mu              sync.Mutex
	good, bad, slow int
}

func (s *shop) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.good + s.bad
	fmt.Fprintf(w, "requests_total{version=\"2.0.0\",code=\"200\"} %d\n", s.good)
	if s.bad > 0 { // libraries make a series when it is first counted
		fmt.Fprintf(w, "requests_total{version=\"2.0.0\",code=\"500\"} %d\n", s.bad)
	}
	fmt.Fprintf(w, "seconds_bucket{version=\"2.0.0\",le=\"0.25\"} %d\nseconds_bucket{version=\"2.0.0\",le=\"+Inf\"} %d\n", all-s.slow, all)
}

// start runs a real Prometheus that scrapes the shop every 200 ms.
func start(t *testing.T, s *shop) (address string, stop func()) {
	t.Helper()
	probetest.Needs(t, "Prometheus")
	exporter := httptest.NewServer(s)
	t.Cleanup(exporter.Close)
	dir, address := t.TempDir(), probetest.Free(t)
	file := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("scrape_configs:\n- job_name: shop\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\n  static_configs: [{targets: [%q]}]\n", exporter.Listener.Addr())
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	stop = probetest.Start(t, func() bool {
		response, err := http.Get("http://" + address + "/-/ready")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	}, nil, "prometheus", "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address, "--log.level=error")
	return "http://" + address, stop
}

var subject = probe.Subject{Address: "127.0.0.1:8080", Release: release.Release{Version: "2.0.0"}}

func TestE2EConformance(t *testing.T) {
	s := &shop{}
	url, stop := start(t, s)
	m := probetest.OpenMeter(t, Kind(), map[string]string{"url": url, "total": `sum(requests_total{version="$version"})`,
		"errors": `sum(requests_total{version="$version",code=~"5.."})`})
	probetest.RunMeter(t, m, probetest.Traffic{Subject: subject, Stop: stop, Send: func(t *testing.T, n, bad int) {
		s.mu.Lock()
		s.good, s.bad = s.good+n-bad, s.bad+bad
		good, failed := s.good, s.bad
		s.mu.Unlock()
		wait(t, m, func(got *probe.Totals) bool { return got.Requests == good+failed && got.Errors == failed })
	}})
}

// wait reads until the meter has what was counted.
func wait(t *testing.T, m probe.Meter, has func(*probe.Totals) bool) {
	t.Helper()
	var got []*probe.Totals
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if got, err = m.Read(t.Context(), []probe.Subject{subject}); err == nil && got[0] != nil && has(got[0]) {
			return
		}
	}
	t.Fatalf("not seen: %+v, %v", got, err)
}

func TestE2EQueries(t *testing.T) {
	s := &shop{good: 90, bad: 10, slow: 30}
	url, _ := start(t, s)
	all := map[string]string{"url": url, "total": `sum(requests_total{version="$version"})`, "good": `sum(requests_total{version="$version",code="200"})`,
		"histogram": `sum by (le) (seconds_bucket{version="$version"})`, "bounds": "0.25"}
	m := probetest.OpenMeter(t, Kind(), all)
	wait(t, m, func(got *probe.Totals) bool {
		return got.Requests == 100 && got.Errors == 10 && len(got.Slower) == 1 && got.Slower[0] == 30
	})
	latency := probetest.OpenMeter(t, Kind(), map[string]string{"url": url, "histogram": all["histogram"], "bounds": "0.25"})
	wait(t, latency, func(got *probe.Totals) bool { return got.Requests == 100 && got.Slower[0] == 30 })

	// What was before, from the first scrape on.
	var history []*probe.Totals
	for end := time.Now().Add(20 * time.Second); len(history) < 3 && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		var err error
		if history, err = m.(probe.Historian).History(t.Context(), subject, time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if len(history) < 3 || history[1] == nil || history[1].Requests != 100 {
		t.Errorf("the history is %+v", history)
	}

	for want, inputs := range map[string]map[string]string{
		"2 series instead of one":     {"total": `requests_total{version="$version"}`},
		"several series with le=":     {"histogram": `seconds_bucket or label_replace(seconds_bucket, "copy", "1", "", "")`, "bounds": "0.25"},
		"the histogram has no bucket": {"bounds": "0.5"},
		"parse error":                 {"total": "sum("},
		"connect: connection refused": {"url": "http://" + probetest.Free(t)},
		"prometheus: status 404: ":    {"url": url + "/elsewhere"},
	} {
		asked := map[string]string{}
		for k, v := range all {
			asked[k] = v
		}
		for k, v := range inputs {
			asked[k] = v
		}
		if got, err := probetest.OpenMeter(t, Kind(), asked).Read(t.Context(), []probe.Subject{subject}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, %v; want %q", inputs, got, err, want)
		}
	}
	stranger := probe.Subject{Release: release.Release{Version: "9.9.9"}}
	if got, err := m.Read(t.Context(), []probe.Subject{stranger}); err != nil || got[0] != nil {
		t.Errorf("a release that nobody knows: %+v, %v; want no data", got, err)
	}
}

func TestInputs(t *testing.T) {
	for want, inputs := range map[string]map[string]string{
		"needs total, histogram":  {"url": "http://p:9090"},
		"either errors or good":   {"url": "http://p:9090", "total": "a"},
		"errors and good need":    {"url": "http://p:9090", "errors": "a", "histogram": "h", "bounds": "1"},
		"go together":             {"url": "http://p:9090", "histogram": "h"},
		"want five at most":       {"url": "http://p:9090", "histogram": "h", "bounds": "1\n2\n3\n4\n5\n6"},
		"want rising seconds":     {"url": "http://p:9090", "histogram": "h", "bounds": "2\n1"},
		"want for example http:/": {"url": "p:9090", "total": "a", "good": "b"},
	} {
		if got := probetest.Refused(t, Kind(), inputs); !strings.Contains(got, want) {
			t.Errorf("%v: %q, want %q", inputs, got, want)
		}
	}
}

// What a release is called cannot end the string of a query that it stands in, in whichever quotes.
func TestAReleaseCannotChangeAQuery(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.FormValue("query"))
		fmt.Fprint(w, `{"status":"success","data":{"result":[]}}`)
	}))
	defer server.Close()
	for version, want := range map[string]string{
		"1.0.0-rc.1+b":   `1.0.0-rc.1+b`,
		`1.0.0"} * 0) #`: `1.0.0\x22\x7d\x20\x2a\x200\x29\x20\x23`,
		"'`\\\n":         `\x27\x60\x5c\x0a`,
		"$digest":        `\x24digest`,
	} {
		for _, quote := range []string{`"`, `'`, "`"} {
			m := meter{address: server.URL, total: "sum(requests{version=" + quote + "$version" + quote + "})", errors: "x"}
			opened, err := m.open()
			if err != nil {
				t.Fatal(err)
			}
			asked = nil
			_, err = opened.Read(t.Context(), []probe.Subject{{Address: "127.0.0.1:1", Release: release.Release{Version: version}}})
			if query := "sum(requests{version=" + quote + want + quote + "})"; err != nil || len(asked) == 0 || asked[0] != query {
				t.Errorf("version %q: asked %q, %v; want %s", version, asked, err, query)
			}
		}
	}
}
