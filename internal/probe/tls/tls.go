// Package tls is the probe that looks at a release's certificate.
package tls

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/probe"
)

// Kind is the tls probe.
func Kind() probe.Kind {
	return probe.Kind{
		Name:  "tls",
		Help:  "Passes when a release has a certificate whose chain is trusted, that is for its name, and that lasts long enough.",
		Every: time.Second,
		New: func() ([]input.Input, func() (probe.Probe, error)) {
			p := &question{}
			return append([]input.Input{
				input.String(&p.host, "host", "The name that the certificate has to be for; empty is the address of the release."),
				input.Int(&p.days, "days", "The days that the certificate has to last, every one of its chain.", 0, 3650).Or("7"),
			}, p.tls.Inputs()...), func() (probe.Probe, error) { return p.open() }
		},
	}
}

type question struct {
	host   string
	days   int
	tls    probe.TLS
	config *tls.Config
}

func (p *question) open() (probe.Probe, error) {
	var err error
	p.config, err = p.tls.Config()
	return p, err
}

// Check makes one handshake.
func (p *question) Check(ctx context.Context, address string) probe.Result {
	return probe.Checked(func() (probe.Outcome, string) {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return probe.NoData, probe.Line(err.Error())
		}
		config := p.config.Clone()
		config.ServerName = p.host
		if p.host == "" {
			config.ServerName = host
		}
		conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
		if err != nil {
			return probe.Unanswered(ctx, err)
		}
		defer conn.Close()
		for _, chain := range conn.(*tls.Conn).ConnectionState().VerifiedChains[:1] {
			for _, c := range chain {
				if left := time.Until(c.NotAfter); left < time.Duration(p.days)*24*time.Hour {
					return probe.Fail, probe.Line(fmt.Sprintf("the certificate of %s ends on %s, in %.1f days",
						c.Subject, c.NotAfter.UTC().Format(time.DateOnly), left.Hours()/24))
				}
			}
		}
		return probe.Pass, ""
	})
}
