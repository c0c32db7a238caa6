package target

import (
	"context"
	"fmt"
	"time"

	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/router"
)

// Backend is a target that can stand behind a load balancer.
type Backend interface {
	Target
	// Claim makes fence the highest number that the target has seen, or refuses a lower one with ErrFenced.
	Claim(ctx context.Context, fence uint64) error
}

// Behind is the target b with the load balancer front before it: the weights of its instances are those that
// front gives to their addresses, and the fencing numbers are those of the target.
func Behind(b Backend, front router.Front) (Target, router.Router) {
	r := behind{b, front}
	return r, r
}

type behind struct {
	Backend
	front router.Front
}

func (b behind) Observe(ctx context.Context) (plan.State, error) {
	state, err := b.Backend.Observe(ctx)
	if err != nil {
		return state, err
	}
	weights, err := b.front.Weights(ctx)
	if err != nil {
		return state, err
	}
	sum := 0
	for _, w := range weights {
		sum += w
	}
	for i := range state.Instances {
		in := &state.Instances[i]
		if w := weights[in.Address]; in.Address != "" && w > 0 {
			in.Weight = max(1, w*100/sum)
		}
	}
	return state, nil
}

func (b behind) Shift(ctx context.Context, fence uint64, weights map[release.Digest]int) error {
	if err := b.Claim(ctx, fence); err != nil {
		return err
	}
	state, err := b.Backend.Observe(ctx)
	if err != nil {
		return err
	}
	shares, err := addresses(state, weights)
	if err != nil {
		return err
	}
	return b.front.Shift(ctx, shares)
}

func (b behind) Retire(ctx context.Context, fence uint64, d release.Digest, drain time.Duration) error {
	if err := b.Claim(ctx, fence); err != nil {
		return err
	}
	state, err := b.Backend.Observe(ctx)
	if err != nil {
		return err
	}
	if in := state.Find(d); in != nil && in.Address != "" {
		if err := b.front.Drain(ctx, in.Address, drain); err != nil {
			return err
		}
	}
	return b.Backend.Retire(ctx, fence, d, drain)
}

// addresses is where the traffic goes when each release gets its percentage. All have to be ready, and the
// sum has to be 100.
func addresses(state plan.State, weights map[release.Digest]int) (map[string]int, error) {
	sum, shares := 0, map[string]int{}
	for d, w := range weights {
		in := state.Find(d)
		switch {
		case in == nil:
			return nil, fmt.Errorf("%s is not on the target", d.Short())
		case w < 0:
			return nil, fmt.Errorf("a weight of %d for %s", w, d.Short())
		case w > 0 && in.Phase != plan.Ready:
			return nil, fmt.Errorf("%s is %s, and gets no traffic", in.Release, in.Phase)
		}
		sum += w
		if w > 0 {
			shares[in.Address] += w
		}
	}
	if sum != 100 {
		return nil, fmt.Errorf("the weights add up to %d, want 100", sum)
	}
	return shares, nil
}
