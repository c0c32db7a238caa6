// Package operate declares the operator commands on the ledger: status, history, freeze, unfreeze and lift.
package operate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/backstep/backstep/internal/config"
	"github.com/backstep/backstep/internal/executor"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/step"
)

// command is the part that all operator commands share.
func command(kinds config.Kinds, name, summary, doc string, inputs []input.Input,
	run func(ctx context.Context, x *executor.Executor, out io.Writer, asJSON bool) error) step.Step {
	var (
		place  executor.Place
		asJSON bool
	)
	return step.Step{
		Name: name, Summary: summary, Doc: doc, Operator: true,
		Inputs: append(append(place.Inputs(), inputs...), input.Bool(&asJSON, "json", step.JSONHelp)),
		Run: func(ctx context.Context, rt *step.Runtime) error {
			x, err := place.Open(executor.World{Host: rt.Host, Log: rt.Log, Now: rt.Now, Getenv: rt.Getenv, Secrets: rt.Secrets}, kinds)
			if err != nil {
				return err
			}
			defer x.Close()
			return run(ctx, x, rt.Stdout, asJSON)
		},
	}
}

// Status declares the command that tells what is true of an environment now.
func Status(kinds config.Kinds) step.Step {
	return command(kinds, "status", "Tell what is live, what is the last good release, and what is frozen or quarantined",
		"Reads the newest event of the ledger, two requests, whatever the history, and looks at the target: it says where the two "+
			"differ, and changes nothing. When the ledger does not answer within some seconds, it tells what the target knows, and ends with exit code 1.", nil,
		func(ctx context.Context, x *executor.Executor, out io.Writer, asJSON bool) error {
			s, err := x.Status(ctx)
			if err != nil {
				return err
			}
			if s.LedgerErr != nil {
				if s.Target == nil {
					return errors.Join(s.LedgerErr, s.TargetErr)
				}
				return errors.Join(s.LedgerErr, show(out, asJSON, s.Target, func() { onTarget(out, x.Name, *s.Target) }))
			}
			return show(out, asJSON, seen{s.Newest, s.Target, s.Difference}, func() {
				status(out, x.Name, s.Newest)
				difference(out, s)
			})
		})
}

// seen is the JSON of status: the newest event, and what the target says.
type seen struct {
	ledger.Event
	Target     *plan.State `json:"target,omitempty"`
	Difference string      `json:"difference,omitempty"`
}

// difference prints where the target is not as the ledger says.
func difference(out io.Writer, s executor.Status) {
	switch {
	case s.TargetErr != nil:
		fmt.Fprintf(out, "target       cannot be seen: %s\n", line(s.TargetErr.Error()))
	case s.Foreign:
		fmt.Fprintf(out, "target       %s\n", line(s.Difference))
	case s.Difference != "":
		fmt.Fprintf(out, "target       %s; the next run of any step sees to it\n", line(s.Difference))
	}
}

// show prints v as JSON or calls text.
func show(out io.Writer, asJSON bool, v any, text func()) error {
	if !asJSON {
		text()
		return nil
	}
	return json.NewEncoder(out).Encode(v)
}

func status(out io.Writer, name release.Environment, e ledger.Event) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer w.Flush()
	fmt.Fprintf(w, "environment\t%s\n", name)
	if e.Seq == 0 {
		fmt.Fprintf(w, "live\tnothing was ever deployed\n")
		return
	}
	s := e.State
	fmt.Fprintf(w, "live\t%s\n", entry(s.Live))
	fmt.Fprintf(w, "last good\t%s\n", entry(s.LastGood))
	if in := s.Intent; in != nil {
		fmt.Fprintf(w, "under way\t%s, at most until %s\n", in, in.Deadline.UTC().Format(time.RFC3339))
		if in.Paused != nil {
			fmt.Fprintf(w, "paused\tsince %s by %s: %s\n", in.Paused.At.UTC().Format(time.RFC3339), in.Paused.Author, line(in.Paused.Reason))
		}
	}
	for _, f := range s.Freezes {
		until := ""
		if f.Until != nil {
			until = " until " + f.Until.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(w, "frozen\tsince %s%s by %s: %s\n", f.At.UTC().Format(time.RFC3339), until, f.Author, line(f.Reason))
	}
	for _, q := range s.Quarantined {
		fmt.Fprintf(w, "quarantined\t%s since %s: %s\n", q.Release, q.At.UTC().Format(time.RFC3339), line(q.Reason))
	}
	fmt.Fprintf(w, "event\t%d, %s at %s by %s\n", e.Seq, e.Kind, e.At.UTC().Format(time.RFC3339), e.Author)
}

// onTarget prints what a target knows of itself, without a ledger.
func onTarget(out io.Writer, name release.Environment, s plan.State) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer w.Flush()
	fmt.Fprintf(w, "environment\t%s, by what its target knows\n", name)
	for _, in := range s.Instances {
		fmt.Fprintf(w, "on target\t%s, %s, %d %% of the traffic\n", in.Release, in.Phase, in.Weight)
	}
	if c := s.Claim; c.Aim != "" {
		fmt.Fprintf(w, "claim\t%s, to %s %s\n", c.Number, c.Aim, c.Wanted)
		if c.Back != nil {
			fmt.Fprintf(w, "way back\t%s\n", c.Back)
		}
	}
	for _, n := range s.Notes {
		fmt.Fprintf(w, "rolled back\tfrom %s to %s at %s by %s: %s\n", n.Left, n.To, n.At.UTC().Format(time.RFC3339), n.Author, line(n.Why))
	}
}

func entry(e *ledger.Entry) string {
	switch {
	case e == nil:
		return "none"
	case e.Restored && e.Good:
		return e.Release.String() + ", good, by a rollback"
	case e.Restored:
		return e.Release.String() + ", by a rollback"
	case e.Good:
		return e.Release.String() + ", good"
	}
	return e.Release.String() + ", not verified"
}

func line(s string) string { return strings.Join(strings.Fields(s), " ") }

// History declares the command that lists the newest events.
func History(kinds config.Kinds) step.Step {
	var count int
	return command(kinds, "history", "List the newest events of the ledger, newest first",
		"With --json, one event a line, each with its full snapshot.",
		[]input.Input{input.Int(&count, "count", "How many events.", 1, 10_000).Or("20")},
		func(ctx context.Context, x *executor.Executor, out io.Writer, asJSON bool) error {
			newest, err := x.Ledger.Newest(ctx)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
			defer w.Flush()
			for p := (past{History: x.Ledger, event: newest, counts: newest}); p.event.Seq > 0; {
				e := p.event
				if p.doubt != "" {
					e.Reason = strings.Trim(p.doubt+"; "+e.Reason, "; ")
				}
				if err := show(out, asJSON, e, func() { row(w, e) }); err != nil {
					return err
				}
				if count--; count == 0 || e.Seq == 1 {
					return nil
				}
				if err := p.back(ctx); err != nil {
					return err
				}
			}
			return nil
		})
}

// past goes through the history, newest first, along the digests by which each event names the one before it.
type past struct {
	ledger.History
	event  ledger.Event // with the number where we are
	counts ledger.Event // the last one that counts
	doubt  string       // why event is not simply what stands under its number
}

// back goes to the number before. An event that the one after it does not name does not count; the one that it names instead is shown
// when it is still there.
func (p *past) back(ctx context.Context) error {
	seq := p.event.Seq - 1
	found, err := p.At(ctx, seq)
	if p.doubt = ""; err == nil && found.Digest == p.counts.Previous {
		p.event, p.counts = found, found
		return nil
	}
	named, gone := p.Before(ctx, p.counts)
	switch {
	case gone != nil && !errors.Is(gone, ledger.ErrNoEvent):
		return gone
	case gone == nil && named.Seq == seq:
		p.event, p.counts, p.doubt = named, named, "something else stands under its number"
	case err != nil:
		return err
	case found.Kind == ledger.Skipped:
		p.event = found
	case gone != nil:
		p.event, p.counts, p.doubt = found, found, fmt.Sprintf("it was rewritten: event %d names another one", p.counts.Seq)
	default:
		p.event, p.doubt = found, fmt.Sprintf("it does not count: event %d does not name it", p.counts.Seq)
	}
	return nil
}

func row(w io.Writer, e ledger.Event) {
	about := ""
	if e.Release != nil {
		about = e.Release.String()
	}
	why := e.Reason
	if e.Evidence != "" {
		why = strings.TrimPrefix(why+"; "+e.Evidence, "; ")
	}
	fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n", e.Seq, e.At.UTC().Format(time.RFC3339), e.Kind, about, e.Author, line(why))
}

// write commits one transition and prints it.
func write(ctx context.Context, x *executor.Executor, out io.Writer, asJSON bool,
	change func(ledger.Event) (ledger.Event, error)) error {
	e, err := x.Ledger.Commit(ctx, change)
	if err != nil {
		return err
	}
	return show(out, asJSON, e, func() { status(out, x.Name, e) })
}

// Freeze declares the command that makes an environment refuse deploys.
func Freeze(kinds config.Kinds) step.Step {
	var (
		reason string
		until  time.Time
	)
	return command(kinds, "freeze", "Make an environment refuse deploys; rolling back stays allowed",
		"Every pipeline honours it, since it is in the ledger. It is not ended by the end of a freeze that a rollback has set.",
		[]input.Input{input.String(&reason, "reason", step.ReasonHelp).Must(),
			input.Time(&until, "until", "When it ends by itself, for example 2026-12-01T08:00:00Z; empty is not before unfreeze.")},
		func(ctx context.Context, x *executor.Executor, out io.Writer, asJSON bool) error {
			return write(ctx, x, out, asJSON, func(e ledger.Event) (ledger.Event, error) {
				var end *time.Time
				if !until.IsZero() {
					end = &until
				}
				return ledger.SetFreeze(e, reason, end, x.Stamp())
			})
		})
}

// Unfreeze declares the command that lets an environment take deploys again.
func Unfreeze(kinds config.Kinds) step.Step {
	var reason, by string
	return command(kinds, "unfreeze", "Let a frozen environment take deploys again",
		"Ends one freeze: that of a rollback, when there is one, else that of a person. The quarantine of digests stays.",
		[]input.Input{input.String(&reason, "reason", step.ReasonHelp).Must(),
			input.String(&by, "set-by", "Which freeze ends, when there are two.").OneOf(string(ledger.ByRollback), string(ledger.ByPerson))},
		func(ctx context.Context, x *executor.Executor, out io.Writer, asJSON bool) error {
			return write(ctx, x, out, asJSON, func(e ledger.Event) (ledger.Event, error) {
				return ledger.Unfreeze(e, ledger.Cause(by), reason, x.Stamp())
			})
		})
}

// Abort declares the command that ends what another run has under way.
func Abort(kinds config.Kinds) step.Step {
	var reason string
	return command(kinds, "abort", "Take back what another run has under way, without ending its job",
		"A deploy is taken back: what was live gets all the traffic again. A verify ends without a verdict. The run that is overruled notices at its next "+
			"step, changes nothing any more and ends with exit code 7. It is recorded who did it, and why.",
		[]input.Input{input.String(&reason, "reason", step.ReasonHelp).Must()},
		func(ctx context.Context, x *executor.Executor, out io.Writer, asJSON bool) error {
			in, newest, err := x.Abort(ctx, reason)
			if err != nil {
				return err
			}
			return show(out, asJSON, newest, func() {
				fmt.Fprintf(out, "aborted      %s\n", in)
				status(out, x.Name, newest)
			})
		})
}

// Pause declares the command that holds what another run has under way.
func Pause(kinds config.Kinds) step.Step {
	return held(kinds, "pause", "Hold what another run has under way: a canary at its share, a deploy before its next operation, a verify before its pass",
		"The run notices within some seconds. It goes no further forward; when it fails it goes back as always. A deploy waits no longer than its own deadline.",
		ledger.SetPause)
}

// Resume declares the command that lets it go on.
func Resume(kinds config.Kinds) step.Step {
	return held(kinds, "resume", "Let what was paused go on", "The run notices within some seconds.", ledger.Resume)
}

func held(kinds config.Kinds, name, summary, doc string, change func(ledger.Event, string, ledger.Stamp) (ledger.Event, error)) step.Step {
	var reason string
	return command(kinds, name, summary, doc,
		[]input.Input{input.String(&reason, "reason", step.ReasonHelp).Must()},
		func(ctx context.Context, x *executor.Executor, out io.Writer, asJSON bool) error {
			return write(ctx, x, out, asJSON, func(e ledger.Event) (ledger.Event, error) { return change(e, reason, x.Stamp()) })
		})
}

// Adopt declares the command that takes over what the targets know.
func Adopt(kinds config.Kinds) step.Step {
	var (
		reason string
		dryRun bool
	)
	return command(kinds, "adopt", "Take over what the target knows into this ledger: the registry has moved, or was lost",
		"Shows what is live there, where a rollback goes, and what was found bad and is in no ledger yet, and writes it into the ledger of the configuration. From then on "+
			"the target belongs to this ledger, and refuses the former one.",
		[]input.Input{
			input.String(&reason, "reason", step.ReasonHelp),
			input.Bool(&dryRun, "dry-run", step.DryRunHelp),
		},
		func(ctx context.Context, x *executor.Executor, out io.Writer, asJSON bool) error {
			adopted, err := x.Adopt(ctx, reason, dryRun, func(a executor.Adoption) {
				if !asJSON {
					adoption(out, x.Name, a)
				}
			})
			if err != nil || !asJSON {
				return err
			}
			return json.NewEncoder(out).Encode(adopted)
		})
}

// adoption prints what is taken over.
func adoption(out io.Writer, name release.Environment, a executor.Adoption) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer w.Flush()
	fmt.Fprintf(w, "environment\t%s\n", name)
	for _, l := range a.Former {
		fmt.Fprintf(w, "taken over from\t%s\n", line(l))
	}
	fmt.Fprintf(w, "live\t%s\n", entry(&a.Live))
	for _, g := range a.Good {
		fmt.Fprintf(w, "way back\t%s\n", g.Release)
	}
	for _, n := range a.Notes {
		if n.Condemn {
			fmt.Fprintf(w, "quarantined\t%s by %s: %s\n", n.Left, n.Author, line(n.Why))
		}
	}
}

// Lift declares the command that takes a digest out of quarantine.
func Lift(kinds config.Kinds) step.Step {
	var (
		reason string
		id     release.ID
	)
	return command(kinds, "lift", "Take a digest out of quarantine, so that it can be deployed again",
		"For a release that was found bad by mistake.",
		[]input.Input{
			input.Bind(&id, "digest", "The digest, sha256:…; or the ID of one release of that image, sha256:…+….", release.ParseID).Must(),
			input.String(&reason, "reason", step.ReasonHelp).Must(),
		},
		func(ctx context.Context, x *executor.Executor, out io.Writer, asJSON bool) error {
			return write(ctx, x, out, asJSON, func(e ledger.Event) (ledger.Event, error) {
				return ledger.Lift(e, id, reason, x.Stamp())
			})
		})
}
