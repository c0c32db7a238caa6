// Package docker is the target that runs releases as containers of a Docker engine: side by side behind a
// router, or one after the other on a published port when there is none.
package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/client"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/router"
	"github.com/backstep/backstep/internal/target"
)

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

// docker is the target. Without a router it is its own: the release that serves is the container that runs
// under the plain name.
type docker struct {
	options
	env    target.Environment
	engine *client.Client
	http   *http.Client
	limit  time.Duration // for one call of the engine
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
	if err := o.check(env.Routed); err != nil {
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

// The labels of everything that belongs to an environment.
const (
	labelService     = "backstep.service"
	labelEnvironment = "backstep.environment"
	labelDigest      = "backstep.digest"
	labelRepository  = "backstep.repository"
	labelVersion     = "backstep.version"
	labelCommit      = "backstep.commit"
	labelConfig      = "backstep.configuration" // JSON of a release.Configuration
	labelPrint       = "backstep.fingerprint"   // of the configuration
	labelSecrets     = "backstep.secrets"       // a fingerprint of the secrets that it was made with
	labelRole        = "backstep.role"          // "" is what has the traffic
	labelReplica     = "backstep.replica"       // from 1
	labelLedger      = "backstep.ledger"        // that the release belongs to
	labelNumber      = "backstep.number"        // of the claim under which a container was made
	labelClaim       = "backstep.claim"         // JSON of a plan.Claim
	labelNote        = "backstep.note"          // JSON of the plan.Note that came with it
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

// nameOf is the name of a container of the release; what has the traffic has no role, and the first replica no number.
func (d *docker) nameOf(id release.ID, role string, replica int) string {
	name := d.name() + "-" + strings.ReplaceAll(id.Short(), "+", "-")
	if role != "" {
		name += "-" + role
	}
	if replica > 1 {
		name += "-" + strconv.Itoa(replica)
	}
	return name
}

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
