package http

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/probe"
	"github.com/backstep/backstep/internal/probe/probetest"
)

func configured(t *testing.T, inputs map[string]string) probe.Probe {
	t.Helper()
	return probetest.Open(t, Kind(), inputs)
}

func TestConformance(t *testing.T) {
	probetest.Run(t, Kind(), func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
		}
	})
}

func TestAnswers(t *testing.T) {
	release := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("all is well")) })
	mux.HandleFunc("/bad", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no \x1b[31mcolumn", http.StatusInternalServerError)
	})
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/silent", func(w http.ResponseWriter, r *http.Request) { <-release })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write([]byte(strings.Repeat("x", 1<<16))); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/drip", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			w.Write([]byte("x"))
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(time.Second):
			}
		}
	})
	mux.HandleFunc("/headers", func(w http.ResponseWriter, _ *http.Request) {
		for i := range 2000 {
			w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("h", 100))
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
		{"one byte a second", "", map[string]string{"path": "/drip"}, probe.Fail, "no answer in time"},
		{"endless headers", "", map[string]string{"path": "/headers"}, probe.Fail, "server response headers exceeded 65536 bytes; aborted"},
		{"nobody listens", nobody, nil, probe.Fail, "connect: connection refused"},
		{"no answer", "", map[string]string{"path": "/silent"}, probe.Fail, "no answer in time"},
	} {
		t.Run(c.name, func(t *testing.T) {
			limit := 10 * time.Second
			if c.got == "no answer in time" {
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
}
