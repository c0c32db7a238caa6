package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/registry/registrytest"
)

// impatient is a client whose tries are short.
func impatient(options ...Option) *Client {
	c := New(options...)
	c.tryTimeout = 100 * time.Millisecond
	return c
}

// each request that stays without an answer is cut off and sent again, the handshake too.
func TestSilentRegistry(t *testing.T) {
	s := registrytest.NewSwitch(t, registrytest.InProcess(t))
	s.Set(registrytest.Silent)
	c := impatient()
	time.AfterFunc(300*time.Millisecond, func() { s.Set(registrytest.Healthy) })
	if _, err := c.Get(t.Context(), s.Host()+"/shop", "1.0.0"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a registry that comes back: %v, want not found", err)
	}
	for name, ask := range map[string]func(context.Context) error{
		"known":   func(ctx context.Context) error { _, err := c.Get(ctx, s.Host()+"/shop", "1.0.0"); return err },
		"unknown": func(ctx context.Context) error { _, err := c.Get(ctx, s.Host()+"/other", "1.0.0"); return err },
	} {
		s.Set(registrytest.Silent)
		ctx, cancel := context.WithTimeout(t.Context(), 350*time.Millisecond)
		before := s.Requests()
		if err := ask(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s repository: %v, want the end of the caller's time", name, err)
		}
		cancel()
		if n := s.Requests() - before; n < 2 {
			t.Errorf("%s repository: %d tries, want several", name, n)
		}
		s.Set(registrytest.Healthy)
	}
}

// A repository that is stuck in the handshake blocks no other, and who waits for it leaves in time.
func TestAStuckRepositoryBlocksNoOther(t *testing.T) {
	healthy := registrytest.InProcess(t)
	stuck := registrytest.NewSwitch(t, healthy)
	stuck.Set(registrytest.Silent)
	c := New()
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := c.Get(ctx, stuck.Host()+"/shop", "1.0.0")
		gone <- err
	}()
	for stuck.Requests() == 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := c.Get(t.Context(), healthy+"/shop", "1.0.0"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the other repository: %v", err)
	}
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("the stuck one: %v", err)
	}
}

// A handshake that went wrong is tried anew with the next request.
func TestAFailedHandshakeIsNotKept(t *testing.T) {
	s := registrytest.NewSwitch(t, registrytest.InProcess(t))
	s.Set(registrytest.Forbidden)
	c := New()
	if _, err := c.Get(t.Context(), s.Host()+"/shop", "1.0.0"); !errors.Is(err, ErrDenied) {
		t.Errorf("forbidden: %v", err)
	}
	s.Set(registrytest.Healthy)
	if _, err := c.Get(t.Context(), s.Host()+"/shop", "1.0.0"); !errors.Is(err, ErrNotFound) {
		t.Errorf("and then: %v", err)
	}
}

func TestOnce(t *testing.T) {
	var n atomic.Int64
	var status atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		n.Add(1)
		if status.Load() == 0 {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(int(status.Load()))
	}))
	defer server.Close()
	repository := server.Listener.Addr().String() + "/shop"
	for _, code := range []int64{0, http.StatusServiceUnavailable, http.StatusTooManyRequests} {
		status.Store(code)
		n.Store(0)
		if _, err := New().Put(Once(t.Context()), repository, "x", OCIManifest, []byte("{}")); err == nil || n.Load() != 1 {
			t.Errorf("answer %d: %d requests, %v; want 1 and an error", code, n.Load(), err)
		}
	}
}

// Nobody there is known at once.
func TestRefusedConnectionFailsFast(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := closed.Addr().String()
	closed.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	for _, repository := range []string{host + "/shop", "registry.invalid/shop"} {
		if _, err := New().Get(ctx, repository, "1.0.0"); err == nil || ctx.Err() != nil {
			t.Errorf("%s: %v after the time was over: %v", repository, err, ctx.Err())
		}
	}
}

// A token that is over in the middle of things costs a write a second request, and not its body.
func TestTokenThatHasExpired(t *testing.T) {
	var token atomic.Int64
	upstream := registrytest.NewSwitch(t, registrytest.InProcess(t))
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			fmt.Fprintf(w, `{"token":"t%d"}`, token.Add(1))
			return
		}
		if r.Header.Get("Authorization") != fmt.Sprintf("Bearer t%d", max(1, token.Load())) || token.Load() == 1 && r.Method == http.MethodPut {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="test"`, server.URL))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.Method == http.MethodPut {
			http.Redirect(w, r, "http://"+upstream.Host()+r.URL.Path, http.StatusTemporaryRedirect)
		}
	}))
	defer server.Close()
	repository := strings.TrimPrefix(server.URL, "http://") + "/shop"
	body := []byte(`{"schemaVersion":2}`)
	if _, err := New().Put(t.Context(), repository, "x", OCIManifest, body); err != nil {
		t.Fatal(err)
	}
	if m, err := New().Get(t.Context(), upstream.Host()+"/shop", "x"); err != nil || string(m.Body) != string(body) {
		t.Errorf("stored %q, %v", m.Body, err)
	}
}
