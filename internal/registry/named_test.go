package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/registry/registrytest"
	"github.com/backstep/backstep/internal/secret"
)

// through sends every request for registry.example.com to a server of the test.
func through(server *httptest.Server, roots *x509.CertPool) Option {
	t := network()
	t.TLSClientConfig = &tls.Config{RootCAs: roots}
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if strings.HasPrefix(address, "registry.example.com:") {
			address = server.Listener.Addr().String()
		}
		return (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, address)
	}
	return WithTransport(t)
}

// Each fault of a registry names itself, and what helps.
func TestFaultsNameThemselves(t *testing.T) {
	quiet := func(s *httptest.Server) *httptest.Server {
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		t.Cleanup(s.Close)
		return s
	}
	empty := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	https := quiet(httptest.NewUnstartedServer(empty))
	https.StartTLS()
	known := x509.NewCertPool()
	known.AddCert(https.Certificate())
	plain := quiet(httptest.NewServer(empty))
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	realm := strings.Replace(gone.Addr().String(), "127.0.0.1", "localhost", 1)
	gone.Close()
	away := quiet(httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test"`, realm))
		w.WriteHeader(http.StatusUnauthorized)
	})))
	limited := func(header, value string) *httptest.Server {
		return quiet(httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/" {
				w.Header().Set(header, value)
				w.WriteHeader(http.StatusTooManyRequests)
				io.WriteString(w, `{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}`)
			}
		})))
	}
	private := registrytest.Private(t, registrytest.InProcess(t), "ada", "pass")
	end := time.Now().Add(2 * time.Hour)
	for _, c := range []struct {
		what, at, password string
		options            []Option
		code               fault.Code
		want, hint         string
	}{
		{"a certificate that nobody has signed", "registry.example.com", "", []Option{through(https, nil)}, fault.Input,
			"reach registry registry.example.com: its certificate is refused: x509: certificate signed by unknown authority", "SSL_CERT_FILE"},
		{"the same on this machine", hostOf(https), "", nil, fault.Input,
			"reach registry " + hostOf(https) + ": its certificate is refused: x509: certificate signed by unknown authority", "SSL_CERT_FILE"},
		{"a certificate for another name", strings.Replace(hostOf(https), "127.0.0.1", "localhost", 1), "", []Option{trusting(known)}, fault.Input,
			"its certificate is refused: x509: certificate is valid for example.com, *.example.com, not localhost", "it is for another name"},
		{"http where https is expected", "registry.example.com", "", []Option{through(plain, nil)}, fault.Input,
			"reach registry registry.example.com: it speaks http where https is expected", "have it speak https"},
		{"a realm that is away", hostOf(away), "", nil, fault.Failed,
			"reach registry " + hostOf(away) + ": it sends logins to " + realm + ", which does not answer: dial tcp ", "the realm that the registry names"},
		{"a limit in seconds", hostOf(limited("Retry-After", "7200")), "", nil, fault.Failed,
			"throttled: the registry answered 429 TOOMANYREQUESTS You have reached your pull rate limit.", "it serves again in 2h0m0s, at " + end.UTC().Format("2006-01-02T15:")},
		{"a limit as GitHub has it", hostOf(limited("X-RateLimit-Reset", fmt.Sprint(end.Unix()))), "", nil, fault.Failed, "throttled", "it serves again in "},
		{"a password with a line break", private, "pass\n", nil, fault.Input, "access denied: the registry answered 401", "registry-password begins or ends with a space or a line break"},
		{"a wrong password", private, "guess", nil, fault.Input, "access denied: the registry answered 401", "registry-username and registry-password are refused"},
		{"no password", private, "", nil, fault.Input, "access denied: the registry answered 401", "log in first: docker login " + private},
	} {
		client := New(c.options...)
		if c.password != "" {
			client.host, client.login = c.at, &login{Login: Login{username: "ada", password: secret.New(c.password)}}
		}
		_, err := client.Get(t.Context(), c.at+"/acme/shop", "1.0.0")
		if err == nil || !strings.Contains(err.Error(), c.want) || fault.CodeOf(err) != c.code || !strings.Contains(fault.HintOf(err), c.hint) {
			t.Errorf("%s: exit code %d, %v, hint %q", c.what, fault.CodeOf(err), err, fault.HintOf(err))
		}
	}
}

func trusting(roots *x509.CertPool) Option {
	t := network()
	t.TLSClientConfig = &tls.Config{RootCAs: roots}
	return WithTransport(t)
}

func hostOf(s *httptest.Server) string { return s.Listener.Addr().String() }
