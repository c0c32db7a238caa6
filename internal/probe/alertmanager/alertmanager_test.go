package alertmanager

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/probe"
	"github.com/backstep/backstep/internal/probe/probetest"
	"github.com/backstep/backstep/internal/release"
)

var subject = probe.Subject{Address: "127.0.0.1:8080", Release: release.Release{Version: "2.0.0", Digest: "sha256:0123"}}

func send(t *testing.T, url string, what any) {
	t.Helper()
	body, err := json.Marshal(what)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("status %d for %s", response.StatusCode, body)
	}
}

// fires sends one alert; it has ended when ended says so.
func fires(t *testing.T, url string, labels, annotations map[string]string, ended bool) {
	t.Helper()
	one := map[string]any{"labels": labels, "annotations": annotations, "startsAt": begin}
	if ended {
		one["endsAt"] = begin.Add(time.Second)
	}
	send(t, url+"/api/v2/alerts", []any{one})
}

var begin = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

const hostile = "\"},\nrm -rf \\ {{ .Labels }}\u202e<script>"

// behaves is what the double and the real one have to do.
func behaves(t *testing.T, url string) {
	t.Helper()
	versioned := `service="shop"` + "\n" + `version=~"$version|"`
	w := probetest.OpenWatch(t, Kind(), map[string]string{"url": url + "/", "matchers": versioned})
	texts := func(w probe.Watch, of probe.Subject) string {
		t.Helper()
		var found []probe.Alert
		var now time.Time
		var err error
		if found, now, err = w.Firing(t.Context(), of); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(now); d < -2*time.Second || d > 5*time.Second {
			t.Errorf("its clock says %v", now)
		}
		var all []string
		for _, a := range found {
			if a.ID == "" || !a.Since.Equal(begin) {
				t.Errorf("%+v", a)
			}
			all = append(all, a.Text)
		}
		return strings.Join(all, "|")
	}
	is := func(what, want string) {
		t.Helper()
		if got := texts(w, subject); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	is("nothing fires", "")
	fires(t, url, map[string]string{"alertname": "Errors", "service": "cart"}, nil, false)
	fires(t, url, map[string]string{"alertname": "Errors", "service": "shop", "version": "1.9.0"}, nil, false)
	fires(t, url, map[string]string{"alertname": "Errors", "service": "shop", "version": "2x0x0"}, nil, false) // no pattern
	is("those of others", "")
	errors := map[string]string{"alertname": "Errors", "service": "shop", "version": "2.0.0"}
	fires(t, url, errors, map[string]string{"summary": "checkout fails"}, false)
	is("one of the version", "Errors: checkout fails")
	fires(t, url, map[string]string{"alertname": "Disk", "service": "shop"}, map[string]string{"description": "is full"}, false)
	is("and one without", "Disk: is full|Errors: checkout fails")
	fires(t, url, errors, nil, true)
	is("one has ended", "Disk: is full")
	fires(t, url, map[string]string{"alertname": hostile, "service": "shop"}, map[string]string{"summary": hostile + strings.Repeat("x", 500)}, false)
	text := texts(w, subject)
	if strings.ContainsAny(text, "\n\u202e") || len(text) > 2*200 || !strings.Contains(text, `rm -rf \\ {{ .Labels }}\u202e<script>`) {
		t.Errorf("hostile text is %q", text)
	}
	send(t, url+"/api/v2/silences", map[string]any{"matchers": []any{map[string]any{"name": "alertname", "value": hostile, "isRegex": false}},
		"startsAt": time.Now().Add(-time.Minute), "endsAt": time.Now().Add(time.Hour), "createdBy": "ada", "comment": "known"})
	is("what is silenced", "Disk: is full")

	// What a release is called cannot change a matcher, whichever operator it stands behind.
	for _, matcher := range []string{`version="$version"`, `version=~"$version"`, `version=~"x|$version"`, `version="$digest"`} {
		for _, called := range []string{`2.0.0"} or {service="shop`, `.*`, `x|.*`, `2.0.0\`, "2.0.0\n", `",service=~".*`, `$digest`, `\`, `(`} {
			one := probetest.OpenWatch(t, Kind(), map[string]string{"url": url, "matchers": matcher})
			if got := texts(one, probe.Subject{Release: release.Release{Version: called, Digest: "sha256:ff"}}); got != "" {
				t.Errorf("%s of version %q finds %q", matcher, called, got)
			}
			fires(t, url, map[string]string{"alertname": "Called", "version": called}, nil, false)
			if got := texts(one, probe.Subject{Release: release.Release{Version: called, Digest: "sha256:ff"}}); got != "Called" && !strings.Contains(matcher, "digest") {
				t.Errorf("%s of version %q finds %q, want its alert", matcher, called, got)
			}
			fires(t, url, map[string]string{"alertname": "Called", "version": called}, nil, true)
		}
	}
}

func TestAlerts(t *testing.T) {
	a := probetest.NewAlertmanager(t)
	behaves(t, a.URL)
	if asked := a.Asked()[0]; asked != `active=true&filter=service%3D%22shop%22&filter=version%3D~%222%5C%5C.0%5C%5C.0%7C%22&inhibited=false&silenced=false&unprocessed=false` {
		t.Errorf("it asked %s", asked)
	}
}

func TestE2EAlertmanager(t *testing.T) {
	probetest.Needs(t, "Alertmanager")
	dir, address := t.TempDir(), probetest.Free(t)
	file := filepath.Join(dir, "alertmanager.yml")
	if err := os.WriteFile(file, []byte("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	probetest.Start(t, func() bool {
		response, err := http.Get("http://" + address + "/-/ready")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	}, nil, "prometheus-alertmanager", "--config.file="+file, "--storage.path="+filepath.Join(dir, "data"), "--web.listen-address="+address, "--cluster.listen-address=", "--log.level=error")
	behaves(t, "http://"+address)
}

// Nobody who answers, and whatever is no answer, is an error: no evidence either way.
func TestNoAnswer(t *testing.T) {
	a := probetest.NewAlertmanager(t)
	w := probetest.OpenWatch(t, Kind(), map[string]string{"url": a.URL, "matchers": `service="shop"`})
	none := func(what, want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if found, _, err := w.Firing(ctx, subject); err == nil || found != nil || !strings.HasPrefix(err.Error(), "alertmanager: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want %q", what, found, err, want)
		}
	}
	a.Fails(http.StatusInternalServerError, false)
	none("500", "status 500: ")
	a.Fails(0, true)
	none("silent", "deadline exceeded")
	a.Fails(0, false)
	if _, _, err := w.Firing(t.Context(), subject); err != nil {
		t.Errorf("it is back: %v", err)
	}
	a.Close()
	none("gone", "connection refused")
	for _, body := range []string{"<html>sign in</html>", `{"alerts":[]}`, `[{"labels":{"service":7}}]`, ``, `[` + strings.Repeat(" ", probe.AnswerLimit) + `]`} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }))
		w = probetest.OpenWatch(t, Kind(), map[string]string{"url": server.URL, "matchers": `service="shop"`})
		none(body[:min(20, len(body))], "status 200: ")
		server.Close()
	}
}

// message is one of the webhook's, as https://prometheus.io/docs/alerting/latest/configuration/#webhook_config describes it.
func message(status, labels string) string {
	return `{"version":"4","groupKey":"{}:{}","truncatedAlerts":0,"status":"` + status + `","receiver":"backstep","groupLabels":{},"commonLabels":{},"commonAnnotations":{},` +
		`"externalURL":"http://alertmanager:9093","alerts":[{"status":"` + status + `","labels":` + labels + `,"annotations":{"summary":"checkout fails"},` +
		`"startsAt":"2026-11-01T12:00:00Z","endsAt":"0001-01-01T00:00:00Z","generatorURL":"","fingerprint":"` + labels[len(labels)-3:len(labels)-2] + `"}]}` + "\n"
}

func TestWebhookFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "alerts.json")
	w := probetest.OpenWatch(t, Kind(), map[string]string{"file": file, "matchers": `service="shop"` + "\n" + `severity!="info"`})
	const one, two, other, info = `{"alertname":"A","service":"shop","n":"1"}`, `{"alertname":"B","service":"shop","n":"2"}`, `{"alertname":"C","service":"cart","n":"3"}`,
		`{"alertname":"D","service":"shop","severity":"info","n":"4"}`
	for _, c := range []struct{ text, want string }{
		{message("firing", one), "A: checkout fails"},
		{message("firing", one) + message("firing", two) + message("firing", other) + message("firing", info), "A: checkout fails|B: checkout fails"},
		{message("firing", one) + message("resolved", one), ""},
		{message("firing", one) + message("resolved", one) + message("firing", one) + message("firing", one), "A: checkout fails"},
		{"", ""}, {"{}", ""},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		found, now, err := w.Firing(t.Context(), subject)
		var texts []string
		for _, a := range found {
			texts = append(texts, a.Text)
			if !a.Since.Equal(begin) || a.ID == "" {
				t.Errorf("%+v", a)
			}
		}
		if got := strings.Join(texts, "|"); err != nil || got != c.want || time.Since(now) > time.Minute {
			t.Errorf("%s\nis %q, %v; want %q", c.text, got, err, c.want)
		}
	}
	for _, text := range []string{message("firing", one)[:60], message("firing", one) + "{", "[]", "no JSON"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if found, _, err := w.Firing(t.Context(), subject); err == nil {
			t.Errorf("%s\nis %v; want an error", text, found)
		}
	}
	os.Remove(file)
	if _, _, err := w.Firing(t.Context(), subject); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no file: %v", err)
	}
}

func TestInputs(t *testing.T) {
	for want, inputs := range map[string]map[string]string{
		"needs url or file":       {"matchers": "a=b"},
		"needs url or file, one":  {"matchers": "a=b", "url": "http://a:1", "file": "x"},
		"headers go with url":     {"matchers": "a=b", "file": "x", "headers": "A=b"},
		"matchers is empty":       {"url": "http://a:1"},
		"want for example http:":  {"matchers": "a=b", "url": "a:1"},
		`matcher "shop": want`:    {"matchers": "shop", "url": "http://a:1"},
		`matcher "a=\"b": want`:   {"matchers": `a="b`, "url": "http://a:1"},
		"missing closing ): `^(?": {"matchers": `a=~"("`, "url": "http://a:1"},
	} {
		want, _, _ = strings.Cut(want, ", one")
		want, _, _ = strings.Cut(want, ": `^")
		if got := probetest.Refused(t, Kind(), inputs); !strings.Contains(got, want) {
			t.Errorf("%v: %q, want %q", inputs, got, want)
		}
	}
}

// FuzzAnswer looks for an answer that is a panic, or a text of more than a line.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{`[{"labels":{"alertname":"A"},"status":{"state":"active"},"startsAt":"2026-11-01T12:00:00Z"}]`, message("firing", `{"alertname":"A","n":"1"}`), `[]`, ``, `null`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		w := probetest.OpenWatch(t, Kind(), map[string]string{"url": "http://a:1", "matchers": `service!="cart"`}).(watch)
		w.api.Client = &http.Client{Transport: said(body)}
		found, _, _ := w.Firing(t.Context(), subject)
		for _, a := range found {
			if len(a.Text) > 200 || strings.ContainsAny(a.Text, "\n\r\x1b") || a.ID == "" {
				t.Errorf("%q is %+v", body, a)
			}
		}
	})
}

// said is an Alertmanager that always says the same.
type said []byte

func (s said) RoundTrip(*http.Request) (*http.Response, error) {
	r := httptest.NewRecorder()
	_, _ = r.Write(s)
	return r.Result(), nil
}
