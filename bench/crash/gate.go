package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"regexp"
	"sync"
	"time"
)

// gate is the way to an engine for the runs of one ledger. What they do to containers and volumes of others is noted.
type gate struct {
	engine *engine
	owner  string // the name of the ledger
	rival  bool   // it owns nothing on the engine, and may change nothing
	server *http.Server

	mu      sync.Mutex
	touched []string // what was done to what is not theirs
	changes int      // requests that change something
}

// newGate listens at a socket.
func newGate(e *engine, socket, owner string, rival bool) (*gate, error) {
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	g := &gate{engine: e, owner: owner, rival: rival}
	onward := &httputil.ReverseProxy{FlushInterval: -1, ErrorLog: log.New(io.Discard, "", 0), Transport: e.http.Transport,
		Rewrite:      func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "engine" },
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, _ error) { hangUp(w) }}
	g.server = &http.Server{ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			g.look(r)
			onward.ServeHTTP(w, r)
		})}
	go g.server.Serve(listener)
	return g, nil
}

// hangUp ends a connection, as an engine does that is killed.
func hangUp(w http.ResponseWriter) {
	if connection, _, err := w.(http.Hijacker).Hijack(); err == nil {
		connection.Close()
	}
}

var (
	changed = regexp.MustCompile(`^(?:/v[0-9.]+)?/(containers|volumes)/([^/]+)(?:/|$)`)
	pulled  = regexp.MustCompile(`^(?:/v[0-9.]+)?/images/create$`)
)

// look notes a request that changes what belongs to somebody else.
func (g *gate) look(r *http.Request) {
	if r.Method == http.MethodGet || r.Method == http.MethodHead || pulled.MatchString(r.URL.Path) {
		return
	}
	g.mu.Lock()
	g.changes++
	g.mu.Unlock()
	what := changed.FindStringSubmatch(r.URL.Path)
	owner := g.owner
	if what != nil && what[2] != "create" {
		owner = g.ownerOf(r.Context(), what[1], what[2])
	}
	if g.rival || owner != g.owner {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.touched = append(g.touched, fmt.Sprintf("%s: a run of %s asks for %s %s, which belongs to %q", time.Now().Format(clock), g.owner, r.Method, r.URL, owner))
	}
}

// ownerOf is the ledger that a container or a volume belongs to; ours when it is not there.
func (g *gate) ownerOf(ctx context.Context, kind, id string) string {
	if kind == "containers" {
		b, err := g.engine.box(ctx, id)
		if err != nil {
			return g.owner
		}
		return b.Config.Labels["backstep.ledger"]
	}
	var volume struct{ Labels map[string]string }
	var claim struct{ Ledger string }
	if err := g.engine.call(ctx, http.MethodGet, "/volumes/"+id, nil, &volume); err != nil {
		return g.owner
	}
	if err := json.Unmarshal([]byte(volume.Labels["backstep.claim"]), &claim); err != nil {
		return "nobody"
	}
	return claim.Ledger
}

// fault is the first thing that was done to what is not theirs, or nil.
func (g *gate) fault() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.touched) == 0 {
		return nil
	}
	return fmt.Errorf("%d foreign things were touched: %s", len(g.touched), g.touched[0])
}
