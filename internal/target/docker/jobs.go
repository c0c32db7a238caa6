package docker

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/moby/moby/api/types/container"

	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/target"
)

var _ target.Employer = (*docker)(nil)

// Employ lets the jobs of the release work, role by role, and lays off those of all others.
func (d *docker) Employ(ctx context.Context, by plan.Token, id release.ID) error {
	if err := d.Holds(ctx, by); err != nil {
		return err
	}
	releases, err := d.releases(ctx, "")
	if err != nil {
		return err
	}
	own := releases[id]             // none of what served before the first release: then nobody's jobs work
	others := map[string]replicas{} // by their roles
	for other, all := range releases {
		if other == id {
			continue
		}
		for _, c := range all.jobs() {
			if !idle(c) {
				others[roleOf(c)] = append(others[roleOf(c)], c)
			}
		}
	}
	var whole spec
	var m *maker
	if len(own) > 0 {
		whole, m = d.wholeOf(own[0]), d.maker(by, releaseOf(own[0].Config.Labels))
	}
	for _, name := range slices.Sorted(maps.Keys(whole.roles)) {
		if err := m.succeed(ctx, name, whole.roles[name], others[name]); err != nil {
			return fmt.Errorf("role %s: %w", name, err)
		}
		delete(others, name)
	}
	for name, all := range others { // roles that the release does not have
		if err := d.dismiss(ctx, by, all); err != nil {
			return fmt.Errorf("role %s: %w", name, err)
		}
	}
	return nil
}

// succeed takes one role from others to the release, in its order.
func (m *maker) succeed(ctx context.Context, name string, r role, others replicas) error {
	if r.order == stopFirst {
		if err := m.dismiss(ctx, m.by, others); err != nil {
			return err
		}
	}
	for n := range r.replicas {
		if err := m.hire(ctx, name, n+1); err != nil {
			return err
		}
	}
	if r.order == stopFirst {
		return nil
	}
	return m.dismiss(ctx, m.by, others)
}

// hire lets one container work.
func (m *maker) hire(ctx context.Context, role string, number int) error {
	c, err := m.made(ctx, role, number)
	if err != nil {
		return err
	}
	if idle(*c) {
		if err := m.restarts(ctx, c.ID, m.wholeOf(*c).restart); err != nil {
			return fmt.Errorf("let the container be started again: %w", err)
		}
		if err := m.rename(ctx, c.ID, m.nameOf(m.release.ID(), role, number)); err != nil {
			return fmt.Errorf("rename the container: %w", err)
		}
	} else if c.State.Running || c.State.Restarting {
		return nil
	}
	if err := m.start(ctx, c.ID); err != nil {
		return fmt.Errorf("start the container: %w", err)
	}
	return nil
}

// dismiss stops containers and makes them idle.
func (d *docker) dismiss(ctx context.Context, by plan.Token, all replicas) error {
	return each(all, func(c container.InspectResponse) error {
		if err := d.ends(ctx, by, c, d.env.Drain); err != nil {
			return err
		}
		return d.layOff(ctx, c, idleEnd)
	})
}
