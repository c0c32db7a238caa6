package process

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
	ending  chan struct{}  // closed when the supervisor ends
	leaving sync.WaitGroup // the instances that are drained and stopped

	// mu guards the fields below and the file that has them. A shift waits for it: nobody who has it waits for a
	// release, a download or a drain.
	mu        sync.Mutex
	ended     bool
	claim     plan.Claim
	notes     []plan.Note        // the highest number first
	instances []*instance        // in the order they were staged
	owed      []started          // what ran before, and is still to be started again
	parked    []started          // what is kept for a way back, and does not run
	weights   map[release.ID]int // who is to have how much; the proxy has it once they are ready
	shifts    int                // counts the changes of weights
}

// remembered is what a supervisor that starts again finds.
type remembered struct {
	Claim     plan.Claim         `json:"claim"`
	Notes     []plan.Note        `json:"notes,omitempty"`
	Instances []started          `json:"instances"`
	Parked    []started          `json:"parked,omitempty"`
	Weights   map[release.ID]int `json:"weights"`
}

// started is what an instance was started with.
type started struct {
	Release   release.Release       `json:"release"`
	Variables []string              `json:"variables,omitempty"` // KEY=VALUE
	Config    release.Configuration `json:"config,omitempty"`
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
	if err := removeSocket(o.Socket); err != nil {
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
	return &Supervisor{o: o, proxy: newProxy(), front: front, control: control, ending: make(chan struct{})}, nil
}

// removeSocket removes a socket, and nothing else: a file that has the name by mistake is a fault.
func removeSocket(path string) error {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != os.ModeSocket:
		return fault.Inputf("%s is no socket, and not removed", path).At("--socket").WithHint("give another --socket")
	}
	return os.Remove(path)
}

// Address is the host:port of the proxy.
func (s *Supervisor) Address() string { return s.front.Addr().String() }

// Run starts again what ran, serves until ctx is done, and then ends what it runs.
func (s *Supervisor) Run(ctx context.Context) error {
	defer removeSocket(s.o.Socket)
	if err := s.load(); err != nil {
		s.control.Close()
		s.front.Close()
		return err
	}
	calls := http.NewServeMux()
	calls.HandleFunc("GET /v1/state", s.state)
	calls.HandleFunc("GET /v1/find", s.about(s.found))
	calls.HandleFunc("GET /v1/has", s.about(s.has))
	calls.HandleFunc("GET /v1/logs", s.about(s.logs))
	calls.HandleFunc("POST /v1/claim", handle(s.take))
	calls.HandleFunc("POST /v1/forget", handle(s.forget))
	calls.HandleFunc("POST /v1/holds", handle(s.check))
	calls.HandleFunc("POST /v1/stage", handle(s.stage))
	calls.HandleFunc("POST /v1/shift", handle(s.shift))
	calls.HandleFunc("POST /v1/retire", handle(s.retire))
	calls.HandleFunc("POST /v1/close", handle(s.close))
	control := &http.Server{Handler: calls, ReadHeaderTimeout: 5 * time.Second}
	front := &http.Server{Handler: s.proxy, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 2)
	go func() { ended <- control.Serve(s.control) }()
	go func() { ended <- front.Serve(s.front) }()
	s.resume(ctx)
	var err error
	select {
	case <-ctx.Done():
	case err = <-ended:
	}
	control.Close()
	front.Close()
	s.mu.Lock()
	s.ended = true
	running := slices.Clone(s.instances)
	s.mu.Unlock()
	close(s.ending)
	for _, in := range running {
		in.end(0)
	}
	s.leaving.Wait()
	return err
}

// find is the instance of the release, or nil. The caller has the lock.
func (s *Supervisor) find(id release.ID) *instance {
	for _, in := range s.instances {
		if in.Release.ID() == id {
			return in
		}
	}
	return nil
}

// state answers what runs.
func (s *Supervisor) state(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	state := plan.State{Claim: s.claim, Notes: slices.Clone(s.notes), Instances: []plan.Instance{}}
	weights := s.proxy.weights()
	for _, in := range s.instances {
		seen := in.observe()
		seen.Weight = weights[seen.Release.ID()]
		state.Know(in.Release, in.Config)
		state.Instances = append(state.Instances, seen)
	}
	for _, one := range s.parked {
		state.Instances = append(state.Instances, plan.Instance{Release: one.Release, Phase: plan.Parked})
		state.Know(one.Release, one.Config)
	}
	s.mu.Unlock()
	answer(w, http.StatusOK, state)
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

// about answers what is known of the release of a request.
func (s *Supervisor) about(tell func(id release.ID, lines int) about) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, err := release.ParseID(r.FormValue("id"))
		lines, none := strconv.Atoi(cmp.Or(r.FormValue("lines"), "0"))
		if err := errors.Join(err, none); err != nil {
			answer(w, http.StatusBadRequest, refusal{Error: err.Error(), Code: fault.Input})
			return
		}
		answer(w, http.StatusOK, tell(id, lines))
	}
}

func (s *Supervisor) found(id release.ID, _ int) about {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in := s.find(id); in != nil {
		seen := in.observe()
		return about{Instance: &seen}
	}
	if i := slices.IndexFunc(s.parked, func(one started) bool { return one.Release.ID() == id }); i >= 0 {
		return about{Instance: &plan.Instance{Release: s.parked[i].Release, Phase: plan.Parked}}
	}
	return about{}
}

func (s *Supervisor) has(id release.ID, _ int) about {
	_, err := s.unpacked(id.Digest())
	return about{Has: err == nil}
}

func (s *Supervisor) logs(id release.ID, lines int) about {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in := s.find(id); in != nil {
		return about{Lines: in.output.last(lines)}
	}
	return about{}
}

// handle decodes a call strictly and turns the error of the change into an answer.
func handle[T any](change func(context.Context, T) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var call T
		body := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
		body.DisallowUnknownFields()
		err := body.Decode(&call)
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
			status, no.Error = http.StatusConflict, strings.TrimPrefix(err.Error(), target.ErrFenced.Error()+": ")
		default:
			status = http.StatusInternalServerError
			no = refusal{Error: err.Error(), Hint: fault.HintOf(err), Code: fault.CodeOf(err)}
		}
		answer(w, status, no)
	}
}

// take makes a claim the record, with its note, unless another one is in the way.
func (s *Supervisor) take(_ context.Context, c claimCall) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.claim
	if err := target.Admit(now, c.Claim); err != nil {
		return err
	}
	record, notes := now, s.notes
	if c.Claim.Token != now.Token {
		record = c.Claim
	}
	if c.Note != nil {
		note := *c.Note
		note.Number = c.Claim.Number
		there := slices.ContainsFunc(notes, func(n plan.Note) bool { return n.ID == note.ID && n.Number == note.Number })
		switch {
		case !there && c.Claim.Token == now.Token:
			return fmt.Errorf("claim %s is there already, without the note %s", now.Number, note.ID)
		case !there:
			notes = slices.Concat([]plan.Note{note}, notes)
		}
	}
	return s.replace(record, notes)
}

// replace makes these the record and the notes, once they are on the disk. The caller has the lock.
func (s *Supervisor) replace(claim plan.Claim, notes []plan.Note) error {
	was, had := s.claim, s.notes
	s.claim, s.notes = claim, notes
	if err := s.remember(); err != nil {
		s.claim, s.notes = was, had
		return err
	}
	return nil
}

func (s *Supervisor) forget(_ context.Context, c forgetCall) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.holds(c.By); err != nil {
		return err
	}
	gone := func(n plan.Note) bool { return slices.Contains(c.IDs, n.ID) }
	for _, n := range s.notes {
		if gone(n) && n.Number == c.By.Number {
			return fmt.Errorf("note %s came with claim %s, which is still the one on the target", n.ID, n.Number)
		}
	}
	return s.replace(s.claim, slices.DeleteFunc(slices.Clone(s.notes), gone))
}

func (s *Supervisor) check(_ context.Context, c holdsCall) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holds(c.By)
}

// holds is nil when by is the token of the record. The caller has the lock.
func (s *Supervisor) holds(by plan.Token) error {
	if by.Holder == "" || by != s.claim.Token {
		return fmt.Errorf("%w: the target is claimed by number %s", target.ErrFenced, s.claim.Number)
	}
	return nil
}

func (s *Supervisor) stage(ctx context.Context, c stageCall) error {
	what := c.started
	if c.AsBefore {
		s.mu.Lock()
		if in := s.find(what.Release.ID()); in != nil {
			what = in.started
		}
		for _, one := range s.parked {
			if one.Release.ID() == what.Release.ID() {
				what = one
			}
		}
		s.mu.Unlock()
	}
	return s.begin(ctx, what, func() error { return s.holds(c.By) })
}

// begin starts a release, unless it runs. may is asked, under the lock, before anything is downloaded, and again before
// anything is started.
func (s *Supervisor) begin(ctx context.Context, what started, may func() error) error {
	id := what.Release.ID()
	for {
		if done, err := s.begun(id, may); done || err != nil {
			return err
		}
		if err := s.fetch(ctx, what.Release); err != nil {
			return err
		}
		in, old, err := s.admit(what, may)
		switch {
		case errors.Is(err, errNoImage):
			continue // it was retired in the meantime
		case err != nil:
			return err
		case in == nil:
			return nil
		}
		if old != nil {
			old.end(stopping) // what it has left behind
		}
		in.start()
		return nil
	}
}

// begun says whether the release runs.
func (s *Supervisor) begun(id release.ID, may func() error) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := may(); err != nil {
		return false, err
	}
	in := s.find(id)
	return in != nil && in.alive(), nil
}

// admit gives a release its place among the instances, in which it is to be started, and returns the dead one that had
// it. It returns nil when somebody else was faster.
func (s *Supervisor) admit(what started, may func() error) (in, old *instance, err error) {
	id := what.Release.ID()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := may(); err != nil {
		return nil, nil, err
	}
	if s.ended {
		return nil, nil, errors.New("the supervisor ends")
	}
	old = s.find(id)
	if old != nil && old.alive() {
		return nil, nil, nil
	}
	image, err := s.unpacked(id.Digest())
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errNoImage, err)
	}
	in = &instance{started: what, image: image, root: s.root(id.Digest()), ready: s.o.Ready, log: s.o.Log, output: &tail{}}
	if err := in.prepare(); err != nil {
		return nil, nil, err
	}
	was, parked := s.instances, s.parked
	s.instances = append(slices.DeleteFunc(slices.Clone(was), func(i *instance) bool { return i == old }), in)
	s.parked = without(s.parked, id)
	if err := s.remember(); err != nil {
		s.instances, s.parked = was, parked
		return nil, nil, err
	}
	if old != nil {
		in.output = old.output
		s.proxy.move(id, in.address)
	}
	return in, old, nil
}

func (s *Supervisor) shift(_ context.Context, c shiftCall) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.holds(c.By); err != nil {
		return err
	}
	return s.share(c.Weights)
}

// share gives each release its part of the traffic. The caller has the lock.
func (s *Supervisor) share(weights map[release.ID]int) error {
	sum := 0
	backends := map[release.ID]backend{}
	for id, weight := range weights {
		sum += weight
		in := s.find(id)
		if in == nil {
			return fault.Errorf(fault.Failed, "%s is not staged", id.Short())
		}
		seen := in.observe()
		if seen.Phase != plan.Ready && weight > 0 {
			return fault.Errorf(fault.Failed, "%s is %s: it gets no traffic", id.Short(), seen.Phase)
		}
		if weight < 0 || weight > 100 {
			return fault.Errorf(fault.Failed, "weight %d of %s is not between 0 and 100", weight, id.Short())
		}
		backends[id] = backend{weight: weight, address: seen.Address}
	}
	if sum != 100 {
		return fault.Errorf(fault.Failed, "the weights add up to %d, want 100", sum)
	}
	s.proxy.set(backends)
	s.weights = weights
	s.shifts++
	return s.remember()
}

func (s *Supervisor) close(_ context.Context, c retireCall) error {
	s.mu.Lock()
	err := s.holds(c.By)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if way := s.proxy.left(c.ID); way != nil {
		way.drain(c.Drain, s.ending)
		s.proxy.end(c.ID)
	}
	return nil
}

// retire takes an instance out of everything at once, and then waits for its requests and its end.
func (s *Supervisor) retire(_ context.Context, c retireCall) error {
	in, way, err := s.remove(c)
	if err != nil {
		return err
	}
	if in == nil {
		return s.discard(c.ID.Digest())
	}
	defer s.leaving.Done()
	if way != nil {
		way.drain(c.Drain, s.ending)
	}
	select {
	case <-s.ending:
		in.end(0)
	default:
		in.end(stopping)
	}
	return s.discard(c.ID.Digest())
}

// remove takes out the instance of the release, which the caller has to end, and the way to it.
func (s *Supervisor) remove(c retireCall) (*instance, *route, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.holds(c.By); err != nil {
		return nil, nil, err
	}
	in := s.find(c.ID)
	if in == nil && c.Keep || s.ended {
		return nil, nil, nil
	}
	s.owed, s.parked = without(s.owed, c.ID), without(s.parked, c.ID)
	if in == nil {
		return nil, nil, s.remember()
	}
	if c.Keep {
		s.parked = append(s.parked, in.started)
	}
	s.leaving.Add(1)
	s.instances = slices.DeleteFunc(slices.Clone(s.instances), func(i *instance) bool { return i == in })
	s.weights = maps.Clone(s.weights)
	delete(s.weights, c.ID)
	if err := s.remember(); err != nil {
		// It goes all the same: what a supervisor that starts again would run has no traffic.
		s.o.Log.Warn("what runs was not written down", "error", err)
	}
	return in, s.proxy.take(c.ID), nil
}

// remember writes what runs to the disk, so that it survives the supervisor. The caller has the lock.
func (s *Supervisor) remember() error {
	r := remembered{Claim: s.claim, Notes: s.notes, Weights: s.weights, Parked: s.parked}
	for _, in := range s.instances {
		r.Instances = append(r.Instances, in.started)
	}
	r.Instances = append(r.Instances, s.owed...)
	return store(filepath.Join(s.o.Dir, "state.json"), r)
}

// load reads what ran.
func (s *Supervisor) load() error {
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
	s.claim, s.notes, s.owed, s.weights, s.parked = was.Claim, was.Notes, was.Instances, was.Weights, was.Parked
	return nil
}

func without(list []started, id release.ID) []started {
	return slices.DeleteFunc(slices.Clone(list), func(one started) bool { return one.Release.ID() == id })
}

// resume starts again what ran, and gives it the traffic it had as soon as it is ready, unless somebody has shared it
// out anew by then.
func (s *Supervisor) resume(ctx context.Context) {
	s.mu.Lock()
	owed, weights := s.owed, s.weights
	s.mu.Unlock()
	for _, one := range owed {
		id := one.Release.ID()
		err := s.begin(ctx, one, func() error {
			if len(without(s.owed, id)) == len(s.owed) {
				return errors.New("it was retired")
			}
			return nil
		})
		if err != nil {
			s.o.Log.Error("what ran cannot be started again", "release", id.Short(), "error", err)
		}
		s.mu.Lock()
		s.owed = without(s.owed, id)
		s.mu.Unlock()
	}
	for len(weights) > 0 {
		over, err := s.restore(weights)
		if err != nil {
			s.o.Log.Error("the traffic cannot be given back", "why", err)
		}
		if over {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// restore gives the traffic back when it can, or says that this is over, and why it never will be.
func (s *Supervisor) restore(weights map[release.ID]int) (over bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shifts > 0 {
		return true, nil
	}
	err = s.share(weights)
	for id := range weights {
		in := s.find(id)
		if in == nil {
			return true, fmt.Errorf("%s is gone", id.Short())
		}
		switch seen := in.observe(); seen.Phase {
		case plan.Failed:
			return true, errors.New(seen.Reason)
		case plan.Starting:
			return false, nil
		}
	}
	return true, err
}

var _ io.Writer = (*tail)(nil)
