// Package docker is the target that runs releases as containers of a Docker engine: side by side behind a
// router, or one after the other on a published port when there is none.
package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

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
	limit   time.Duration       // for one call of the engine
}

var (
	_ target.Backend = (*docker)(nil)
	_ router.Router  = (*docker)(nil)
)

func open(o options, env target.Environment) (*docker, error) {
	d := &docker{options: o, env: env, limit: engineTimeout, http: &http.Client{
		Timeout:       askTimeout,
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
	labelNumber      = "backstep.number" // of the claim under which a container was made
	labelClaim       = "backstep.claim"  // JSON of a plan.Claim
	labelNote        = "backstep.note"   // JSON of the plan.Note that came with it
)

func (d *docker) labels() map[string]string {
	return map[string]string{labelService: d.env.Service, labelEnvironment: string(d.env.Environment)}
}

// ours selects what belongs to the environment.
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

// How long the engine may take. A pull has no limit of its own.
const (
	engineTimeout = 10 * time.Second
	stopTimeout   = 30 * time.Second // to stop a container, besides what the container gets
)

// errSilent ends a call that took too long.
var errSilent = errors.New("the engine did not answer in time")

// ask makes one call of the engine. The error wraps target.ErrUnreachable when it is not there, or silent for the limit.
func ask[T any](ctx context.Context, limit time.Duration, call func(context.Context) (T, error)) (T, error) {
	bounded, cancel := context.WithTimeoutCause(ctx, limit, errSilent)
	defer cancel()
	answer, err := call(bounded)
	return answer, told(ctx, bounded, err)
}

// told is what a call under bounded, which is part of ctx, has failed with.
func told(ctx, bounded context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.Canceled):
		return context.Cause(ctx)
	case bounded.Err() != nil:
		err = errSilent
	case !client.IsErrConnectionFailed(err):
		return fmt.Errorf("docker: %w", err)
	}
	return fault.Errorf(fault.Failed, "docker: %w: %w", target.ErrUnreachable, err).
		WithHint("is the engine running, and may this user ask it? See engine of the target, and DOCKER_HOST")
}
