// Package grpc is the probe that asks a release over gRPC's health protocol
// (https://github.com/grpc/grpc/blob/master/doc/health-checking.md).
package grpc

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/probe"
)

// answerLimit bounds an answer, in bytes.
const answerLimit = 64 << 10

// Kind is the grpc probe.
func Kind() probe.Kind {
	return probe.Kind{
		Name:  "grpc",
		Help:  "Passes when a release says SERVING over gRPC's health protocol.",
		Every: 100 * time.Millisecond,
		New: func() ([]input.Input, func() (probe.Probe, error)) {
			p := &question{}
			return append([]input.Input{
				input.String(&p.service, "service", "The service to ask for; empty is the whole server."),
				input.Bool(&p.encrypted, "tls", "Speak TLS."),
				input.String(&p.host, "host", "The name to ask for, and that the certificate has to be for; empty is the address of the release."),
			}, p.tls.Inputs()...), func() (probe.Probe, error) { return p.open() }
		},
	}
}

type question struct {
	service, host string
	encrypted     bool
	tls           probe.TLS
	credentials   credentials.TransportCredentials
}

func (p *question) open() (probe.Probe, error) {
	p.credentials = insecure.NewCredentials()
	if !p.encrypted {
		if p.tls.Given() {
			return nil, fault.Inputf("ca, certificate and key need tls: true")
		}
		return p, nil
	}
	config, err := p.tls.Config()
	if err != nil {
		return nil, err
	}
	p.credentials = credentials.NewTLS(config)
	return p, nil
}

// Check asks once, over a connection of its own.
func (p *question) Check(ctx context.Context, address string) probe.Result {
	return probe.Checked(func() (probe.Outcome, string) {
		options := []grpc.DialOption{grpc.WithTransportCredentials(p.credentials), grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(),
			grpc.WithNoProxy(), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(answerLimit))}
		if p.host != "" {
			options = append(options, grpc.WithAuthority(p.host))
		}
		conn, err := grpc.NewClient("passthrough:///"+address, options...)
		if err != nil {
			return probe.NoData, probe.Line(err.Error())
		}
		defer conn.Close()
		said, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: p.service})
		switch status.Code(err) {
		case codes.OK:
			if said.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING {
				return probe.Pass, ""
			}
			return probe.Fail, said.GetStatus().String()
		case codes.Unimplemented:
			return probe.NoData, "the release does not speak the health protocol"
		case codes.NotFound:
			return probe.NoData, "the release does not know service " + probe.Line(p.service)
		}
		return probe.Unanswered(ctx, err)
	})
}
