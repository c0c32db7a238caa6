package executor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/config"
	"github.com/backstep/backstep/internal/probe"
	"github.com/backstep/backstep/internal/probe/alertmanager"
	"github.com/backstep/backstep/internal/probe/probetest"
	"github.com/backstep/backstep/internal/verdict"
)

// heard is a log that can be read while it is written.
type heard struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.Write(p)
}

func (h *heard) count(s string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Count(h.text.String(), s)
}

// alerted is a place that is watched by an Alertmanager.
type alerted struct {
	*place
	server *probetest.Alertmanager
	log    *heard
}

func newAlerted(t *testing.T) alerted {
	a := alerted{newPlace(t), probetest.NewAlertmanager(t), &heard{}}
	a.good("1.0.0")
	a.must(a.deploy("1.1.0"))
	return a
}

// The bakes of these tests: one that a fail ends, and one that is waited for.
const (
	whole = time.Minute
	short = 600 * time.Millisecond
)

// fires sends an alert with the name about the shop; it has ended when ended says so.
func (a alerted) fires(name string, ended bool) {
	a.t.Helper()
	now := time.Now()
	one := map[string]any{"labels": map[string]string{"alertname": name, "service": "shop"}, "annotations": map[string]string{"summary": "checkout fails"}, "startsAt": now}
	if ended {
		one["endsAt"] = now
	}
	body, err := json.Marshal([]any{one})
	a.must(err)
	response, err := http.Post(a.server.URL+"/api/v2/alerts", "application/json", bytes.NewReader(body))
	a.must(err)
	response.Body.Close()
}

// verify verifies what is live while the Alertmanager is asked, and does something once it has been asked so often.
func (a alerted) verify(bake time.Duration, asked int, then func()) Verification {
	a.t.Helper()
	x := a.run()
	x.log = slog.New(slog.NewTextHandler(a.log, nil))
	x.Config.Verify.Bake = bake
	x.Config.Verify.Probes = append(x.Config.Verify.Probes, config.ProbeConfig{Name: "alertmanager 2", Every: 10 * time.Millisecond, Timeout: 50 * time.Millisecond,
		Watch: probetest.OpenWatch(a.t, alertmanager.Kind(), map[string]string{"url": a.server.URL, "matchers": `service="shop"`})})
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.asked(asked)
		then()
	}()
	v, err := x.Verify(a.t.Context(), rollsBack)
	<-done
	a.must(err)
	return v
}

// asked waits until the Alertmanager has been asked so often.
func (a alerted) asked(often int) {
	for end := time.Now().Add(10 * time.Second); len(a.server.Asked()) < often; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			a.t.Errorf("the Alertmanager was asked %d times, want %d", len(a.server.Asked()), often)
			return
		}
	}
}

func (a alerted) gets(v Verification, want verdict.Verdict, reason string) {
	a.t.Helper()
	if v.Evidence.Verdict != want || !strings.Contains(v.Evidence.Reason, reason) || v.BackErr != nil {
		a.t.Fatalf("%s: %s, %v; want %s and %q", v.Evidence.Verdict, v.Evidence.Reason, v.BackErr, want, reason)
	}
}

// A new alert is a fail at once, with its name and what it says, although every check passes.
func TestANewAlertIsAFail(t *testing.T) {
	a := newAlerted(t)
	v := a.verify(whole, 3, func() { a.later("Errors") })
	a.gets(v, verdict.Fail, "the alert Errors: checkout fails (firing since ")
	a.agrees("1.0.0")
	a.quarantined("1.1.0")
	if w := v.Evidence.Ways[len(v.Evidence.Ways)-1]; w.Fail != 1 {
		t.Errorf("the picture ends at %+v", w)
	}
}

// later fires with a time that no clock of whole seconds takes for one before the bake.
func (a alerted) later(name string) {
	a.t.Helper()
	body := fmt.Sprintf(`[{"labels":{"alertname":%q,"service":"shop"},"annotations":{"summary":"checkout fails"},"startsAt":%q,"endsAt":%q}]`,
		name, time.Now().Add(3*time.Second).Format(time.RFC3339Nano), time.Now().Add(time.Hour).Format(time.RFC3339Nano))
	response, err := http.Post(a.server.URL+"/api/v2/alerts", "application/json", strings.NewReader(body))
	a.must(err)
	response.Body.Close()
}

// What was red before is named once, and is no evidence; nor is it when it ends and fires again.
func TestRedBeforeIsNoEvidence(t *testing.T) {
	a := newAlerted(t)
	a.fires("Disk", false)
	v := a.verify(3*time.Second, 2, func() {
		a.fires("Disk", true)
		a.asked(len(a.server.Asked()) + 2)
		a.later("Disk")
	})
	a.gets(v, verdict.Pass, "")
	a.agrees("1.1.0")
	if n := a.log.count(`an alert was firing before: it is no evidence" watch="alertmanager 2" alert="Disk: checkout fails"`); n != 1 {
		t.Errorf("it was named %d times", n)
	}
}

// An Alertmanager that is away, is slow or fails is no evidence either way, and is told of once.
func TestNobodyWhoTellsOfAlerts(t *testing.T) {
	for name, away := range map[string]func(alerted){
		"gone": func(a alerted) { a.server.Close() },
		"slow": func(a alerted) { a.server.Fails(0, true) },
		"500":  func(a alerted) { a.server.Fails(http.StatusInternalServerError, false) },
	} {
		t.Run(name, func(t *testing.T) {
			a := newAlerted(t)
			away(a)
			v := a.verify(short, 0, func() {})
			a.gets(v, verdict.Pass, "")
			if n := a.log.count("whether an alert is firing is not known"); n != 1 {
				t.Errorf("it was told %d times", n)
			}
		})
	}
}

// One that comes back tells of an alert that has begun meanwhile.
func TestItComesBackWithAnAlert(t *testing.T) {
	a := newAlerted(t)
	a.server.Fails(http.StatusBadGateway, false)
	v := a.verify(whole, 0, func() {
		for end := time.Now().Add(10 * time.Second); a.log.count("is not known") == 0 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(150 * time.Millisecond) // until no answer is the first one any more
		a.server.Fails(0, false)
		a.later("Errors")
	})
	// It answers again long after the first reading was due: what has begun since counts, by its own clock.
	a.gets(v, verdict.Fail, "the alert Errors")
}

// Which alerts are new, by the clock of who tells of them.
func TestNews(t *testing.T) {
	x := newPlace(t).run()
	server := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC) // its clock when the bake began
	alert := func(id string, since time.Time) probe.Alert { return probe.Alert{ID: id, Since: since, Text: id} }
	for name, c := range map[string]struct {
		late          time.Duration // of the first answer
		first, second []probe.Alert
		want          string
	}{
		"nothing":                               {},
		"red before":                            {first: []probe.Alert{alert("a", server.Add(-time.Hour))}, second: []probe.Alert{alert("a", server.Add(-time.Hour))}},
		"red before, and fires again":           {first: []probe.Alert{alert("a", server.Add(-time.Hour))}, second: []probe.Alert{alert("a", server.Add(time.Minute))}},
		"there at once, by a clock ahead":       {first: []probe.Alert{alert("a", server.Add(10*time.Second))}},
		"new":                                   {second: []probe.Alert{alert("a", server.Add(20*time.Second))}, want: "the alert a (firing since 12:00:20 UTC)"},
		"told late, began before":               {second: []probe.Alert{alert("a", server.Add(-20*time.Second))}},
		"new, nobody knows since when":          {second: []probe.Alert{alert("a", time.Time{})}, want: "the alert a"},
		"late, began before":                    {late: time.Minute, first: []probe.Alert{alert("a", server.Add(-time.Second))}},
		"late, began since":                     {late: time.Minute, first: []probe.Alert{alert("a", server.Add(30*time.Second))}, want: "the alert a (firing since 12:00:30 UTC)"},
		"late, nobody knows since when":         {late: time.Minute, first: []probe.Alert{alert("a", time.Time{})}},
		"an old one beside a new one":           {first: []probe.Alert{alert("a", server.Add(-time.Hour))}, second: []probe.Alert{alert("a", server.Add(-time.Hour)), alert("b", server.Add(time.Minute))}, want: "the alert b (firing since 12:01:00 UTC)"},
		"within the second that clocks do tell": {second: []probe.Alert{alert("a", server.Add(500*time.Millisecond))}},
	} {
		a := &alarm{watch: config.ProbeConfig{Every: 5 * time.Second, Timeout: 5 * time.Second}, begin: time.Now().Add(-c.late), old: map[string]bool{}}
		got := x.news(a, c.first, server.Add(c.late))
		if got == "" {
			got = x.news(a, c.second, server.Add(c.late+30*time.Second))
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
