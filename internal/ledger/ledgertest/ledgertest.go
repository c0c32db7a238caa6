// Package ledgertest is the conformance suite of ledgers.
package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/release"
)

// Subject is what is checked.
type Subject struct {
	Open   func() ledger.Ledger // a new handle on the same, at first empty, ledger each time, as another process would have it
	Image  release.Release      // something to pin
	Parts  []release.Digest     // all that a pin of it has to keep
	Pinned func(seq uint64) []release.Digest
}

// freeze is a change. Each event carries on which there were before it: only what really precedes it can tell.
func freeze(reason string) func(ledger.Event) (ledger.Event, error) {
	return func(e ledger.Event) (ledger.Event, error) {
		state := e.State
		state.Recent = append(slices.Clone(state.Recent), ledger.Entry{Seq: e.Seq + 1, Release: release.Release{Version: reason, Digest: "sha256:0000000000000000000000000000000000000000000000000000000000000001"}})
		return ledger.Event{Kind: ledger.Frozen, At: time.Unix(1, 0).UTC(), Reason: reason, State: state}, nil
	}
}

// Run checks a ledger.
func Run(t *testing.T, s Subject) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	first(ctx, t, s)
	race(ctx, t, s)
	beats(ctx, t, s)
	pins(ctx, t, s)
}

func first(ctx context.Context, t *testing.T, s Subject) {
	l := s.Open()
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
	if err != nil {
		t.Fatalf("first commit: event %d, %v", first.Seq, err)
	}
	if e, err := s.Open().Newest(ctx); err != nil || e.Seq != first.Seq || e.Reason != "first" || len(e.State.Recent) != 1 {
		t.Fatalf("newest after the first commit: %+v, %v", e, err)
	}
	second, err := s.Open().Commit(ctx, freeze("second"))
	if err != nil || first.Digest == "" || second.Digest == first.Digest {
		t.Fatalf("second commit: digest %q after %q, %v", second.Digest, first.Digest, err)
	}
	for _, seen := range []ledger.Event{{}, first, second} {
		if e, err := s.Open().After(ctx, seen.Seq, seen.Digest); err != nil || e.Seq != second.Seq || e.Digest != second.Digest {
			t.Errorf("newest after event %d: event %d %s, %v; want %s", seen.Seq, e.Seq, e.Digest, err, second.Digest)
		}
	}
	if e, err := s.Open().Before(ctx, second); err != nil || e.Seq != first.Seq || e.Digest != first.Digest {
		t.Errorf("before event %d: event %d %s, %v; want %s", second.Seq, e.Seq, e.Digest, err, first.Digest)
	}
}

// race lets several writers write at once: every event counts exactly once, and each was made of the one before it.
func race(ctx context.Context, t *testing.T, s Subject) {
	const writers, each = 4, 5
	start, err := s.Open().Newest(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for w := range writers {
		wait.Go(func() {
			l := s.Open()
			for n := range each {
				before := start.Seq
				e, err := l.Commit(ctx, freeze(fmt.Sprintf("%d/%d", w, n)))
				if err != nil || e.Seq <= before {
					t.Errorf("racing commit after event %d: event %d, %v", before, e.Seq, err)
				}
			}
		})
	}
	wait.Wait()
	newest, err := s.Open().Newest(ctx)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, r := range newest.State.Recent[len(start.State.Recent):] {
		if seen[r.Release.Version] {
			t.Errorf("commit %s counts twice", r.Release.Version)
		}
		seen[r.Release.Version] = true
		if e, err := s.Open().At(ctx, r.Seq); err != nil || e.Seq != r.Seq || e.Reason != r.Release.Version {
			t.Errorf("event %d: number %d, reason %q, %v; want %q", r.Seq, e.Seq, e.Reason, err, r.Release.Version)
		}
	}
	if len(seen) != writers*each {
		t.Errorf("%d events count, want %d", len(seen), writers*each)
	}
}

// beats needs a handle that does not take long to call a run silent.
func beats(ctx context.Context, t *testing.T, s Subject) {
	want := func(seq uint64, alive bool) {
		t.Helper()
		if got, err := s.Open().Beating(ctx, seq); err != nil || got != alive {
			t.Errorf("run of event %d alive: %v, %v; want %v", seq, got, err, alive)
		}
	}
	want(1, false) // never heard
	l := s.Open()
	if err := l.Beat(ctx, 1); err != nil {
		t.Fatal(err)
	}
	want(1, false)       // silent since
	var stop atomic.Bool // the last beat is not cut off: it might arrive later
	var stopped sync.WaitGroup
	stopped.Go(func() {
		for !stop.Load() {
			if err := l.Beat(ctx, 1); err != nil {
				t.Error(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	want(1, true)
	want(2, false) // another one
	stop.Store(true)
	stopped.Wait()
	if err := s.Open().Beat(ctx, 2); err != nil {
		t.Fatal(err)
	}
	want(1, false) // another run has taken over
}

func pins(ctx context.Context, t *testing.T, s Subject) {
	if err := s.Open().Pin(ctx, 3, s.Image); err != nil {
		t.Fatal(err)
	}
	for _, part := range s.Parts {
		if !slices.Contains(s.Pinned(3), part) {
			t.Errorf("pins of event 3: %v, want %s too", s.Pinned(3), part)
		}
	}
	lost := s.Image
	lost.Digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	if err := s.Open().Pin(ctx, 4, lost); err == nil {
		t.Error("a release that is not there was pinned")
	}
}
