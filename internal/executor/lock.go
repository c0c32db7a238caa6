package executor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/ledger"
	ledgerregistry "github.com/backstep/backstep/internal/ledger/registry"
)

// hold beats for the intent of started, and looks whether somebody else has ended or paused it, until the function it returns is
// called. When it was ended, lost is called with the reason; it may be nil.
func (x *Executor) hold(ctx context.Context, started ledger.Event, lost context.CancelCauseFunc) (release func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	x.paused.Store(false)
	x.ending.Store(false)
	var beating sync.WaitGroup
	beating.Go(func() {
		pace := time.NewTicker(ledger.BeatEvery)
		defer pace.Stop()
		for seen := started.Seq; ; {
			select {
			case <-ctx.Done():
				return
			case <-pace.C:
			}
			switch err := x.Ledger.Beat(ctx, started.Seq); {
			case errors.Is(err, ledgerregistry.ErrImmutable):
				x.log.Warn("the registry", "error", err)
			case err != nil && ctx.Err() == nil:
				x.log.Debug("a beat was lost", "error", err)
			}
			if lost != nil {
				seen = x.listen(ctx, *started.State.Intent, seen, lost)
			}
		}
	})
	return func() {
		cancel()
		beating.Wait()
	}
}

// errEnded says that somebody else has ended our intent.
var errEnded = errors.New("it was ended by another run")

// listen looks whether the ledger has moved on since the event numbered seen, and what that means for our intent. A ledger that
// does not answer means nothing: the target refuses what may not be done any more.
func (x *Executor) listen(ctx context.Context, in ledger.Intent, seen uint64, lost context.CancelCauseFunc) uint64 {
	// The next beat is due: a ledger that is slow to answer must not make us look dead.
	ctx, cancel := context.WithTimeout(ctx, ledger.BeatEvery/2)
	defer cancel()
	if moved, err := x.Ledger.Moved(ctx, seen); err != nil || !moved {
		return seen
	}
	newest, err := x.Ledger.Newest(ctx)
	if err != nil || newest.Seq <= seen {
		return seen
	}
	now := newest.State.Intent
	if now == nil || now.Key() != in.Key() {
		if x.ending.Load() {
			return newest.Seq
		}
		lost(fmt.Errorf("%w: %s by %s: %s", errEnded, newest.Kind, newest.Author, newest.Reason))
		return newest.Seq
	}
	if was := x.paused.Swap(now.Paused != nil); was != (now.Paused != nil) {
		x.log.Info("what is under way was "+map[bool]string{true: "resumed", false: "paused"}[was], "by", newest.Author.String(), "reason", newest.Reason)
	}
	return newest.Seq
}

// held waits for as long as a person holds the run.
func (x *Executor) held(ctx context.Context) error {
	const look = 100 * time.Millisecond
	for x.paused.Load() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(look):
		}
	}
	return ctx.Err()
}

// alive says whether the run that holds the intent is still at work. On this very machine its process tells; of another
// machine's only silence does, never a clock and never the number of its pipeline.
func (x *Executor) alive(ctx context.Context, in ledger.Intent) (bool, error) {
	switch {
	case in.Holder == x.holder:
		return false, nil // ours, and we are here, not there
	case in.Author.Started != "" && x.author.Started != "" && in.Author.Machine == x.author.Machine:
		return started(in.Author.Process) == in.Author.Started, nil
	}
	x.log.Info("another run holds the lock; listening whether it is alive", "event", in.Seq, "by", in.Author.String())
	return x.Ledger.Beating(ctx, in.Seq)
}

func locked(in ledger.Intent) error {
	e := fault.Errorf(fault.Refused, "%s is under way", in)
	if in.Kind == ledger.VerifyStarted {
		return e.WithHint("wait for it, or take its place: deploy --take-over REASON, or backstep rollback")
	}
	return e.WithHint("wait for it; if it dies, the next run takes over within seconds")
}
