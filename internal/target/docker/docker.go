// Package docker is the target that runs releases as containers of a Docker engine: side by side behind a
// router, or one after the other on a published port when there is none.
package docker

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/router"
	"github.com/backstep/backstep/internal/target"
)

// options are what a configuration says of the target.
type options struct {
	engine          string
	port            int
	networks        []string
	volumes         []string
	publish         string
	restart, memory string
	cpus, user      string
	readOnly        bool
	ready           string
}

// Kind is the docker target.
func Kind() target.Kind {
	return target.Kind{
		Name: "docker",
		Help: "Containers of a Docker engine: both releases side by side behind a router, or one in place of the other without.",

		Strategies: []plan.Strategy{plan.Recreate},
		Routed:     []plan.Strategy{plan.BlueGreen, plan.Canary},
		New: func() ([]input.Input, func(target.Environment) (target.Target, router.Router, error)) {
			var o options
			return o.inputs(), func(env target.Environment) (target.Target, router.Router, error) {
				d, err := open(o, env)
				if err != nil || env.Routed {
					return d, nil, err
				}
				return d, d, nil
			}
		},
	}
}

var (
	memoryShape = regexp.MustCompile(`^[1-9][0-9]*[kmg]?$`)
	volumeShape = regexp.MustCompile(`^[A-Za-z0-9/][A-Za-z0-9_./-]*:/[^:]*(:ro)?$`)
)

func (o *options) inputs() []input.Input {
	return []input.Input{
		input.String(&o.engine, "engine", "The address of the engine, as DOCKER_HOST has it, except ssh; that variable, or the local socket, when it is left out."),
		input.Int(&o.port, "port", "The port that the release listens on.", 1, 65535).Must(),
		input.List(&o.networks, "networks", "The networks it is attached to, which exist already; the first one is where it is asked. The engine's bridge when it is left out."),
		input.List(&o.volumes, "volumes", "Volumes and folders, as name:/path or /path:/path, with :ro when it must not write. Releases that run side by side share them.").
			Matching(volumeShape, "uploads:/var/uploads"),
		input.String(&o.publish, "publish", "ip:port of the host to publish the port on, or, behind a router, only the ip: each release gets a free port. Needed when the containers' own addresses cannot be reached, and without a router."),
		input.String(&o.restart, "restart", "What the engine does when the release ends.").OneOf("no", "on-failure", "unless-stopped", "always").Or("unless-stopped"),
		input.String(&o.memory, "memory", "The most memory it may use.").Matching(memoryShape, "512m"),
		input.String(&o.cpus, "cpus", "The most processors it may use.").Matching(regexp.MustCompile(`^[0-9]+(\.[0-9]+)?$`), "1.5"),
		input.String(&o.user, "user", "The user it runs as, as uid or uid:gid; the image's own when it is left out."),
		input.Bool(&o.readOnly, "read-only", "It cannot write to its own files."),
		input.String(&o.ready, "ready", "A path that answers with a status below 400 once it is ready. The image's HEALTHCHECK counts as well. With neither, it is ready when its port takes connections.").
			Matching(regexp.MustCompile(`^/`), "/health"),
	}
}

// size is the number of bytes that a size like 512m means.
func size(s string) int64 {
	n, _ := strconv.ParseInt(strings.TrimRight(s, "kmg"), 10, 64) // by memoryShape
	switch {
	case strings.HasSuffix(s, "k"):
		return n << 10
	case strings.HasSuffix(s, "m"):
		return n << 20
	case strings.HasSuffix(s, "g"):
		return n << 30
	}
	return n
}

// docker is the target. Without a router it is its own: the release that serves is the container that runs
// under the plain name.
type docker struct {
	options
	env     target.Environment
	engine  *client.Client
	http    *http.Client
	publish network.PortBinding // zero when nothing is published
}

var (
	_ target.Backend = (*docker)(nil)
	_ router.Router  = (*docker)(nil)
)

func open(o options, env target.Environment) (*docker, error) {
	d := &docker{options: o, env: env, http: &http.Client{
		Timeout:       time.Second,
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	if err := d.published(); err != nil {
		return nil, err
	}
	if at := cmp.Or(o.engine, os.Getenv("DOCKER_HOST")); strings.HasPrefix(at, "ssh://") {
		return nil, fault.Inputf("target docker: engine %s: ssh is not spoken", at).
			WithHint("forward its socket, and name that: ssh -N -L /tmp/engine.sock:/var/run/docker.sock …, engine: unix:///tmp/engine.sock")
	}
	settings := []client.Opt{client.FromEnv}
	if o.engine != "" {
		settings = append(settings, client.WithHost(o.engine))
	}
	var err error
	if d.engine, err = client.New(settings...); err != nil {
		return nil, fault.Inputf("target docker: %w", err)
	}
	return d, nil
}

// published reads the address to publish on.
func (d *docker) published() error {
	ip, port := d.options.publish, ""
	if at, err := netip.ParseAddrPort(ip); err == nil {
		ip, port = at.Addr().String(), strconv.Itoa(int(at.Port()))
	}
	switch {
	case d.options.publish == "" && d.env.Routed:
		return nil
	case d.options.publish == "" || !d.env.Routed && port == "":
		return fault.Inputf("target docker: publish is %q: without a router it has to say where customers ask", d.options.publish).
			WithHint("for example publish: 0.0.0.0:80; or put a router in front, which changes releases without a gap")
	case d.env.Routed && port != "":
		return fault.Inputf("target docker: publish %s: two releases cannot share one port", d.options.publish).
			WithHint("leave the port out: each release gets a free one")
	}
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return fault.Inputf("target docker: publish %q: want for example 0.0.0.0:80", d.options.publish)
	}
	d.publish = network.PortBinding{HostIP: addr, HostPort: port}
	return nil
}

// The labels of everything that belongs to an environment.
const (
	labelService     = "backstep.service"
	labelEnvironment = "backstep.environment"
	labelDigest      = "backstep.digest"
	labelRepository  = "backstep.repository"
	labelVersion     = "backstep.version"
	labelCommit      = "backstep.commit"
	labelFence       = "backstep.fence"
)

func (d *docker) labels() map[string]string {
	return map[string]string{labelService: d.env.Service, labelEnvironment: string(d.env.Environment)}
}

func (d *docker) ours() client.Filters {
	f := client.Filters{}
	for key, value := range d.labels() {
		f = f.Add("label", key+"="+value)
	}
	return f
}

// name is the plain name of the service, under which it serves when there is no router.
func (d *docker) name() string { return d.env.Service + "-" + string(d.env.Environment) }

func (d *docker) nameOf(r release.Digest) string { return d.name() + "-" + r.Short() }

// unreachable marks what says that the engine cannot be asked.
func unreachable(err error) error {
	if client.IsErrConnectionFailed(err) {
		return fault.Errorf(fault.Failed, "docker: %w: %w", target.ErrUnreachable, err).
			WithHint("is the engine running, and may this user ask it? See engine of the target, and DOCKER_HOST")
	}
	return fmt.Errorf("docker: %w", err)
}

// Claim keeps the highest fencing number as a volume with that number in its labels: the engine stores it
// at once, lists it, and needs no process for it.
func (d *docker) Claim(ctx context.Context, fence uint64) error {
	seen, err := d.fences(ctx)
	if err != nil {
		return err
	}
	if err := refuse(seen, fence); err != nil {
		return err
	}
	if seen[fence] == "" {
		labels := d.labels()
		labels[labelFence] = strconv.FormatUint(fence, 10)
		name := fmt.Sprintf("%s-fence-%d", d.name(), fence)
		if _, err := d.engine.VolumeCreate(ctx, client.VolumeCreateOptions{Name: name, Labels: labels}); err != nil {
			return unreachable(err)
		}
		if seen, err = d.fences(ctx); err != nil {
			return err
		}
	}
	for n, name := range seen {
		if n < fence {
			if _, err := d.engine.VolumeRemove(ctx, name, client.VolumeRemoveOptions{}); err != nil && !errdefs.IsNotFound(err) {
				return unreachable(err)
			}
		}
	}
	return refuse(seen, fence)
}

func refuse(seen map[uint64]string, fence uint64) error {
	for n := range seen {
		if n > fence {
			return fmt.Errorf("%w: event %d is older than event %d, which has changed the containers", target.ErrFenced, fence, n)
		}
	}
	return nil
}

// fences are the numbers that have been claimed, with their volumes.
func (d *docker) fences(ctx context.Context) (map[uint64]string, error) {
	list, err := d.engine.VolumeList(ctx, client.VolumeListOptions{Filters: d.ours().Add("label", labelFence)})
	if err != nil {
		return nil, unreachable(err)
	}
	seen := map[uint64]string{}
	for _, v := range list.Items {
		n, err := strconv.ParseUint(v.Labels[labelFence], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("docker: volume %s: label %s: %w", v.Name, labelFence, err)
		}
		seen[n] = v.Name
	}
	return seen, nil
}

// containers are those of the environment, by their digests.
func (d *docker) containers(ctx context.Context) (map[release.Digest]container.InspectResponse, error) {
	list, err := d.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: d.ours().Add("label", labelDigest)})
	if err != nil {
		return nil, unreachable(err)
	}
	all := map[release.Digest]container.InspectResponse{}
	for _, c := range list.Items {
		one, err := d.engine.ContainerInspect(ctx, c.ID, client.ContainerInspectOptions{})
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, unreachable(err)
		}
		all[release.Digest(c.Labels[labelDigest])] = one.Container
	}
	return all, nil
}

func (d *docker) Observe(ctx context.Context) (plan.State, error) {
	fences, err := d.fences(ctx)
	if err != nil {
		return plan.State{}, err
	}
	var state plan.State
	for n := range fences {
		state.Fence = max(state.Fence, n)
	}
	containers, err := d.containers(ctx)
	if err != nil {
		return plan.State{}, err
	}
	for _, digest := range slices.Sorted(maps.Keys(containers)) {
		state.Instances = append(state.Instances, d.instance(ctx, containers[digest]))
	}
	return state, nil
}

func (d *docker) serves(c container.InspectResponse) bool {
	return !d.env.Routed && c.Name == "/"+d.name()
}

func (d *docker) instance(ctx context.Context, c container.InspectResponse) plan.Instance {
	l := c.Config.Labels
	in := plan.Instance{Address: d.address(c), Release: release.Release{Digest: release.Digest(l[labelDigest]),
		Repository: l[labelRepository], Version: l[labelVersion], Commit: l[labelCommit]}}
	if d.serves(c) {
		in.Weight = 100
	}
	if !d.env.Routed && in.Weight == 0 {
		in.Phase = plan.Ready // to take the place of the one that runs
		return in
	}
	in.Phase, in.Reason = phase(c)
	if in.Phase == plan.Ready {
		if err := d.asked(ctx, in.Address); err != nil {
			in.Phase = plan.Starting
			if c.RestartCount > 0 {
				in.Phase, in.Reason = plan.Failed, fmt.Sprintf("it was restarted %d times and is not ready: %v", c.RestartCount, err)
			}
		}
	}
	if in.Phase == plan.Failed {
		in.Log = d.lastLines(ctx, c.ID)
	}
	return in
}

// phase is what the engine alone says of a container that should run.
func phase(c container.InspectResponse) (plan.Phase, string) {
	s := c.State
	switch {
	case s.OOMKilled && !s.Running:
		return plan.Failed, "it used more memory than it may, and was killed"
	case s.Status == container.StateCreated && s.Error != "":
		return plan.Failed, "it could not be started: " + s.Error
	case s.Status == container.StateCreated:
		return plan.Starting, ""
	case s.Status != container.StateRunning:
		return plan.Failed, fmt.Sprintf("it ended with exit code %d", s.ExitCode)
	case s.Health == nil || s.Health.Status == container.NoHealthcheck:
		return plan.Ready, ""
	case s.Health.Status == container.Healthy:
		return plan.Ready, ""
	case s.Health.Status == container.Unhealthy:
		reason := "its HEALTHCHECK fails"
		if n := len(s.Health.Log); n > 0 {
			reason += ": " + strings.TrimSpace(s.Health.Log[n-1].Output)
		}
		return plan.Failed, reason
	}
	return plan.Starting, ""
}

// asked checks that the port takes connections, and that the path for it answers well.
func (d *docker) asked(ctx context.Context, address string) error {
	if address == "" {
		return errors.New("it has no address")
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if d.ready == "" {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		defer conn.Close()
		if d.publish.HostIP.IsValid() {
			return stays(conn)
		}
		return nil
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+d.ready, nil)
	if err != nil {
		return err
	}
	response, err := d.http.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode >= 400 {
		return fmt.Errorf("%s answers %d", d.ready, response.StatusCode)
	}
	return nil
}

// stays makes sure that conn is not closed at once: the engine's proxy of a published port takes connections
// also when the container does not, and then closes them.
func stays(conn net.Conn) error {
	if err := conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		return err
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the connection was closed: %w", err)
	}
	return nil
}

// address is where a container is asked: its published port when that is on an address of its own, else its
// own address on the first network.
func (d *docker) address(c container.InspectResponse) string {
	if c.NetworkSettings == nil {
		return ""
	}
	if d.publish.HostIP.IsValid() && !d.publish.HostIP.IsUnspecified() {
		for _, b := range c.NetworkSettings.Ports[d.portNumber()] {
			return net.JoinHostPort(d.publish.HostIP.String(), b.HostPort)
		}
		return ""
	}
	for name, end := range c.NetworkSettings.Networks {
		if (len(d.networks) == 0 || name == d.networks[0]) && end.IPAddress.IsValid() {
			return net.JoinHostPort(end.IPAddress.String(), strconv.Itoa(d.port))
		}
	}
	return ""
}

func (d *docker) portNumber() network.Port {
	p, _ := network.PortFrom(uint16(d.port), network.TCP) // 1 to 65535 by its declaration
	return p
}

// logLines is how many lines of a release that failed are kept.
const logLines = 20

func (d *docker) lastLines(ctx context.Context, id string) []string {
	logs, err := d.engine.ContainerLogs(ctx, id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: strconv.Itoa(logLines)})
	if err != nil {
		return nil
	}
	defer logs.Close()
	var text bytes.Buffer
	if _, err := stdcopy.StdCopy(&text, &text, logs); err != nil {
		return nil
	}
	return input.Lines(text.String())
}

func (d *docker) Stage(ctx context.Context, fence uint64, r release.Release) error {
	if err := d.pull(ctx, r); err != nil {
		return err
	}
	if err := d.Claim(ctx, fence); err != nil {
		return err
	}
	there, err := d.containers(ctx)
	if err != nil {
		return err
	}
	id := there[r.Digest].ID
	if id == "" {
		if id, err = d.create(ctx, fence, r); err != nil {
			return err
		}
	} else if there[r.Digest].State.Status != container.StateCreated {
		return nil
	}
	if !d.env.Routed {
		return nil // it starts when it takes the place of the old one
	}
	if _, err := d.engine.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		return fmt.Errorf("start the container: %w", unreachable(err))
	}
	return nil
}

// pull gets the image by its digest, unless the engine has it.
func (d *docker) pull(ctx context.Context, r release.Release) error {
	if _, err := d.engine.ImageInspect(ctx, r.Reference()); err == nil {
		return nil
	} else if !errdefs.IsNotFound(err) {
		return unreachable(err)
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
		return fault.Errorf(fault.Failed, "pull %s: %w", r.Reference(), unreachable(err)).
			WithHint("the engine has to reach the registry by this name, and to trust it")
	}
	return nil
}

func (d *docker) create(ctx context.Context, fence uint64, r release.Release) (string, error) {
	labels := d.labels()
	maps.Copy(labels, map[string]string{labelDigest: string(r.Digest), labelRepository: r.Repository, labelVersion: r.Version,
		labelCommit: r.Commit, labelFence: strconv.FormatUint(fence, 10)})
	env := []string{"BACKSTEP_RELEASE=" + string(r.Digest), "BACKSTEP_VERSION=" + r.Version}
	for _, key := range slices.Sorted(maps.Keys(d.env.Variables)) {
		env = append(env, key+"="+d.env.Variables[key])
	}
	cpus, _ := strconv.ParseFloat("0"+d.cpus, 64) // by its declaration
	config := &container.Config{Image: r.Reference(), Labels: labels, Env: env, User: d.user,
		ExposedPorts: network.PortSet{d.portNumber(): {}}}
	settings := &container.HostConfig{Binds: d.volumes, ReadonlyRootfs: d.readOnly,
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyMode(d.restart)},
		Resources:     container.Resources{Memory: size(d.memory), NanoCPUs: int64(cpus * 1e9)}}
	if d.publish.HostIP.IsValid() {
		settings.PortBindings = network.PortMap{d.portNumber(): {d.publish}}
	}
	if len(d.networks) > 0 {
		settings.NetworkMode = container.NetworkMode(d.networks[0])
	}
	made, err := d.engine.ContainerCreate(ctx, client.ContainerCreateOptions{Name: d.nameOf(r.Digest), Config: config, HostConfig: settings})
	if errdefs.IsConflict(err) {
		return "", fmt.Errorf("container %s is there already: %w", d.nameOf(r.Digest), target.ErrFenced)
	}
	if err != nil {
		return "", fmt.Errorf("create the container: %w", unreachable(err))
	}
	for _, name := range d.networks[min(1, len(d.networks)):] {
		if _, err := d.engine.NetworkConnect(ctx, name, client.NetworkConnectOptions{Container: made.ID}); err != nil {
			_, _ = d.engine.ContainerRemove(ctx, made.ID, client.ContainerRemoveOptions{Force: true})
			return "", fmt.Errorf("attach the container to network %s: %w", name, unreachable(err))
		}
	}
	return made.ID, nil
}

// Shift is the router where there is none: it stops the release that serves and starts the other in its
// place, under the plain name. The old container stays, stopped: going back starts it again.
func (d *docker) Shift(ctx context.Context, fence uint64, weights map[release.Digest]int) error {
	if err := d.Claim(ctx, fence); err != nil {
		return err
	}
	containers, err := d.containers(ctx)
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
		if _, err := d.engine.ContainerStop(ctx, c.ID, client.ContainerStopOptions{}); err != nil {
			return fmt.Errorf("stop %s: %w", digest.Short(), unreachable(err))
		}
		if _, err := d.engine.ContainerRename(ctx, c.ID, client.ContainerRenameOptions{NewName: d.nameOf(digest)}); err != nil {
			return fmt.Errorf("rename %s: %w", digest.Short(), unreachable(err))
		}
	}
	c := containers[to]
	if !d.serves(c) {
		if _, err := d.engine.ContainerRename(ctx, c.ID, client.ContainerRenameOptions{NewName: d.name()}); err != nil {
			return fmt.Errorf("rename %s: %w", to.Short(), unreachable(err))
		}
	}
	if _, err := d.engine.ContainerStart(ctx, c.ID, client.ContainerStartOptions{}); err != nil {
		return fmt.Errorf("start %s: %w", to.Short(), unreachable(err))
	}
	return nil
}

func (d *docker) Retire(ctx context.Context, fence uint64, digest release.Digest, drain time.Duration) error {
	if err := d.Claim(ctx, fence); err != nil {
		return err
	}
	containers, err := d.containers(ctx)
	if err != nil {
		return err
	}
	c, ok := containers[digest]
	if !ok {
		return nil
	}
	seconds := int(math.Ceil(drain.Seconds()))
	if _, err := d.engine.ContainerStop(ctx, c.ID, client.ContainerStopOptions{Timeout: &seconds}); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("stop the container: %w", unreachable(err))
	}
	if _, err := d.engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove the container: %w", unreachable(err))
	}
	return nil
}
