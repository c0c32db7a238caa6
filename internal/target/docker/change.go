package docker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
)

// portTries is how often a container is made anew because its port was taken.
const portTries = 5

// Stage looks at the token after the pull, which may take minutes. What has ended is started again, as it is.
func (d *docker) Stage(ctx context.Context, by plan.Token, r release.Release) error {
	there, err := d.container(ctx, r.Digest)
	if err != nil {
		return err
	}
	if there == nil {
		if err := d.pull(ctx, r); err != nil {
			return err
		}
	}
	if err := d.Holds(ctx, by); err != nil {
		return err
	}
	for try := 1; ; try++ {
		c, err := d.made(ctx, by, r)
		if err != nil {
			return err
		}
		if err := d.attach(ctx, *c); err != nil {
			return err
		}
		if s := c.State; s.Running || !d.env.Routed && !d.serves(*c) { // without a router it starts when it takes the place of the old one
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

// nameTime is how long a container that takes the name of another one may stay out of the engine's list.
const nameTime = 5 * time.Second

// made is the container of r, which is created unless it is there. One that the engine has given up is replaced.
func (d *docker) made(ctx context.Context, by plan.Token, r release.Release) (*container.InspectResponse, error) {
	var taken error // the name is: by one that is about to be there, or by one that is none of ours
	for end := time.Now().Add(nameTime); ; {
		c, err := d.container(ctx, r.Digest)
		if err != nil {
			return nil, err
		}
		switch {
		case c != nil && !c.State.Dead:
			return c, nil
		case c != nil:
			if err := d.remove(ctx, c.ID); err != nil {
				return nil, err
			}
		case taken != nil && time.Now().After(end):
			return nil, taken
		}
		if taken = d.create(ctx, by, r); taken != nil && !errdefs.IsConflict(taken) {
			return nil, taken
		}
		if taken != nil {
			select {
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
}

func (d *docker) start(ctx context.Context, id string) error {
	_, err := ask(ctx, d.limit, func(ctx context.Context) (client.ContainerStartResult, error) {
		return d.engine.ContainerStart(ctx, id, client.ContainerStartOptions{})
	})
	return err
}

// stop ends a container, after grace by force. One that is gone has ended.
func (d *docker) stop(ctx context.Context, id string, grace time.Duration) error {
	seconds := int(math.Ceil(grace.Seconds()))
	_, err := ask(ctx, grace+stopTimeout, func(ctx context.Context) (client.ContainerStopResult, error) {
		return d.engine.ContainerStop(ctx, id, client.ContainerStopOptions{Timeout: &seconds})
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

func (d *docker) remove(ctx context.Context, id string) error {
	_, err := ask(ctx, d.limit, func(ctx context.Context) (client.ContainerRemoveResult, error) {
		return d.engine.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	})
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove the container: %w", err)
	}
	return nil
}

// pull gets the image by its digest, unless the engine has it.
func (d *docker) pull(ctx context.Context, r release.Release) error {
	if has, err := d.image(ctx, r); has || err != nil {
		return err
	}
	auth, err := d.env.EngineAuth(ctx, r.Repository)
	if err != nil {
		return err
	}
	pulling, err := d.engine.ImagePull(ctx, r.Reference(), client.ImagePullOptions{RegistryAuth: auth})
	if err == nil {
		err = errors.Join(pulling.Wait(ctx), pulling.Close())
	}
	if err != nil {
		return fault.Errorf(fault.Failed, "pull %s: %w", r.Reference(), told(ctx, ctx, err)).
			WithHint("the engine has to reach the registry by this name, and to trust it")
	}
	return nil
}

// variables are what a release runs with, as KEY=VALUE.
func (d *docker) variables(r release.Release) ([]string, error) {
	env := []string{"BACKSTEP_RELEASE=" + string(r.Digest), "BACKSTEP_VERSION=" + r.Version}
	if d.env.Variables == nil {
		return env, nil
	}
	all, err := d.env.Variables()
	for _, key := range slices.Sorted(maps.Keys(all)) {
		env = append(env, key+"="+all[key])
	}
	return env, err
}

// binding is where the port is published. Behind a router it is a port that is free now, and that the container keeps when
// it is restarted: the load balancer knows it by that. Where the address is not one of this machine, the engine chooses,
// anew at each start.
func (d *docker) binding() network.PortBinding {
	b := d.publish
	if b.HostPort != "" {
		return b
	}
	for range 100 {
		port := strconv.Itoa(lowPort + rand.N(highPort-lowPort))
		l, err := net.Listen("tcp", net.JoinHostPort(b.HostIP.String(), port))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return b
		}
		l.Close()
		b.HostPort = port
		return b
	}
	return b
}

// The ports that are chosen from, highPort excluded. From there on Linux gives them to outgoing connections, those of the
// load balancer to the releases too: one of them could have the port when the container is restarted.
const (
	lowPort  = 20000
	highPort = 32768
)

func (d *docker) create(ctx context.Context, by plan.Token, r release.Release) error {
	labels := d.labels()
	maps.Copy(labels, map[string]string{labelDigest: string(r.Digest), labelRepository: r.Repository, labelVersion: r.Version,
		labelCommit: r.Commit, labelNumber: by.Number.String()})
	env, err := d.variables(r)
	if err != nil {
		return err
	}
	cpus, _ := strconv.ParseFloat("0"+d.cpus, 64) // by its declaration
	config := &container.Config{Image: r.Reference(), Labels: labels, Env: env, User: d.user,
		ExposedPorts: network.PortSet{d.portNumber(): {}}}
	settings := &container.HostConfig{Binds: d.volumes, ReadonlyRootfs: d.readOnly,
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyMode(d.restart)},
		Resources:     container.Resources{Memory: size(d.memory), NanoCPUs: int64(cpus * 1e9)}}
	if d.publish.HostIP.IsValid() {
		settings.PortBindings = network.PortMap{d.portNumber(): {d.binding()}}
	}
	if len(d.networks) > 0 {
		settings.NetworkMode = container.NetworkMode(d.networks[0])
	}
	_, err = ask(ctx, d.limit, func(ctx context.Context) (client.ContainerCreateResult, error) {
		return d.engine.ContainerCreate(ctx, client.ContainerCreateOptions{Name: d.nameOf(r.Digest), Config: config, HostConfig: settings})
	})
	if err != nil {
		return fmt.Errorf("create the container: %w", err)
	}
	return nil
}

// attach adds the networks after the first, which a container is made with.
func (d *docker) attach(ctx context.Context, c container.InspectResponse) error {
	for _, name := range d.networks[min(1, len(d.networks)):] {
		if c.NetworkSettings != nil && c.NetworkSettings.Networks[name] != nil {
			continue
		}
		_, err := ask(ctx, d.limit, func(ctx context.Context) (client.NetworkConnectResult, error) {
			return d.engine.NetworkConnect(ctx, name, client.NetworkConnectOptions{Container: c.ID})
		})
		if err != nil {
			return fmt.Errorf("attach the container to network %s: %w", name, err)
		}
	}
	return nil
}

// stopGrace is what a release gets to end by itself when another one takes its place: a shift has no drain, and customers
// wait.
const stopGrace = 10 * time.Second

// Shift is the router where there is none: it stops the release that serves and starts the other in its
// place, under the plain name. The old container stays, stopped: going back starts it again.
func (d *docker) Shift(ctx context.Context, by plan.Token, weights map[release.Digest]int) error {
	if err := d.Holds(ctx, by); err != nil {
		return err
	}
	containers, err := d.containers(ctx, "")
	if err != nil {
		return err
	}
	var to release.Digest
	for digest, w := range weights {
		_, there := containers[digest]
		switch {
		case !there:
			return fmt.Errorf("%s is not on the target", digest.Short())
		case w != 100 || len(weights) != 1:
			return fault.Inputf("target docker: without a router one release has all the traffic")
		}
		to = digest
	}
	if to == "" {
		return errors.New("nobody would get the traffic")
	}
	for digest, c := range containers {
		if digest == to || !d.serves(c) {
			continue
		}
		if err := d.stop(ctx, c.ID, stopGrace); err != nil {
			return fmt.Errorf("stop %s: %w", digest.Short(), err)
		}
		if err := d.rename(ctx, c.ID, d.nameOf(digest)); err != nil {
			return fmt.Errorf("rename %s: %w", digest.Short(), err)
		}
	}
	c := containers[to]
	if !d.serves(c) {
		if err := d.rename(ctx, c.ID, d.name()); err != nil {
			return fmt.Errorf("rename %s: %w", to.Short(), err)
		}
	}
	if err := d.start(ctx, c.ID); err != nil {
		return fmt.Errorf("start %s: %w", to.Short(), err)
	}
	return nil
}

func (d *docker) Retire(ctx context.Context, by plan.Token, digest release.Digest, drain time.Duration) error {
	if err := d.Holds(ctx, by); err != nil {
		return err
	}
	c, err := d.container(ctx, digest)
	if c == nil || err != nil {
		return err
	}
	if err := d.stop(ctx, c.ID, drain); err != nil {
		return fmt.Errorf("stop the container: %w", err)
	}
	return d.remove(ctx, c.ID)
}
