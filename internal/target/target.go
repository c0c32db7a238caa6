// Package target is the contract of a place that releases run on.
package target

import (
	"context"
	"errors"
	"time"

	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/router"
)

// ErrFenced is wrapped by the error of a claim that is not above the one on the target, and of a change whose token is
// not the one of the claim on the target: another run has taken over.
var ErrFenced = errors.New("a newer run has taken over")

// ErrUnreachable is wrapped by the error of a target that cannot be reached.
var ErrUnreachable = errors.New("the target cannot be reached")

// Target starts releases side by side, says how they are, and removes them. A run claims the target first; each
// change then carries the token of that claim, and is refused with ErrFenced once a higher claim was made. Every change
// can be repeated: staging what is staged and retiring what is gone do nothing.
type Target interface {
	Fence
	Inventory
	// Stage starts r without giving it traffic, and returns before it is ready. Nothing is changed when the
	// image cannot be had.
	Stage(ctx context.Context, by plan.Token, r release.Release) error
	// Retire stops giving d new requests, lets it finish those it has for at most drain, and removes it.
	Retire(ctx context.Context, by plan.Token, d release.Digest, drain time.Duration) error
}

// Fence keeps the highest claim on a target, and the notes of rollbacks.
type Fence interface {
	// Claim makes c the record of the target. It refuses with ErrFenced when the record has a higher number, or the
	// same number and another holder; the same claim again does nothing. A note is kept together with the claim: it is
	// there when Claim returns nil. Lower records go; a note stays until it is forgotten.
	Claim(ctx context.Context, c plan.Claim, note *plan.Note) error
	// Forget removes the notes with these ids; those that are not there are ignored.
	Forget(ctx context.Context, by plan.Token, ids []string) error
}

// Inventory says what is on a target.
type Inventory interface {
	// Observe says who claimed the target, what runs, and how ready it is. It takes about a second at most, also
	// when a release does not answer.
	Observe(ctx context.Context) (plan.State, error)
	// Find is the one instance of d, or nil; a release that hangs cannot delay what is said of another. Its Weight
	// is not set.
	Find(ctx context.Context, d release.Digest) (*plan.Instance, error)
	// Has says whether r could be staged without its registry.
	Has(ctx context.Context, r release.Release) (bool, error)
	// Logs is the last lines that d has written, the oldest first; none when d is not there.
	Logs(ctx context.Context, d release.Digest, lines int) ([]string, error)
}

// Kind is one kind of target. To add one: a package below this one with func Kind, targettest passing
// against the real thing, a script under testdata, and a line in catalog.
type Kind struct {
	Name       string
	Help       string
	Strategies []plan.Strategy // what it can do without a router of the configuration; the first one is the default
	Routed     []plan.Strategy // what it can do behind one, likewise; empty when it takes none. Its Target is a Backend then.
	// New is a fresh target with the inputs bound to it. Open is called once they are set; it makes no
	// change. The router is the one that the target brings along; it is not asked for when Environment.Routed.
	New func() (inputs []input.Input, open func(Environment) (Target, router.Router, error))
}

// Environment is what a target may need of its surroundings.
type Environment struct {
	Service     string              // the name that everything on the target is labelled with
	Environment release.Environment // likewise
	// Variables are what each release runs with. They are asked for when a release is started, and for nothing else:
	// a secret that is missing must not close the way back to what is warm.
	Variables  func() (map[string]string, error)
	EngineAuth func(ctx context.Context, repository string) (string, error) // the credentials for a repository, as X-Registry-Auth of an engine
	Routed     bool                                                         // a router of the configuration stands in front
}
