package registry

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/registry/registrytest"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/secret"
)

// knowing is a client that trusts the authority, goes through the proxy when there is one, and logs in to the registry at host.
func knowing(t *testing.T, a *registrytest.Authority, proxy *registrytest.Proxy, host, password string) *Client {
	t.Helper()
	transport := network()
	transport.TLSClientConfig = &tls.Config{RootCAs: a.Roots()}
	if proxy != nil {
		transport.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: proxy.Address})
	}
	t.Cleanup(transport.CloseIdleConnections)
	c := New(WithTransport(transport))
	c.host, c.login = host, &login{Login: Login{username: registrytest.User, password: secret.New(password)}}
	return c
}

// named is an address with a name in place of 127.0.0.1.
func named(name, address string) string {
	_, port, _ := net.SplitHostPort(address)
	return net.JoinHostPort(name, port)
}

// roundTrip pushes an image, tags it, writes what an event is made of, reads all of it and lists it.
func roundTrip(t *testing.T, c *Client, repository string) error {
	t.Helper()
	img, err := random.Image(1<<16, 2)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := c.Push(t.Context(), repository, img)
	if err != nil {
		return err
	}
	r := release.Release{Repository: repository, Digest: digest}
	if err := c.Tag(t.Context(), r, "1.0.0", "bs.shop.production"); err != nil {
		return err
	}
	if _, err := c.PutBlob(t.Context(), repository, []byte("{}")); err != nil {
		return err
	}
	if err := c.Complete(t.Context(), r); err != nil {
		return err
	}
	tags, err := c.Tags(t.Context(), repository)
	if err == nil && len(tags) != 2 {
		err = fmt.Errorf("tags %q", tags)
	}
	return err
}

// Debian's docker-registry behind TLS with a certificate of a private authority: by a password, and by tokens of a service of its own name,
// and both through a proxy that alone knows where the names are.
func TestE2EBehindTLS(t *testing.T) {
	a := registrytest.NewAuthority(t)
	tokens := registrytest.NewTokens(t, a, "localhost", "a registry")
	far := registrytest.NewTokens(t, a, "auth.registry.test", "a registry")
	passwords := registrytest.Behind{Names: []string{"localhost", "registry.test"}}.Start(t, a)
	tokened := registrytest.Behind{Tokens: tokens}.Start(t, a)
	distant := registrytest.Behind{Names: []string{"hub.registry.test"}, Tokens: far}.Start(t, a)
	proxy := &registrytest.Proxy{To: func(address string) string { return named("127.0.0.1", address) }}
	proxy.Start(t)
	for _, c := range []struct {
		what, at string
		proxy    *registrytest.Proxy
	}{
		{"a file of passwords", named("localhost", passwords), nil},
		{"tokens", named("localhost", tokened), nil},
		{"a file of passwords, through a proxy", named("registry.test", passwords), proxy},
		{"tokens, through a proxy", named("hub.registry.test", distant), proxy},
	} {
		if err := roundTrip(t, knowing(t, a, c.proxy, c.at, registrytest.Password), c.at+"/acme/shop"); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	if tokens.Asked.Load() == 0 || far.Asked.Load() == 0 || proxy.Through.Load() < 3 {
		t.Errorf("%d and %d tokens were given, %d connections went through the proxy", tokens.Asked.Load(), far.Asked.Load(), proxy.Through.Load())
	}
}

// A token that ends in the middle of a run is asked for anew, and a login that has ended by then names itself as one at the beginning does.
func TestE2ETokenEndsInTheMiddle(t *testing.T) {
	a := registrytest.NewAuthority(t)
	tokens := registrytest.NewTokens(t, a, "localhost", "a registry")
	at := named("localhost", registrytest.Behind{Tokens: tokens}.Start(t, a))
	c := knowing(t, a, nil, at, registrytest.Password)
	repository := at + "/acme/shop"
	tokens.Life.Store(int64(2 * time.Second))
	if err := roundTrip(t, c, repository); err != nil {
		t.Fatal(err)
	}
	before := tokens.Asked.Load()
	ended := func() {
		t.Helper()
		time.Sleep(3 * time.Second) // the life of the token, in whole seconds
	}
	ended()
	if err := roundTrip(t, c, repository+"-again"); err != nil {
		t.Fatal(err)
	}
	if err := c.Tag(t.Context(), release.Release{Repository: repository, Digest: must(c.Head(t.Context(), repository, "1.0.0"))(t)}, "1.0.1"); err != nil {
		t.Errorf("with a token that has ended: %v", err)
	}
	if tokens.Asked.Load() <= before {
		t.Errorf("no other token was asked for")
	}
	for _, wrong := range []struct {
		status     int
		want, hint string
		code       fault.Code
	}{
		{http.StatusUnauthorized, "access denied: the registry answered 401", "registry-username and registry-password are refused", fault.Input},
		{http.StatusTooManyRequests, "throttled by localhost:", "it serves again in 2h0m0s, at ", fault.Failed},
	} {
		ended()
		tokens.Gives.Store(int64(wrong.status))
		for what, client := range map[string]*Client{"in the middle": c, "at the beginning": knowing(t, a, nil, at, registrytest.Password)} {
			_, err := client.Head(t.Context(), repository, "1.0.0")
			if err == nil || !strings.Contains(err.Error(), wrong.want) || fault.CodeOf(err) != wrong.code || !strings.Contains(fault.HintOf(err), wrong.hint) {
				t.Errorf("%d %s: exit code %d, %v, hint %q", wrong.status, what, fault.CodeOf(err), err, fault.HintOf(err))
			}
		}
		tokens.Gives.Store(0)
		if _, err := c.Head(t.Context(), repository, "1.0.0"); err != nil {
			t.Errorf("after %d: %v", wrong.status, err)
		}
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// Whatever is wrong with the certificate, the login, the token service or the proxy: the message says where, and what helps.
func TestE2ESecureFaults(t *testing.T) {
	a, other := registrytest.NewAuthority(t), registrytest.NewAuthority(t)
	tokens := registrytest.NewTokens(t, a, "localhost", "a registry")
	far := registrytest.NewTokens(t, a, "tokens.elsewhere.test", "a registry")
	passwords := registrytest.Behind{}.Start(t, a)
	expired := registrytest.Behind{End: time.Now().Add(-time.Hour)}.Start(t, a)
	tokened := registrytest.Behind{Tokens: tokens}.Start(t, a)
	distant := registrytest.Behind{Names: []string{"registry.test"}, Tokens: far}.Start(t, a)
	proxy := &registrytest.Proxy{To: func(address string) string { return named("127.0.0.1", address) }}
	proxy.Start(t)
	guarded := &registrytest.Proxy{Lets: func(user, password string) bool { return false }}
	guarded.Start(t)
	closed := &registrytest.Proxy{Address: "127.0.0.1:1"}
	for _, c := range []struct {
		what, at, password string
		trusted            *registrytest.Authority
		proxy              *registrytest.Proxy
		realm              string
		want, hint         string // "" is no error
	}{
		{what: "a private authority that is not known", at: named("localhost", passwords), trusted: other,
			want: "its certificate is refused: x509: certificate signed by unknown authority", hint: "SSL_CERT_FILE"},
		{what: "a certificate that has ended", at: named("localhost", expired),
			want: "its certificate is refused: x509: certificate has expired or is not yet valid", hint: "renew it, or set the clock"},
		{what: "a certificate for another name", at: named("registry.test", passwords), proxy: proxy,
			want: "its certificate is refused: x509: certificate is valid for localhost, not registry.test", hint: "it is for another name"},
		{what: "a wrong password", at: named("localhost", passwords), password: "guess",
			want: "access denied: the registry answered 401", hint: "registry-username and registry-password are refused"},
		{what: "a wrong password for tokens", at: named("localhost", tokened), password: "guess",
			want: "access denied: the registry answered 401", hint: "registry-username and registry-password are refused"},
		{what: "a realm elsewhere", at: named("registry.test", distant), proxy: proxy,
			want: "registry " + named("registry.test", distant) + " wants the password to be sent to tokens.elsewhere.test:", hint: "registry-realm tokens.elsewhere.test"},
		{what: "a realm elsewhere that was allowed", at: named("registry.test", distant), proxy: proxy, realm: "tokens.elsewhere.test"},
		{what: "another realm was allowed", at: named("registry.test", distant), proxy: proxy, realm: "tokens.nowhere.test",
			want: "wants the password to be sent to tokens.elsewhere.test:", hint: "registry-realm tokens.elsewhere.test"},
		{what: "a proxy that is away", at: named("registry.test", passwords), proxy: closed,
			want: "the proxy does not answer: dial tcp 127.0.0.1:1: connect: connection refused", hint: "HTTPS_PROXY"},
		{what: "a proxy that wants a login", at: named("registry.test", passwords), proxy: guarded,
			want: "the proxy " + guarded.Address + " answered 407 Proxy Authentication Required", hint: "HTTPS_PROXY"},
		{what: "a proxy that does not get there", at: named("registry.test", "127.0.0.1:1"), proxy: proxy,
			want: "the proxy " + proxy.Address + " answered 502 Bad Gateway", hint: "NO_PROXY"},
	} {
		if c.trusted == nil {
			c.trusted = a
		}
		if c.password == "" {
			c.password = registrytest.Password
		}
		client := knowing(t, c.trusted, c.proxy, c.at, c.password)
		client.realm = c.realm
		_, err := client.PutBlob(t.Context(), c.at+"/acme/shop", []byte("{}"))
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", c.what, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.at) || !strings.Contains(fault.HintOf(err), c.hint) {
			t.Errorf("%s: exit code %d, %v, hint %q", c.what, fault.CodeOf(err), err, fault.HintOf(err))
		}
	}
}
