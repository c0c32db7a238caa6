// Package deploy declares the step that makes an image live.
package deploy

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/backstep/backstep/internal/config"
	"github.com/backstep/backstep/internal/executor"
	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/step"
)

var (
	outRelease  = input.Output{Name: "release", Help: "The image that is live now, as registry/name@sha256:…."}
	outDigest   = input.Output{Name: "digest", Help: "Its digest."}
	outID       = input.Output{Name: "id", Help: "Its ID: the digest, and after a + the fingerprint of its configuration."}
	outVersion  = input.Output{Name: "version", Help: "Its version; empty when the image carries none."}
	outPrevious = input.Output{Name: "previous", Help: "The digest that was live before; empty when nothing was."}
	outSeq      = input.Output{Name: "seq", Help: "The number of the ledger's event that says so."}
)

// Step declares deploy.
func Step(kinds config.Kinds) step.Step {
	var (
		place executor.Place
		d     executor.Deployment
		page  step.Recording

		onUnknown string
	)
	return step.Step{
		Name:    "deploy",
		Deploys: true,
		Summary: "Make an image live, by digest, with the way back kept open",
		Doc: "Resolves the image to a digest, refuses what is frozen, quarantined or older than what is live, proves that " +
			"the image and the last good release are complete, starts the release beside the one that serves, waits until " +
			"it is ready and shifts the traffic by the strategy of the environment. The old release stays warm until " +
			"`verify` passes. When anything fails, what moved goes back.",
		Inputs: append(append(place.Inputs(),
			input.String(&d.Image, "image", step.ImageHelp).Must().FromStep(),
			input.String(&d.Version, "version", step.VersionHelp).FromStep(),
			input.Bool(&d.AllowOlder, "allow-older", "Deploy it also when its version is lower than that of what is live."),
			input.String(&d.ThroughFreeze, "through-freeze", "Why it may be deployed although the environment is frozen: for the hotfix. It is kept in the ledger."),
			input.String(&d.TakeOver, "take-over", "Why it may take the place of a verify that is under way. It is kept in the ledger."),
			step.OnUnknown(&onUnknown),
			input.Bool(&d.DryRun, "dry-run", step.DryRunHelp),
		), page.Inputs()...),
		Outputs: []input.Output{outRelease, outDigest, outID, outVersion, outPrevious, outSeq},
		Run: func(ctx context.Context, rt *step.Runtime) error {
			x, err := place.Open(executor.World{Host: rt.Host, Log: rt.Log, Now: rt.Now, Getenv: rt.Getenv, Secrets: rt.Secrets}, kinds)
			if err != nil {
				return err
			}
			defer x.Close()
			if onUnknown != step.Hold {
				x.Config.OnUnknown = onUnknown
			}
			end := func(bool) {}
			if !d.DryRun {
				end = page.Begin(ctx, rt, string(x.Name), "", "deploy "+d.Image)
			}
			done, err := x.Deploy(ctx, d)
			end(err == nil)
			if err != nil {
				incident(rt, x, done, err)
				return err
			}
			if d.DryRun {
				fmt.Fprint(rt.Stdout, done.Plan)
				return nil
			}
			rt.Summary(summary(x, done))
			return rt.Changed(rt.Outputs(
				step.Value{Output: outRelease, Value: done.Release.Reference()},
				step.Value{Output: outDigest, Value: string(done.Release.Digest)},
				step.Value{Output: outID, Value: string(done.Release.ID())},
				step.Value{Output: outVersion, Value: done.Release.Version},
				step.Value{Output: outPrevious, Value: string(done.Previous.Digest)},
				step.Value{Output: outSeq, Value: strconv.FormatUint(done.Seq, 10)},
			))
		},
	}
}

// incident is the page of a deploy that failed: how far it came, and what serves now.
func incident(rt *step.Runtime, x *executor.Executor, d executor.Deployed, err error) {
	rows := [][2]string{{"release", d.Release.String()}}
	var partial *executor.PartialError
	if errors.As(err, &partial) {
		rows = append(rows, step.Partial(partial.Done, partial.NotTried, err.Error())...)
	} else {
		rows = append(rows, [2]string{"failed", err.Error()})
	}
	rows = append(rows, shares(d.Canary)...)
	if hint := fault.HintOf(err); hint != "" {
		rows = append(rows, [2]string{"hint", hint})
	}
	if fault.CodeOf(err) == fault.RolledBack && d.Previous.Digest != "" {
		rows = append(rows, [2]string{"serves again", d.Previous.String()})
	}
	title := "Not deployed to %s"
	if fault.CodeOf(err) == fault.HalfWay {
		title = "A deploy to %s stopped half-way"
	}
	rt.Summary(step.Report{Title: fmt.Sprintf(title, x.Name), Rows: rows, Incident: true})
}

func summary(x *executor.Executor, d executor.Deployed) step.Report {
	previous := "nothing"
	if d.Previous.Digest != "" {
		previous = d.Previous.String()
	}
	rows := [][2]string{{"release", d.Release.String()}, {"before", previous}}
	if len(d.Changed) > 0 {
		rows = append(rows, [2]string{"configuration changed", strings.Join(d.Changed, ", ")})
	}
	rows = append(rows, shares(d.Canary)...)
	rows = append(rows, [2]string{"strategy", string(x.Config.Strategy)}, [2]string{"took", fmt.Sprintf("%.1f s", d.Took.Seconds())},
		[2]string{"event", strconv.FormatUint(d.Seq, 10)})
	return step.Report{Title: fmt.Sprintf("Deployed to %s", x.Name), Rows: rows, Timeline: step.Timeline(d.Plan)}
}

// shares are the verdicts at each share of a canary: its phases, how long they were, and why it ended.
func shares(all []executor.Evidence) [][2]string {
	var rows [][2]string
	for _, e := range all {
		if len(e.Phases) == 0 {
			rows = append(rows, [2]string{"canary", fmt.Sprintf("%s at once: %s", e.Verdict, e.Reason)})
			continue
		}
		var names []string
		for _, p := range e.Phases {
			names = append(names, p.Name)
		}
		took := e.Phases[len(e.Phases)-1].Until
		rows = append(rows, [2]string{strings.Join(names, ", "), fmt.Sprintf("%s after %.1f s: %s", e.Verdict, took.Seconds(), e.Reason)})
	}
	return rows
}
