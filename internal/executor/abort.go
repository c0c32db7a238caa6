package executor

import (
	"context"
	"fmt"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/ledger"
)

// Abort ends what another run has under way, on whatever machine: a deploy is taken back, a verify ends without a verdict. The other
// run notices, changes nothing any more, and ends with exit code 7. It returns what was under way, and the newest event.
func (x *Executor) Abort(ctx context.Context, reason string) (ledger.Intent, ledger.Event, error) {
	now, err := x.look(ctx)
	if err != nil {
		return ledger.Intent{}, ledger.Event{}, err
	}
	in := now.newest.State.Intent
	switch {
	case in == nil:
		return ledger.Intent{}, now.newest, fault.Inputf("nothing is under way in environment %s", x.Name)
	case in.Kind == ledger.RollbackStarted:
		return *in, now.newest, fault.Errorf(fault.Refused, "%s: a rollback is never taken back", in).
			WithHint("when it ends, go on from there: deploy, or backstep rollback --to …")
	}
	after, err := x.heal(ctx, &now.newest, policy{
		overrules: func(other ledger.Intent) bool { return other.Key() == in.Key() },
		why:       fmt.Sprintf("aborted by %s: %s", x.author, reason)})
	if err != nil {
		return *in, after.newest, err
	}
	if live := after.newest.State.Live; in.Kind == ledger.DeployStarted && live != nil && live.ID == in.Entry() {
		return *in, after.newest, fault.Errorf(fault.Refused, "too late: %s has all the traffic, and is live", live.Release).
			WithHint("go back: backstep rollback")
	}
	return *in, after.newest, nil
}
