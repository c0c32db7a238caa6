package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/backstep/backstep/internal/fault"
)

// unreachable names the fault of a connection that came to nothing, with what helps; nil when it is another.
func unreachable(doing string, repo name.Repository, err error) error {
	var certificate *tls.CertificateVerificationError
	var plain tls.RecordHeaderError
	var asked *url.Error
	var proxied *net.OpError
	switch { // at a private address http is tried after https, and refused by us: what went wrong with https goes first
	case errors.As(err, &certificate):
		return fault.Errorf(fault.Input, "%s: its certificate is refused: %w", doing, certificate.Err).WithHint("%s", mend(certificate.Err))
	case errors.As(err, &proxied) && proxied.Op == "proxyconnect":
		return fmt.Errorf("%s: %w", doing, fault.Errorf(fault.Failed, "the proxy does not answer: %w", proxied.Err).WithHint("%s", mendProxy))
	case fault.HintOf(err) != "": // one of ours, which went through the transport
		return fmt.Errorf("%s: %w", doing, err)
	case errors.As(err, &plain), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return fault.Inputf("%s: it speaks http where https is expected", doing).
			WithHint("have it speak https, with a proxy in front of it; where there is no other way: registry-plain-http")
	case errors.As(err, &asked):
		if at, parseErr := url.Parse(asked.URL); parseErr == nil && at.Host != "" && at.Host != repo.RegistryStr() {
			return fmt.Errorf("%s: it sends logins to %s, which does not answer: %w", doing, at.Host,
				fault.Errorf(fault.Failed, "%w", asked.Err).WithHint("the realm that the registry names has to be reached from here: look at its configuration, DNS and proxies"))
		}
	}
	return nil
}

// mendProxy is what helps with a proxy that does not do what it should.
const mendProxy = "look at HTTPS_PROXY, which names it; a registry that is reached without it belongs into NO_PROXY"

// throughProxy is a fault of a proxy that does not connect, with what it says.
func throughProxy(_ context.Context, proxy *url.URL, _ *http.Request, response *http.Response) error {
	if response.StatusCode == http.StatusOK {
		return nil
	}
	return fault.Errorf(fault.Failed, "the proxy %s answered %s", proxy.Host, response.Status).WithHint("%s", mendProxy)
}

// mend is what helps with a certificate that is refused.
func mend(err error) string {
	var unknown x509.UnknownAuthorityError
	var names x509.HostnameError
	switch {
	case errors.As(err, &unknown):
		return "nobody known here has signed it: put the certificate of its authority into a file, and its path into SSL_CERT_FILE; in a container, mount it"
	case errors.As(err, &names):
		return "it is for another name: use the name that it is for, or give the registry one for this name"
	}
	return "renew it, or set the clock of this machine"
}

// speaksTLS is how Go's servers, and nginx, answer a plain request on a port for TLS.
const speaksTLS = "HTTP request to an HTTPS server"

// throttled says until when a registry refuses to serve more, by its headers; "" when it does not say.
func throttled(h http.Header, now time.Time) string {
	if wait := asksToWait(h, now); wait > 0 {
		return fmt.Sprintf("it serves again in %s, at %s", wait.Round(time.Second), now.Add(wait).UTC().Format(time.RFC3339))
	}
	return ""
}

// refusedLogin is what is to be said of the login that was given for the registry of repo and that it has refused; "" when none was.
func (c *Client) refusedLogin(repo name.Repository) string {
	if c.login == nil || c.host != repo.RegistryStr() {
		return ""
	}
	if password := c.login.password.Reveal(); password != strings.TrimSpace(password) {
		return "registry-password begins or ends with a space or a line break, which is sent too: store the secret without it, for example with printf '%s' and not with echo"
	}
	return "registry-username and registry-password are refused: look at whether they are of this registry, still valid, and allowed to do it"
}
