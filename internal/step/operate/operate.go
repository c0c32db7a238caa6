// Package operate declares the operator commands on the ledger: status, history, freeze, unfreeze and lift.
package operate

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/backstep/backstep/internal/config"
	"github.com/backstep/backstep/internal/executor"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/ledger"
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
			x, err := place.Open(executor.World{Host: rt.Host, Log: rt.Log, Now: rt.Now, Getenv: rt.Getenv}, kinds)
			if err != nil {
				return err
			}
			return run(ctx, x, rt.Stdout, asJSON)
		},
	}
}

// Status declares the command that tells what is true of an environment now.
func Status(kinds config.Kinds) step.Step {
	return command(kinds, "status", "Tell what is live, what is the last good release, and what is frozen or quarantined",
		"Reads the newest event of the ledger: two requests, whatever the history.", nil,
		func(ctx context.Context, x *executor.Executor, out io.Writer, asJSON bool) error {
			newest, err := x.Ledger.Newest(ctx)
			if err != nil {
				return err
			}
			return show(out, asJSON, newest, func() { status(out, x.Name, newest) })
		})
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
		fmt.Fprintf(w, "under way\t%s of %s by %s, at most until %s\n", strings.TrimSuffix(string(in.Kind), ".started"),
			in.To, in.Author, in.Deadline.UTC().Format(time.RFC3339))
	}
	if f := s.Freeze; f != nil {
		fmt.Fprintf(w, "frozen\tsince %s by %s: %s\n", f.At.UTC().Format(time.RFC3339), f.Author, line(f.Reason))
	}
	for _, q := range s.Quarantined {
		fmt.Fprintf(w, "quarantined\t%s since %s: %s\n", q.Release, q.At.UTC().Format(time.RFC3339), line(q.Reason))
	}
	fmt.Fprintf(w, "event\t%d, %s at %s by %s\n", e.Seq, e.Kind, e.At.UTC().Format(time.RFC3339), e.Author)
}

func entry(e *ledger.Entry) string {
	switch {
	case e == nil:
		return "none"
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
			for e := newest; e.Seq > 0; {
				if err := show(out, asJSON, e, func() { row(w, e) }); err != nil {
					return err
				}
				if count--; count == 0 || e.Seq == 1 {
					return nil
				}
				if e, err = x.Ledger.At(ctx, e.Seq-1); err != nil {
					return err
				}
			}
			return nil
		})
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
	var reason string
	return command(kinds, "freeze", "Make an environment refuse deploys; rolling back stays allowed",
		"Every pipeline honours it, since it is in the ledger.",
		[]input.Input{input.String(&reason, "reason", step.ReasonHelp).Must()},
		func(ctx context.Context, x *executor.Executor, out io.Writer, asJSON bool) error {
			return write(ctx, x, out, asJSON, func(e ledger.Event) (ledger.Event, error) {
				return ledger.SetFreeze(e, reason, x.Stamp())
			})
		})
}

// Unfreeze declares the command that lets an environment take deploys again.
func Unfreeze(kinds config.Kinds) step.Step {
	var reason string
	return command(kinds, "unfreeze", "Let a frozen environment take deploys again",
		"The quarantine of digests stays.",
		[]input.Input{input.String(&reason, "reason", step.ReasonHelp).Must()},
		func(ctx context.Context, x *executor.Executor, out io.Writer, asJSON bool) error {
			return write(ctx, x, out, asJSON, func(e ledger.Event) (ledger.Event, error) {
				return ledger.Unfreeze(e, reason, x.Stamp())
			})
		})
}

// Lift declares the command that takes a digest out of quarantine.
func Lift(kinds config.Kinds) step.Step {
	var (
		reason string
		digest release.Digest
	)
	return command(kinds, "lift", "Take a digest out of quarantine, so that it can be deployed again",
		"For a release that was found bad by mistake.",
		[]input.Input{
			input.Bind(&digest, "digest", "The digest, sha256:….", release.ParseDigest).Must(),
			input.String(&reason, "reason", step.ReasonHelp).Must(),
		},
		func(ctx context.Context, x *executor.Executor, out io.Writer, asJSON bool) error {
			return write(ctx, x, out, asJSON, func(e ledger.Event) (ledger.Event, error) {
				return ledger.Lift(e, digest, reason, x.Stamp())
			})
		})
}
