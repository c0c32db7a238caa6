package executor

import (
	"context"
	"fmt"
	"strings"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/verdict"
)

// Verification is how the verification of what is live ended.
type Verification struct {
	Release  release.Release
	Evidence Evidence
	Seq      uint64   // of the event that holds the verdict; 0 when it is unknown, which is not written
	Back     Returned // the rollback that the verdict asked for
	BackErr  error    // why there was no way back
}

// Verify takes evidence of the release that is live until there is a verdict, and writes it. An unknown
// verdict is no error. When goBack says so of the verdict, the release is rolled back at once, and the verdict is
// written into the event that starts the rollback: nothing is written twice while customers wait.
func (x *Executor) Verify(ctx context.Context, goBack func(verdict.Verdict) bool) (Verification, error) {
	if len(x.Config.Verify.Probes) == 0 {
		return Verification{}, fault.Inputf("environment %s has no probe to verify with", x.Name).
			WithHint("add to it, for example:\n  verify: {probes: [{kind: http, path: /health}]}")
	}
	newest, state, err := x.admit(ctx)
	if err != nil {
		return Verification{}, err
	}
	live := newest.State.Live
	if live == nil {
		return Verification{}, fault.Inputf("nothing is live in environment %s", x.Name).
			WithHint("deploy first: backstep deploy --environment %s --image …", x.Name)
	}
	v := Verification{Release: live.Release}
	if in := state.Find(live.Release.Digest); in == nil || in.Weight != 100 {
		return v, fault.Errorf(fault.HalfWay, "the ledger says that %s is live, but it does not have the traffic", live.Release).
			WithHint("deploy it again, or roll back")
	}
	x.log.Info("verifying", "release", live.Release.Digest.Short(), "version", live.Release.Version,
		"bake", x.Config.Verify.Bake.String())
	if v.Evidence, err = x.observe(ctx, live.Release, x.Config.Verify.Bake, x.Config.Verify.Patience); err != nil {
		return v, err
	}
	x.log.Info("verdict", "verdict", v.Evidence.Verdict.String(), "why", v.Evidence.Reason)
	if goBack(v.Evidence.Verdict) {
		v.Back, v.BackErr = x.Rollback(ctx, Return{Automatic: true, evidence: v.Evidence.text(),
			Reason: fmt.Sprintf("verdict %s: %s", v.Evidence.Verdict, v.Evidence.Reason)})
		v.Seq = v.Back.Seq
		return v, nil
	}
	if v.Evidence.Verdict == verdict.Unknown {
		return v, nil
	}
	event, err := x.Ledger.Commit(ctx, func(e ledger.Event) (ledger.Event, error) {
		if e.State.Intent != nil {
			return ledger.Event{}, locked(*e.State.Intent)
		}
		return ledger.Judge(e, live.Release, v.Evidence.Verdict == verdict.Pass, v.Evidence.text(), x.Stamp())
	})
	v.Seq = event.Seq
	if err == nil && v.Evidence.Verdict == verdict.Pass {
		err = x.settle(ctx, event)
	}
	return v, err
}

// settle retires what was kept warm while the release baked: nobody goes back to it within seconds any more.
func (x *Executor) settle(ctx context.Context, verified ledger.Event) error {
	state, err := x.target.Observe(ctx)
	if err != nil {
		return err
	}
	for _, in := range state.Instances {
		if in.Weight > 0 || in.Release.Digest == verified.State.Live.Release.Digest {
			continue
		}
		op := plan.Operation{Do: plan.Retire, Release: in.Release}
		if err := x.run(ctx, verified.Seq, plan.Plan{op}); err != nil {
			return fmt.Errorf("after the verdict: %w", err)
		}
	}
	return nil
}

// text is the evidence as the ledger keeps it: the reason, and what failed checks got.
func (e Evidence) text() string {
	if len(e.Samples) == 0 {
		return e.Reason
	}
	return e.Reason + "; " + strings.Join(e.Samples, "; ")
}
