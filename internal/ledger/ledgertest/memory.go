package ledgertest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/release"
)

// Memory is a ledger in memory, for tests of what stands on one. All its users share it, as they would a registry.
type Memory struct {
	// Fail is called at the beginning of each operation: newest, at, after, commit, beat, beating or pin. Its error is that of the
	// operation, which changes nothing.
	Fail func(op string) error

	mu     sync.Mutex
	events []ledger.Event
	pinned []release.Digest
	beats  map[uint64]int
}

var _ ledger.Ledger = (*Memory)(nil)

func (m *Memory) fail(ctx context.Context, op string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	f := m.Fail
	m.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(op)
}

// SetFail changes Fail while the ledger is in use.
func (m *Memory) SetFail(f func(op string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.Fail = f
}

// Kinds are the kinds of all events, in their order.
func (m *Memory) Kinds() []ledger.Kind {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []ledger.Kind
	for _, e := range m.events {
		all = append(all, e.Kind)
	}
	return all
}

// Newest implements ledger.History.
func (m *Memory) Newest(ctx context.Context) (ledger.Event, error) {
	if err := m.fail(ctx, "newest"); err != nil {
		return ledger.Event{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.newest(), nil
}

func (m *Memory) newest() ledger.Event {
	if len(m.events) == 0 {
		return ledger.Event{}
	}
	return m.named(m.events[len(m.events)-1])
}

// named is e as it would come out of a registry, with a digest.
func (m *Memory) named(e ledger.Event) ledger.Event {
	e = copied(e)
	e.Digest = digestOf(e.Seq)
	return e
}

func digestOf(seq uint64) release.Digest { return release.Digest(fmt.Sprintf("sha256:%064d", seq)) }

// After implements ledger.History: nobody rewrites what is in memory.
func (m *Memory) After(ctx context.Context, _ uint64, _ release.Digest) (ledger.Event, error) {
	if err := m.fail(ctx, "after"); err != nil {
		return ledger.Event{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.newest(), nil
}

// copied is e as it would come out of a registry.
func copied(e ledger.Event) (c ledger.Event) {
	data, err := json.Marshal(e)
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		panic(err) // an event that cannot be kept is a defect of the program
	}
	return c
}

// At implements ledger.History.
func (m *Memory) At(ctx context.Context, seq uint64) (ledger.Event, error) {
	if err := m.fail(ctx, "at"); err != nil {
		return ledger.Event{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if seq == 0 || seq > uint64(len(m.events)) {
		return ledger.Event{}, ledger.ErrNoEvent
	}
	return m.named(m.events[seq-1]), nil
}

// Before implements ledger.History.
func (m *Memory) Before(ctx context.Context, e ledger.Event) (ledger.Event, error) {
	return m.At(ctx, e.Seq-1)
}

// Commit implements ledger.History.
func (m *Memory) Commit(ctx context.Context, change func(ledger.Event) (ledger.Event, error)) (ledger.Event, error) {
	if err := m.fail(ctx, "commit"); err != nil {
		return ledger.Event{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	newest := m.newest()
	e, err := change(newest)
	if err != nil {
		return ledger.Event{}, err
	}
	e.Seq = newest.Seq + 1
	if newest.Seq > 0 {
		e.Previous = digestOf(newest.Seq)
	}
	m.events = append(m.events, copied(e))
	return m.named(e), nil
}

// Moved implements ledger.History.
func (m *Memory) Moved(ctx context.Context, seq uint64) (bool, error) {
	if err := m.fail(ctx, "moved"); err != nil {
		return false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.newest().Seq > seq, nil
}

// Beat implements ledger.Pulse.
func (m *Memory) Beat(ctx context.Context, seq uint64) error {
	if err := m.fail(ctx, "beat"); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.beats == nil {
		m.beats = map[uint64]int{}
	}
	m.beats[seq]++
	return nil
}

// Beating implements ledger.Pulse: a run that has beaten is alive.
func (m *Memory) Beating(ctx context.Context, seq uint64) (bool, error) {
	if err := m.fail(ctx, "beating"); err != nil {
		return false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.beats[seq] > 0, nil
}

// Pin implements ledger.Ledger.
func (m *Memory) Pin(ctx context.Context, _ uint64, r release.Release) error {
	if err := m.fail(ctx, "pin"); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.Contains(m.pinned, r.Digest) {
		m.pinned = append(m.pinned, r.Digest)
	}
	return nil
}
