package probetest

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/backstep/backstep/internal/probe"
)

// asking is a probe that says hello; how it takes the answer is what can be wrong with it.
type asking func(ctx context.Context, c net.Conn, err error) (probe.Outcome, string)

func (a asking) Check(ctx context.Context, address string) probe.Result {
	return probe.Checked(func() (probe.Outcome, string) {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return a(ctx, nil, err)
		}
		defer c.Close()
		if deadline, ok := ctx.Deadline(); ok {
			if err := c.SetDeadline(deadline); err != nil {
				return probe.NoData, err.Error()
			}
		}
		_, err = io.WriteString(c, "hello\n")
		return a(ctx, c, err)
	})
}

// answer is a probe that is right.
func answer(ctx context.Context, c net.Conn, err error) (probe.Outcome, string) {
	if err != nil {
		return probe.Unanswered(ctx, err)
	}
	if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		return probe.Unanswered(ctx, err)
	}
	return probe.Pass, ""
}

func serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "hello yourself\n")
		_, _ = io.Copy(io.Discard, c) // until the probe has hung up
		c.Close()
	}
}

// The suite finds what is wrong with a probe.
func TestSuite(t *testing.T) {
	timeout := func(err error) bool {
		var e net.Error
		return errors.As(err, &e) && e.Timeout()
	}
	for name, c := range map[string]struct {
		probe asking
		want  []string // how each complaint begins
	}{
		"right": {answer, nil},
		"passes without an answer": {func(ctx context.Context, c net.Conn, err error) (probe.Outcome, string) {
			if err != nil {
				return probe.Unanswered(ctx, err)
			}
			return probe.Pass, ""
		}, []string{"no answer: {Outcome:1 "}},
		"takes silence for no data": {func(ctx context.Context, c net.Conn, err error) (probe.Outcome, string) {
			if err != nil {
				return probe.Unanswered(ctx, err)
			}
			if _, err := bufio.NewReader(c).ReadString('\n'); timeout(err) {
				return probe.NoData, "silence"
			}
			return probe.Pass, ""
		}, []string{"no answer: {Outcome:0 "}},
		"passes always": {func(context.Context, net.Conn, error) (probe.Outcome, string) { return probe.Pass, "" },
			[]string{"nobody listens: {Outcome:1 ", "no answer: {Outcome:1 ", "a check that was called off: {Outcome:1 "}},
	} {
		got := faults(t, c.probe, serve)
		if !slices.EqualFunc(got, c.want, strings.HasPrefix) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}
