// Package rollback declares the step that makes the last good release live again.
package rollback

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/backstep/backstep/internal/config"
	"github.com/backstep/backstep/internal/executor"
	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/step"
)

var (
	outRelease = input.Output{Name: "release", Help: "The image that is live now, as registry/name@sha256:…."}
	outDigest  = input.Output{Name: "digest", Help: "Its digest."}
	outVersion = input.Output{Name: "version", Help: "Its version; empty when the image carries none."}
	outLeft    = input.Output{Name: "quarantined", Help: "The digest that was left and is in quarantine now; empty when none is."}
	outSeconds = input.Output{Name: "seconds", Help: "How long it took until the release had all the traffic."}
	outSeq     = input.Output{Name: "seq", Help: "The number of the ledger's event that says so."}
)

// Step declares rollback.
func Step(kinds config.Kinds) step.Step {
	var (
		place executor.Place
		r     executor.Rollback
		page  step.Recording
	)
	return step.Step{
		Name:    "rollback",
		Deploys: true,
		ByHand:  true,
		Summary: "Make the last good release live again",
		Doc: "Picks the newest release that was verified and baked and is not in quarantine, and says why. When that is " +
			"still warm, going back is one shift of the traffic; otherwise it is started first and only then gets the " +
			"traffic. What is left goes into quarantine, and the environment is frozen. A freeze never stops a rollback. When nothing " +
			"was deployed since the last rollback, nothing is moved: further back takes `to`. When the registry does not answer, it goes " +
			"on from what the target knows.",
		Inputs: append(append(place.Inputs(),
			input.String(&r.To, "to", "The version or digest to go back to; empty is the last good release."),
			input.String(&r.Reason, "reason", step.ReasonHelp).Or("rolled back by hand"),
			input.Bool(&r.DryRun, "dry-run", step.DryRunHelp),
		), page.Inputs()...),
		Outputs: []input.Output{outRelease, outDigest, outVersion, outLeft, outSeconds, outSeq},
		Run: func(ctx context.Context, rt *step.Runtime) error {
			x, err := place.Open(executor.World{Host: rt.Host, Log: rt.Log, Now: rt.Now, Getenv: rt.Getenv, Secrets: rt.Secrets}, kinds)
			if err != nil {
				return err
			}
			defer x.Close()
			done, err := x.Rollback(ctx, r)
			switch {
			case err != nil:
				title := "Not rolled back: %s"
				if done.Moved {
					title = "Rolled back, and a person is needed: %s"
				}
				rt.Summary(step.Report{Title: fmt.Sprintf(title, x.Name), Incident: true,
					Rows: [][2]string{{"to", done.Release.String()}, {"error", err.Error()}, {"hint", fault.HintOf(err)}}})
				return err
			case r.DryRun && done.Already:
				fmt.Fprintln(rt.Stdout, done.Why)
				return nil
			case r.DryRun:
				fmt.Fprintf(rt.Stdout, "back to %s: %s\n%s", done.Release, done.Why, done.Plan)
				return nil
			case done.Already:
				rt.Log.Info(done.Why, "env", string(x.Name))
			}
			seconds := strconv.FormatFloat(done.Took.Seconds(), 'f', 3, 64)
			condemned := ""
			if done.Condemned {
				condemned = string(done.Left.Digest)
			}
			rows := [][2]string{{"serves again", done.Release.String()}, {"because", done.Why},
				{"left", done.Left.String()}, {"reason", r.Reason}, {"took", seconds + " s"}}
			rt.Summary(step.Report{Title: fmt.Sprintf("Rolled back %s", x.Name), Rows: slices.Concat(rows, step.Secrets(done.Changed), step.Unwritten(done.Unwritten)),
				Timeline: step.Timeline(done.Plan), Incident: true})
			err = rt.Changed(rt.Outputs(
				step.Value{Output: outRelease, Value: done.Release.Reference()},
				step.Value{Output: outDigest, Value: string(done.Release.Digest)},
				step.Value{Output: outVersion, Value: done.Release.Version},
				step.Value{Output: outLeft, Value: condemned},
				step.Value{Output: outSeconds, Value: seconds},
				step.Value{Output: outSeq, Value: strconv.FormatUint(done.Seq, 10)},
			))
			page.Begin(ctx, rt, string(x.Name), done.Release.Commit, "back to "+done.Release.String())(true)
			return err
		},
	}
}
