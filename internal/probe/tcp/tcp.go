// Package tcp is the probe that connects to a release.
package tcp

import (
	"context"
	"errors"
	"net"
	"strconv"
	"syscall"
	"time"

	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/probe"
)

// Kind is the tcp probe.
func Kind() probe.Kind {
	return probe.Kind{
		Name: "tcp",
		Help: "Passes when a TCP connection opens.",
		New: func() ([]input.Input, func() (probe.Probe, error)) {
			return nil, func() (probe.Probe, error) { return dial{}, nil }
		},
	}
}

type dial struct{}

// Check connects once.
func (dial) Check(ctx context.Context, address string) probe.Result {
	begin := time.Now()
	connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	r := probe.Result{Outcome: probe.Pass, Took: time.Since(begin)}
	switch {
	case err == nil:
		connection.Close()
	case errors.Is(ctx.Err(), context.Canceled), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE),
		errors.Is(err, syscall.EADDRNOTAVAIL):
		r.Outcome, r.Got = probe.NoData, strconv.Quote(err.Error())
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		r.Outcome, r.Got = probe.Fail, "no connection in time"
	default:
		r.Outcome, r.Got = probe.Fail, err.Error()
	}
	return r
}
