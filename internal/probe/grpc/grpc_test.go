package grpc

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/backstep/backstep/internal/probe"
	"github.com/backstep/backstep/internal/probe/probetest"
)

// serve is a real server, with the health service that its library brings.
func serve(l net.Listener, with *health.Server, options ...grpc.ServerOption) {
	s := grpc.NewServer(options...)
	if with != nil {
		grpc_health_v1.RegisterHealthServer(s, with)
	}
	_ = s.Serve(l) // ends with l
}

func TestConformance(t *testing.T) {
	probetest.Run(t, Kind(), nil, func(l net.Listener) { serve(l, health.NewServer()) })
}

func TestHealth(t *testing.T) {
	id, other := probetest.Identify(t, "orders.example.com", time.Hour), probetest.Identify(t, "orders.example.com", time.Hour)
	state := health.NewServer()
	state.SetServingStatus("orders", grpc_health_v1.HealthCheckResponse_SERVING)
	state.SetServingStatus("search", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	start := func(with *health.Server, options ...grpc.ServerOption) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go serve(l, with, options...)
		return l.Addr().String()
	}
	plain, mute := start(state), start(nil)
	encrypted := start(state, grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{id.Pair}})))
	for _, c := range []struct {
		address string
		inputs  map[string]string
		want    probe.Outcome
		got     string
	}{
		{plain, map[string]string{"service": "orders"}, probe.Pass, ""},
		{plain, map[string]string{"service": "search"}, probe.Fail, "NOT_SERVING"},
		{plain, map[string]string{"service": "nobody"}, probe.NoData, "does not know service nobody"},
		{mute, nil, probe.NoData, "does not speak the health protocol"},
		{encrypted, map[string]string{"tls": "true", "host": "orders.example.com", "ca": id.Authority}, probe.Pass, ""},
		{encrypted, map[string]string{"tls": "true", "host": "orders.example.com", "ca": other.Authority}, probe.Fail, "certificate"},
		{encrypted, map[string]string{"tls": "true", "ca": id.Authority}, probe.Fail, "certificate"},
		{encrypted, nil, probe.Fail, ""},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if r := probetest.Open(t, Kind(), c.inputs).Check(ctx, c.address); r.Outcome != c.want || !strings.Contains(r.Got, c.got) {
			t.Errorf("%v: outcome %d, got %q; want %d, %q", c.inputs, r.Outcome, r.Got, c.want, c.got)
		}
		cancel()
	}
	if got := probetest.Refused(t, Kind(), map[string]string{"ca": id.Authority}); !strings.Contains(got, "need tls: true") {
		t.Errorf("an authority without TLS: %q", got)
	}
}
