package targettest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/router"
	"github.com/backstep/backstep/internal/target"
)

// Memory is a target with its router that is nothing but what it says of itself: what is staged is ready at once, unless
// SetPhase says something else. It can be used from several goroutines; Fail and After are set before that.
type Memory struct {
	// Fail is asked at the beginning of each operation: observe, claim, stage, shift, retire, forget, find, has, logs.
	// Its error is that of the operation, which then changes nothing. It may block.
	Fail func(op string) error
	// After is called once an operation has taken effect, before its caller knows.
	After func(op string)

	mu        sync.Mutex
	claim     plan.Claim
	notes     []plan.Note
	instances []plan.Instance // in the order they were staged
	images    map[release.ID]bool
	lost      map[release.ID]bool
	fates     map[release.ID]fate
	logs      map[release.ID][]string
	cut       map[release.ID]bool          // what was busy when its connections were closed
	busy      map[release.ID]chan struct{} // closed when it has answered its last request
}

// fate is what becomes of a release.
type fate struct {
	phase  plan.Phase
	reason string
}

var (
	_ target.Target = (*Memory)(nil)
	_ router.Router = (*Memory)(nil)
)

// NewMemory is a target with nothing on it, and nobody who claimed it.
func NewMemory() *Memory {
	return &Memory{Fail: func(string) error { return nil }, After: func(string) {},
		images: map[release.ID]bool{}, lost: map[release.ID]bool{}, fates: map[release.ID]fate{},
		logs: map[release.ID][]string{}, busy: map[release.ID]chan struct{}{}, cut: map[release.ID]bool{}}
}

// Target is m.
func (m *Memory) Target() target.Target { return m }

// Router is m too.
func (m *Memory) Router() router.Router { return m }

// SetPhase makes phase what the instance of the release is in now. When there is none, it is what the release will be in each time that it is
// staged.
func (m *Memory) SetPhase(id release.ID, phase plan.Phase, reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if in := m.find(id); in != nil {
		in.Phase, in.Reason, in.Ended = phase, reason, phase == plan.Failed
		return
	}
	m.fates[id] = fate{phase, reason}
}

// SetLogs makes lines what the release has written.
func (m *Memory) SetLogs(id release.ID, lines ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.logs[id] = lines
}

// Lose takes the image of the release away, from the target and from the registry; an instance that is there stays.
func (m *Memory) Lose(id release.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lost[id] = true
	delete(m.images, id)
}

// Remove takes the instance of the release away, as somebody would who knows nothing of claims.
func (m *Memory) Remove(id release.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.remove(id)
}

// Busy lets the release have a request under way until done is called: what retires it waits for that.
func (m *Memory) Busy(id release.ID) (done func() bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	answered := make(chan struct{})
	m.busy[id] = answered
	return sync.OnceValue(func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		close(answered)
		whole := !m.cut[id]
		delete(m.cut, id)
		return whole
	})
}

// do is the frame of every operation.
func (m *Memory) do(ctx context.Context, op string, f func() error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := m.Fail(op); err != nil {
		return err
	}
	m.mu.Lock()
	err := f()
	m.mu.Unlock()
	if err == nil {
		m.After(op)
	}
	return err
}

func (m *Memory) find(id release.ID) *plan.Instance {
	for i := range m.instances {
		if m.instances[i].Release.ID() == id {
			return &m.instances[i]
		}
	}
	return nil
}

func (m *Memory) remove(id release.ID) {
	m.instances = slices.DeleteFunc(m.instances, func(in plan.Instance) bool { return in.Release.ID() == id })
}

func (m *Memory) holds(by plan.Token) error {
	if m.claim.Token != by || by.Holder == "" {
		return fmt.Errorf("%w: the target is claimed by number %s", target.ErrFenced, m.claim.Number)
	}
	return nil
}

// owned is a copy that shares nothing with c.
func owned(c plan.Claim) plan.Claim {
	if c.Back != nil {
		back := *c.Back
		c.Back = &back
	}
	return c
}

// Claim is described at target.Fence.
func (m *Memory) Claim(ctx context.Context, c plan.Claim, note *plan.Note) error {
	return m.do(ctx, "claim", func() error {
		if err := target.Admit(m.claim, c); err != nil {
			return err
		}
		if note != nil {
			n := *note
			n.Number = c.Number
			there := slices.ContainsFunc(m.notes, func(o plan.Note) bool { return o.ID == n.ID && o.Number == n.Number })
			switch {
			case !there && c.Token == m.claim.Token:
				return fmt.Errorf("claim %s is there already, without the note %s", c.Number, n.ID)
			case !there:
				m.notes = slices.Insert(m.notes, 0, n)
			}
		}
		if c.Token != m.claim.Token {
			m.claim = owned(c)
		}
		return nil
	})
}

// Forget is described at target.Fence.
func (m *Memory) Forget(ctx context.Context, by plan.Token, ids []string) error {
	return m.do(ctx, "forget", func() error {
		if err := m.holds(by); err != nil {
			return err
		}
		for _, n := range m.notes {
			if n.Number == by.Number && slices.Contains(ids, n.ID) {
				return fmt.Errorf("note %s came with claim %s, which is still the one on the target", n.ID, n.Number)
			}
		}
		m.notes = slices.DeleteFunc(m.notes, func(n plan.Note) bool { return slices.Contains(ids, n.ID) })
		return nil
	})
}

// Observe is described at target.Inventory.
func (m *Memory) Observe(ctx context.Context) (plan.State, error) {
	var s plan.State
	err := m.do(ctx, "observe", func() error {
		s = plan.State{Claim: owned(m.claim), Notes: slices.Clone(m.notes), Instances: slices.Clone(m.instances)}
		return nil
	})
	return s, err
}

// Find is described at target.Inventory.
func (m *Memory) Find(ctx context.Context, id release.ID) (*plan.Instance, error) {
	var found *plan.Instance
	err := m.do(ctx, "find", func() error {
		if in := m.find(id); in != nil {
			one := *in
			one.Weight = 0
			found = &one
		}
		return nil
	})
	return found, err
}

// Has is described at target.Inventory.
func (m *Memory) Has(ctx context.Context, r release.Release) (bool, error) {
	var has bool
	err := m.do(ctx, "has", func() error {
		has = m.images[r.ID()] || m.find(r.ID()) != nil
		return nil
	})
	return has, err
}

// Logs is described at target.Inventory.
func (m *Memory) Logs(ctx context.Context, id release.ID, lines int) ([]string, error) {
	var last []string
	err := m.do(ctx, "logs", func() error {
		if m.find(id) != nil {
			last = slices.Clone(m.logs[id][max(0, len(m.logs[id])-lines):])
		}
		return nil
	})
	return last, err
}

// Stage is described at target.Target.
func (m *Memory) Stage(ctx context.Context, by plan.Token, r release.Release) error {
	return m.do(ctx, "stage", func() error {
		if err := m.holds(by); err != nil {
			return err
		}
		in := m.find(r.ID())
		switch {
		case in != nil && in.Phase != plan.Failed && in.Phase != plan.Parked:
			return nil
		case in == nil && m.lost[r.ID()]:
			return fmt.Errorf("pull %s: not found", r.Reference())
		case in == nil:
			m.instances = append(m.instances, plan.Instance{Release: r, Address: r.ID().Short() + ":80"})
			in = &m.instances[len(m.instances)-1]
		}
		m.images[r.ID()] = !m.lost[r.ID()]
		in.Phase, in.Reason, in.Ended = plan.Ready, "", false
		if f, ok := m.fates[r.ID()]; ok {
			in.Phase, in.Reason, in.Ended = f.phase, f.reason, f.phase == plan.Failed
		}
		if m.logs[r.ID()] == nil {
			m.logs[r.ID()] = []string{"starting " + r.String()}
		}
		return nil
	})
}

// Shift is described at router.Router.
func (m *Memory) Shift(ctx context.Context, by plan.Token, weights map[release.ID]int) error {
	weights = maps.Clone(weights)
	return m.do(ctx, "shift", func() error {
		if err := m.holds(by); err != nil {
			return err
		}
		sum := 0
		for id, w := range weights {
			in := m.find(id)
			switch {
			case in == nil:
				return fmt.Errorf("%s is not on the target", id.Short())
			case w < 0:
				return fmt.Errorf("a weight of %d for %s", w, id.Short())
			case w > 0 && in.Phase != plan.Ready:
				return fmt.Errorf("%s is %s, and gets no traffic", in.Release, in.Phase)
			}
			sum += w
		}
		if sum != 100 {
			return fmt.Errorf("the weights add up to %d, want 100", sum)
		}
		for i := range m.instances {
			m.instances[i].Weight = weights[m.instances[i].Release.ID()]
		}
		return nil
	})
}

// Close is described at router.Router.
func (m *Memory) Close(ctx context.Context, by plan.Token, id release.ID, _ time.Duration) error {
	return m.do(ctx, "close", func() error {
		if err := m.holds(by); err != nil {
			return err
		}
		if m.busy[id] != nil {
			delete(m.busy, id)
			m.cut[id] = true
		}
		return nil
	})
}

// Retire is described at target.Target.
func (m *Memory) Retire(ctx context.Context, by plan.Token, id release.ID, drain time.Duration) error {
	return m.leave(ctx, "retire", by, id, drain, func(*plan.Instance) { m.remove(id) })
}

// Park is described at target.Target.
func (m *Memory) Park(ctx context.Context, by plan.Token, id release.ID, drain time.Duration) error {
	return m.leave(ctx, "park", by, id, drain, func(in *plan.Instance) { in.Phase, in.Weight = plan.Parked, 0 })
}

func (m *Memory) leave(ctx context.Context, op string, by plan.Token, id release.ID, drain time.Duration, then func(*plan.Instance)) error {
	var answered chan struct{}
	err := m.do(ctx, op, func() error {
		if err := m.holds(by); err != nil {
			return err
		}
		if in := m.find(id); in != nil {
			answered = m.busy[id]
			then(in)
		}
		delete(m.busy, id)
		return nil
	})
	if err != nil || answered == nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, drain, errDrained)
	defer cancel()
	select {
	case <-answered:
	case <-ctx.Done():
		if err := context.Cause(ctx); !errors.Is(err, errDrained) {
			return err
		}
	}
	return nil
}

// errDrained ends the wait for the last requests of a release.
var errDrained = errors.New("the drain is over")
