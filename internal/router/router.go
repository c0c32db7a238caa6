// Package router is the contract of what moves traffic in front of a target.
package router

import (
	"context"
	"time"

	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
)

// Router sets who gets how much of the traffic.
type Router interface {
	// Shift gives each release its percentage; one that is not named gets none. The sum is 100. When it
	// returns, new connections follow it. It is refused like a change of the target when by is not the token of the
	// claim on the target.
	Shift(ctx context.Context, by plan.Token, weights map[release.ID]int) error
	// Close ends the connections that customers still have with a release that has no traffic any more: those with a request under
	// way after the grace, all others at once. Nothing is left to end where a release without traffic is stopped.
	Close(ctx context.Context, by plan.Token, id release.ID, grace time.Duration) error
}

// Front is a load balancer that stands in front of a target and knows addresses, not releases. An address is
// ip:port. target.Behind makes a Router of it.
type Front interface {
	// Weights says which addresses get traffic, and how much of it relative to one another.
	Weights(ctx context.Context) (map[string]int, error)
	// Shift shares the traffic out to the addresses, by their weights relative to one another; one that is not named, or has a
	// weight of zero, gets no new requests. One that is named keeps its place. It returns once the load balancer says that it is so.
	Shift(ctx context.Context, holds Holds, weights map[string]int) error
	// Drain stops new requests to the address, lets those it has finish for at most drain, and closes the
	// connections that are left. An address that is not known has nothing to drain.
	Drain(ctx context.Context, holds Holds, address string, drain time.Duration) error
}

// Holds returns nil while the claim that a change is made under is the one on the target. It was asked before a Front is; a Front
// that has waited for somebody else's change asks again before it makes its own: meanwhile a newer run may have come and gone.
type Holds func(context.Context) error

// Kind is one kind of load balancer. To add one: a package below this one with func Kind, targettest passing
// with it in front of a target, a script, and a line in catalog.
type Kind struct {
	Name string
	Help string
	// New is a fresh router with the inputs bound to it. Open is called once they are set; it asks nobody.
	New func() (inputs []input.Input, open func() (Front, error))
}
