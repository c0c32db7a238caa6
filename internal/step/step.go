// Package step is the contract of a step: declared once, with everything that runs, packages or documents it.
package step

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/backstep/backstep/internal/host"
	"github.com/backstep/backstep/internal/input"
)

// Step is one step, or one operator command. A constructor returns a fresh one each time, so that nothing
// is shared between two runs.
type Step struct {
	Name     string // kebab-case: the subcommand, actions/<name>, templates/<name>
	Summary  string // one line without a full stop
	Doc      string // Markdown for the reference
	Operator bool   // for a person at a terminal: no action and no template is made of it
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
	Getenv func(string) string
	Now    func() time.Time
}

// Output writes one declared output through the host.
func (rt *Runtime) Output(out input.Output, value string) error {
	if err := rt.Host.Output(out.Name, value); err != nil {
		return fmt.Errorf("write output %s: %w", out.Name, err)
	}
	return nil
}

// Summary shows markdown on the run's page where the host has one.
func (rt *Runtime) Summary(markdown string) {
	if s, ok := rt.Host.(host.Summarizer); ok {
		if err := s.Summary(markdown); err != nil {
			rt.Log.Warn("the summary could not be written", "error", err)
		}
	}
}
