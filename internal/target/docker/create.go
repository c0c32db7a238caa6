package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/secret"
	"github.com/backstep/backstep/internal/target"
)

// maker makes the containers of one release. What they are started with is found out when one has to be made, once.
type maker struct {
	*docker
	by      plan.Token
	release release.Release
	with    func() (spec, target.Started, error)
}

func (d *docker) maker(by plan.Token, r release.Release) *maker {
	m := &maker{docker: d, by: by, release: r}
	var (
		once sync.Once
		s    spec
		with target.Started
		err  error
	)
	m.with = func() (spec, target.Started, error) {
		once.Do(func() {
			if s = d.spec; d.env.Start == nil {
				return
			}
			if with, err = d.env.Start(r); err == nil {
				s, err = specOf(with.Values)
			}
		})
		return s, with, err
	}
	return m
}

// pulled gets the image by its digest, unless the engine has it, and returns what is to be made of it. One that brings labels of ours
// is refused: they would stand on its containers.
func (m *maker) pulled(ctx context.Context) (spec, error) {
	s, _, err := m.with()
	if err != nil {
		return s, err
	}
	image, err := m.image(ctx, m.release)
	if err != nil {
		return s, err
	}
	if image == nil {
		if err := m.pull(ctx); err != nil {
			return s, err
		}
		if image, err = m.image(ctx, m.release); err != nil {
			return s, err
		}
	}
	if image == nil || image.Config == nil {
		return s, nil
	}
	return s, registry.RefuseLabels(m.release.Repository, image.Config.Labels)
}

func (m *maker) pull(ctx context.Context) error {
	auth, err := m.env.EngineAuth(ctx, m.release.Repository)
	if err != nil {
		return err
	}
	pulling, err := m.engine.ImagePull(ctx, m.release.Reference(), client.ImagePullOptions{RegistryAuth: auth})
	if err == nil {
		err = errors.Join(pulling.Wait(ctx), pulling.Close())
	}
	if err != nil {
		return fault.Errorf(fault.Failed, "pull %s: %w", m.release.Reference(), told(ctx, ctx, err)).
			WithHint("the engine has to reach the registry by this name, and to trust it")
	}
	return nil
}

// nameTime is how long a container that takes the name of another one may stay out of the engine's list.
const nameTime = 5 * time.Second

// made is the container of a replica, which is created unless it is there. One that the engine has given up is replaced, and so is
// one that does not run and has secrets of the past.
func (m *maker) made(ctx context.Context, role string, number int) (*container.InspectResponse, error) {
	var taken error // the name is: by one that is about to be there, or by one that is none of ours
	for end := time.Now().Add(nameTime); ; {
		all, err := m.replicas(ctx, m.release.ID())
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(all, func(c container.InspectResponse) bool { return roleOf(c) == role && numbered(c) == number })
		switch {
		case i >= 0 && !all[i].State.Dead && !m.outdated(all[i]):
			return &all[i], nil
		case i >= 0:
			if err := m.remove(ctx, all[i].ID); err != nil {
				return nil, err
			}
		case taken != nil && time.Now().After(end):
			return nil, fmt.Errorf("%w; it belongs to another ledger, or to nobody: remove it, or give this service another name", taken)
		}
		if taken = m.create(ctx, role, number); taken != nil && !errdefs.IsConflict(taken) {
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

// outdated says whether a container that does not run was made with other secrets than those of today. When they cannot be had, it
// is better than none.
func (m *maker) outdated(c container.InspectResponse) bool {
	if c.State.Running || c.State.Restarting || m.env.Start == nil || m.serves(c) {
		return false
	}
	_, with, err := m.with()
	return err == nil && c.Config.Labels[labelSecrets] != with.Secrets
}

// variables are what a release runs with, as KEY=VALUE.
func variables(r release.Release, own []secret.Value) []string {
	all := []string{"BACKSTEP_RELEASE=" + string(r.Digest), "BACKSTEP_VERSION=" + r.Version}
	for _, v := range own {
		all = append(all, v.Reveal())
	}
	return all
}

// create makes a container. One of a role is idle until its release has the traffic.
func (m *maker) create(ctx context.Context, role string, number int) error {
	whole, with, err := m.with()
	if err != nil {
		return err
	}
	config, err := json.Marshal(with.Config)
	if err != nil {
		return err
	}
	r, s, name, own := m.release, whole.as(role), m.nameOf(m.release.ID(), role, number), with.Variables()
	if role != "" {
		name, s.restart = name+idleEnd, "no"
		for _, key := range slices.Sorted(maps.Keys(whole.roles[role].env)) {
			own = append(slices.Clone(own), secret.New(key+"="+whole.roles[role].env[key].Reveal()))
		}
	}
	labels := m.labels()
	maps.Copy(labels, map[string]string{labelDigest: string(r.Digest), labelPrint: string(r.Config), labelConfig: string(config),
		labelSecrets: with.Secrets, labelRepository: r.Repository, labelVersion: r.Version, labelCommit: r.Commit,
		labelNumber: m.by.Number.String(), labelRole: role, labelReplica: strconv.Itoa(number), labelLedger: m.env.Ledger})
	var at network.PortBinding // nobody asks a job
	if role == "" {
		if at, err = s.publication(m.env.Routed); err != nil {
			return err
		}
	}
	log, err := m.log(ctx, s)
	if err != nil {
		return err
	}
	made, err := ask(ctx, m.limit, func(ctx context.Context) (client.ContainerCreateResult, error) {
		return m.engine.ContainerCreate(ctx, client.ContainerCreateOptions{Name: name,
			Config: s.config(r.Reference(), labels, variables(r, own)), HostConfig: s.hostConfig(kept(at), log)})
	})
	if err != nil {
		return fmt.Errorf("create the container: %w", err)
	}
	if err := m.putSecrets(ctx, made.ID, s.files); err != nil {
		return errors.Join(err, m.remove(ctx, made.ID))
	}
	return nil
}

// log is where the output of the containers goes. The engine is asked for its own driver: its settings are not ours to change.
func (m *maker) log(ctx context.Context, s spec) (container.LogConfig, error) {
	info, err := ask(ctx, m.limit, func(ctx context.Context) (client.SystemInfoResult, error) {
		return m.engine.Info(ctx, client.InfoOptions{})
	})
	if err != nil {
		return container.LogConfig{}, err
	}
	return s.logging(info.Info.LoggingDriver)
}

// secretsDir is where secrets are files. It is a volume of the container's own, so that they get there before it is started, also
// when it cannot write to its own files, and are removed with it.
const secretsDir = "/run/secrets"

func (m *maker) putSecrets(ctx context.Context, id string, files map[string]secret.Value) error {
	if len(files) == 0 {
		return nil
	}
	var text bytes.Buffer
	w := tar.NewWriter(&text)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		// Who it runs as is not known; in the container there is nobody else.
		content := []byte(files[name].Reveal())
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o444, Size: int64(len(content))}); err != nil {
			return err
		}
		if _, err := w.Write(content); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	_, err := ask(ctx, m.limit, func(ctx context.Context) (client.CopyToContainerResult, error) {
		return m.engine.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: secretsDir, Content: &text})
	})
	if err != nil {
		return fmt.Errorf("put the secrets into the container: %w", err)
	}
	return nil
}

// kept is where a port is published for good: where none was named, it is one that is free now, and that the container keeps when it
// is restarted: the load balancer knows it by that. Where the address is not one of this machine, the engine chooses, anew at each
// start.
func kept(at network.PortBinding) network.PortBinding {
	if at.HostPort != "" || !at.HostIP.IsValid() {
		return at
	}
	for range 100 {
		port := strconv.Itoa(lowPort + rand.N(highPort-lowPort)) // #nosec G404 -- one that is taken is tried again
		l, err := net.Listen("tcp", net.JoinHostPort(at.HostIP.String(), port))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return at
		}
		l.Close()
		at.HostPort = port
		return at
	}
	return at
}

// The ports that are chosen from, highPort excluded. From there on Linux gives them to outgoing connections, those of the
// load balancer to the releases too: one of them could have the port when the container is restarted.
const (
	lowPort  = 20000
	highPort = 32768
)

// attach adds the networks after the first, which a container is made with.
func (d *docker) attach(ctx context.Context, c container.InspectResponse, s spec) error {
	for _, name := range s.networks[min(1, len(s.networks)):] {
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

// each does the same with all containers side by side.
func each(all replicas, do func(container.InspectResponse) error) error {
	faults := make([]error, len(all))
	var running sync.WaitGroup
	for i, c := range all {
		running.Go(func() { faults[i] = do(c) })
	}
	running.Wait()
	return errors.Join(faults...)
}
