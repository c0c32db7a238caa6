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
	"github.com/backstep/backstep/internal/secret"
)

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
	// Park is Retire, but what a start needs stays: Find says that the release is parked, and Stage starts it again.
	Park(ctx context.Context, by plan.Token, id release.ID, drain time.Duration) error
	// Retire stops giving the release new requests, lets it finish those it has for at most drain, and removes it.
	Retire(ctx context.Context, by plan.Token, id release.ID, drain time.Duration) error
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
	// Find is the one instance of the release, or nil; a release that hangs cannot delay what is said of another. Its Weight
	// is not set.
	Find(ctx context.Context, id release.ID) (*plan.Instance, error)
	// Has says whether r could be staged without its registry.
	Has(ctx context.Context, r release.Release) (bool, error)
	// Logs is the last lines that the release has written, the oldest first; none when it is not there.
	Logs(ctx context.Context, id release.ID, lines int) ([]string, error)
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

// Employer is a target whose releases have parts without traffic: jobs.
type Employer interface {
	// Employ lets the jobs of the release work, and those of no other, in the order that its configuration gives. It returns
	// once they were started. Like every change it can be repeated.
	Employ(ctx context.Context, by plan.Token, id release.ID) error
}

// Employ lets the jobs of the release work, where the target knows jobs. It follows the traffic: customers come first.
func Employ(ctx context.Context, t Target, by plan.Token, id release.ID) error {
	if e, ok := t.(Employer); ok {
		return e.Employ(ctx, by, id)
	}
	return nil
}

// Started is what a release is started with.
type Started struct {
	Values map[string][]secret.Value // of the inputs that are OfRelease, by their names, with today's secrets; defaults are left out
	Config release.Configuration     // what they come from, to be kept with what runs
	// Secrets is a fingerprint of all secrets among the values: another one means that one of them has changed.
	Secrets string
}

// Variables are the environment variables among the values, as KEY=VALUE.
func (s Started) Variables() []secret.Value { return s.Values["env"] }

// Environment is what a target may need of its surroundings.
type Environment struct {
	Service     string              // the name that everything on the target is labelled with
	Ledger      string              // the name of the ledger that owns what is on the target
	Drain       time.Duration       // how long a release may finish its requests before it is ended
	Environment release.Environment // likewise
	// Start is what a release is started with. It is called when one is started, and for nothing else: a secret that is
	// missing must not close the way back to what is warm.
	Start      func(release.Release) (Started, error)
	EngineAuth func(ctx context.Context, repository string) (string, error) // the credentials for a repository, as X-Registry-Auth of an engine
	Routed     bool                                                         // a router of the configuration stands in front
}
