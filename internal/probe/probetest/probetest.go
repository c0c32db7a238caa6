// Package probetest is the conformance suite of probes that ask a network address.
package probetest

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/probe"
)

// Open is the probe of a kind with these inputs, and the default of every other.
func Open(t testing.TB, kind probe.Kind, inputs map[string]string) probe.Probe {
	t.Helper()
	declared, open := kind.New()
	for _, in := range declared {
		value := in.Default
		if v, given := inputs[in.Name]; given {
			value = v
		}
		if value == "" {
			continue
		}
		if err := in.Set([]string{value}); err != nil {
			t.Fatal(err)
		}
	}
	p, err := open()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Run checks a probe against a server that is well, as serve answers each connection, and against one that is
// not there.
func Run(t *testing.T, kind probe.Kind, serve func(net.Conn)) {
	t.Helper()
	p := Open(t, kind, nil)
	server := listen(t)
	var opened atomic.Int64
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			opened.Add(1)
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	well := server.Addr().String()
	const checks = 3
	for range checks {
		if r := p.Check(ctx, well); r.Outcome != probe.Pass || r.Got != "" || r.Took <= 0 {
			t.Fatalf("a server that is well: %+v", r)
		}
	}
	for opened.Load() < checks && ctx.Err() == nil { // a connection is counted after it opens
		time.Sleep(time.Millisecond)
	}
	if got := opened.Load(); got != checks {
		t.Errorf("%d checks opened %d connections: each has to open its own", checks, got)
	}

	gone := listen(t)
	gone.Close()
	if r := p.Check(ctx, gone.Addr().String()); r.Outcome != probe.Fail || r.Got == "" {
		t.Errorf("nobody listens: %+v, want a fail with what was found", r)
	}
	cancelled, stop := context.WithCancel(t.Context())
	stop()
	if r := p.Check(cancelled, well); r.Outcome != probe.NoData {
		t.Errorf("a check that was called off: %+v, want no data", r)
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}
