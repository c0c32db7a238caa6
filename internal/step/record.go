package step

import (
	"context"

	"github.com/backstep/backstep/internal/host"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/secret"
)

// Recording is how a step that changes what is live shows that on the host's page of the environment.
type Recording struct {
	token   secret.Value
	address string
}

// Inputs declares the recording.
func (r *Recording) Inputs() []input.Input {
	token := input.Secret(&r.token, "token", "GitHub: a token that may write deployments. They are recorded when the job has no environment of its own.")
	token.ByAction = "${{ github.token }}"
	return []input.Input{token,
		input.String(&r.address, "environment-url", "Where the environment is looked at, for the host's page of it.")}
}

// Begin records that a change has begun and returns what records its end. A record is no part of the change: what
// goes wrong with it is told, and changes nothing.
func (r *Recording) Begin(ctx context.Context, rt *Runtime, environment, commit, description string) func(succeeded bool) {
	none := func(bool) {}
	recorder, ok := rt.Host.(host.Recorder)
	if !ok {
		return none
	}
	end, why, err := recorder.Begin(ctx, host.Deployment{Environment: environment, Commit: commit, Description: description,
		Address: r.address, Token: r.token})
	if err != nil {
		rt.Log.Warn("the deployment is not recorded", "error", err)
	} else if why != "" {
		rt.Log.Debug("the deployment is not recorded", "why", why)
	}
	if end == nil {
		return none
	}
	return func(succeeded bool) {
		if err := end(context.WithoutCancel(ctx), succeeded); err != nil {
			rt.Log.Warn("the end of the deployment is not recorded", "error", err)
		}
	}
}
