package probetest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Needs skips a test that needs a real server, unless make e2e runs it, which installs them.
func Needs(t testing.TB, program string) {
	t.Helper()
	if os.Getenv("BACKSTEP_E2E") == "" {
		t.Skip("needs " + program + ": run make e2e")
	}
}

// Start runs a server until stop is called or the test ends, and waits until ready says so.
func Start(t testing.TB, ready func() bool, as *syscall.Credential, program string, arguments ...string) (stop func()) {
	t.Helper()
	c := exec.Command(program, arguments...)
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	c.SysProcAttr = &syscall.SysProcAttr{Credential: as, Setpgid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = c.Wait() // it is ended by us
		close(ended)
	}()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
		}
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // and what it has started
		<-ended
	}
	t.Cleanup(stop)
	for end := time.Now().Add(time.Minute); !ready(); time.Sleep(20 * time.Millisecond) {
		select {
		case <-ended:
			t.Fatalf("%s ended: %s", program, said.String())
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("%s is not ready: %s", program, said.String())
		}
	}
	return stop
}

// Listens says whether somebody takes connections at the address.
func Listens(address string) func() bool {
	return func() bool {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return false
		}
		c.Close()
		return true
	}
}

// Free is an address of this machine that nobody listens at.
func Free(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Identity is a certificate with its files.
type Identity struct {
	Authority        string // the PEM file of who signed it
	Certificate, Key string // PEM files
	Pair             tls.Certificate
	Pool             *x509.CertPool // of the authority
}

// Identify makes a certificate for the name, by an authority of its own, that lasts so long.
func Identify(t testing.TB, name string, lasts time.Duration) Identity {
	t.Helper()
	dir := t.TempDir()
	made := func(template, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if by == nil {
			by = key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c, key
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	now := time.Now()
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: now.Add(-time.Hour),
		NotAfter: now.Add(3650 * 24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	authority, authorityKey := made(root, root, nil)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour),
		NotAfter: now.Add(lasts), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if ip := net.ParseIP(name); ip != nil {
		leaf.IPAddresses = []net.IP{ip}
	} else {
		leaf.DNSNames = []string{name}
	}
	c, key := made(leaf, authority, authorityKey)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	id := Identity{Authority: write("ca.pem", "CERTIFICATE", authority.Raw), Certificate: write("certificate.pem", "CERTIFICATE", c.Raw),
		Key: write("key.pem", "PRIVATE KEY", der), Pool: x509.NewCertPool()}
	id.Pool.AddCert(authority)
	if id.Pair, err = tls.LoadX509KeyPair(id.Certificate, id.Key); err != nil {
		t.Fatal(err)
	}
	return id
}
