package browser

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/probe"
	"github.com/backstep/backstep/internal/probe/probetest"
)

func TestE2EPages(t *testing.T) {
	probetest.Needs(t, "Chromium")
	mux := http.NewServeMux()
	page := func(path, text string) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<!doctype html><body>"+text) })
	}
	page("/well", "<h1>Basket</h1>")
	page("/late", "<script>setTimeout(() => { document.body.append('Basket') }, 200)</script>")
	page("/broken", "<h1>Basket</h1><script>noSuchFunction()</script>")
	page("/empty", "<h1>Sorry</h1>")
	mux.HandleFunc("/silent", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	server := httptest.NewServer(mux)
	defer server.Close()
	defer server.CloseClientConnections()

	address, profile := probetest.Free(t), t.TempDir()
	_, port, _ := net.SplitHostPort(address)
	if err := os.Chmod(profile, 0o777); err != nil {
		t.Fatal(err)
	}
	stop := probetest.Start(t, probetest.Listens(address), nil, "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--remote-debugging-port="+port, "--user-data-dir="+profile, "about:blank")
	ask := func(inputs map[string]string, limit time.Duration) probe.Result {
		t.Helper()
		inputs["chromium"] = "ws://" + address
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		return probetest.Open(t, Kind(), inputs).Check(ctx, server.Listener.Addr().String())
	}
	for _, c := range []struct {
		path, text string
		want       probe.Outcome
		got        string
	}{
		{"/well", "Basket", probe.Pass, ""},
		{"/well", "", probe.Pass, ""},
		{"/late", "Basket", probe.Pass, ""},
		{"/broken", "Basket", probe.Fail, "script error: Uncaught ReferenceError: noSuchFunction is not defined"},
		{"/empty", "Basket", probe.Fail, "the page does not show Basket"},
		{"/missing", "", probe.Fail, "status 404"},
		{"/silent", "", probe.Fail, "no answer in time"},
	} {
		limit := time.Minute
		if c.path == "/silent" || c.path == "/empty" { // these take as long as they may
			limit = 10 * time.Second
		}
		if r := ask(map[string]string{"url": "http://$address" + c.path, "text": c.text}, limit); r.Outcome != c.want || !strings.Contains(r.Got, c.got) {
			t.Errorf("%s: outcome %d, got %q after %s; want %d, %q", c.path, r.Outcome, r.Got, r.Took, c.want, c.got)
		}
	}
	gone := server.Listener.Addr().String()
	server.CloseClientConnections()
	server.Close()
	if r := ask(map[string]string{}, time.Minute); r.Outcome != probe.Fail || !strings.Contains(r.Got, "ERR_CONNECTION_REFUSED") {
		t.Errorf("nobody listens at %s: %+v", gone, r)
	}
	stop()
	if r := ask(map[string]string{}, 5*time.Second); r.Outcome != probe.NoData {
		t.Errorf("the Chromium is gone: %+v", r)
	}
}
