package targettest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/backstep/backstep/internal/fault"
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
	images    map[release.Digest]bool
	lost      map[release.Digest]bool
	fates     map[release.Digest]fate
	logs      map[release.Digest][]string
	busy      map[release.Digest]chan struct{} // closed when it has answered its last request
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
		images: map[release.Digest]bool{}, lost: map[release.Digest]bool{}, fates: map[release.Digest]fate{},
		logs: map[release.Digest][]string{}, busy: map[release.Digest]chan struct{}{}}
}

// Target is m.
func (m *Memory) Target() target.Target { return m }

// Router is m too.
func (m *Memory) Router() router.Router { return m }

// SetPhase makes phase what the instance of d is in now. When there is none, it is what d will be in each time that it is
// staged.
func (m *Memory) SetPhase(d release.Digest, phase plan.Phase, reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if in := m.find(d); in != nil {
		in.Phase, in.Reason = phase, reason
		return
	}
	m.fates[d] = fate{phase, reason}
}

// SetLogs makes lines what d has written.
func (m *Memory) SetLogs(d release.Digest, lines ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.logs[d] = lines
}

// Lose takes the image of d away, from the target and from the registry; an instance that is there stays.
func (m *Memory) Lose(d release.Digest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lost[d] = true
	delete(m.images, d)
}

// Remove takes the instance of d away, as somebody would who knows nothing of claims.
func (m *Memory) Remove(d release.Digest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.remove(d)
}

// Busy lets d have a request under way until done is called: what retires it waits for that.
func (m *Memory) Busy(d release.Digest) (done func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	answered := make(chan struct{})
	m.busy[d] = answered
	return sync.OnceFunc(func() { close(answered) })
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

func (m *Memory) find(d release.Digest) *plan.Instance {
	for i := range m.instances {
		if m.instances[i].Release.Digest == d {
			return &m.instances[i]
		}
	}
	return nil
}

func (m *Memory) remove(d release.Digest) {
	m.instances = slices.DeleteFunc(m.instances, func(in plan.Instance) bool { return in.Release.Digest == d })
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
		if c.Holder == "" {
			return fmt.Errorf("claim %s names no holder", c.Number)
		}
		if m.claim.Ledger != "" && c.Ledger != "" && m.claim.Ledger != c.Ledger {
			return fault.Errorf(fault.Refused, "what is on the target belongs to the ledger %s, not to %s", m.claim.Ledger, c.Ledger)
		}
		order := c.Number.Compare(m.claim.Number)
		if m.claim.Holder != "" && (order < 0 || order == 0 && c.Holder != m.claim.Holder) {
			return fmt.Errorf("%w: number %s is not above %s", target.ErrFenced, c.Number, m.claim.Number)
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
func (m *Memory) Find(ctx context.Context, d release.Digest) (*plan.Instance, error) {
	var found *plan.Instance
	err := m.do(ctx, "find", func() error {
		if in := m.find(d); in != nil {
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
		has = m.images[r.Digest] || m.find(r.Digest) != nil
		return nil
	})
	return has, err
}

// Logs is described at target.Inventory.
func (m *Memory) Logs(ctx context.Context, d release.Digest, lines int) ([]string, error) {
	var last []string
	err := m.do(ctx, "logs", func() error {
		if m.find(d) != nil {
			last = slices.Clone(m.logs[d][max(0, len(m.logs[d])-lines):])
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
		in := m.find(r.Digest)
		switch {
		case in != nil && in.Phase != plan.Failed:
			return nil
		case in == nil && m.lost[r.Digest]:
			return fmt.Errorf("pull %s: not found", r.Reference())
		case in == nil:
			m.instances = append(m.instances, plan.Instance{Release: r, Address: r.Digest.Short() + ":80"})
			in = &m.instances[len(m.instances)-1]
		}
		m.images[r.Digest] = !m.lost[r.Digest]
		in.Phase, in.Reason = plan.Ready, ""
		if f, ok := m.fates[r.Digest]; ok {
			in.Phase, in.Reason = f.phase, f.reason
		}
		if m.logs[r.Digest] == nil {
			m.logs[r.Digest] = []string{"starting " + r.String()}
		}
		return nil
	})
}

// Shift is described at router.Router.
func (m *Memory) Shift(ctx context.Context, by plan.Token, weights map[release.Digest]int) error {
	weights = maps.Clone(weights)
	return m.do(ctx, "shift", func() error {
		if err := m.holds(by); err != nil {
			return err
		}
		sum := 0
		for d, w := range weights {
			in := m.find(d)
			switch {
			case in == nil:
				return fmt.Errorf("%s is not on the target", d.Short())
			case w < 0:
				return fmt.Errorf("a weight of %d for %s", w, d.Short())
			case w > 0 && in.Phase != plan.Ready:
				return fmt.Errorf("%s is %s, and gets no traffic", in.Release, in.Phase)
			}
			sum += w
		}
		if sum != 100 {
			return fmt.Errorf("the weights add up to %d, want 100", sum)
		}
		for i := range m.instances {
			m.instances[i].Weight = weights[m.instances[i].Release.Digest]
		}
		return nil
	})
}

// Retire is described at target.Target.
func (m *Memory) Retire(ctx context.Context, by plan.Token, d release.Digest, drain time.Duration) error {
	var answered chan struct{}
	err := m.do(ctx, "retire", func() error {
		if err := m.holds(by); err != nil {
			return err
		}
		if m.find(d) != nil {
			answered = m.busy[d]
		}
		m.remove(d)
		delete(m.busy, d)
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
