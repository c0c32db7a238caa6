package target

import (
	"errors"
	"fmt"
	"slices"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/plan"
)

// ErrFenced is wrapped by the error of a claim that is not above the one on the target, and of a change whose token is
// not the one of the claim on the target: another run has taken over.
var ErrFenced = errors.New("a newer run has taken over")

// ForeignError is the error of a run whose ledger does not own what is on the target.
func ForeignError(owner, ledger string) error {
	return fault.Errorf(fault.Refused, "what is on the target belongs to the ledger %s, not to %s", owner, ledger).
		WithHint("give this service or this environment another name; or, when its registry has moved or was lost: backstep adopt")
}

// Admit is the rule of every fence: why c cannot be made when now is the record, or nil. A higher number goes first, and of one
// number the first holder. A ledger takes over from another one only in a new epoch, and by its name.
func Admit(now, c plan.Claim) error {
	if c.Holder == "" {
		return fmt.Errorf("claim %s names no holder", c.Number)
	}
	if now.Holder == "" {
		return nil
	}
	takesOver := c.Number.Epoch > now.Number.Epoch && slices.Contains(c.Former, now.Ledger)
	if now.Ledger != "" && c.Ledger != "" && now.Ledger != c.Ledger && !takesOver {
		return ForeignError(now.Ledger, c.Ledger)
	}
	if order := c.Number.Compare(now.Number); order < 0 || order == 0 && c.Holder != now.Holder {
		return fmt.Errorf("%w: number %s is not above %s", ErrFenced, c.Number, now.Number)
	}
	return nil
}
