package target

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
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
	r := behind{b, front, &before{known: map[release.ID]release.Release{}}}
	return r, r
}

type behind struct {
	Backend
	front  router.Front
	before *before
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
	b.before.see(ctx, &state, weights)
	sum := 0
	for _, w := range weights {
		sum += w
	}
	for i := range state.Instances {
		in := &state.Instances[i]
		own := 0
		for _, at := range in.Fronts() {
			own += weights[at]
		}
		if own > 0 {
			in.Weight = max(1, own*100/sum)
		}
	}
	return state, nil
}

func (b behind) Claim(ctx context.Context, c plan.Claim, note *plan.Note) error {
	b.before.learn(c.Wanted)
	if c.Back != nil {
		b.before.learn(*c.Back)
	}
	return b.Backend.Claim(ctx, c, note)
}

func (b behind) Find(ctx context.Context, id release.ID) (*plan.Instance, error) {
	if r, ok := b.before.get(id); ok {
		in := instanceBefore(ctx, r)
		return &in, nil
	}
	return b.Backend.Find(ctx, id)
}

func (b behind) Has(ctx context.Context, r release.Release) (bool, error) {
	if b.before.learn(r); r.Before != "" {
		return true, nil
	}
	return b.Backend.Has(ctx, r)
}

func (b behind) Stage(ctx context.Context, by plan.Token, r release.Release) error {
	if b.before.learn(r); r.Before != "" {
		return errors.Join(b.Holds(ctx, by), start(ctx, r))
	}
	return b.Backend.Stage(ctx, by, r)
}

// Shift looks at the releases that get traffic and at no other: one that hangs must not hold up the way back.
func (b behind) Shift(ctx context.Context, by plan.Token, weights map[release.ID]int) error {
	if err := b.Holds(ctx, by); err != nil {
		return err
	}
	var state plan.State
	for id := range weights {
		in, err := b.Find(ctx, id)
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
	all := b.before.protected()
	maps.Copy(all, shares)
	return b.front.Shift(ctx, b.holds(by), all)
}

func (b behind) Employ(ctx context.Context, by plan.Token, id release.ID) error {
	return Employ(ctx, b.Backend, by, id)
}

func (b behind) Close(ctx context.Context, by plan.Token, id release.ID, grace time.Duration) error {
	return b.leave(ctx, by, id, grace, func(context.Context, plan.Token, release.ID, time.Duration) error { return nil })
}

func (b behind) Retire(ctx context.Context, by plan.Token, id release.ID, drain time.Duration) error {
	return b.leave(ctx, by, id, drain, b.Backend.Retire)
}

func (b behind) Park(ctx context.Context, by plan.Token, id release.ID, drain time.Duration) error {
	return b.leave(ctx, by, id, drain, b.Backend.Park)
}

// leave takes the release out of the load balancer before it leaves the target.
func (b behind) leave(ctx context.Context, by plan.Token, id release.ID, drain time.Duration,
	then func(context.Context, plan.Token, release.ID, time.Duration) error) error {
	if err := b.Holds(ctx, by); err != nil {
		return err
	}
	in, err := b.Find(ctx, id)
	if err != nil {
		return err
	}
	if in != nil {
		if err := b.drain(ctx, by, in.Fronts(), drain); err != nil {
			return err
		}
	}
	if _, ok := b.before.get(id); ok {
		return nil // it goes on running, without traffic
	}
	return then(ctx, by, id, drain)
}

// holds is Holds of one token.
func (b behind) holds(by plan.Token) router.Holds {
	return func(ctx context.Context) error { return b.Holds(ctx, by) }
}

// drain drains all addresses side by side.
func (b behind) drain(ctx context.Context, by plan.Token, all []string, drain time.Duration) error {
	faults := make([]error, len(all))
	var each sync.WaitGroup
	for i, at := range all {
		if at != "" {
			each.Go(func() { faults[i] = b.front.Drain(ctx, b.holds(by), at, drain) })
		}
	}
	each.Wait()
	return errors.Join(faults...)
}

// addresses is where the traffic goes when each release gets its percentage. All have to be ready, and the
// sum has to be 100.
func addresses(state plan.State, weights map[release.ID]int) (map[string]int, error) {
	sum, shares := 0, map[string]int{}
	for id, w := range weights {
		in := state.Find(id)
		switch {
		case in == nil:
			return nil, fmt.Errorf("%s is not on the target", id.Short())
		case w < 0:
			return nil, fmt.Errorf("a weight of %d for %s", w, id.Short())
		case w > 0 && in.Phase != plan.Ready:
			return nil, fmt.Errorf("%s is %s, and gets no traffic", in.Release, in.Phase)
		}
		sum += w
		if in.Release.Before != "" {
			servers, total := in.Release.Servers(), 0
			for _, own := range servers {
				total += own
			}
			for at, own := range servers {
				if w > 0 {
					shares[at] += max(1, w*own/max(1, total))
				}
			}
			continue
		}
		for i, at := range in.Fronts() {
			// The first ones get what is left over: 50 % for three are 17, 17 and 16.
			n := len(in.Fronts())
			share := w / n
			if i < w%n {
				share++
			}
			if share > 0 {
				shares[at] += share
			}
		}
	}
	if sum != 100 {
		return nil, fmt.Errorf("the weights add up to %d, want 100", sum)
	}
	return shares, nil
}
