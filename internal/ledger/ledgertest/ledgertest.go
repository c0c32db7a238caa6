// Package ledgertest is the conformance suite of ledgers.
package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/ledger"
)

// Run checks a ledger. Open gives a new handle on the same, at first empty, ledger each time, as another
// process would have it.
func Run(t *testing.T, open func() ledger.Ledger) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	freeze := func(reason string) func(ledger.Event) (ledger.Event, error) {
		return func(e ledger.Event) (ledger.Event, error) {
			return ledger.SetFreeze(e, reason, ledger.Stamp{At: time.Unix(1, 0).UTC()})
		}
	}

	l := open()
	if e, err := l.Newest(ctx); err != nil || e.Seq != 0 {
		t.Fatalf("an empty ledger: event %d, %v; want 0 and no error", e.Seq, err)
	}
	if _, err := l.At(ctx, 1); !errors.Is(err, ledger.ErrNoEvent) {
		t.Fatalf("event 1 of an empty ledger: %v, want ErrNoEvent", err)
	}
	stop := errors.New("stop")
	if _, err := l.Commit(ctx, func(ledger.Event) (ledger.Event, error) { return ledger.Event{}, stop }); err != stop {
		t.Fatalf("a change that fails: %v, want its own error", err)
	}
	first, err := l.Commit(ctx, freeze("first"))
	if err != nil || first.Seq != 1 {
		t.Fatalf("first commit: event %d, %v", first.Seq, err)
	}
	if e, err := open().Newest(ctx); err != nil || e.Seq != 1 || e.State.Freeze == nil || e.State.Freeze.Reason != "first" {
		t.Fatalf("newest after the first commit: %+v, %v", e, err)
	}

	const writers, each = 4, 5
	var wait sync.WaitGroup
	failures := make(chan error, writers*each)
	for w := range writers {
		wait.Go(func() {
			l := open()
			for n := range each {
				if _, err := l.Commit(ctx, freeze(fmt.Sprintf("%d/%d", w, n))); err != nil {
					failures <- err
				}
			}
		})
	}
	wait.Wait()
	close(failures)
	for err := range failures {
		t.Errorf("racing commit: %v", err)
	}
	newest, err := open().Newest(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if newest.Seq != 1+writers*each {
		t.Errorf("newest is event %d, want %d", newest.Seq, 1+writers*each)
	}
	seen := map[string]bool{}
	for seq := uint64(2); seq <= newest.Seq; seq++ {
		e, err := l.At(ctx, seq)
		if err != nil {
			t.Fatal(err)
		}
		if e.Seq != seq || e.Previous == "" || seen[e.Reason] {
			t.Errorf("event %d: number %d, previous %q, reason %q seen before: %v", seq, e.Seq, e.Previous, e.Reason, seen[e.Reason])
		}
		seen[e.Reason] = true
	}
	if len(seen) != writers*each {
		t.Errorf("%d different events, want %d", len(seen), writers*each)
	}
}
