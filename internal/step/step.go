// Package step is the contract of a step: declared once, with everything that runs, packages or documents it.
package step

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/host"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/secret"
)

// Step is one step, or one operator command. A constructor returns a fresh one each time, so that nothing
// is shared between two runs.
type Step struct {
	Name     string   // kebab-case: the subcommand, actions/<name>, templates/<name>
	Summary  string   // one line without a full stop
	Doc      string   // Markdown for the reference
	Shell    bool     // runs other programs: its image is the one with a shell and git
	Deploys  bool     // changes what is live
	ByHand   bool     // a person starts it: no pipeline runs it by itself
	Operator bool     // for a person at a terminal: no action and no template is made of it
	Words    []string // the inputs that words before the first flag are for, in order
	Inputs   []input.Input
	Outputs  []input.Output
	Run      func(context.Context, *Runtime) error
}

// Runtime is what a running step has of the world.
type Runtime struct {
	Host   host.Host
	Log    *slog.Logger
	Stdout io.Writer // values only
	Stderr io.Writer
	// Terminal is where a picture can be drawn, in the terminal's own language; nil when there is none.
	Terminal io.Writer
	Secrets  *secret.Known // what must not leave: it is redacted from all that is printed, and from what is stored
	Getenv   func(string) string
	Now      func() time.Time

	put map[string]string // what was handed on, by the names of outputs
}

// Value is what one declared output is set to.
type Value struct {
	Output input.Output
	Value  string
}

// Outputs hands values to later steps through the host. All are tried.
func (rt *Runtime) Outputs(values ...Value) error {
	var faults []error
	if rt.put == nil {
		rt.put = map[string]string{}
	}
	for _, v := range values {
		write := rt.Host.Output
		if v.Output.Foreign {
			v.Value = rt.Secrets.Redact(v.Value)
			if b, ok := rt.Host.(host.Besider); ok {
				write = b.Beside
			}
		}
		rt.put[v.Output.Name] = v.Value
		if err := write(v.Output.Name, v.Value); err != nil {
			faults = append(faults, fmt.Errorf("write output %s: %w", v.Output.Name, err))
		}
	}
	return errors.Join(faults...)
}

// Changed is the error of what failed after a change was made: it is reported, and its exit code does not say that nothing
// had been changed.
func (rt *Runtime) Changed(err error) error {
	if err == nil {
		return nil
	}
	return fault.Errorf(fault.HalfWay, "the change is made, but not handed on: %w", err).WithHint("%s", fault.HintOf(err))
}

// Summary shows the report on the run's page where the host has one.
func (rt *Runtime) Summary(r Report) {
	if s, ok := rt.Host.(host.Summarizer); ok {
		drawer, draws := rt.Host.(host.Drawer)
		if err := s.Summary(r.redacted(rt.Secrets.Redact).Markdown(draws && drawer.Draws())); err != nil {
			rt.Log.Warn("the summary could not be written", "error", err)
		}
	}
}

// The answers to a verdict of unknown.
const (
	Hold     = "hold"
	RollBack = "rollback"
	Promote  = "promote"
)

// OnUnknown declares what a verdict of unknown does, in each step that can come to one.
func OnUnknown(p *string) input.Input {
	return input.String(p, "on-unknown", "What an unknown verdict does. verify: hold (exit 4), roll back, or promote (exit 0; the release does not become the last good one). "+
		"deploy, at a share of a canary: roll back, promote it to the next share, or hold to what backstep.yml says.").OneOf(Hold, RollBack, Promote).Or(Hold)
}

// The inputs that several steps share have one help text each.
const (
	ImageHelp   = "The image, as registry/name:tag or registry/name@sha256:…."
	DryRunHelp  = "Print the plan and change nothing."
	ReasonHelp  = "Why, in a sentence; it is kept in the ledger."
	VersionHelp = "The version of the release: SemVer without v."
	ContextHelp = "The folder to work in."
	JSONHelp    = "Print one JSON object instead of text."
)
