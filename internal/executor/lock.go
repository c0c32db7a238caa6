package executor

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/ledger"
	ledgerregistry "github.com/backstep/backstep/internal/ledger/registry"
)

// hold beats for the intent numbered seq until the function it returns is called.
func (x *Executor) hold(ctx context.Context, seq uint64) (release func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var beating sync.WaitGroup
	beating.Go(func() {
		pace := time.NewTicker(ledger.BeatEvery)
		defer pace.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-pace.C:
			}
			switch err := x.Ledger.Beat(ctx, seq); {
			case errors.Is(err, ledgerregistry.ErrImmutable):
				x.log.Warn("the registry", "error", err)
			case err != nil && ctx.Err() == nil:
				x.log.Debug("a beat was lost", "error", err)
			}
		}
	})
	return func() {
		cancel()
		beating.Wait()
	}
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
	what := strings.TrimSuffix(string(in.Kind), ".started")
	about := in.To
	if in.Kind == ledger.VerifyStarted && in.From != nil {
		about = in.From.Release
	}
	e := fault.Errorf(fault.Refused, "%s of %s by %s is under way (event %d)", what, about, in.Author, in.Seq)
	if in.Kind == ledger.VerifyStarted {
		return e.WithHint("wait for it, or take its place: deploy --take-over REASON, or backstep rollback")
	}
	return e.WithHint("wait for it; if it dies, the next run takes over within seconds")
}
