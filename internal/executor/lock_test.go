package executor

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/verdict"
)

// Who is alive is told by the process on this machine, and by nothing but silence on another: not by the number of a
// pipeline, and by no clock.
func TestAlive(t *testing.T) {
	if kernel() == "" {
		t.Skip("needs /proc")
	}
	p := newPlace(t)
	x := p.run()
	here := release.Author{Machine: x.author.Machine, Process: os.Getpid(), Started: started(os.Getpid()), Run: "pipeline 1"}
	gone := exec.Command("true")
	p.must(gone.Run())
	elsewhere := release.Author{Machine: "another", Process: 1, Started: "1", Run: "pipeline 1"}
	x.author.Run, x.author.Started = "pipeline 1", started(os.Getpid())
	p.must(p.book.Beat(t.Context(), 7))
	blind := p.run()
	blind.author = x.author
	blind.author.Started = ""
	p.must(p.book.Beat(t.Context(), 9))
	if got, err := blind.alive(t.Context(), ledger.Intent{Author: here, Seq: 9}); err != nil || !got {
		t.Errorf("where /proc is another's, beats tell: %v, %v", got, err)
	}
	for name, c := range map[string]struct {
		in   ledger.Intent
		want bool
	}{
		"this process":                         {ledger.Intent{Author: here}, true},
		"a process that is gone":               {ledger.Intent{Author: release.Author{Machine: here.Machine, Process: gone.Process.Pid, Started: "1"}}, false},
		"a successor with its name and number": {ledger.Intent{Author: release.Author{Machine: here.Machine, Process: here.Process, Started: here.Started + "1"}}, false},
		"another machine, heard":               {ledger.Intent{Author: elsewhere, Seq: 7}, true},
		"another machine, silent":              {ledger.Intent{Author: elsewhere, Seq: 8}, false},
		"ourselves":                            {ledger.Intent{Author: here, Holder: x.holder}, false},
	} {
		if got, err := x.alive(t.Context(), c.in); err != nil || got != c.want {
			t.Errorf("%s: %v, %v; want %v", name, got, err, c.want)
		}
	}
}

// A run that listened reads the ledger again before it acts: the other one has ended well meanwhile.
func TestAfterListeningTheLedgerIsReadAgain(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0")
	other := p.run()
	p.image("1.1.0")
	now, err := other.look(t.Context())
	p.must(err)
	started, err := other.startDeploy(t.Context(), Deployment{}, now, p.image("1.1.0"), nil)
	p.must(err)
	p.must(p.book.Beat(t.Context(), started.Seq))
	p.book.SetFail(func(op string) error {
		if op == "beating" {
			p.book.SetFail(nil)
			_, err := p.book.Commit(t.Context(), func(e ledger.Event) (ledger.Event, error) {
				return ledger.AbortDeploy(e, started.State.Intent.Key(), other.Stamp(), "it ended while you listened", nil)
			})
			p.must(err)
		}
		return nil
	})
	p.must(p.deploy("1.1.0"))
	p.agrees("1.1.0")
}

// A living run is waited for, with code 7, whatever the clocks say.
func TestALivingRunIsNotDisturbed(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0")
	other := p.run()
	now, err := other.look(t.Context())
	p.must(err)
	started, err := other.startDeploy(t.Context(), Deployment{}, now, p.image("1.1.0"), nil)
	p.must(err)
	p.must(p.book.Beat(t.Context(), started.Seq))
	p.image("1.2.0")
	p.refused(p.deploy("1.2.0"), fault.Refused, "deploy of 1.1.0")
	_, err = p.run().Rollback(t.Context(), Rollback{Reason: "slow"})
	p.refused(err, fault.Refused, "deploy of 1.1.0")
	if e := p.newest(); e.Seq != started.Seq {
		t.Errorf("event %d was written", e.Seq)
	}
}

// An interrupted verify leaves a trace and a hint, and no verdict.
func TestAnInterruptedVerifyLeavesATrace(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0")
	p.must(p.deploy("1.1.0"))
	ctx, interrupt := context.WithCancelCause(t.Context())
	p.answers("1.1.0", func(context.Context) bool { interrupt(errors.New("interrupted")); return true })
	x := p.run()
	x.Config.Verify.Bake = 1 << 40
	v, err := x.Verify(ctx, rollsBack)
	p.refused(err, fault.Failed, "interrupted: it stays live, and is not judged")
	if e := p.newest(); e.Kind != ledger.Disarmed || !strings.Contains(e.Reason, "interrupted") || v.Evidence.Verdict != verdict.Unknown {
		t.Errorf("%s: %s", e.Kind, e.Reason)
	}
	if hint := fault.HintOf(err); hint != "verify it again, or roll back" {
		t.Errorf("hint %q", hint)
	}
}

// That our own intent is gone once we have ended it is no news; that somebody else has ended it is.
func TestListen(t *testing.T) {
	p := newPlace(t)
	x := p.run()
	p.must(p.deploy("1.0.0"))
	in := ledger.Intent{Kind: ledger.VerifyStarted, Holder: x.holder, Seq: 1}
	ended := 0
	lost := func(error) { ended++ }
	x.ending.Store(true)
	if seen := x.listen(t.Context(), in, 1, lost); seen != p.newest().Seq || ended > 0 {
		t.Errorf("after our own end: event %d was seen, and %d times it counted as ended", seen, ended)
	}
	x.ending.Store(false)
	if x.listen(t.Context(), in, 1, lost); ended != 1 {
		t.Errorf("after another's end it counted %d times", ended)
	}
	p.gone()
	if seen := x.listen(t.Context(), in, 1, lost); seen != 1 || ended != 1 {
		t.Errorf("with the ledger away: event %d, %d ends", seen, ended)
	}
}
