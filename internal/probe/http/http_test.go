package http

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/probe"
)

// configured is the probe with these inputs.
func configured(t *testing.T, values map[string]string) probe.Probe {
	t.Helper()
	inputs, open := Kind().New()
	for _, in := range inputs {
		value := in.Default
		if v, ok := values[in.Name]; ok {
			value = v
		}
		if value == "" {
			continue
		}
		if err := in.Set([]string{value}); err != nil {
			t.Fatal(err)
		}
	}
	p, err := open()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAnswers(t *testing.T) {
	release := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("all is well")) })
	mux.HandleFunc("/bad", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no \x1b[31mcolumn", 500) })
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", 302) })
	mux.HandleFunc("/silent", func(w http.ResponseWriter, r *http.Request) { <-release })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write([]byte(strings.Repeat("x", 1<<16))); err != nil {
				return
			}
		}
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	defer close(release)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	closed.Close()
	for _, c := range []struct {
		name, address string
		inputs        map[string]string
		want          probe.Outcome
		got           string
	}{
		{"well", "", map[string]string{"path": "/ok"}, probe.Pass, ""},
		{"body matches", "", map[string]string{"path": "/ok", "body": "is w"}, probe.Pass, ""},
		{"body differs", "", map[string]string{"path": "/ok", "body": "sick"}, probe.Fail, "body all is well"},
		{"bad status", "", map[string]string{"path": "/bad"}, probe.Fail, `status 500: no \x1b[31mcolumn`},
		{"redirect is an answer", "", map[string]string{"path": "/loop"}, probe.Pass, ""},
		{"redirect is not wanted", "", map[string]string{"path": "/loop", "status": "200"}, probe.Fail, "status 302: <a href=\\\"/loop\\\">Found</a>."},
		{"endless body", "", map[string]string{"path": "/endless"}, probe.Pass, ""},
		{"nobody listens", nobody, nil, probe.Fail, "connect: connection refused"},
		{"no answer", "", map[string]string{"path": "/silent"}, probe.Fail, "no answer in time"},
	} {
		t.Run(c.name, func(t *testing.T) {
			limit := 10 * time.Second
			if c.name == "no answer" {
				limit = 50 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			address := c.address
			if address == "" {
				address = server.Listener.Addr().String()
			}
			r := configured(t, c.inputs).Check(ctx, address)
			if r.Outcome != c.want || !strings.HasSuffix(r.Got, c.got) {
				t.Errorf("outcome %d, got %q; want %d, %q", r.Outcome, r.Got, c.want, c.got)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r := configured(t, nil).Check(ctx, server.Listener.Addr().String()); r.Outcome != probe.NoData {
		t.Errorf("a check that was called off: outcome %d, want no data", r.Outcome)
	}
}

func TestEachCheckOpensAConnection(t *testing.T) {
	var opened atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	p := configured(t, nil)
	for range 3 {
		if r := p.Check(t.Context(), server.Listener.Addr().String()); r.Outcome != probe.Pass {
			t.Fatal(r.Got)
		}
	}
	if got := opened.Load(); got != 3 {
		t.Errorf("3 checks opened %d connections", got)
	}
}
