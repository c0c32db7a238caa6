package haproxy

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/backstep/backstep/internal/probe"
	"github.com/backstep/backstep/internal/probe/probetest"
	"github.com/backstep/backstep/internal/router/routertest"
)

// shop answers 500 to /bad, and closes the connection instead of an answer at /cut.
func shop(t *testing.T) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/bad":
			w.WriteHeader(http.StatusInternalServerError)
		case "/missing":
			w.WriteHeader(http.StatusNotFound)
		case "/cut":
			c, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				c.Close()
			}
		}
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func get(t *testing.T, address, path string) {
	t.Helper()
	response, err := http.Get("http://" + address + path)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
}

func TestE2EConformance(t *testing.T) {
	probetest.Needs(t, "HAProxy")
	one, two := shop(t), shop(t)
	b := routertest.HAProxy(t, fmt.Sprintf("server one %s\n    server two %s weight 0", one, two))
	m := probetest.OpenMeter(t, Kind(), map[string]string{"socket": b.Remote, "backend": b.Backend})
	bad := []string{"/bad", "/cut"}
	probetest.RunMeter(t, m, probetest.Traffic{
		Subject: probe.Subject{Fronts: []string{one}},
		Send: func(t *testing.T, n, failing int) {
			for i := range n {
				path := "/missing" // a customer's mistake is no error
				if i < failing {
					path = bad[i%2]
				}
				get(t, b.Address, path)
			}
		},
		Stop: func() { b.Stop() },
	})
}

// A server that nobody listens at has errors, and a restart of HAProxy begins its counters anew.
func TestE2ERefusedAndRestarted(t *testing.T) {
	probetest.Needs(t, "HAProxy")
	nobody := probetest.Free(t)
	b := routertest.HAProxy(t, "retries 0\n    server one "+nobody)
	m := probetest.OpenMeter(t, Kind(), map[string]string{"socket": b.Socket, "backend": b.Backend})
	read := func() probe.Totals {
		t.Helper()
		got, err := m.Read(t.Context(), []probe.Subject{{Fronts: []string{nobody}}})
		if err != nil || got[0] == nil {
			t.Fatalf("%v: %v", got, err)
		}
		return *got[0]
	}
	get(t, b.Address, "/")
	if got := read(); got.Requests != 1 || got.Errors != 1 {
		t.Errorf("a refused connection: %+v", got)
	}
	b.Restart()
	if got := read(); got.Requests != 0 {
		t.Errorf("after a restart: %+v", got)
	}
	other := probetest.OpenMeter(t, Kind(), map[string]string{"socket": b.Socket, "backend": "erp"})
	if _, err := other.Read(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "no backend erp") {
		t.Errorf("a backend that is not there: %v", err)
	}
}
