// Package tcp is the probe that connects to a release.
package tcp

import (
	"context"
	"net"
	"time"

	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/probe"
)

// Kind is the tcp probe.
func Kind() probe.Kind {
	return probe.Kind{
		Name:  "tcp",
		Help:  "Passes when a TCP connection opens.",
		Every: 100 * time.Millisecond,
		New: func() ([]input.Input, func() (probe.Probe, error)) {
			return nil, func() (probe.Probe, error) { return dial{}, nil }
		},
	}
}

type dial struct{}

// Check connects once.
func (dial) Check(ctx context.Context, address string) probe.Result {
	return probe.Checked(func() (probe.Outcome, string) {
		connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return probe.Unanswered(ctx, err)
		}
		connection.Close()
		return probe.Pass, ""
	})
}
