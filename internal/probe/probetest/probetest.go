// Package probetest is the conformance suite of probes and meters, and starts the real servers that they ask.
package probetest

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/probe"
	"github.com/backstep/backstep/internal/release"
)

// Open is the probe of a kind with these inputs, and the default of every other.
func Open(t testing.TB, kind probe.Kind, inputs map[string]string) probe.Probe {
	t.Helper()
	declared, open := kind.New()
	set(t, declared, inputs)
	p, err := open()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// OpenMeter is the meter of a kind, likewise.
func OpenMeter(t testing.TB, kind probe.Kind, inputs map[string]string) probe.Meter {
	t.Helper()
	declared, open := kind.NewMeter()
	set(t, declared, inputs)
	m, err := open()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// OpenWatch is the watch of a kind, likewise.
func OpenWatch(t testing.TB, kind probe.Kind, inputs map[string]string) probe.Watch {
	t.Helper()
	declared, open := kind.NewWatch()
	set(t, declared, inputs)
	w, err := open()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// set sets inputs by their lines.
func set(t testing.TB, declared []input.Input, inputs map[string]string) {
	t.Helper()
	for _, in := range declared {
		values := []string{in.Default}
		if v, given := inputs[in.Name]; given {
			values = []string{v}
			if in.Multiple() {
				values = input.Lines(v)
			}
		}
		if values[0] == "" {
			continue
		}
		if err := in.Set(values); err != nil {
			t.Fatal(err)
		}
	}
}

// Refused is the fault of a kind that is configured with these inputs, or "" when it takes them.
func Refused(t testing.TB, kind probe.Kind, inputs map[string]string) string {
	t.Helper()
	var err error
	switch {
	case kind.New != nil:
		declared, open := kind.New()
		set(t, declared, inputs)
		_, err = open()
	case kind.NewMeter != nil:
		declared, open := kind.NewMeter()
		set(t, declared, inputs)
		_, err = open()
	default:
		declared, open := kind.NewWatch()
		set(t, declared, inputs)
		_, err = open()
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// counting counts the connections that it has accepted, and the bytes that were said on them.
type counting struct {
	net.Listener
	opened, said atomic.Int64
}

func (l *counting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.opened.Add(1)
	return talking{c, &l.said}, nil
}

type talking struct {
	net.Conn
	said *atomic.Int64
}

func (c talking) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.said.Add(int64(n))
	return n, err
}

// Run checks a probe against a server that is well, as serve makes one, and against one that is not there.
func Run(t *testing.T, kind probe.Kind, inputs map[string]string, serve func(net.Listener)) {
	t.Helper()
	for _, f := range faults(t, Open(t, kind, inputs), serve) {
		t.Error(f)
	}
}

// faults are what is wrong with p.
func faults(t *testing.T, p probe.Probe, serve func(net.Listener)) (found []string) {
	t.Helper()
	wrong := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	server := &counting{Listener: listen(t)}
	go serve(server)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	well := server.Addr().String()
	const checks = 3
	for range checks {
		if r := p.Check(ctx, well); r.Outcome != probe.Pass || r.Got != "" || r.Took <= 0 {
			wrong("a server that is well: %+v", r)
			return found
		}
	}
	for server.opened.Load() < checks && ctx.Err() == nil { // a connection is counted after it opens
		time.Sleep(time.Millisecond)
	}
	if got := server.opened.Load(); got != checks {
		wrong("%d checks opened %d connections: each has to open its own", checks, got)
	}

	gone := listen(t)
	gone.Close()
	if r := p.Check(ctx, gone.Addr().String()); r.Outcome != probe.Fail || r.Got == "" {
		wrong("nobody listens: %+v, want a fail with what was found", r)
	}
	silent := listen(t) // takes connections and says nothing
	want := probe.Fail
	if server.said.Load() == 0 {
		want = probe.Pass // the server that is well says nothing either
	}
	limit, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	if r := p.Check(limit, silent.Addr().String()); r.Outcome != want || r.Took > 30*time.Second {
		wrong("no answer: %+v, want outcome %d in time", r, want)
	}
	cancelled, stop := context.WithCancel(t.Context())
	stop()
	if r := p.Check(cancelled, well); r.Outcome != probe.NoData {
		wrong("a check that was called off: %+v, want no data", r)
	}
	return found
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

// Traffic is what a meter counts, for its suite.
type Traffic struct {
	Subject probe.Subject                  // a release with traffic
	Send    func(t *testing.T, n, bad int) // n requests to it, of which bad fail; returns once the source of the meter knows them
	Stop    func()                         // the source goes away
}

// RunMeter checks a meter against its real source.
func RunMeter(t *testing.T, m probe.Meter, traffic Traffic) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stranger := probe.Subject{Address: "192.0.2.1:9", Fronts: []string{"192.0.2.1:9"}, Release: release.Release{Version: "0.0.0-stranger"}}
	read := func() ([]*probe.Totals, error) { return m.Read(ctx, []probe.Subject{stranger, traffic.Subject}) }
	if _, err := read(); err != nil {
		t.Fatal(err)
	}
	traffic.Send(t, 3, 1) // a release without any traffic need not be known
	before, err := read()
	if err != nil || len(before) != 2 || before[1] == nil {
		t.Fatalf("read %+v: %v", before, err)
	}
	if before[0] != nil && before[0].Requests != 0 {
		t.Errorf("a release that nobody knows has %+v", *before[0])
	}
	for _, n := range []struct{ requests, bad int }{{5, 0}, {4, 4}, {0, 0}, {7, 2}} {
		traffic.Send(t, n.requests, n.bad)
		now, err := read()
		if err != nil {
			t.Fatal(err)
		}
		if got := now[1].Requests - before[1].Requests; got != n.requests {
			t.Errorf("%d requests were counted as %d", n.requests, got)
		}
		if got := now[1].Errors - before[1].Errors; got != n.bad {
			t.Errorf("%d errors were counted as %d", n.bad, got)
		}
		if len(now[1].Slower) != len(m.Bounds()) {
			t.Errorf("%d counts for the bounds %v", len(now[1].Slower), m.Bounds())
		}
		before = now
	}
	if c, ok := m.(io.Closer); ok { // a bake is over, and another one begins
		for range 2 {
			if err := c.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
		if _, err := read(); err != nil {
			t.Fatalf("read after it was closed: %v", err)
		}
		traffic.Send(t, 3, 1)
		if now, err := read(); err != nil || now[1] == nil || now[1].Requests != 3 || now[1].Errors != 1 {
			t.Errorf("a bake after it was closed: read %+v, %v", now, err)
		}
	}
	traffic.Stop()
	if got, err := read(); err == nil {
		t.Errorf("its source is gone, and it reads %+v", got)
	}
}
