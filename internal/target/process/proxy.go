package process

import (
	"context"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstep/backstep/internal/release"
)

// releaseHeader says in every answer which release gave it, as the first twelve digits of its digest.
const releaseHeader = "X-Backstep-Release"

// backend is one release with its share of the traffic.
type backend struct {
	weight  int
	address string
}

// proxy shares out requests by weight. It chooses for each request, so that a customer's open connection
// does not stay with a release that lost the traffic.
type proxy struct {
	mu       sync.Mutex
	backends map[release.ID]*route
}

// route is the way to one release.
type route struct {
	backend
	ctx     context.Context // of the requests to it
	close   context.CancelFunc
	credit  int // of the smooth weighted round robin, as nginx does it
	open    atomic.Int64
	handler http.Handler
}

func newProxy() *proxy { return &proxy{backends: map[release.ID]*route{}} }

// set gives each release its weight. Requests that are under way finish where they are.
func (p *proxy) set(backends map[release.ID]backend) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, r := range p.backends {
		if _, named := backends[id]; !named {
			r.weight, r.credit = 0, 0
		}
	}
	for id, b := range backends {
		r := p.backends[id]
		if r == nil || r.address != b.address {
			r = newRoute(id, b)
			p.backends[id] = r
		}
		r.weight, r.credit = b.weight, 0
	}
}

func newRoute(id release.ID, b backend) *route {
	to := &url.URL{Scheme: "http", Host: b.address}
	ctx, cancel := context.WithCancel(context.Background())
	return &route{backend: b, ctx: ctx, close: cancel, handler: &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.SetXForwarded()
			r.Out.Host = r.In.Host
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 10 * time.Second},
		ModifyResponse: func(r *http.Response) error {
			r.Header.Set(releaseHeader, id.Short())
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			w.Header().Set(releaseHeader, id.Short())
			http.Error(w, "the release does not answer", http.StatusBadGateway)
		},
	}}
}

// weights is who has how much, without those that have nothing.
func (p *proxy) weights() map[release.ID]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	weights := map[release.ID]int{}
	for id, r := range p.backends {
		if r.weight > 0 {
			weights[id] = r.weight
		}
	}
	return weights
}

// move says that the release has another address, whatever its share is.
func (p *proxy) move(id release.ID, address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.backends[id]; r != nil && r.address != address {
		p.backends[id] = newRoute(id, backend{weight: r.weight, address: address})
	}
}

// take gives the release nothing any more, and returns the way to it, or nil when there is none.
func (p *proxy) take(id release.ID) *route {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.backends[id]
	delete(p.backends, id)
	return r
}

// left is the way to a release that has no traffic any more, or nil.
func (p *proxy) left(id release.ID) *route {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.backends[id]; r != nil && r.weight == 0 {
		return r
	}
	return nil
}

// end ends the requests to the release, unless it has traffic.
func (p *proxy) end(id release.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.backends[id]; r != nil && r.weight == 0 {
		r.close()
		p.backends[id] = newRoute(id, r.backend)
	}
}

// drain waits until no request is under way, for at most patience or until stop is closed.
func (r *route) drain(patience time.Duration, stop <-chan struct{}) {
	end := time.After(patience)
	for r.open.Load() > 0 {
		select {
		case <-stop:
			return
		case <-end:
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// choose is the next release in turn, or nil when nobody has traffic.
func (p *proxy) choose() *route {
	p.mu.Lock()
	defer p.mu.Unlock()
	var best *route
	for _, r := range p.backends {
		if r.weight == 0 {
			continue
		}
		r.credit += r.weight
		if best == nil || r.credit > best.credit {
			best = r
		}
	}
	if best != nil {
		best.credit -= 100
		best.open.Add(1)
	}
	return best
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	to := p.choose()
	if to == nil {
		http.Error(w, "no release has traffic", http.StatusServiceUnavailable)
		return
	}
	defer to.open.Add(-1)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(to.ctx, cancel)()
	to.handler.ServeHTTP(w, r.WithContext(ctx))
}
