// Package process is the embedded target: a supervisor that unpacks images, runs their entrypoints as
// processes and shares out the traffic with a weighted proxy, and the client that steps talk to it with. It
// takes static binaries only, isolates nothing, and is no place for production.
package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/router"
	"github.com/backstep/backstep/internal/target"
)

// Kind is the process target.
func Kind() target.Kind {
	return target.Kind{
		Name:       "process",
		Help:       "Processes on this machine behind a weighted proxy, kept by `backstep supervise`. For trying, drills and tests.",
		Strategies: []plan.Strategy{plan.BlueGreen, plan.Canary},
		New: func() ([]input.Input, func(target.Environment) (target.Target, router.Router, error)) {
			var socket string
			inputs := []input.Input{input.String(&socket, "socket", "The path of the supervisor's socket.").Must()}
			return inputs, func(env target.Environment) (target.Target, router.Router, error) {
				c := newClient(socket, env.Variables)
				return c, c, nil
			}
		},
	}
}

// client talks to a supervisor.
type client struct {
	socket    string
	variables map[string]string
	http      *http.Client
}

var (
	_ target.Target = (*client)(nil)
	_ router.Router = (*client)(nil)
)

func newClient(socket string, variables map[string]string) *client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	return &client{socket: socket, variables: variables,
		http: &http.Client{Transport: &http.Transport{DialContext: dial, IdleConnTimeout: 10 * time.Second}}}
}

// The bodies of the supervisor's calls, and its answer to those that it refuses.
type (
	stageCall struct {
		Fence     uint64            `json:"fence"`
		Release   release.Release   `json:"release"`
		Variables map[string]string `json:"variables,omitempty"`
	}
	shiftCall struct {
		Fence   uint64                 `json:"fence"`
		Weights map[release.Digest]int `json:"weights"`
	}
	retireCall struct {
		Fence  uint64         `json:"fence"`
		Digest release.Digest `json:"digest"`
		Drain  time.Duration  `json:"drain"` // nanoseconds
	}
	refusal struct {
		Error string `json:"error"`
		Hint  string `json:"hint,omitempty"`
		Input bool   `json:"input,omitempty"`
	}
)

// answerLimit bounds the supervisor's answers, in bytes.
const answerLimit = 8 << 20

func (c *client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://supervisor"+path, body)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fault.Errorf(fault.Input, "socket %s: %w: %w", c.socket, target.ErrUnreachable, err).
			WithHint("start it with: backstep supervise --socket %s", c.socket)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, answerLimit))
	if err != nil {
		return fmt.Errorf("read the supervisor's answer: %w", err)
	}
	if response.StatusCode == http.StatusOK {
		if out == nil {
			return nil
		}
		return json.Unmarshal(data, out)
	}
	var no refusal
	if json.Unmarshal(data, &no) != nil {
		no.Error = fmt.Sprintf("the supervisor answered %d", response.StatusCode)
	}
	switch {
	case response.StatusCode == http.StatusConflict:
		return fmt.Errorf("%w: %s", target.ErrFenced, no.Error)
	case no.Input:
		return &fault.Error{Code: fault.Input, Err: errors.New(no.Error), Hint: no.Hint}
	}
	return &fault.Error{Code: fault.Failed, Err: errors.New(no.Error), Hint: no.Hint}
}

func (c *client) Observe(ctx context.Context) (plan.State, error) {
	var s plan.State
	err := c.call(ctx, http.MethodGet, "/v1/state", nil, &s)
	return s, err
}

func (c *client) Stage(ctx context.Context, fence uint64, r release.Release) error {
	return c.call(ctx, http.MethodPost, "/v1/stage", stageCall{fence, r, c.variables}, nil)
}

func (c *client) Shift(ctx context.Context, fence uint64, weights map[release.Digest]int) error {
	return c.call(ctx, http.MethodPost, "/v1/shift", shiftCall{fence, weights}, nil)
}

func (c *client) Retire(ctx context.Context, fence uint64, d release.Digest, drain time.Duration) error {
	return c.call(ctx, http.MethodPost, "/v1/retire", retireCall{fence, d, drain}, nil)
}
