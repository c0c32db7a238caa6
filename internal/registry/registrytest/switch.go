package registrytest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Mode is what a Switch makes of its registry.
type Mode int

// The modes of a Switch.
const (
	Healthy      Mode = iota
	Stopped           // connections are reset
	Silent            // connections are taken and never answered
	Unauthorized      // 401
	Forbidden         // 403
	ReadOnly          // 405 for all that writes
	Throttled         // 429
	Broken            // 500
	DiskFull          // 507 for all that writes
)

// refusals are the answers of the modes that answer.
var refusals = map[Mode]struct {
	status     int
	code       string
	writesOnly bool
}{
	Unauthorized: {http.StatusUnauthorized, "UNAUTHORIZED", false},
	Forbidden:    {http.StatusForbidden, "DENIED", false},
	ReadOnly:     {http.StatusMethodNotAllowed, "UNSUPPORTED", true},
	Throttled:    {http.StatusTooManyRequests, "TOOMANYREQUESTS", false},
	Broken:       {http.StatusInternalServerError, "UNKNOWN", false},
	DiskFull:     {http.StatusInsufficientStorage, "DENIED", true},
}

// Switch is a proxy in front of a registry whose faults are switched on and off while a test runs.
type Switch struct {
	t        testing.TB
	server   *httptest.Server
	forward  http.Handler
	mode     atomic.Int32
	latency  atomic.Int64 // nanoseconds before each request
	page     atomic.Int64 // tags in one page of a list; 0: all
	requests atomic.Int64
	closing  chan struct{}

	mu   sync.Mutex
	late []*Late
}

// Late is a PUT that is held back.
type Late struct {
	Held  chan struct{} // closed when it is
	match func(tag string) bool
	apply func()
}

// NewSwitch is a healthy proxy in front of the registry at upstream, host:port.
func NewSwitch(t testing.TB, upstream string) *Switch {
	t.Helper()
	s := &Switch{t: t, closing: make(chan struct{})}
	s.forward = &httputil.ReverseProxy{ErrorLog: log.New(io.Discard, "", 0), Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host = "http", upstream // the Host stays: the registry answers with addresses of ours
	}}
	s.server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(func() {
		close(s.closing)
		s.server.Close()
	})
	return s
}

// Host is the host:port of the proxy.
func (s *Switch) Host() string { return s.server.Listener.Addr().String() }

// Set switches to a mode; requests that are under way stay as they were.
func (s *Switch) Set(m Mode) { s.mode.Store(int32(m)) }

// Latency delays every request by d.
func (s *Switch) Latency(d time.Duration) { s.latency.Store(int64(d)) }

// Pages makes lists of tags come in pages of n, linked as registries do it.
func (s *Switch) Pages(n int) { s.page.Store(int64(n)) }

// Requests is how many requests there were.
func (s *Switch) Requests() int64 { return s.requests.Load() }

// LatePUT holds back the next PUT of a manifest whose tag matches, and leaves its sender without an answer.
func (s *Switch) LatePUT(match func(tag string) bool) *Late {
	l := &Late{Held: make(chan struct{}), match: match}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = append(s.late, l)
	return l
}

// Apply carries out the PUT that is held back.
func (l *Late) Apply() {
	<-l.Held
	l.apply()
}

func (s *Switch) serve(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	time.Sleep(time.Duration(s.latency.Load()))
	body, _ := io.ReadAll(r.Body) // without that the server does not see that the client has gone
	r.Body = io.NopCloser(bytes.NewReader(body))
	switch mode := Mode(s.mode.Load()); mode {
	case Stopped:
		reset(w)
		return
	case Silent:
		s.silence(r)
		return
	default:
		if no := refusals[mode]; no.status != 0 && (!no.writesOnly || r.Method != http.MethodGet && r.Method != http.MethodHead) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(no.status)
			fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"switched"}]}`, no.code)
			return
		}
	}
	switch {
	case r.Method == http.MethodPut && s.hold(r, body):
		s.silence(r)
	case r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/tags/list") && s.page.Load() > 0:
		s.list(w, r, int(s.page.Load()))
	default:
		s.forward.ServeHTTP(w, r)
	}
}

// silence lasts until the client gives up.
func (s *Switch) silence(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-s.closing:
	}
	panic(http.ErrAbortHandler)
}

func (s *Switch) hold(r *http.Request, body []byte) bool {
	if path.Base(path.Dir(r.URL.Path)) != "manifests" {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, l := range s.late {
		if !l.match(path.Base(r.URL.Path)) {
			continue
		}
		s.late = slices.Delete(s.late, i, i+1)
		again := r.Clone(s.t.Context())
		l.apply = func() {
			again.Body = io.NopCloser(bytes.NewReader(body))
			answer := httptest.NewRecorder()
			s.forward.ServeHTTP(answer, again)
			if answer.Code/100 != 2 {
				s.t.Errorf("late PUT of %s: %d %s", again.URL.Path, answer.Code, answer.Body)
			}
		}
		close(l.Held)
		return true
	}
	return false
}

// list answers with one page of a list of tags.
func (s *Switch) list(w http.ResponseWriter, r *http.Request, page int) {
	last := r.URL.Query().Get("last")
	r.URL.RawQuery = ""
	whole := httptest.NewRecorder()
	s.forward.ServeHTTP(whole, r)
	var l struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}
	if err := json.Unmarshal(whole.Body.Bytes(), &l); err != nil || whole.Code != http.StatusOK {
		w.WriteHeader(whole.Code)
		w.Write(whole.Body.Bytes())
		return
	}
	slices.Sort(l.Tags)
	l.Tags = slices.DeleteFunc(l.Tags, func(tag string) bool { return tag <= last })
	if len(l.Tags) > page {
		l.Tags = l.Tags[:page]
		w.Header().Set("Link", "<"+r.URL.Path+"?last="+l.Tags[page-1]+"&n="+strconv.Itoa(page)+`>; rel="next"`)
	}
	json.NewEncoder(w).Encode(l)
}
