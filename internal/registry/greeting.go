package registry

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// greeting keeps a registry's answer to GET /v2/, which says how it wants to be talked to: it is the same for every
// repository and every scope, and the library asks anew for each.
type greeting struct {
	next http.RoundTripper
	mu   sync.Mutex
	kept map[string]*http.Response // by scheme and host, without a body
}

func newGreeting(next http.RoundTripper) *greeting {
	return &greeting{next: next, kept: map[string]*http.Response{}}
}

// origin is what a greeting is kept by.
func origin(u *url.URL) string { return u.Scheme + "://" + u.Host }

// knows is the header of the greeting of an origin, scheme://host; nil when it was not asked for yet.
func (g *greeting) knows(origin string) http.Header {
	g.mu.Lock()
	defer g.mu.Unlock()
	if known := g.kept[origin]; known != nil {
		return known.Header
	}
	return nil
}

// RoundTrip answers a greeting that is known by itself. Only an answer that says something is kept: 200 or 401.
func (g *greeting) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet || r.URL.Path != "/v2/" || r.Header.Get("Authorization") != "" {
		return g.next.RoundTrip(r)
	}
	key := origin(r.URL)
	g.mu.Lock()
	known := g.kept[key]
	g.mu.Unlock()
	if known == nil {
		response, err := g.next.RoundTrip(r)
		if err != nil || response.StatusCode != http.StatusOK && response.StatusCode != http.StatusUnauthorized {
			return response, err
		}
		io.Copy(io.Discard, io.LimitReader(response.Body, 1<<16))
		response.Body.Close()
		known = response
		g.mu.Lock()
		g.kept[key] = known
		g.mu.Unlock()
	}
	answer := *known
	answer.Header, answer.Request = known.Header.Clone(), r
	answer.Body, answer.ContentLength = io.NopCloser(strings.NewReader("")), 0
	return &answer, nil
}
