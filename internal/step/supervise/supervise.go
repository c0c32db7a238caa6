// Package supervise declares the command that runs releases for the process target.
package supervise

import (
	"context"
	"fmt"

	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/step"
	"github.com/backstep/backstep/internal/target/process"
)

// Step declares supervise.
func Step() step.Step {
	var o process.SupervisorOptions
	return step.Step{
		Name:     "supervise",
		Summary:  "Run releases on this machine for the process target, behind a weighted proxy",
		Operator: true,
		Doc: "Unpacks images, runs their entrypoints and shares out the traffic. It takes images with a static binary " +
			"only, isolates nothing, and is no place for production: it is for trying, for drills and for tests.",
		Inputs: []input.Input{
			input.String(&o.Socket, "socket", "The path of the socket that steps talk to.").Or("backstep.sock"),
			input.String(&o.Dir, "state", "The folder that keeps what runs and the unpacked images.").Or(".backstep"),
			input.String(&o.Listen, "listen", "The address of the proxy.").Or("127.0.0.1:8080"),
			input.String(&o.Ready, "ready", "The path that answers 2xx or 3xx once a release is ready; empty is a TCP connect."),
		},
		Run: func(ctx context.Context, rt *step.Runtime) error {
			o.Registry, o.Log = registry.New(), rt.Log
			s, err := process.NewSupervisor(o)
			if err != nil {
				return err
			}
			fmt.Fprintln(rt.Stdout, "http://"+s.Address())
			return s.Run(ctx)
		},
	}
}
