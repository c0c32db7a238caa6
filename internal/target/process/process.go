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
	"net/url"
	"strconv"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/router"
	"github.com/backstep/backstep/internal/secret"
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
				c := newClient(socket, env.Start)
				return c, c, nil
			}
		},
	}
}

// client talks to a supervisor.
type client struct {
	socket string
	start  func(release.Release) (target.Started, error)
	http   *http.Client
	limit  time.Duration // for a call that waits for nobody
}

var (
	_ target.Target = (*client)(nil)
	_ router.Router = (*client)(nil)
)

// How long calls may take.
const (
	callTimeout  = 10 * time.Second
	stageTimeout = 5 * time.Minute  // with a download
	stopTimeout  = 30 * time.Second // for what comes after a drain
)

func newClient(socket string, start func(release.Release) (target.Started, error)) *client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	return &client{socket: socket, start: start, limit: callTimeout,
		http: &http.Client{Transport: &http.Transport{DialContext: dial, IdleConnTimeout: 10 * time.Second}}}
}

// The bodies of the supervisor's calls and answers.
type (
	claimCall struct {
		Claim plan.Claim `json:"claim"`
		Note  *plan.Note `json:"note,omitempty"`
	}
	forgetCall struct {
		By  plan.Token `json:"by"`
		IDs []string   `json:"ids"`
	}
	holdsCall struct {
		By plan.Token `json:"by"`
	}
	stageCall struct {
		By plan.Token `json:"by"`
		started
		AsBefore bool `json:"as_before,omitempty"` // with the variables that it had
	}
	shiftCall struct {
		By      plan.Token         `json:"by"`
		Weights map[release.ID]int `json:"weights"`
	}
	retireCall struct {
		By    plan.Token    `json:"by"`
		ID    release.ID    `json:"id"`
		Drain time.Duration `json:"drain"`          // nanoseconds
		Keep  bool          `json:"keep,omitempty"` // it is parked
	}
	about struct {
		Instance *plan.Instance `json:"instance,omitempty"`
		Has      bool           `json:"has"`
		Lines    []string       `json:"lines,omitempty"`
	}
	refusal struct {
		Error string     `json:"error"`
		Hint  string     `json:"hint,omitempty"`
		Code  fault.Code `json:"code"`
	}
)

// answerLimit bounds the supervisor's answers, in bytes.
const answerLimit = 8 << 20

// errSilent ends a call that took too long.
var errSilent = errors.New("the supervisor did not answer in time")

func (c *client) call(ctx context.Context, limit time.Duration, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	bounded, cancel := context.WithTimeoutCause(ctx, limit, errSilent)
	defer cancel()
	request, err := http.NewRequestWithContext(bounded, method, "http://supervisor"+path, body)
	if err != nil {
		return err
	}
	status, data, err := c.answer(request)
	switch {
	case err != nil && errors.Is(ctx.Err(), context.Canceled):
		return context.Cause(ctx)
	case err != nil && bounded.Err() != nil:
		err = errSilent
	}
	if err != nil {
		return fault.Errorf(fault.Failed, "socket %s: %w: %w", c.socket, target.ErrUnreachable, err).
			WithHint("start it with: backstep supervise --socket %s", c.socket)
	}
	if status == http.StatusOK {
		if out == nil {
			return nil
		}
		if err := json.Unmarshal(data, out); err != nil {
			return fmt.Errorf("read the supervisor's answer: %w", err)
		}
		return nil
	}
	var no refusal
	if json.Unmarshal(data, &no) != nil || no.Error == "" {
		no.Error = fmt.Sprintf("the supervisor answered %d", status)
	}
	if status == http.StatusConflict {
		return fmt.Errorf("%w: %s", target.ErrFenced, no.Error)
	}
	if no.Code == fault.Done {
		no.Code = fault.Failed
	}
	return &fault.Error{Code: no.Code, Err: errors.New(no.Error), Hint: no.Hint}
}

func (c *client) answer(request *http.Request) (status int, body []byte, err error) {
	response, err := c.http.Do(request)
	if err != nil {
		var of *url.Error
		if errors.As(err, &of) {
			err = of.Err // without the address, which says nothing
		}
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(io.LimitReader(response.Body, answerLimit))
	return response.StatusCode, body, err
}

func (c *client) Claim(ctx context.Context, claim plan.Claim, note *plan.Note) error {
	return c.call(ctx, c.limit, http.MethodPost, "/v1/claim", claimCall{claim, note}, nil)
}

func (c *client) Forget(ctx context.Context, by plan.Token, ids []string) error {
	return c.call(ctx, c.limit, http.MethodPost, "/v1/forget", forgetCall{by, ids}, nil)
}

func (c *client) Observe(ctx context.Context) (plan.State, error) {
	var s plan.State
	err := c.call(ctx, c.limit, http.MethodGet, "/v1/state", nil, &s)
	return s, err
}

// about asks for what is known of one release.
func (c *client) about(ctx context.Context, path string, id release.ID, lines int) (about, error) {
	var a about
	q := url.Values{"id": {string(id)}}
	if lines > 0 {
		q.Set("lines", strconv.Itoa(lines))
	}
	err := c.call(ctx, c.limit, http.MethodGet, path+"?"+q.Encode(), nil, &a)
	return a, err
}

func (c *client) Find(ctx context.Context, id release.ID) (*plan.Instance, error) {
	a, err := c.about(ctx, "/v1/find", id, 0)
	return a.Instance, err
}

func (c *client) Has(ctx context.Context, r release.Release) (bool, error) {
	a, err := c.about(ctx, "/v1/has", r.ID(), 0)
	return a.Has, err
}

func (c *client) Logs(ctx context.Context, id release.ID, lines int) ([]string, error) {
	a, err := c.about(ctx, "/v1/logs", id, lines)
	return a.Lines, err
}

// Stage asks for the configuration only when the release has to be started.
func (c *client) Stage(ctx context.Context, by plan.Token, r release.Release) error {
	in, err := c.Find(ctx, r.ID())
	if err != nil {
		return err
	}
	if in != nil && in.Phase != plan.Failed && in.Phase != plan.Parked {
		return c.call(ctx, c.limit, http.MethodPost, "/v1/holds", holdsCall{by}, nil)
	}
	var with target.Started
	if c.start != nil {
		if with, err = c.start(r); err != nil && in == nil {
			return err
		}
	}
	// What is kept is started with what it had when today's secrets cannot be had: that is better than nothing.
	return c.call(ctx, stageTimeout, http.MethodPost, "/v1/stage", stageCall{by, started{r, revealed(with.Variables()), with.Config}, err != nil}, nil)
}

func (c *client) Shift(ctx context.Context, by plan.Token, weights map[release.ID]int) error {
	return c.call(ctx, c.limit, http.MethodPost, "/v1/shift", shiftCall{by, weights}, nil)
}

func (c *client) Retire(ctx context.Context, by plan.Token, id release.ID, drain time.Duration) error {
	return c.call(ctx, drain+stopTimeout, http.MethodPost, "/v1/retire", retireCall{by, id, drain, false}, nil)
}

func (c *client) Close(ctx context.Context, by plan.Token, id release.ID, grace time.Duration) error {
	return c.call(ctx, grace+c.limit, http.MethodPost, "/v1/close", retireCall{By: by, ID: id, Drain: grace}, nil)
}

func (c *client) Park(ctx context.Context, by plan.Token, id release.ID, drain time.Duration) error {
	return c.call(ctx, drain+stopTimeout, http.MethodPost, "/v1/retire", retireCall{by, id, drain, true}, nil)
}

// revealed is the variables as the supervisor takes them: its socket and its file are for their owner only.
func revealed(all []secret.Value) []string {
	var texts []string
	for _, v := range all {
		texts = append(texts, v.Reveal())
	}
	return texts
}
