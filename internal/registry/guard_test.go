package registry

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/secret"
)

// heard is who was told the password, by host and path.
type heard struct {
	mu sync.Mutex
	by map[string]bool
}

func (h *heard) note(r *http.Request) {
	if _, password, ok := r.BasicAuth(); ok && password == "hunter2" {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.by[r.Host+r.URL.Path] = true
	}
}

// dialed is a client, with a password for the registry at host, whose connections all lead to the servers: plain for http,
// encrypted for https. A server that is nil is not there.
func dialed(t *testing.T, host string, plain, encrypted *httptest.Server, l Login) *Client {
	t.Helper()
	l.username, l.password = "ada", secret.New("hunter2")
	c, err := l.Client(nil, secret.NewKnown(nil), host+"/shop")
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	if encrypted != nil {
		transport = encrypted.Client().Transport.(*http.Transport).Clone()
		transport.TLSClientConfig.InsecureSkipVerify = true // the names are invented
	}
	to := func(s *httptest.Server) func(context.Context, string, string) (net.Conn, error) {
		return func(ctx context.Context, network, _ string) (net.Conn, error) {
			if s == nil {
				return nil, fmt.Errorf("nobody is there")
			}
			return (&net.Dialer{}).DialContext(ctx, network, s.Listener.Addr().String())
		}
	}
	transport.DialContext, transport.DialTLSContext = to(plain), nil
	secure := transport.Clone()
	secure.DialContext = to(encrypted)
	t.Cleanup(transport.CloseIdleConnections)
	t.Cleanup(secure.CloseIdleConnections)
	c.base = retrying{next: byScheme{transport, secure}}
	c.greeting = newGreeting(c.base)
	return c
}

type byScheme struct{ plain, secure http.RoundTripper }

func (b byScheme) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "https" {
		return b.secure.RoundTrip(r)
	}
	return b.plain.RoundTrip(r)
}

// No registry is asked over http unless it is on this machine or that was said, whatever its address looks like.
func TestAPasswordNeverGoesOutWithoutEncryption(t *testing.T) {
	for _, c := range []struct {
		host string
		told bool
		want string // who hears the password over http
	}{
		{"10.1.2.3:5000", false, ""},
		{"192.168.7.7", false, ""},
		{"registry.local:5000", false, ""},
		{"registry.example.com", false, ""},
		{"127.0.0.1:5000", false, "127.0.0.1:5000/v2/shop/manifests/1"},
		{"localhost:5000", false, "localhost:5000/v2/shop/manifests/1"},
		{"10.1.2.3:5000", true, "10.1.2.3:5000/v2/shop/manifests/1"},
		{"registry.example.com:5000", true, "registry.example.com:5000/v2/shop/manifests/1"},
	} {
		var told heard
		told.by = map[string]bool{}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			told.note(r)
			if _, _, ok := r.BasicAuth(); !ok {
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			w.WriteHeader(http.StatusNotFound)
		}))
		client := dialed(t, c.host, server, nil, Login{plain: c.told})
		_, err := client.Get(t.Context(), c.host+"/shop", "1")
		if got := strings.Join(slices.Sorted(maps.Keys(told.by)), " "); got != c.want {
			t.Errorf("%s, told %v: the password went to %q, want %q", c.host, c.told, got, c.want)
		}
		if c.want == "" && err == nil {
			t.Errorf("%s: no error", c.host)
		}
		if strings.HasPrefix(c.host, "10.") && !c.told && (fault.CodeOf(err) != fault.Input || !strings.Contains(err.Error(), "would be asked over http")) {
			t.Errorf("%s: %v", c.host, err)
		}
		server.Close()
	}
}

// A token service gets the password when it is the registry's own, of the same domain, or allowed.
func TestAPasswordGoesToTheRegistrysOwnRealm(t *testing.T) {
	for _, c := range []struct {
		registry, realm, allowed string
		want                     bool
	}{
		{"registry.example.com", "registry.example.com", "", true},
		{"registry.example.com", "auth.example.com", "", true},
		{"registry.example.com:5000", "registry.example.com:5001", "", true},
		{"index.docker.io", "auth.docker.io", "", true},
		{"registry.example.com", "auth.example.net", "", false},
		{"registry.example.com", "auth.example.net", "auth.example.net", true},
		{"registry.shop.com.cn", "evil.com.cn", "", false},
		{"registry.example.com", "example.com.evil.net", "", false},
		{"1.2.3.4", "1.2.3.5", "", false},
	} {
		var told heard
		told.by = map[string]bool{}
		server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			told.note(r)
			switch {
			case r.URL.Path == "/token":
				fmt.Fprint(w, `{"token":"t"}`)
			case r.Header.Get("Authorization") != "Bearer t":
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="https://%s/token",service="x"`, c.realm))
				w.WriteHeader(http.StatusUnauthorized)
			default:
				w.WriteHeader(http.StatusNotFound)
			}
		}))
		client := dialed(t, c.registry, nil, server, Login{realm: c.allowed})
		_, err := client.Get(t.Context(), c.registry+"/acme/shop", "1")
		if got := told.by[c.realm+"/token"]; got != c.want || len(told.by) > 1 {
			t.Errorf("%s, realm at %s: told %v, want %v", c.registry, c.realm, told.by, c.want)
		}
		if c.want {
			server.Close()
			continue
		}
		want := fmt.Sprintf("registry %s wants the password to be sent to %s", c.registry, c.realm)
		if err == nil || !strings.HasSuffix(err.Error(), want) || fault.HintOf(err) != "when that is its token service: registry-realm "+c.realm {
			t.Errorf("%s: %v, hint %q", c.registry, err, fault.HintOf(err))
		}
		server.Close()
	}
}

// A list of tags ends, or is an error.
func TestAListOfTagsWithoutEnd(t *testing.T) {
	page := 0
	slow := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		if slow {
			time.Sleep(20 * time.Millisecond)
		}
		page++
		w.Header().Set("Link", fmt.Sprintf(`</v2/shop/tags/list?last=%d>; rel="next"`, page))
		fmt.Fprintf(w, `{"tags":["t%d"]}`, page)
	}))
	defer server.Close()
	repository := server.Listener.Addr().String() + "/shop"
	_, err := New().Tags(t.Context(), repository)
	if want := fmt.Sprintf("list the tags of %s: the list did not end after 5000 pages", repository); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	slow = true
	c := New()
	c.listTime = 200 * time.Millisecond
	_, err = c.Tags(t.Context(), repository)
	if want := fmt.Sprintf("list the tags of %s: the list did not end within 200ms", repository); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// What is no name of an image is refused, wherever the library is more generous.
func TestNamesThatAreNone(t *testing.T) {
	for _, s := range []string{"\xe4./0:0", "r.example/../shop:1", "r.example//shop:1", "r.example/shop/:1", "r.example/-shop:1",
		"r.example/shop:.1", "r.example/shop:-1", "r.example:port/shop:1", "r.example/shop:1\n", "r_x.example/shop:1", "u@r.example/shop:1", "r.example/sh op:1"} {
		if ref, err := ParseReference(s); err == nil || fault.CodeOf(err) != fault.Input {
			t.Errorf("%q: %v, %v; want a fault", s, ref, err)
		}
	}
	for _, s := range []string{"r.example/shop:1", "[::1]:5000/shop:1", "localhost:5000/a/b__c/d-e.f:V1", "registry:5000/shop:1"} {
		if _, err := ParseReference(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// FuzzReference: what is taken for a name has only characters that mean nothing to a shell, a query or a terminal, and stays itself.
func FuzzReference(f *testing.F) {
	for _, s := range []string{"r.example/shop:1", "\xe4./0:0", "r.example/shop@sha256:" + strings.Repeat("a", 64), "[::1]:5000/a:b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := ParseReference(s)
		if err != nil {
			return
		}
		if i := strings.IndexFunc(s, func(r rune) bool {
			return r > 126 || !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:@[]", r)
		}); i >= 0 {
			t.Errorf("%q is valid", s)
		}
		if again, err := ParseRepository(ref.Repository); err != nil || again != ref.Repository {
			t.Errorf("%q: repository %q is not one: %v", s, ref.Repository, err)
		}
	})
}
