// Package verify declares the step that judges what is live while it bakes.
package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/backstep/backstep/internal/config"
	"github.com/backstep/backstep/internal/executor"
	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/step"
	"github.com/backstep/backstep/internal/verdict"
)

var (
	outVerdict  = input.Output{Name: "verdict", Help: "pass, fail or unknown."}
	outReason   = input.Output{Name: "reason", Help: "Why, in one line.", Foreign: true}
	outDigest   = input.Output{Name: "digest", Help: "The digest that was judged."}
	outRequests = input.Output{Name: "requests", Help: "How many checks and requests of customers were answered or failed."}
	outErrors   = input.Output{Name: "errors", Help: "How many of them failed."}
	outRolled   = input.Output{Name: "rolled-back-to", Help: "The image that serves again after a rollback; else empty."}
	outSeconds  = input.Output{Name: "rollback-seconds", Help: "How long the rollback took; empty when there was none."}
)

// The policies for what a fail verdict does, beside going back.
const (
	report  = "report"
	observe = "observe"
)

// Step declares verify.
func Step(kinds config.Kinds) step.Step {
	var (
		place             executor.Place
		onFail, onUnknown string
		record, picture   string
		page              step.Recording
		judging           executor.Judging
	)
	return step.Step{
		Name:    "verify",
		Summary: "Judge what is live while it bakes, and roll it back when it is bad",
		Doc: "Claims the way back first, so that a fail is followed by one shift of the traffic and nothing else, also when the " +
			"registry is gone by then. Asks the probes of the environment at their rates, a new connection for each check and always the release " +
			"itself, reads the meters, which count what customers get, and judges every 50 ms. Beside another release with traffic, a meter compares the two; else its " +
			"error rate has to keep to the objective. A fail verdict comes as soon as the evidence allows; a pass needs the whole " +
			"bake and evidence of its own. With `on-fail: rollback` the rollback happens in this very process.",
		Inputs: append(append(place.Inputs(),
			input.Bind(&judging.Release, "digest", "The digest that is to be judged, as deploy hands it on, or its ID; when another one is live, nothing is touched and the exit code is 7. Empty is what is live.", release.ParseID).FromStep(),
			input.String(&onFail, "on-fail", "What a fail verdict does: report it (exit 3), roll back in the same process, or observe: say what would have been done, and go on (exit 0).").
				OneOf(report, step.RollBack, observe).Or(report),
			step.OnUnknown(&onUnknown),
			input.Span(&judging.Watch, "watch", "How long to go on watching after a pass, for example 30m. What is good already is only watched: a scheduled job can call it at any time. It goes back by the same rules, and gives way to every deploy.").Or("0s"),
			input.String(&record, "record", "A file to write the ticks to: a CSV that backstep verdict replay reads."),
			input.String(&picture, "picture", "A file to draw what was seen to, as SVG: the verdict and why, the evidence on its way to it, and how often both releases have failed."),
		), page.Inputs()...),
		Outputs: []input.Output{outVerdict, outReason, outDigest, outRequests, outErrors, outRolled, outSeconds},
		Run: func(ctx context.Context, rt *step.Runtime) error {
			x, err := place.Open(executor.World{Host: rt.Host, Log: rt.Log, Now: rt.Now, Getenv: rt.Getenv, Secrets: rt.Secrets}, kinds)
			if err != nil {
				return err
			}
			defer x.Close()
			policy := func(v verdict.Verdict) string {
				return map[verdict.Verdict]string{verdict.Fail: onFail, verdict.Unknown: onUnknown}[v]
			}
			judging.Observe = onFail == observe
			judging.RollBack = func(v verdict.Verdict) bool { return policy(v) == step.RollBack }
			v, err := x.Verify(ctx, judging)
			if err != nil {
				incident(rt, x, v, err)
				return err
			}
			e, back := v.Evidence, v.Back
			rows := [][2]string{{"release", v.Release.String()}, {"verdict", e.Verdict.String()}, {"why", e.Reason},
				{"seen", strconv.Itoa(e.Seen.Requests)}, {"failed", strconv.Itoa(e.Seen.Errors)}}
			for _, s := range e.Samples {
				rows = append(rows, [2]string{"found", s})
			}
			values := []step.Value{
				{Output: outVerdict, Value: e.Verdict.String()},
				{Output: outReason, Value: e.Reason},
				{Output: outDigest, Value: string(v.Release.Digest)},
				{Output: outRequests, Value: strconv.Itoa(e.Seen.Requests)},
				{Output: outErrors, Value: strconv.Itoa(e.Seen.Errors)},
			}
			if back.Moved {
				seconds := strconv.FormatFloat(back.Took.Seconds(), 'f', 3, 64)
				rows = append(rows, [2]string{"serves again", back.Release.String()}, [2]string{"rollback took", seconds + " s"})
				values = append(values, step.Value{Output: outRolled, Value: back.Release.Reference()},
					step.Value{Output: outSeconds, Value: seconds})
			}
			if v.Observed != "" {
				rows = append(rows, [2]string{"observed", v.Observed})
			}
			rows = append(rows, step.Secrets(back.Changed)...)
			rows = append(rows, step.Unwritten(cmp.Or(back.Unwritten, v.Unwritten))...)
			rt.Summary(step.Report{Title: fmt.Sprintf("Verified %s", x.Name), Rows: rows, Incident: e.Verdict != verdict.Pass,
				Timeline: step.Timeline(back.Plan), Table: table(v), Charts: charts(v)})
			// What was kept and handed on cannot change how it ended: that comes first, and gives the exit code.
			err = errors.Join(ending(v, policy(e.Verdict)), rt.Changed(rt.Outputs(values...)), keep(v, record, picture))
			if back.Release.Digest != "" {
				page.Begin(ctx, rt, string(x.Name), back.Release.Commit, "back to "+back.Release.String())(v.BackErr == nil)
			}
			return err
		},
	}
}

// incident is the page of a verify that came to no verdict.
func incident(rt *step.Runtime, x *executor.Executor, v executor.Verification, err error) {
	if v.Release.Digest == "" {
		return
	}
	rt.Summary(step.Report{Title: fmt.Sprintf("Not verified: %s", x.Name), Incident: true,
		Rows: [][2]string{{"release", v.Release.String()}, {"error", err.Error()}, {"hint", fault.HintOf(err)}}})
}

// ending is the error that gives the exit code of a verdict and of what followed it.
func ending(v executor.Verification, policy string) error {
	e := v.Evidence
	switch {
	case v.BackErr != nil && v.Back.Moved:
		return fmt.Errorf("verdict %s on %s (%s); %s has the traffic again: %w", e.Verdict, v.Release, e.Reason, v.Back.Release, v.BackErr)
	case v.BackErr != nil:
		return fmt.Errorf("verdict %s on %s (%s), and no way back: %w", e.Verdict, v.Release, e.Reason, v.BackErr)
	case policy == step.RollBack:
		return fault.Errorf(fault.RolledBack, "verdict %s on %s: %s; %s serves again", e.Verdict, v.Release, e.Reason, v.Back.Release).
			WithHint("find the cause; then backstep unfreeze, and deploy a new build")
	case policy == observe:
		return nil
	case e.Verdict == verdict.Fail:
		return fault.Errorf(fault.VerdictFail, "verdict fail on %s: %s", v.Release, e.Reason).
			WithHint("to go back: backstep rollback")
	case e.Verdict == verdict.Unknown && policy == step.Hold:
		return fault.Errorf(fault.VerdictUnknown, "verdict unknown on %s: %s", v.Release, e.Reason).
			WithHint("give it a longer bake or a higher rate, or choose --on-unknown")
	}
	return nil
}
