package tls

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/probe"
	"github.com/backstep/backstep/internal/probe/probetest"
)

// serve makes handshakes.
func serve(l net.Listener, id probetest.Identity) {
	l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{id.Pair}})
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_ = c.(*tls.Conn).Handshake() // the probe tells
		}()
	}
}

func TestConformance(t *testing.T) {
	id := probetest.Identify(t, "127.0.0.1", 30*24*time.Hour)
	probetest.Run(t, Kind(), map[string]string{"ca": id.Authority}, func(l net.Listener) { serve(l, id) })
}

func TestCertificates(t *testing.T) {
	const day = 24 * time.Hour
	long, short, over := probetest.Identify(t, "shop.example.com", 30*day), probetest.Identify(t, "shop.example.com", 3*day), probetest.Identify(t, "shop.example.com", -time.Minute)
	for _, c := range []struct {
		id     probetest.Identity
		inputs map[string]string
		want   probe.Outcome
		got    string
	}{
		{long, map[string]string{"host": "shop.example.com", "ca": long.Authority}, probe.Pass, ""},
		{long, map[string]string{"host": "shop.example.com", "ca": long.Authority, "days": "45"}, probe.Fail, "the certificate of CN=shop.example.com ends on"},
		{short, map[string]string{"host": "shop.example.com", "ca": short.Authority}, probe.Fail, "in 3.0 days"},
		{short, map[string]string{"host": "shop.example.com", "ca": short.Authority, "days": "0"}, probe.Pass, ""},
		{over, map[string]string{"host": "shop.example.com", "ca": over.Authority, "days": "0"}, probe.Fail, "expired"},
		{long, map[string]string{"host": "erp.example.com", "ca": long.Authority}, probe.Fail, "not erp.example.com"},
		{long, map[string]string{"host": "shop.example.com"}, probe.Fail, "unknown authority"},
		{long, map[string]string{"host": "shop.example.com", "ca": short.Authority}, probe.Fail, "unknown authority"},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go serve(l, c.id)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if r := probetest.Open(t, Kind(), c.inputs).Check(ctx, l.Addr().String()); r.Outcome != c.want || !strings.Contains(r.Got, c.got) {
			t.Errorf("%v: outcome %d, got %q; want %d, %q", c.inputs, r.Outcome, r.Got, c.want, c.got)
		}
		cancel()
		l.Close()
	}
	if got := probetest.Refused(t, Kind(), map[string]string{"ca": "/nowhere"}); !strings.Contains(got, "/nowhere") {
		t.Errorf("no such file: %q", got)
	}
}
