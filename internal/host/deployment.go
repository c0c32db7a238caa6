package host

import (
	"context"

	"github.com/backstep/backstep/internal/secret"
)

// Deployment is a change of what is live, as a host's pages show it.
type Deployment struct {
	Environment string
	Commit      string // the source revision; "" is the run's own
	Description string // one line
	Address     string // where the environment is looked at; "" when nobody has said
	Token       secret.Value
}

// Recorder keeps the deployments of environments.
type Recorder interface {
	// Begin records that d has begun, and returns what records its end. Where the job records it by itself, or
	// nobody may, nothing is recorded, and why says so.
	Begin(ctx context.Context, d Deployment) (end func(ctx context.Context, succeeded bool) error, why string, err error)
}
