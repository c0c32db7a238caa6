// Package registrytest starts real registries for tests: one in this process, and, when BACKSTEP_E2E is set,
// Debian's docker-registry 2.8 and distribution v3.
package registrytest

import (
	"cmp"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

// InProcess is the host:port of a registry in this process.
func InProcess(t testing.TB) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// Private is the host:port of a registry in front of the one at upstream, which lets in one user only.
func Private(t testing.TB, upstream, user, password string) string {
	t.Helper()
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host = "http", upstream // the Host stays: the registry answers with addresses of ours
		r.Out.Header.Del("Authorization")
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="private"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// Debian is the host:port of Debian's docker-registry 2.8.
func Debian(t testing.TB) string {
	t.Helper()
	needed(t)
	return start(t, "docker-registry", "serve")
}

// Distribution is the host:port of distribution v3, the program that BACKSTEP_DISTRIBUTION names.
func Distribution(t testing.TB) string {
	t.Helper()
	needed(t)
	return start(t, os.Getenv("BACKSTEP_DISTRIBUTION"), "serve")
}

// needed skips a test for real registries where make e2e does not run.
func needed(t testing.TB) {
	t.Helper()
	if os.Getenv("BACKSTEP_E2E") == "" {
		t.Skip("needs real registries: run make e2e")
	}
}

const configuration = `version: 0.1
log: {level: error}
storage:
  filesystem: {rootdirectory: %q}
  delete: {enabled: true}
http: {addr: %q, secret: test%s}
%s`

// instance is what one registry has that another has not.
type instance struct {
	on         string // the address that it listens at; "" is 127.0.0.1
	scheme     string // http or https
	http, more string // of its configuration: in the section http, and beside it
	client     *http.Client
}

func start(t testing.TB, program string, args ...string) string {
	t.Helper()
	return serve(t, instance{scheme: "http", client: http.DefaultClient}, program, args...)
}

// serve is the address of a registry that has begun to answer.
func serve(t testing.TB, as instance, program string, args ...string) string {
	t.Helper()
	free, err := net.Listen("tcp", net.JoinHostPort(cmp.Or(as.on, "127.0.0.1"), "0"))
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, fmt.Appendf(nil, configuration, filepath.Join(dir, "data"), address, as.http, as.more), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, append(args, file)...)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", program, err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		response, err := as.client.Get(as.scheme + "://" + address + "/v2/")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK || response.StatusCode == http.StatusUnauthorized {
				return address
			}
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not answer: %v", program, err)
		}
	}
}

// Faulty is the host:port of a proxy in front of a registry that spoils about one request of share: with 429,
// 503, a delay, a connection that is reset, or an answer that is cut short or lost after the request was
// carried out.
func Faulty(t testing.TB, upstream string, share int) string {
	t.Helper()
	to := &url.URL{Scheme: "http", Host: upstream}
	forward := httputil.NewSingleHostReverseProxy(to)
	forward.ErrorLog = log.New(io.Discard, "", 0)
	random := rand.New(rand.NewPCG(1, 2))
	var mu sync.Mutex
	draw := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return random.IntN(n)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if draw(share) > 0 {
			forward.ServeHTTP(w, r)
			return
		}
		switch draw(6) {
		case 0:
			http.Error(w, "slow down", http.StatusTooManyRequests)
		case 1:
			http.Error(w, "not now", http.StatusServiceUnavailable)
		case 2:
			reset(w)
		case 3:
			time.Sleep(50 * time.Millisecond)
			forward.ServeHTTP(w, r)
		case 4:
			if r.Method != http.MethodGet {
				reset(w)
				return
			}
			cut(w, r, forward)
		default:
			if strings.Contains(r.URL.Path, "/uploads/") && r.Method == http.MethodPut {
				reset(w) // an upload session cannot be finished twice on every registry
				return
			}
			forward.ServeHTTP(httptest.NewRecorder(), r)
			reset(w)
		}
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// cut sends an answer of which half is missing.
func cut(w http.ResponseWriter, r *http.Request, from http.Handler) {
	whole := httptest.NewRecorder()
	from.ServeHTTP(whole, r)
	maps.Copy(w.Header(), whole.Header())
	w.Header().Set("Content-Length", strconv.Itoa(whole.Body.Len()))
	w.WriteHeader(whole.Code)
	w.Write(whole.Body.Bytes()[:whole.Body.Len()/2])
	panic(http.ErrAbortHandler) // the server's own way to end a connection in the middle of an answer
}

// reset ends the connection without an answer.
func reset(w http.ResponseWriter) {
	connection, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := connection.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	connection.Close()
}
