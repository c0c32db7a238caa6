package process

import (
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
	backends map[release.Digest]*route
}

// route is the way to one release.
type route struct {
	backend
	credit  int // of the smooth weighted round robin, as nginx does it
	open    atomic.Int64
	handler http.Handler
}

func newProxy() *proxy { return &proxy{backends: map[release.Digest]*route{}} }

// set gives each release its weight. Requests that are under way finish where they are.
func (p *proxy) set(backends map[release.Digest]backend) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for d, r := range p.backends {
		if _, named := backends[d]; !named {
			r.weight, r.credit = 0, 0
		}
	}
	for d, b := range backends {
		r := p.backends[d]
		if r == nil || r.address != b.address {
			r = newRoute(d, b)
			p.backends[d] = r
		}
		r.weight, r.credit = b.weight, 0
	}
}

func newRoute(d release.Digest, b backend) *route {
	to := &url.URL{Scheme: "http", Host: b.address}
	return &route{backend: b, handler: &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.SetXForwarded()
			r.Out.Host = r.In.Host
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 10 * time.Second},
		ModifyResponse: func(r *http.Response) error {
			r.Header.Set(releaseHeader, d.Short())
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			w.Header().Set(releaseHeader, d.Short())
			http.Error(w, "the release does not answer", http.StatusBadGateway)
		},
	}}
}

// weights is who has how much, without those that have nothing.
func (p *proxy) weights() map[release.Digest]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	weights := map[release.Digest]int{}
	for d, r := range p.backends {
		if r.weight > 0 {
			weights[d] = r.weight
		}
	}
	return weights
}

// drop gives d nothing any more.
func (p *proxy) drop(d release.Digest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.backends[d]; r != nil {
		r.weight, r.credit = 0, 0
	}
}

// drain waits until d has no request under way, for at most patience, and forgets the way to it.
func (p *proxy) drain(d release.Digest, patience time.Duration) {
	p.mu.Lock()
	r := p.backends[d]
	p.mu.Unlock()
	if r == nil {
		return
	}
	for end := time.Now().Add(patience); r.open.Load() > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.backends, d)
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
	to.handler.ServeHTTP(w, r)
}
