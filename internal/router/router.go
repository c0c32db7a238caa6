// Package router is the contract of what moves traffic in front of a target.
package router

import (
	"context"

	"github.com/backstep/backstep/internal/release"
)

// Router sets who gets how much of the traffic.
type Router interface {
	// Shift gives each release its percentage; one that is not named gets none. The sum is 100. When it
	// returns, new connections follow it. A lower fencing number than seen is refused like a target's.
	Shift(ctx context.Context, fence uint64, weights map[release.Digest]int) error
}
