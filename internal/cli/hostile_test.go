package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/host/hosttest"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/secret"
	"github.com/backstep/backstep/internal/step"
)

// hostile are texts that some host would take for a command.
var hostile = []string{
	"::set-output name=x::y", "  ::error::x", "\u00a0\u3000::warning::x", "text\r::notice::x", "text\n::debug::x", "\ufeff::group::x",
	"\u200b::add-path::x", "text ##[set-output name=x]y", "##[error]x", "#\u200b#[add-path]/tmp", "##vso[task.setvariable variable=x]y",
	"##teamcity[buildStatus status='FAILURE']", "\x1b[2Jgone", "\x9b2J", "section_start:1:x[collapsed=true]\r\x1b[0Kx", "\x00::error::x",
	"back\bspace", "\v::error::x", "\u2028::error::x", "\xff\x9b::error::x",
}

// speaking is a step that says text wherever it can say anything.
func speaking(text string) []step.Step {
	return []step.Step{{Name: "speak", Run: func(_ context.Context, rt *step.Runtime) error {
		fmt.Fprintf(rt.Stdout, "%s\n%s", text, text)
		fmt.Fprintln(rt.Stderr, text)
		rt.Log.Info(text, text, text, "error", errors.New(text))
		if err := rt.Host.Output("reason", text); err != nil {
			return err
		}
		return errors.Join(fault.Inputf("read %s", text).WithHint("look at %s", text).At(text), errors.New(text))
	}}}
}

// Nothing that a step says becomes a command of a host, on any host, in any format.
func TestNothingSaidIsACommand(t *testing.T) {
	for _, env := range []map[string]string{{"BACKSTEP_HOST": "plain"}, {"BACKSTEP_HOST": "gitlab", "BACKSTEP_OUTPUT": t.TempDir() + "/out.env"},
		{"BACKSTEP_HOST": "github", "GITHUB_OUTPUT": t.TempDir() + "/out"}} {
		for _, format := range []string{"text", "json"} {
			for _, text := range hostile {
				said, complaints, _ := run(env, speaking(text), "--log-format", format)
				found := slices.DeleteFunc(hosttest.Commands(said+"\n"+complaints), func(c string) bool {
					return env["BACKSTEP_HOST"] == "github" && c == "::error" // what marks the run with the error
				})
				if len(found) > 0 {
					t.Errorf("%s, %s: %q gave the commands %q in\n%q\n%q", env["BACKSTEP_HOST"], format, text, found, said, complaints)
				}
			}
		}
	}
}

// What we say to a host on purpose is a command still.
func TestOwnCommands(t *testing.T) {
	var token secret.Value
	asks := []step.Step{{Name: "ask", Inputs: []input.Input{input.Secret(&token, "token", "A token.")}, Run: func(_ context.Context, rt *step.Runtime) error {
		return fault.Inputf("it is\nbad: 100%%")
	}}}
	said, _, _ := run(map[string]string{"BACKSTEP_HOST": "github", "INPUT_TOKEN": "first line\nsecond"}, asks)
	want := "::add-mask::first line\n::add-mask::second\n::error::it is%0Abad: 100%25\n"
	if said != want || !strings.Contains(token.Reveal(), "second") {
		t.Errorf("said %q, want %q", said, want)
	}
}
