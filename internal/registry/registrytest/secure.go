package registrytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Authority signs certificates that nobody else knows, as a company's own does.
type Authority struct {
	File string // its certificate, PEM: what SSL_CERT_FILE names

	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority is an authority of its own.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{File: filepath.Join(t.TempDir(), "authority.pem")}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of a test"}, NotBefore: time.Now().Add(-48 * time.Hour),
		NotAfter: time.Now().Add(48 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	var der []byte
	a.key, der = signed(t, template, nil, nil)
	var err error
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	write(t, a.File, pemOf("CERTIFICATE", der))
	return a
}

// Roots are the authority alone.
func (a *Authority) Roots() *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AddCert(a.certificate)
	return roots
}

// Certificate writes a certificate for names and addresses, which ends at end, and its key, as PEM files.
func (a *Authority) Certificate(t testing.TB, end time.Time, names ...string) (certificate, key string) {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: names[0]}, NotBefore: time.Now().Add(-24 * time.Hour),
		NotAfter: end, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		template.DNSNames = append(template.DNSNames, name)
	}
	private, der := signed(t, template, a.certificate, a.key)
	dir := t.TempDir()
	certificate, key = filepath.Join(dir, "certificate.pem"), filepath.Join(dir, "key.pem")
	encoded, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write(t, certificate, pemOf("CERTIFICATE", der))
	write(t, key, pemOf("EC PRIVATE KEY", encoded))
	return certificate, key
}

// signed is a new key and the certificate of template for it, signed by the parent, or by itself without one.
func signed(t testing.TB, template, parent *x509.Certificate, by *ecdsa.PrivateKey) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if parent == nil {
		parent, by = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	return key, der
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func write(t testing.TB, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// User and Password are those of one who may do everything on the registries of Behind.
const (
	User     = "ada"
	Password = "hunter2"
)

// htpasswd is a line for User and Password, with bcrypt.
const htpasswd = User + ":$2b$05$abcdefghijklmnopqrstuuoXuKqgZXLiJqzfmMXDDhSFPIvxV7t8.\n"

// Behind is a registry, Debian's docker-registry, behind TLS.
type Behind struct {
	Names  []string  // that its certificate is for; nil is localhost and 127.0.0.1
	End    time.Time // of its certificate; zero is tomorrow
	On     string    // the address that it listens at; "" is 127.0.0.1
	Tokens *Tokens   // who lets in; nil is the registry itself, by a file of passwords
}

// Start is the address of the registry, On:port, with a certificate of the authority. It skips the test where docker-registry is
// not installed.
func (b Behind) Start(t testing.TB, a *Authority) string {
	t.Helper()
	if _, err := exec.LookPath("docker-registry"); err != nil {
		t.Skip("needs Debian's docker-registry")
	}
	names, end := b.Names, b.End
	if names == nil {
		names = []string{"localhost", "127.0.0.1"}
	}
	if end.IsZero() {
		end = time.Now().Add(24 * time.Hour)
	}
	certificate, key := a.Certificate(t, end, names...)
	var auth string
	if b.Tokens == nil {
		file := filepath.Join(t.TempDir(), "htpasswd")
		write(t, file, []byte(htpasswd))
		auth = fmt.Sprintf("auth: {htpasswd: {realm: test, path: %q}}\n", file)
	} else {
		auth = fmt.Sprintf("auth: {token: {realm: %q, service: %q, issuer: %q, rootcertbundle: %q}}\n", b.Tokens.Realm, b.Tokens.Service, issuer, b.Tokens.bundle)
	}
	asking := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	return serve(t, instance{on: b.On, scheme: "https", http: fmt.Sprintf(", tls: {certificate: %q, key: %q}", certificate, key), more: auth, client: asking},
		"docker-registry", "serve")
}

// issuer is who has signed the tokens.
const issuer = "tokens of a test"

// leeway is for how long docker-registry 2.8 takes a token after its end.
const leeway = time.Minute

// Tokens is a token service, as the specification of distribution has it: User gets what is asked for, and nobody else anything.
type Tokens struct {
	Realm   string // its address
	Service string // the registry that its tokens are for, as that calls itself

	Life  atomic.Int64 // how long a token is good for, in nanoseconds
	Gives atomic.Int64 // the status that it answers with; 0 gives tokens
	Asked atomic.Int64 // how often it has given a token

	bundle string // its certificate, PEM
	chain  []string
	key    *ecdsa.PrivateKey
}

// NewTokens is a token service behind TLS, as https://NAME:port/token, for the registry that calls itself service.
func NewTokens(t testing.TB, a *Authority, name, service string) *Tokens {
	t.Helper()
	s := &Tokens{Service: service, bundle: filepath.Join(t.TempDir(), "tokens.pem")}
	s.Life.Store(int64(5 * time.Minute))
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: issuer}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, IsCA: true, BasicConstraintsValid: true}
	var der []byte
	s.key, der = signed(t, template, nil, nil)
	s.chain = []string{base64.StdEncoding.EncodeToString(der)}
	write(t, s.bundle, pemOf("CERTIFICATE", der))

	certificate, key := a.Certificate(t, time.Now().Add(24*time.Hour), name, "127.0.0.1")
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(s)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	s.Realm = "https://" + net.JoinHostPort(name, port) + "/token"
	return s
}

func (s *Tokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if status := int(s.Gives.Load()); status != 0 {
		if status == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "7200")
		}
		w.WriteHeader(status)
		return
	}
	if user, password, _ := r.BasicAuth(); user != User || password != Password {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}`)
		return
	}
	s.Asked.Add(1)
	w.Header().Set("Content-Type", "application/json")
	token, err := s.token(r.URL.Query()["scope"])
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	json.NewEncoder(w).Encode(map[string]string{"token": token})
}

// access is what a token allows.
type access struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// token is a signed JWT for scopes of the shape repository:acme/shop:pull,push.
func (s *Tokens) token(scopes []string) (string, error) {
	granted := []access{}
	for _, scope := range strings.Fields(strings.Join(scopes, " ")) {
		if parts := strings.SplitN(scope, ":", 3); len(parts) == 3 {
			granted = append(granted, access{parts[0], parts[1], strings.Split(parts[2], ",")})
		}
	}
	now := time.Now()
	header, err := json.Marshal(map[string]any{"typ": "JWT", "alg": "ES256", "x5c": s.chain})
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(map[string]any{"iss": issuer, "sub": User, "aud": s.Service, "jti": fmt.Sprint(now.UnixNano()), "access": granted,
		"iat": now.Unix(), "nbf": now.Add(-2 * leeway).Unix(), "exp": now.Add(time.Duration(s.Life.Load()) - leeway).Unix()})
	if err != nil {
		return "", err
	}
	signing := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(claims)
	sum := sha256.Sum256([]byte(signing))
	x, y, err := ecdsa.Sign(rand.Reader, s.key, sum[:])
	if err != nil {
		return "", err
	}
	signature := append(x.FillBytes(make([]byte, 32)), y.FillBytes(make([]byte, 32))...)
	return signing + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

// Proxy is an HTTP proxy that lets CONNECT through, and nothing else.
type Proxy struct {
	Address string                           // host:port
	To      func(address string) string      // where a connection for host:port goes; nil is where it says
	Lets    func(user, password string) bool // nil lets everybody

	Through atomic.Int64 // how many connections went through it
}

// Start begins to listen.
func (p *Proxy) Start(t testing.TB) {
	t.Helper()
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	p.Address = server.Listener.Addr().String()
}

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		http.Error(w, "want CONNECT", http.StatusMethodNotAllowed)
		return
	}
	if p.Lets != nil {
		as := &http.Request{Header: http.Header{"Authorization": r.Header.Values("Proxy-Authorization")}}
		if user, password, _ := as.BasicAuth(); !p.Lets(user, password) {
			w.Header().Set("Proxy-Authenticate", "Basic")
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
	}
	address := r.Host
	if p.To != nil {
		address = p.To(address)
	}
	upstream, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer upstream.Close()
	client, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer client.Close()
	p.Through.Add(1)
	fmt.Fprint(client, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() {
		io.Copy(upstream, client)
		upstream.Close()
	}()
	io.Copy(client, upstream)
}
