// Package probe is the contract of a configured question to a release.
package probe

import (
	"context"
	"time"

	"github.com/backstep/backstep/internal/input"
)

// Outcome is what one check says. The zero value means that the question could not be asked, which is no
// error of the release.
type Outcome uint8

// The outcomes.
const (
	NoData Outcome = iota
	Pass
	Fail
)

// Result is the answer to one check.
type Result struct {
	Outcome Outcome
	Got     string // what was found when it is not a pass: one line, escaped, at most 200 bytes
	Took    time.Duration
}

// Probe asks one question.
type Probe interface {
	// Check asks once. Address is the host:port of the release itself, which no switch of traffic
	// re-points. The deadline of ctx is the check's; pacing and judging are the caller's. A check opens
	// a new connection, because a kept one goes on asking whom it was made to.
	Check(ctx context.Context, address string) Result
}

// Kind is one kind of probe. To add one: a package below this one with func Kind, probetest passing against
// a real server, well and unwell, a script under testdata, and a line in catalog.
type Kind struct {
	Name string
	Help string
	// New is a fresh probe with the inputs bound to it. Open is called once they are set; it asks nothing.
	New func() (inputs []input.Input, open func() (Probe, error))
}
