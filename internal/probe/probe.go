// Package probe is the contract of evidence: a probe asks a release a configured question, a meter reads what its customers got.
package probe

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/release"
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

// Subject is a release as evidence finds it.
type Subject struct {
	Address string   // host:port of the release itself; of its first replica
	Fronts  []string // host:port of each replica as a load balancer has it
	Release release.Release
}

// Totals are counters that only rise: the requests of customers that a release has answered since counting began.
type Totals struct {
	Requests int
	Errors   int   // of them, those that failed
	Slower   []int // of them, for each of the meter's bounds, those that took longer
}

// Meter counts what customers get. One that holds something open between two readings is an io.Closer too: Close
// ends a bake, can be repeated, and a Read after it begins a new one.
type Meter interface {
	// Read gives the totals of each subject, in their order; nil for one that is not known, which is no data. Counters
	// that have begun anew are lower than before; the caller sees that.
	Read(ctx context.Context, of []Subject) ([]*Totals, error)
	// Bounds are the bounds of latency, in seconds, rising; none when it counts errors only.
	Bounds() []float64
}

// Historian is a meter that remembers what was before it was asked.
type Historian interface {
	Meter
	// History gives the totals of the subject from the hour before now, in their order, step apart; nil where there are none.
	History(ctx context.Context, of Subject, step time.Duration) ([]*Totals, error)
}

// Alert is what somebody else has found to be wrong with a service.
type Alert struct {
	ID    string    // the same for as long as the alert is the same
	Since time.Time // when it began, by the clock of who says so; zero when that is not known
	Text  string    // its name and what it says: one line, escaped, at most 200 bytes
}

// Watch says which alerts are firing. They are about a service and not about one release of it: nothing is asked of two, and a new alert is
// a verdict by itself.
type Watch interface {
	// Firing gives the alerts about the subject, and what the time is by the clock of who says so, whole seconds at least. An error is no
	// evidence either way.
	Firing(ctx context.Context, of Subject) (alerts []Alert, now time.Time, err error)
}

// Kind is one kind of evidence. To add one: a package below this one with func Kind, probetest passing against
// a real server, well and unwell, a script under testdata, and a line in catalog.
type Kind struct {
	Name  string
	Help  string
	Every time.Duration // how often it asks when nothing is said
	Skew  time.Duration // how far apart a meter may read two releases; 0 is at one instant
	// New is a fresh probe, NewMeter a fresh meter, NewWatch a fresh watch, with the inputs bound to it; a kind has one of the three.
	// Open is called once they are set; it asks nothing.
	New      func() (inputs []input.Input, open func() (Probe, error))
	NewMeter func() (inputs []input.Input, open func() (Meter, error))
	NewWatch func() (inputs []input.Input, open func() (Watch, error))
}

// Inputs are the inputs of the kind, not bound to anything in use.
func (k Kind) Inputs() []input.Input {
	var inputs []input.Input
	switch {
	case k.New != nil:
		inputs, _ = k.New()
	case k.NewMeter != nil:
		inputs, _ = k.NewMeter()
	default:
		inputs, _ = k.NewWatch()
	}
	return inputs
}

// ParseBounds reads bounds of latency, in seconds, rising.
func ParseBounds(given []string) ([]float64, error) {
	var bounds []float64
	for _, s := range given {
		bound, err := strconv.ParseFloat(s, 64)
		if err != nil || !(bound > 0) || len(bounds) > 0 && bound <= bounds[len(bounds)-1] {
			return nil, fault.Inputf("bounds %s: want rising seconds", strings.Join(given, ", "))
		}
		bounds = append(bounds, bound)
	}
	return bounds, nil
}

// gotLimit bounds Result.Got, in bytes.
const gotLimit = 200

// Line makes one printable line of what a server said.
func Line(s string) string {
	s = strconv.Quote(strings.TrimSpace(s[:min(len(s), gotLimit)]))
	s = s[1 : len(s)-1]
	return s[:min(len(s), gotLimit)]
}

// Unanswered tells a release that does not answer from a question that could not be asked.
func Unanswered(ctx context.Context, err error) (Outcome, string) {
	if errors.Is(ctx.Err(), context.Canceled) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
		errors.Is(err, syscall.EADDRNOTAVAIL) {
		return NoData, Line(err.Error())
	}
	var timeout net.Error
	if errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		return Fail, "no answer in time"
	}
	return Fail, Line(err.Error())
}

// Checked runs ask and takes its time.
func Checked(ask func() (Outcome, string)) Result {
	begin := time.Now()
	outcome, got := ask()
	return Result{Outcome: outcome, Got: got, Took: time.Since(begin)}
}
