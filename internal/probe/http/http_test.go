package http

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
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
	well := func(l net.Listener) {
		_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })) // ends with l
	}
	probetest.Run(t, Kind(), nil, well)
	probetest.Run(t, Kind(), map[string]string{"version": "1.1"}, well)
}

// A release is asked behind a name, over TLS of its own authority, with our certificate, in each version of HTTP; and what its answer lacks
// is told.
func TestEncryptedAnswers(t *testing.T) {
	id, ours := probetest.Identify(t, "shop.example.com", time.Hour), probetest.Identify(t, "backstep", time.Hour)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Version", r.Proto)
		fmt.Fprintf(w, `{"host": %q, "checks": [{"name": "database", "up": true, "left": 12.5}], "by": %q}`, r.Host, r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{Certificates: []tls.Certificate{id.Pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ours.Pool}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	base := map[string]string{"scheme": "https", "host": "shop.example.com", "ca": id.Authority, "certificate": ours.Certificate, "key": ours.Key}
	for _, c := range []struct {
		name   string
		inputs map[string]string
		want   probe.Outcome
		got    string
	}{
		{"well", map[string]string{"json": "$.host ~ ^shop.example.com$\n$.checks[?@.name=='database'].up ~ true\n$.by ~ backstep"}, probe.Pass, ""},
		{"HTTP/1.1", map[string]string{"version": "1.1", "answer-headers": "X-Version=^HTTP/1.1$"}, probe.Pass, ""},
		{"HTTP/2", map[string]string{"version": "2", "answer-headers": "X-Version=^HTTP/2"}, probe.Pass, ""},
		{"what the server prefers", map[string]string{"answer-headers": "X-Version=^HTTP/2"}, probe.Pass, ""},
		{"another header", map[string]string{"answer-headers": "X-Version=^HTTP/3"}, probe.Fail, "header X-Version: HTTP/2.0"},
		{"another value", map[string]string{"json": "$.checks[*].left ~ ^0$"}, probe.Fail, "$.checks[*].left is [12.5]"},
		{"no such value", map[string]string{"json": "$.orders ~ ."}, probe.Fail, "$.orders is []"},
		{"too slow", map[string]string{"within": "1ns"}, probe.Fail, "it took"},
		{"another name", map[string]string{"host": "erp.example.com"}, probe.Fail, "not erp.example.com"},
		{"another authority", map[string]string{"ca": ours.Authority}, probe.Fail, "certificate signed by unknown authority"},
		{"no certificate of ours", map[string]string{"certificate": "", "key": ""}, probe.Fail, "certificate required"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inputs := maps.Clone(base)
			maps.Copy(inputs, c.inputs)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			p := configured(t, inputs)
			r := p.Check(ctx, server.Listener.Addr().String())
			// In TLS 1.3 the request is written before the server has looked at our certificate: its alert and the end of the
			// connection race, and a broken write says the same.
			for strings.Contains(r.Got, "broken pipe") || strings.Contains(r.Got, "reset by peer") {
				r = p.Check(ctx, server.Listener.Addr().String())
			}
			if r.Outcome != c.want || !strings.Contains(r.Got, c.got) {
				t.Errorf("outcome %d, got %q; want %d, %q", r.Outcome, r.Got, c.want, c.got)
			}
		})
	}
	for want, inputs := range map[string]map[string]string{
		"ca: open /nowhere":           {"scheme": "https", "ca": "/nowhere"},
		"certificate and key:":        {"scheme": "https", "certificate": id.Certificate},
		"need scheme: https":          {"ca": id.Authority},
		"json: \"orders\"":            {"json": "orders ~ 1"},
		"want for example $.database": {"json": "$.a"},
		"answer-headers: X: error":    {"answer-headers": "X=("},
		"json: $.a: error parsing re": {"json": "$.a ~ ("},
	} {
		if got := probetest.Refused(t, Kind(), inputs); !strings.Contains(got, want) {
			t.Errorf("%v: %q, want %q", inputs, got, want)
		}
	}
}

// A kept connection is used again, each release having its own; HTTP/2 without TLS is spoken when it is asked for.
func TestKeptConnections(t *testing.T) {
	var opened atomic.Int64
	serve := func(name string) string {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name, r.Proto) }))
		server.Config.Protocols = &http.Protocols{}
		server.Config.Protocols.SetHTTP1(true)
		server.Config.Protocols.SetUnencryptedHTTP2(true)
		server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				opened.Add(1)
			}
		}
		server.Start()
		t.Cleanup(server.Close)
		return server.Listener.Addr().String()
	}
	one, two := serve("one"), serve("two")
	ask := func(inputs map[string]string, address string, times int) {
		t.Helper()
		p := configured(t, inputs)
		for range times {
			if r := p.Check(t.Context(), address); r.Outcome != probe.Pass {
				t.Errorf("%v: %+v", inputs, r)
			}
		}
	}
	ask(map[string]string{"keep": "true", "host": "shop", "body": "one"}, one, 4)
	if got := opened.Load(); got != 1 {
		t.Errorf("4 checks opened %d connections, want one that is kept", got)
	}
	p := configured(t, map[string]string{"keep": "true", "host": "shop"}).(*question)
	p.Check(t.Context(), one)
	p.body = regexp.MustCompile("two")
	if r := p.Check(t.Context(), two); r.Outcome != probe.Pass {
		t.Errorf("the other release was asked over the first one's connection: %+v", r)
	}
	ask(map[string]string{"version": "2", "body": "HTTP/2.0"}, one, 2)
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
