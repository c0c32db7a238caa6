package target

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
)

// before is what served behind a load balancer before the first release: servers of somebody else, which can have the traffic again
// and are neither started nor stopped.
type before struct {
	mu    sync.Mutex
	known map[release.ID]release.Release
}

// learn takes over what claims name.
func (b *before) learn(all ...release.Release) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range all {
		if r.Before != "" {
			b.known[r.ID()] = r
		}
	}
}

func (b *before) get(id release.ID) (release.Release, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok := b.known[id]
	return r, ok
}

// protected are the addresses of all of them, with no weight: their places in the load balancer are not for a release to take.
func (b *before) protected() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := map[string]int{}
	for _, r := range b.known {
		for at := range r.Servers() {
			all[at] = 0
		}
	}
	return all
}

// see adds to state what is no instance of it and has traffic, or was named by its claim.
func (b *before) see(ctx context.Context, state *plan.State, weights map[string]int) {
	foreign := maps.Clone(weights)
	for _, in := range state.Instances {
		for _, at := range in.Fronts() {
			delete(foreign, at)
		}
		if in.Phase != plan.Parked && slices.Contains(in.Fronts(), "") {
			foreign = nil // one of ours has lost its address: who has the traffic is perhaps that one
		}
	}
	named := []release.Release{state.Claim.Wanted}
	if state.Claim.Back != nil {
		named = append(named, *state.Claim.Back)
	}
	b.learn(named...)
	for _, r := range named {
		for at := range r.Servers() {
			delete(foreign, at)
		}
	}
	if len(foreign) > 0 {
		r := release.ServedBefore(foreign)
		b.learn(r)
		named = append(named, r)
	}
	for _, r := range named {
		if r.Before != "" && state.Find(r.ID()) == nil {
			state.Instances = append(state.Instances, instanceBefore(ctx, r))
		}
	}
}

// answerTimeout is how long a server may take to take a connection.
const answerTimeout = time.Second

// instanceBefore is how the servers are now: ready when one of them takes connections.
func instanceBefore(ctx context.Context, r release.Release) plan.Instance {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	all := slices.Sorted(maps.Keys(r.Servers()))
	in := plan.Instance{Release: r, Replicas: make([]plan.Replica, len(all))}
	var asked sync.WaitGroup
	for i, at := range all {
		asked.Go(func() {
			in.Replicas[i] = plan.Replica{Phase: plan.Ready, Address: at}
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", at)
			if err != nil {
				in.Replicas[i].Phase, in.Replicas[i].Reason = plan.Starting, err.Error()
				return
			}
			conn.Close()
		})
	}
	asked.Wait()
	in.Sum()
	for _, r := range in.Replicas { // who keeps out those that are down is the load balancer
		if r.Phase == plan.Ready {
			in.Phase, in.Reason = plan.Ready, ""
		}
	}
	return in
}

// errNotOurs is the error of whoever wants to start them.
var errNotOurs = errors.New("it is not ours to start: start what served before by hand")

// start says whether the servers run.
func start(ctx context.Context, r release.Release) error {
	if in := instanceBefore(ctx, r); in.Phase != plan.Ready {
		return errors.Join(errNotOurs, errors.New(strings.TrimSpace(in.Reason)))
	}
	return nil
}
