package registry

import (
	"cmp"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/backstep/backstep/internal/fault"
)

// realms are token services at another domain than their registry, by the domains of both: each belongs to the registry's operator.
var realms = map[string][]string{
	"docker.io": {"docker.com"},
	"scw.cloud": {"scaleway.com"},
}

// guard refuses what gives a password away: a request without encryption to another machine, and a password for a token service
// that is not the registry's own.
type guard struct {
	next     http.RoundTripper
	registry string // host:port
	plain    bool   // it was said that the registry is asked without encryption
	realm    string // the host of a token service that was allowed; "" is none
}

// RoundTrip sends the request, or returns a fault of the input.
func (g guard) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !g.mayBePlain(r) {
		return nil, fault.Inputf("%s would be asked over http, and everybody on the way could read the password and change what is read", r.URL.Host).
			WithHint("give the registry a certificate; where there is no other way: registry-plain-http")
	}
	if carriesPassword(r) && !g.trusts(r.URL) {
		return nil, fault.Inputf("registry %s wants the password to be sent to %s", g.registry, r.URL.Host).
			WithHint("when that is its token service: registry-realm %s", r.URL.Hostname())
	}
	response, err := g.next.RoundTrip(r)
	if err == nil && response.StatusCode == http.StatusTooManyRequests && admits(r) {
		response.Body.Close()
		return nil, fault.Errorf(fault.Failed, "%w by %s", ErrThrottled, r.URL.Host).
			WithHint("%s, or ask for a higher limit there", cmp.Or(throttled(response.Header, time.Now()), "try again later"))
	}
	return response, err
}

// admits says whether a request asks to be let in. What its answer says apart from its status is lost in the library.
func admits(r *http.Request) bool {
	return r.URL.Path == "/v2/" || !strings.HasPrefix(r.URL.Path, "/v2/") && r.Response == nil
}

// mayBePlain says whether the request may go out without encryption: on this machine, to the registry of which that was said, to its
// token service, and to where a request went on that was plain already and carries no password.
func (g guard) mayBePlain(r *http.Request) bool {
	if loopback(r.URL.Hostname()) || g.plain && g.trusts(r.URL) {
		return true
	}
	return g.plain && r.Response != nil && r.Header.Get("Authorization") == "" && !carriesPassword(r)
}

// trusts says whether a password for the registry may be sent to u: to the registry, another host of its domain, or a realm that was allowed.
func (g guard) trusts(u *url.URL) bool {
	own, host := (&url.URL{Host: g.registry}).Hostname(), strings.ToLower(u.Hostname())
	if host == strings.ToLower(own) || g.realm != "" && host == strings.ToLower(g.realm) {
		return true
	}
	ours, theirs := domain(own), domain(host)
	return ours != "" && (ours == theirs || slices.Contains(realms[ours], theirs))
}

// carriesPassword says whether a request holds the password itself and not a token that was given for it.
func carriesPassword(r *http.Request) bool {
	_, _, basic := r.BasicAuth()
	return basic || r.Method == http.MethodPost && strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded")
}

// domain is what somebody has registered, example.com of registry.example.com; "" for an address and a name without one.
func domain(host string) string {
	if _, err := netip.ParseAddr(host); err == nil {
		return ""
	}
	registered, err := publicsuffix.EffectiveTLDPlusOne(strings.ToLower(host))
	if err != nil {
		return ""
	}
	return registered
}

// loopback says whether a host is this machine, by its name alone: nobody is asked.
func loopback(host string) bool {
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsLoopback()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}
