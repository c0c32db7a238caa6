package main

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// outage is how a registry is gone as a whole.
type outage int

const (
	none     outage = iota
	stopped         // connections are reset
	silent          // connections are taken and never answered
	readOnly        // 405 for all that writes
	outages         // how many there are, with none
)

func (o outage) String() string { return [...]string{"none", "stopped", "silent", "read-only"}[o] }

// weather is a proxy in front of a registry that spoils requests: some of them by chance, or all of them for a while.
type weather struct {
	upstream string
	listener net.Listener
	server   *http.Server
	closing  chan struct{}

	mu     sync.Mutex
	random *rand.Rand
	share  float64 // of the requests, 0 to 1
	gone   outage
	faults int // requests that were spoiled by chance
}

// newWeather is a calm proxy in front of the registry at upstream, host:port.
func newWeather(upstream string, random *rand.Rand) (*weather, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &weather{upstream: upstream, listener: listener, closing: make(chan struct{}), random: random}
	w.server = &http.Server{Handler: w, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute}
	go w.server.Serve(listener)
	return w, nil
}

func (w *weather) host() string { return w.listener.Addr().String() }

func (w *weather) close() {
	close(w.closing)
	w.server.Close()
}

// set makes the weather; requests that are under way stay as they were.
func (w *weather) set(share float64, gone outage) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.share, w.gone = share, gone
}

// spoiled is how many requests were spoiled by chance.
func (w *weather) spoiled() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.faults
}

// The ways in which chance spoils a request.
const (
	fine = iota
	throttled
	unavailable
	resetBefore
	slow
	cutShort
	lostAnswer
	ways // how many there are, with fine
)

// draw is what happens to the next request.
func (w *weather) draw() (way int, gone outage) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gone != none || w.random.Float64() >= w.share {
		return fine, w.gone
	}
	w.faults++
	return 1 + w.random.IntN(ways-1), none
}

func (w *weather) ServeHTTP(to http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body) // without that the server does not see that the client has gone
	if err != nil {
		return
	}
	way, gone := w.draw()
	switch {
	case gone == stopped:
		reset(to)
		return
	case gone == silent:
		select {
		case <-r.Context().Done():
		case <-w.closing:
		}
		panic(http.ErrAbortHandler)
	case gone == readOnly && r.Method != http.MethodGet && r.Method != http.MethodHead:
		to.Header().Set("Content-Type", "application/json")
		to.WriteHeader(http.StatusMethodNotAllowed)
		fmt.Fprint(to, `{"errors":[{"code":"UNSUPPORTED","message":"read-only"}]}`)
		return
	}
	w.spoil(to, r, body, way)
}

// spoil carries the request out, or not, in one of the ways.
func (w *weather) spoil(to http.ResponseWriter, r *http.Request, body []byte, way int) {
	// An upload session cannot be finished twice on every registry: its answer is never lost.
	upload := strings.Contains(r.URL.Path, "/uploads/") && r.Method == http.MethodPut
	switch {
	case way == throttled:
		http.Error(to, "slow down", http.StatusTooManyRequests)
		return
	case way == unavailable:
		http.Error(to, "not now", http.StatusServiceUnavailable)
		return
	case way == resetBefore, upload && (way == lostAnswer || way == cutShort):
		reset(to)
		return
	case way == slow:
		time.Sleep(50 * time.Millisecond)
	}
	answer, said, err := w.forward(r, body)
	if err != nil || way == lostAnswer {
		reset(to)
		return
	}
	maps.Copy(to.Header(), answer.Header)
	if r.Method != http.MethodHead {
		to.Header().Set("Content-Length", strconv.Itoa(len(said)))
	}
	to.WriteHeader(answer.StatusCode)
	if way == cutShort {
		to.Write(said[:len(said)/2])
		panic(http.ErrAbortHandler) // the server's own way to end a connection in the middle of an answer
	}
	to.Write(said)
}

// forward asks the registry. It does so also when the client has gone: what was sent arrives.
func (w *weather) forward(r *http.Request, body []byte) (*http.Response, []byte, error) {
	out, err := http.NewRequest(r.Method, "http://"+w.upstream+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	out.Header, out.Host = r.Header.Clone(), r.Host // the registry answers with addresses of ours
	answer, err := http.DefaultTransport.RoundTrip(out)
	if err != nil {
		return nil, nil, err
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	return answer, said, err
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
