package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
)

// askTimeout is how long a release may take to answer.
const askTimeout = time.Second

// containers are those of the environment, by their digests; only that of d when it is not "". They are looked at side by
// side.
func (d *docker) containers(ctx context.Context, only release.Digest) (map[release.Digest]container.InspectResponse, error) {
	label := labelDigest
	if only != "" {
		label += "=" + string(only)
	}
	list, err := ask(ctx, d.limit, func(ctx context.Context) (client.ContainerListResult, error) {
		return d.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: d.ours().Add("label", label)})
	})
	if err != nil {
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
	looks.Wait()
	all := map[release.Digest]container.InspectResponse{}
	for i, c := range list.Items {
		switch {
		case errdefs.IsNotFound(faults[i]): // it was removed in the meantime
		case faults[i] != nil:
			return nil, faults[i]
		default:
			all[release.Digest(c.Labels[labelDigest])] = seen[i].Container
		}
	}
	return all, nil
}

// container is that of one release, or nil.
func (d *docker) container(ctx context.Context, digest release.Digest) (*container.InspectResponse, error) {
	all, err := d.containers(ctx, digest)
	if c, ok := all[digest]; ok {
		return &c, nil
	}
	return nil, err
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
	containers, err := d.containers(ctx, "")
	if err != nil {
		return plan.State{}, err
	}
	digests := slices.Sorted(maps.Keys(containers))
	state.Instances = make([]plan.Instance, len(digests))
	var looks sync.WaitGroup
	for i, digest := range digests {
		looks.Go(func() { state.Instances[i] = d.instance(ctx, containers[digest]) })
	}
	looks.Wait()
	return state, nil
}

func (d *docker) Find(ctx context.Context, digest release.Digest) (*plan.Instance, error) {
	c, err := d.container(ctx, digest)
	if c == nil || err != nil {
		return nil, err
	}
	in := d.instance(ctx, *c)
	in.Weight = 0
	return &in, nil
}

// Has is true as well when only a container is left of r: it can be started again.
func (d *docker) Has(ctx context.Context, r release.Release) (bool, error) {
	has, err := d.image(ctx, r)
	if has || err != nil {
		return has, err
	}
	c, err := d.container(ctx, r.Digest)
	return c != nil, err
}

// image says whether the engine has the image of r.
func (d *docker) image(ctx context.Context, r release.Release) (bool, error) {
	_, err := ask(ctx, d.limit, func(ctx context.Context) (client.ImageInspectResult, error) {
		return d.engine.ImageInspect(ctx, r.Reference())
	})
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

func (d *docker) Logs(ctx context.Context, digest release.Digest, lines int) ([]string, error) {
	c, err := d.container(ctx, digest)
	if c == nil || err != nil {
		return nil, err
	}
	text, err := ask(ctx, d.limit, func(ctx context.Context) (string, error) {
		logs, err := d.engine.ContainerLogs(ctx, c.ID, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: strconv.Itoa(max(0, lines))})
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

func (d *docker) instance(ctx context.Context, c container.InspectResponse) plan.Instance {
	l := c.Config.Labels
	in := plan.Instance{Restarts: c.RestartCount, Address: d.address(c), Release: release.Release{Digest: release.Digest(l[labelDigest]),
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
			in.Phase, in.Reason = plan.Starting, err.Error()
			if c.RestartCount > 0 {
				in.Phase, in.Reason = plan.Failed, fmt.Sprintf("it was restarted %d times and is not ready: %v", c.RestartCount, err)
			}
		}
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
		return plan.Starting, "it was not started yet"
	case s.Status == container.StateRestarting:
		return plan.Failed, fmt.Sprintf("it keeps ending: exit code %d, restarted %d times", s.ExitCode, c.RestartCount)
	case s.Status == container.StateDead:
		return plan.Failed, fmt.Sprintf("the engine has given it up: exit code %d, restarted %d times", s.ExitCode, c.RestartCount)
	case s.Status != container.StateRunning:
		return plan.Failed, fmt.Sprintf("it ended with exit code %d", s.ExitCode)
	case s.Health == nil || s.Health.Status == container.NoHealthcheck:
		return plan.Ready, ""
	case s.Health.Status == container.Healthy:
		return plan.Ready, ""
	case s.Health.Status == container.Unhealthy:
		return plan.Failed, "its HEALTHCHECK fails" + output(s.Health)
	}
	return plan.Starting, "its HEALTHCHECK has not said healthy" + output(s.Health)
}

// output is what a HEALTHCHECK has written last.
func output(h *container.Health) string {
	if n := len(h.Log); n > 0 {
		return ": " + strings.TrimSpace(h.Log[n-1].Output)
	}
	return ""
}

// asked checks that the port takes connections, and that the path for it answers well.
func (d *docker) asked(ctx context.Context, address string) error {
	if address == "" {
		return errors.New("it has no address")
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if d.ready == "" {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return short(address, err)
		}
		defer conn.Close()
		if d.publish.HostIP.IsValid() {
			return stays(conn, address)
		}
		return nil
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+d.ready, nil)
	if err != nil {
		return err
	}
	response, err := d.http.Do(request)
	if err != nil {
		return short(address+d.ready, err)
	}
	response.Body.Close()
	if response.StatusCode >= 400 {
		return fmt.Errorf("%s%s answers %d", address, d.ready, response.StatusCode)
	}
	return nil
}

// short is an error of the network in few words.
func short(what string, err error) error {
	var number syscall.Errno
	var timed net.Error
	switch {
	case errors.As(err, &number):
		err = number
	case errors.As(err, &timed) && timed.Timeout():
		err = fmt.Errorf("no answer within %s", askTimeout)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// stays makes sure that conn is not closed at once: the engine's proxy of a published port takes connections
// also when the container does not, and then closes them.
func stays(conn net.Conn, address string) error {
	if err := conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		return err
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%s: the connection was closed", address)
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
