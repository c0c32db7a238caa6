package probe

import (
	"crypto/tls"
	"crypto/x509"
	"os"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
)

// TLS is how a probe speaks TLS. Its inputs are the same in every kind.
type TLS struct {
	authorities, certificate, key string
}

// Inputs declares them.
func (t *TLS) Inputs() []input.Input {
	return []input.Input{
		input.String(&t.authorities, "ca", "A PEM file with the authorities to trust; the system's when it is left out."),
		input.String(&t.certificate, "certificate", "A PEM file with our own certificate, for a server that asks for one."),
		input.String(&t.key, "key", "The PEM file with its key."),
	}
}

// Config reads the files. The name that a certificate has to be for is the caller's.
func (t *TLS) Config() (*tls.Config, error) {
	c := &tls.Config{}
	if t.authorities != "" {
		text, err := os.ReadFile(t.authorities)
		if err != nil {
			return nil, fault.Inputf("ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, fault.Inputf("ca: %s has no certificate", t.authorities)
		}
	}
	if t.certificate != "" || t.key != "" {
		pair, err := tls.LoadX509KeyPair(t.certificate, t.key)
		if err != nil {
			return nil, fault.Inputf("certificate and key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// Given says whether any of the inputs is set.
func (t *TLS) Given() bool { return t.authorities+t.certificate+t.key != "" }
