package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/target"
)

// SupervisorOptions say where a supervisor works.
type SupervisorOptions struct {
	Dir      string           // keeps what runs, and the unpacked images
	Socket   string           // where steps talk to it
	Listen   string           // the address of the proxy; port 0 takes a free one
	Ready    string           // the path that answers 2xx or 3xx once a release is ready; "" is a TCP connect
	Registry *registry.Client // where images come from
	Log      *slog.Logger
}

// Supervisor runs releases. What it runs outlives the steps that asked for it.
type Supervisor struct {
	o       SupervisorOptions
	proxy   *proxy
	front   net.Listener
	control net.Listener

	changing  sync.Mutex // one change at a time
	mu        sync.Mutex // guards the fields below
	fence     uint64
	instances []*instance // in the order they were staged
}

// remembered is what a supervisor that starts again finds.
type remembered struct {
	Fence     uint64                 `json:"fence"`
	Instances []stageCall            `json:"instances"`
	Weights   map[release.Digest]int `json:"weights"`
}

// NewSupervisor takes the socket and the address. A socket that nobody listens on any more is replaced; one
// of a living supervisor is a fault.
func NewSupervisor(o SupervisorOptions) (*Supervisor, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	if c, err := net.Dial("unix", o.Socket); err == nil {
		c.Close()
		return nil, fault.Inputf("socket %s belongs to a supervisor that runs", o.Socket).WithHint("end it first, or give another --socket")
	}
	if err := os.Remove(o.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	front, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fault.Inputf("%w", err).At("--listen")
	}
	control, err := net.Listen("unix", o.Socket)
	if err == nil {
		err = os.Chmod(o.Socket, 0o600)
	}
	if err != nil {
		front.Close()
		return nil, fault.Inputf("%w", err).At("--socket")
	}
	return &Supervisor{o: o, proxy: newProxy(), front: front, control: control}, nil
}

// Address is the host:port of the proxy.
func (s *Supervisor) Address() string { return s.front.Addr().String() }

// Run starts again what ran, serves until ctx is done, and then ends what it runs.
func (s *Supervisor) Run(ctx context.Context) error {
	defer os.Remove(s.o.Socket)
	calls := http.NewServeMux()
	calls.HandleFunc("GET /v1/state", s.state)
	calls.HandleFunc("POST /v1/stage", handle(s.stage))
	calls.HandleFunc("POST /v1/shift", handle(s.shift))
	calls.HandleFunc("POST /v1/retire", handle(s.retire))
	control := &http.Server{Handler: calls, ReadHeaderTimeout: 5 * time.Second}
	front := &http.Server{Handler: s.proxy, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 2)
	go func() { ended <- control.Serve(s.control) }()
	go func() { ended <- front.Serve(s.front) }()
	err := s.resume(ctx)
	if err == nil {
		select {
		case <-ctx.Done():
		case err = <-ended:
		}
	}
	control.Close()
	front.Close()
	s.changing.Lock()
	defer s.changing.Unlock()
	for _, in := range s.running() {
		in.end(0)
	}
	return err
}

func (s *Supervisor) running() []*instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.instances)
}

func (s *Supervisor) find(d release.Digest) *instance {
	for _, in := range s.running() {
		if in.call.Release.Digest == d {
			return in
		}
	}
	return nil
}

// state answers what runs.
func (s *Supervisor) state(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	state := plan.State{Fence: s.fence, Instances: []plan.Instance{}}
	s.mu.Unlock()
	weights := s.proxy.weights()
	for _, in := range s.running() {
		seen := in.observe()
		seen.Weight = weights[seen.Release.Digest]
		state.Instances = append(state.Instances, seen)
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(state)
}

// handle decodes a call strictly and turns the error of the change into an answer.
func handle[T any](change func(context.Context, T) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var call T
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
		d.DisallowUnknownFields()
		err := d.Decode(&call)
		if err != nil {
			err = fault.Inputf("read the call: %w", err)
		} else {
			err = change(r.Context(), call)
		}
		status := http.StatusOK
		var no refusal
		switch {
		case err == nil:
		case errors.Is(err, target.ErrFenced):
			status, no.Error = http.StatusConflict, err.Error()
		default:
			status = http.StatusInternalServerError
			no = refusal{Error: err.Error(), Hint: fault.HintOf(err), Input: fault.CodeOf(err) == fault.Input}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(no)
	}
}

// admit takes a fencing number, unless a higher one was here.
func (s *Supervisor) admit(fence uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if fence < s.fence {
		return fmt.Errorf("%w: number %d is behind %d", target.ErrFenced, fence, s.fence)
	}
	s.fence = fence
	return nil
}

func (s *Supervisor) stage(ctx context.Context, c stageCall) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.Lock()
	behind := c.Fence < s.fence
	s.mu.Unlock()
	if !behind && s.find(c.Release.Digest) == nil {
		// The image first: as long as that can fail, nothing is changed, the fence included.
		in, err := s.unpacked(ctx, c)
		if err != nil {
			return err
		}
		if err := s.admit(c.Fence); err != nil {
			return err
		}
		if err := in.start(); err != nil {
			return err
		}
		s.mu.Lock()
		s.instances = append(s.instances, in)
		s.mu.Unlock()
		return s.remember()
	}
	if err := s.admit(c.Fence); err != nil {
		return err
	}
	return s.remember()
}

// unpacked is the instance of a release whose image is on the disk.
func (s *Supervisor) unpacked(ctx context.Context, c stageCall) (*instance, error) {
	img, err := s.o.Registry.Image(ctx, c.Release, runtime.GOOS, runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	if len(img.Entrypoint) == 0 {
		return nil, fault.Inputf("%s has neither an entrypoint nor a command", c.Release)
	}
	root := filepath.Join(s.o.Dir, "images", string(c.Release.Digest[7:]))
	if err := unpack(root, img.Layers); err != nil {
		return nil, fmt.Errorf("unpack %s: %w", c.Release, err)
	}
	return &instance{call: c, image: img, root: root, ready: s.o.Ready, log: s.o.Log}, nil
}

func (s *Supervisor) shift(_ context.Context, c shiftCall) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	sum := 0
	backends := map[release.Digest]backend{}
	for d, weight := range c.Weights {
		sum += weight
		in := s.find(d)
		if in == nil {
			return fault.Errorf(fault.Failed, "%s is not staged", d.Short())
		}
		seen := in.observe()
		if seen.Phase != plan.Ready && weight > 0 {
			return fault.Errorf(fault.Failed, "%s is %s: it gets no traffic", d.Short(), seen.Phase)
		}
		if weight < 0 || weight > 100 {
			return fault.Errorf(fault.Failed, "weight %d of %s is not between 0 and 100", weight, d.Short())
		}
		backends[d] = backend{weight: weight, address: seen.Address}
	}
	if sum != 100 {
		return fault.Errorf(fault.Failed, "the weights add up to %d, want 100", sum)
	}
	if err := s.admit(c.Fence); err != nil {
		return err
	}
	s.proxy.set(backends)
	return s.remember()
}

func (s *Supervisor) retire(_ context.Context, c retireCall) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := s.admit(c.Fence); err != nil {
		return err
	}
	if in := s.find(c.Digest); in != nil {
		s.proxy.drop(c.Digest)
		s.proxy.drain(c.Digest, c.Drain)
		in.end(stopping)
		s.mu.Lock()
		s.instances = slices.DeleteFunc(s.instances, func(i *instance) bool { return i == in })
		s.mu.Unlock()
		if err := os.RemoveAll(in.root); err != nil {
			return err
		}
	}
	return s.remember()
}

// remember writes what runs to the disk, so that it survives the supervisor.
func (s *Supervisor) remember() error {
	s.mu.Lock()
	r := remembered{Fence: s.fence, Weights: s.proxy.weights()}
	for _, in := range s.instances {
		r.Instances = append(r.Instances, in.call)
	}
	s.mu.Unlock()
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := filepath.Join(s.o.Dir, "state.json")
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// resume starts again what ran, and gives it the traffic it had as soon as it is ready.
func (s *Supervisor) resume(ctx context.Context) error {
	data, err := os.ReadFile(filepath.Join(s.o.Dir, "state.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var was remembered
	if err == nil {
		err = json.Unmarshal(data, &was)
	}
	if err != nil {
		return fmt.Errorf("read what ran: %w", err)
	}
	s.mu.Lock()
	s.fence = was.Fence
	s.mu.Unlock()
	for _, c := range was.Instances {
		c.Fence = was.Fence
		if err := s.stage(ctx, c); err != nil {
			s.o.Log.Error("what ran cannot be started again", "release", c.Release.Digest.Short(), "error", err)
		}
	}
	for len(was.Weights) > 0 {
		if err := s.shift(ctx, shiftCall{was.Fence, was.Weights}); err == nil {
			return nil
		} else if in := s.failed(was.Weights); in != "" {
			s.o.Log.Error("the traffic cannot be given back", "error", err, "why", in)
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// failed says which of the releases with traffic will never be ready, and why.
func (s *Supervisor) failed(weights map[release.Digest]int) string {
	for d := range weights {
		in := s.find(d)
		if in == nil {
			return d.Short() + " is gone"
		}
		if seen := in.observe(); seen.Phase == plan.Failed {
			return seen.Reason
		}
	}
	return ""
}

var _ io.Writer = (*tail)(nil)
