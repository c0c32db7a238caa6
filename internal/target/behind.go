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
	// Holds returns nil while by is the token of the claim on the target, and ErrFenced afterwards.
	Holds(ctx context.Context, by plan.Token) error
}

// Behind is the target b with the load balancer front before it: the weights of its instances are those that
// front gives to their addresses, and the claims are those of the target.
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

// Shift looks at the releases that get traffic and at no other: one that hangs must not hold up the way back.
func (b behind) Shift(ctx context.Context, by plan.Token, weights map[release.Digest]int) error {
	if err := b.Holds(ctx, by); err != nil {
		return err
	}
	var state plan.State
	for d := range weights {
		in, err := b.Find(ctx, d)
		if err != nil {
			return err
		}
		if in != nil {
			state.Instances = append(state.Instances, *in)
		}
	}
	shares, err := addresses(state, weights)
	if err != nil {
		return err
	}
	return b.front.Shift(ctx, shares)
}

func (b behind) Retire(ctx context.Context, by plan.Token, d release.Digest, drain time.Duration) error {
	if err := b.Holds(ctx, by); err != nil {
		return err
	}
	in, err := b.Find(ctx, d)
	if err != nil {
		return err
	}
	if in != nil && in.Address != "" {
		if err := b.front.Drain(ctx, in.Address, drain); err != nil {
			return err
		}
	}
	return b.Backend.Retire(ctx, by, d, drain)
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
