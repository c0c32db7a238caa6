package docker

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/secret"
)

// replicas are the containers of one release, those with the traffic first, then by their roles and numbers.
type replicas []container.InspectResponse

// web are those that have the traffic.
func (all replicas) web() replicas { return all.of(func(role string) bool { return role == "" }) }

// jobs are those that have none.
func (all replicas) jobs() replicas { return all.of(func(role string) bool { return role != "" }) }

func (all replicas) of(wanted func(role string) bool) replicas {
	return slices.DeleteFunc(slices.Clone(all), func(c container.InspectResponse) bool { return !wanted(roleOf(c)) })
}

func roleOf(c container.InspectResponse) string { return c.Config.Labels[labelRole] }

// releases are the containers of the environment, by their releases; only those of one release when it is not "". They are looked
// at side by side. Strangers are left out, whatever their labels say.
func (d *docker) releases(ctx context.Context, only release.ID) (map[release.ID]replicas, error) {
	label := labelDigest
	if only != "" {
		label += "=" + string(only.Digest())
	}
	list, err := ask(ctx, d.limit, func(ctx context.Context) (client.ContainerListResult, error) {
		return d.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: d.ours().Add("label", label)})
	})
	if err != nil || len(list.Items) == 0 {
		return nil, err
	}
	seen, faults := make([]client.ContainerInspectResult, len(list.Items)), make([]error, len(list.Items))
	var looks sync.WaitGroup
	for i, c := range list.Items {
		looks.Go(func() {
			seen[i], faults[i] = ask(ctx, d.limit, func(ctx context.Context) (client.ContainerInspectResult, error) {
				return d.engine.ContainerInspect(ctx, c.ID, client.ContainerInspectOptions{})
			})
		})
	}
	held, err := d.held(ctx)
	looks.Wait()
	if err != nil {
		return nil, err
	}
	all := map[release.ID]replicas{}
	for i, c := range list.Items {
		id := releaseOf(c.Labels).ID()
		switch {
		case errdefs.IsNotFound(faults[i]): // it was removed in the meantime
		case faults[i] != nil:
			return nil, faults[i]
		case (only == "" || only == id) && d.stranger(seen[i].Container, record(held)) == nil:
			all[id] = append(all[id], seen[i].Container)
		}
	}
	for _, r := range all {
		slices.SortFunc(r, func(a, b container.InspectResponse) int {
			return cmp.Or(cmp.Compare(roleOf(a), roleOf(b)), cmp.Compare(numbered(a), numbered(b)))
		})
	}
	return all, nil
}

// replicas are the containers of one release, none when it is not there.
func (d *docker) replicas(ctx context.Context, id release.ID) (replicas, error) {
	all, err := d.releases(ctx, id)
	return all[id], err
}

// numbered is the number of a replica, from 1.
func numbered(c container.InspectResponse) int {
	n, _ := strconv.Atoi(c.Config.Labels[labelReplica])
	return max(1, n)
}

// releaseOf is the release that a container's labels name.
func releaseOf(l map[string]string) release.Release {
	return release.Release{Digest: release.Digest(l[labelDigest]), Config: release.Fingerprint(l[labelPrint]), Repository: l[labelRepository],
		Version: l[labelVersion], Commit: l[labelCommit]}
}

// configOf is the configuration that a container was made with; empty when it does not say.
func configOf(c container.InspectResponse) release.Configuration {
	var config release.Configuration
	if json.Unmarshal([]byte(c.Config.Labels[labelConfig]), &config) != nil {
		return nil
	}
	return config
}

// specOf is what a container was made with, secrets apart, as its role has it.
func (d *docker) specOf(c container.InspectResponse) spec { return d.wholeOf(c).as(roleOf(c)) }

// wholeOf is what the release of a container was made with.
func (d *docker) wholeOf(c container.InspectResponse) spec {
	config := configOf(c)
	values, _ := config.Fill(func(_, _, _ string) secret.Value { return secret.Value{} })
	s, err := specOf(values)
	if len(config) == 0 || err != nil {
		return d.spec
	}
	return s
}

// Observe asks all releases at once: one that hangs does not add to the time of another.
func (d *docker) Observe(ctx context.Context) (plan.State, error) {
	held, err := d.held(ctx)
	if err != nil {
		return plan.State{}, err
	}
	state := plan.State{Claim: record(held)}
	for _, h := range held {
		if h.note != nil {
			state.Notes = append(state.Notes, *h.note)
		}
	}
	releases, err := d.releases(ctx, "")
	if err != nil {
		return plan.State{}, err
	}
	ids := slices.Sorted(maps.Keys(releases))
	state.Instances = make([]plan.Instance, len(ids))
	var looks sync.WaitGroup
	for i, id := range ids {
		looks.Go(func() { state.Instances[i] = d.instance(ctx, releases[id]) })
	}
	looks.Wait()
	for i, id := range ids {
		state.Know(state.Instances[i].Release, configOf(releases[id][0]))
	}
	return state, nil
}

func (d *docker) Find(ctx context.Context, id release.ID) (*plan.Instance, error) {
	all, err := d.replicas(ctx, id)
	if len(all) == 0 || err != nil {
		return nil, err
	}
	in := d.instance(ctx, all)
	in.Weight = 0
	return &in, nil
}

// Has is true as well when only a container is left of r: it can be started again.
func (d *docker) Has(ctx context.Context, r release.Release) (bool, error) {
	image, err := d.image(ctx, r)
	if image != nil || err != nil {
		return image != nil, err
	}
	all, err := d.replicas(ctx, r.ID())
	return len(all) > 0, err
}

// image is the image of r, nil when the engine does not have it.
func (d *docker) image(ctx context.Context, r release.Release) (*client.ImageInspectResult, error) {
	found, err := ask(ctx, d.limit, func(ctx context.Context) (client.ImageInspectResult, error) {
		return d.engine.ImageInspect(ctx, r.Reference())
	})
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	return &found, err
}

// Logs is the end of what the first replica has written that is not well; of the first one, when all are.
func (d *docker) Logs(ctx context.Context, id release.ID, lines int) ([]string, error) {
	all, err := d.replicas(ctx, id)
	if len(all) == 0 || err != nil {
		return nil, err
	}
	chosen := all[0]
	for _, c := range all {
		if p, _ := phase(c); p != plan.Ready {
			chosen = c
			break
		}
	}
	text, err := ask(ctx, d.limit, func(ctx context.Context) (string, error) {
		logs, err := d.engine.ContainerLogs(ctx, chosen.ID, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: strconv.Itoa(max(0, lines))})
		if err != nil {
			return "", err
		}
		defer logs.Close()
		var text bytes.Buffer
		_, err = stdcopy.StdCopy(&text, &text, logs)
		return text.String(), err
	})
	if errdefs.IsNotFound(err) || text == "" {
		return nil, err
	}
	return strings.Split(strings.TrimRight(strings.ToValidUTF8(text, "?"), "\r\n"), "\n"), err
}

func (d *docker) serves(c container.InspectResponse) bool {
	return !d.env.Routed && c.Name == "/"+d.name()
}

// idleEnd is the end of the name of a container that is not to work: one that has ended by itself has failed.
const idleEnd = "-idle"

func idle(c container.InspectResponse) bool { return strings.HasSuffix(c.Name, idleEnd) }

// parkedEnd is the end of the name of a container that is kept for a way back, stopped.
const parkedEnd = "-parked"

func parked(c container.InspectResponse) bool { return strings.HasSuffix(c.Name, parkedEnd) }

// instance is how a release is, of which there is a container at least.
func (d *docker) instance(ctx context.Context, all replicas) plan.Instance {
	web, whole := all.web(), d.wholeOf(all[0])
	in := plan.Instance{Release: releaseOf(all[0].Config.Labels), Replicas: make([]plan.Replica, max(len(web), whole.replicas))}
	var looks sync.WaitGroup
	for i := range in.Replicas {
		if i >= len(web) {
			in.Replicas[i] = plan.Replica{Phase: plan.Starting, Reason: "a replica is missing"}
			continue
		}
		in.Restarts += web[i].RestartCount
		looks.Go(func() { in.Replicas[i] = d.replica(ctx, web[i]) })
	}
	looks.Wait()
	if len(web) > 0 && d.serves(web[0]) {
		in.Weight = 100
	}
	in.Sum()
	work(&in, whole, all.jobs())
	return in
}

// work is how the jobs of a release are. One that is at work and has failed has failed its release.
func work(in *plan.Instance, whole spec, jobs replicas) {
	wanted, working := 0, 0
	for _, r := range whole.roles {
		wanted += r.replicas
	}
	for _, c := range jobs {
		if idle(c) {
			continue
		}
		working++
		in.Restarts += c.RestartCount
		if p, reason := phase(c); p == plan.Failed && in.Phase != plan.Failed {
			in.Phase, in.Reason, in.Ended = plan.Failed, fmt.Sprintf("%s: %s", roleOf(c), reason), ended(c)
		}
	}
	switch {
	case wanted == 0 && len(jobs) == 0:
	case working == 0:
		in.Jobs = plan.Idle
	case working >= wanted:
		in.Jobs = plan.Working
	default:
		in.Jobs = plan.Mixed
	}
}

// replica is how one container is.
func (d *docker) replica(ctx context.Context, c container.InspectResponse) plan.Replica {
	s := d.specOf(c)
	r := plan.Replica{Address: d.address(c, s), Front: d.front(c, s)}
	switch {
	case parked(c):
		r.Phase = plan.Parked
		return r
	case !d.env.Routed && !d.serves(c):
		return plan.Replica{Phase: plan.Ready} // to take the place of the one that runs, which has its address until then
	}
	if r.Phase, r.Reason = phase(c); r.Phase == plan.Ready {
		if err := d.asked(ctx, r.Address, s); err != nil {
			r.Phase, r.Reason = plan.Starting, err.Error()
			if c.RestartCount > 0 && !runsFor(c, loopTime) {
				r.Phase, r.Reason = plan.Failed, restarted(c, err)
			}
		}
	}
	r.Ended = r.Phase == plan.Failed && ended(c)
	return r
}

// address is where a container is asked: its published port when it was said where to publish, else its own address on the first
// network, also from within a container.
func (d *docker) address(c container.InspectResponse, s spec) string {
	if s.publish != "" {
		return d.front(c, s)
	}
	return ownAddress(c, s)
}

// front is where a load balancer sends traffic: an address that always means this container, unless the configuration wants its own.
func (d *docker) front(c container.InspectResponse, s spec) string {
	at, err := s.publication(d.env.Routed)
	if err != nil || !at.HostIP.IsValid() || at.HostIP.IsUnspecified() {
		return ownAddress(c, s)
	}
	if c.NetworkSettings == nil {
		return ""
	}
	for _, b := range c.NetworkSettings.Ports[s.portNumber()] {
		return net.JoinHostPort(at.HostIP.String(), b.HostPort)
	}
	if c.HostConfig != nil { // it does not run: it has the port that it will have again
		for _, b := range c.HostConfig.PortBindings[s.portNumber()] {
			if b.HostPort != "" {
				return net.JoinHostPort(at.HostIP.String(), b.HostPort)
			}
		}
	}
	return ""
}

// ownAddress is the address of a container on its first network.
func ownAddress(c container.InspectResponse, s spec) string {
	if c.NetworkSettings == nil {
		return ""
	}
	for name, end := range c.NetworkSettings.Networks {
		if (len(s.networks) == 0 || name == s.networks[0]) && end.IPAddress.IsValid() {
			return net.JoinHostPort(end.IPAddress.String(), strconv.Itoa(s.port))
		}
	}
	return ""
}
