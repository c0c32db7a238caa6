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

// ErrFenced is wrapped by the error of a change whose fencing number is lower than one the target has seen:
// another run has taken over.
var ErrFenced = errors.New("a newer run has taken over")

// ErrUnreachable is wrapped by the error of a target that cannot be asked.
var ErrUnreachable = errors.New("the target cannot be reached")

// Target starts releases beside one another, says how they are, and removes them. Every change carries a
// fencing number, and a number lower than the highest seen is refused with ErrFenced. Every change can be
// repeated: staging what is staged and retiring what is gone do nothing.
type Target interface {
	// Observe says what runs.
	Observe(ctx context.Context) (plan.State, error)
	// Stage starts r without giving it traffic, and returns before it is ready. It fails before anything
	// is changed when the image cannot be had.
	Stage(ctx context.Context, fence uint64, r release.Release) error
	// Retire stops giving d new requests, lets it finish those it has for at most drain, and removes it.
	Retire(ctx context.Context, fence uint64, d release.Digest, drain time.Duration) error
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
	Service     string                                                       // the name that everything on the target is labelled with
	Environment release.Environment                                          // likewise
	Variables   map[string]string                                            // what each release runs with
	EngineAuth  func(ctx context.Context, repository string) (string, error) // the credentials for a repository, as X-Registry-Auth of an engine
	Routed      bool                                                         // a router of the configuration stands in front
}
