package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/target"
)

// portTries is how often a container is made anew because its port was taken.
const portTries = 5

// Stage looks at the token after the pull, which may take minutes. What has ended, or is parked, is started again, and made anew
// first when its secrets have changed since.
func (d *docker) Stage(ctx context.Context, by plan.Token, r release.Release) error {
	there, err := d.replicas(ctx, r.ID())
	if err != nil {
		return err
	}
	m := d.maker(by, r)
	var whole spec
	if len(there) > 0 {
		whole = d.wholeOf(there[0])
	} else if whole, err = m.pulled(ctx); err != nil {
		return err
	}
	if err := d.Holds(ctx, by); err != nil {
		return err
	}
	for n := range whole.replicas {
		if err := m.bring(ctx, n+1); err != nil {
			return err
		}
	}
	for name, r := range whole.roles {
		for n := range r.replicas {
			if _, err := m.made(ctx, name, n+1); err != nil { // it is started when the release has the traffic
				return err
			}
		}
	}
	return nil
}

// bring makes the container of one replica run, as far as the target lets two run.
func (m *maker) bring(ctx context.Context, number int) error {
	d := m.docker
	for try := 1; ; try++ {
		c, err := m.made(ctx, "", number)
		if err != nil {
			return err
		}
		s := d.specOf(*c)
		if err := d.attach(ctx, *c, s); err != nil {
			return err
		}
		if err := d.unpark(ctx, *c, s, number); err != nil {
			return err
		}
		if c.State.Running || !d.env.Routed && !d.serves(*c) { // without a router it starts when it takes the place of the old one
			return nil
		}
		err = d.start(ctx, c.ID)
		if err == nil {
			return nil
		}
		if !d.env.Routed || !portTaken(err) || try == portTries {
			return fmt.Errorf("start the container: %w", err)
		}
		if err := d.remove(ctx, c.ID); err != nil {
			return err
		}
	}
}

func portTaken(err error) bool {
	return strings.Contains(err.Error(), "port is already allocated") || strings.Contains(err.Error(), "address already in use")
}

func (d *docker) start(ctx context.Context, id string) error {
	_, err := ask(ctx, d.limit, func(ctx context.Context) (client.ContainerStartResult, error) {
		return d.engine.ContainerStart(ctx, id, client.ContainerStartOptions{})
	})
	return err
}

// stop ends a container, after grace by force. One that is gone has ended.
func (d *docker) stop(ctx context.Context, c container.InspectResponse, grace time.Duration) error {
	grace = cmp.Or(d.specOf(c).stopTimeout, grace)
	seconds := int(math.Ceil(grace.Seconds()))
	_, err := ask(ctx, grace+stopTimeout, func(ctx context.Context) (client.ContainerStopResult, error) {
		return d.engine.ContainerStop(ctx, c.ID, client.ContainerStopOptions{Timeout: &seconds})
	})
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

func (d *docker) rename(ctx context.Context, id, name string) error {
	_, err := ask(ctx, d.limit, func(ctx context.Context) (client.ContainerRenameResult, error) {
		return d.engine.ContainerRename(ctx, id, client.ContainerRenameOptions{NewName: name})
	})
	return err
}

// restarts sets what the engine does when the container ends, or when the engine itself is started again.
func (d *docker) restarts(ctx context.Context, id, policy string) error {
	_, err := ask(ctx, d.limit, func(ctx context.Context) (client.ContainerUpdateResult, error) {
		return d.engine.ContainerUpdate(ctx, id, client.ContainerUpdateOptions{
			RestartPolicy: &container.RestartPolicy{Name: container.RestartPolicyMode(policy)}})
	})
	return err
}

func (d *docker) remove(ctx context.Context, id string) error {
	_, err := ask(ctx, d.limit, func(ctx context.Context) (client.ContainerRemoveResult, error) {
		return d.engine.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	})
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove the container: %w", err)
	}
	return nil
}

// unpark gives a parked container its name and its restarts back. Only then is it started.
func (d *docker) unpark(ctx context.Context, c container.InspectResponse, s spec, number int) error {
	if !parked(c) {
		return nil
	}
	if d.env.Routed { // else it is started, and gets its restarts back, when it takes the place of the one that serves
		if err := d.restarts(ctx, c.ID, s.restart); err != nil {
			return fmt.Errorf("let the container be started again: %w", err)
		}
	}
	if err := d.rename(ctx, c.ID, d.nameOf(releaseOf(c.Config.Labels).ID(), roleOf(c), number)); err != nil {
		return fmt.Errorf("rename the container: %w", err)
	}
	return nil
}

// Shift is the router where there is none: it stops the release that serves and starts the other in its
// place, under the plain name. The old container stays, stopped: going back starts it again.
func (d *docker) Shift(ctx context.Context, by plan.Token, weights map[release.ID]int) error {
	if err := d.Holds(ctx, by); err != nil {
		return err
	}
	releases, err := d.releases(ctx, "")
	if err != nil {
		return err
	}
	var to release.ID
	for id, w := range weights {
		switch {
		case len(releases[id].web()) == 0:
			return fmt.Errorf("%s is not on the target", id.Short())
		case w != 100 || len(weights) != 1:
			return fault.Inputf("target docker: without a router one release has all the traffic")
		}
		to = id
	}
	if to == "" {
		return errors.New("nobody would get the traffic")
	}
	for id, all := range releases {
		web := all.web()
		if id == to || len(web) == 0 || !d.serves(web[0]) {
			continue
		}
		if err := d.ends(ctx, by, web[0], d.env.Drain); err != nil {
			return fmt.Errorf("%s: %w", id.Short(), err)
		}
		if err := d.restarts(ctx, web[0].ID, "no"); err != nil { // both would start with the engine, on one port
			return fmt.Errorf("keep %s stopped: %w", id.Short(), err)
		}
		if err := d.rename(ctx, web[0].ID, d.nameOf(id, "", 1)); err != nil {
			return fmt.Errorf("rename %s: %w", id.Short(), err)
		}
	}
	c := releases[to].web()[0]
	if err := d.unpark(ctx, c, d.specOf(c), 1); err != nil {
		return err
	}
	if !d.serves(c) {
		if err := d.rename(ctx, c.ID, d.name()); err != nil {
			return fmt.Errorf("rename %s: %w", to.Short(), err)
		}
	}
	if err := d.restarts(ctx, c.ID, d.specOf(c).restart); err != nil {
		return fmt.Errorf("let %s be started again: %w", to.Short(), err)
	}
	if err := d.start(ctx, c.ID); err != nil {
		return fmt.Errorf("start %s: %w", to.Short(), err)
	}
	return nil
}

// Close has nothing to do: what does not serve does not run.
func (d *docker) Close(context.Context, plan.Token, release.ID, time.Duration) error { return nil }

func (d *docker) Retire(ctx context.Context, by plan.Token, id release.ID, drain time.Duration) error {
	return d.leave(ctx, by, id, drain, func(c container.InspectResponse) error { return d.remove(ctx, c.ID) })
}

// Park renames a container: one that is stopped by itself looks like one that has ended.
func (d *docker) Park(ctx context.Context, by plan.Token, id release.ID, drain time.Duration) error {
	return d.leave(ctx, by, id, drain, func(c container.InspectResponse) error {
		end := parkedEnd
		if roleOf(c) != "" {
			end = idleEnd
		}
		return d.layOff(ctx, c, end)
	})
}

// layOff gives a container that is stopped a name that says so, and keeps the engine from starting it again, as "always" would when
// the engine itself is started.
func (d *docker) layOff(ctx context.Context, c container.InspectResponse, end string) error {
	if strings.HasSuffix(c.Name, end) {
		return nil
	}
	if err := d.restarts(ctx, c.ID, "no"); err != nil {
		return fmt.Errorf("keep the container stopped: %w", err)
	}
	if err := d.rename(ctx, c.ID, d.nameOf(releaseOf(c.Config.Labels).ID(), roleOf(c), numbered(c))+end); err != nil {
		return fmt.Errorf("rename the container: %w", err)
	}
	return nil
}

// leave stops the containers of a release side by side, and then does with each what comes after.
func (d *docker) leave(ctx context.Context, by plan.Token, id release.ID, drain time.Duration, then func(container.InspectResponse) error) error {
	if err := d.Holds(ctx, by); err != nil {
		return err
	}
	all, err := d.replicas(ctx, id)
	if err != nil {
		return err
	}
	return each(all, func(c container.InspectResponse) error {
		if err := d.ends(ctx, by, c, drain); err != nil {
			return err
		}
		return then(c)
	})
}

// ends stops a container, which may take as long as the grace, and looks at the claim again: when somebody else has it by then, what
// was stopped may be what they want, and is started again.
func (d *docker) ends(ctx context.Context, by plan.Token, c container.InspectResponse, grace time.Duration) error {
	if err := d.stop(ctx, c, grace); err != nil {
		return fmt.Errorf("stop the container: %w", err)
	}
	err := d.Holds(ctx, by)
	if errors.Is(err, target.ErrFenced) && c.State.Running {
		return errors.Join(err, d.start(context.WithoutCancel(ctx), c.ID))
	}
	return err
}
