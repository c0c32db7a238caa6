package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/step"
)

// run is one command line: what it says, what it complains of, and the code that it ends with.
func run(env map[string]string, steps []step.Step, args ...string) (said, complaints string, code fault.Code) {
	var out, err bytes.Buffer
	p := process{args: args, stdout: &out, stderr: &err, getenv: func(name string) string { return env[name] }, now: time.Now}
	for name, value := range env {
		p.environ = append(p.environ, name+"="+value)
	}
	code = fault.Code(p.main(context.Background(), steps))
	return out.String(), err.String(), code
}

// two are a step and an operator command with inputs of the same names, which note what they got.
func two(got *[]string) []step.Step {
	var steps []step.Step
	for _, operator := range []bool{false, true} {
		var image, reason string
		steps = append(steps, step.Step{Name: map[bool]string{false: "release", true: "operate"}[operator], Operator: operator,
			Inputs: []input.Input{input.String(&image, "image", "The image.").FromStep(), input.String(&reason, "reason", "Why.").Or("by hand")},
			Run: func(context.Context, *step.Runtime) error {
				*got = []string{image, reason}
				return nil
			}})
	}
	return steps
}

// Only what an input says that it takes from an earlier step comes from there, and a person's command takes nothing.
func TestHandedOn(t *testing.T) {
	for _, c := range []struct {
		name string
		env  map[string]string
		args []string
		want []string
	}{
		{"a step", nil, []string{"release"}, []string{"r/x:earlier", "by hand"}},
		{"an operator", nil, []string{"operate"}, []string{"", "by hand"}},
		{"a variable goes before", map[string]string{"BACKSTEP_IMAGE": "r/x:variable"}, []string{"release"}, []string{"r/x:variable", "by hand"}},
		{"a flag goes before", nil, []string{"release", "--image", "r/x:flag"}, []string{"r/x:flag", "by hand"}},
		{"an operator's own", map[string]string{"BACKSTEP_IMAGE": "r/x:variable"}, []string{"operate", "--reason", "holidays"}, []string{"r/x:variable", "holidays"}},
	} {
		for file, text := range map[string]string{"out.env": "BACKSTEP_IMAGE=r/x:earlier\nBACKSTEP_REASON=too many errors\n",
			"out.json": `{"image": "r/x:earlier", "reason": "too many errors"}`} {
			path := filepath.Join(t.TempDir(), file)
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			env := map[string]string{"BACKSTEP_OUTPUT": path, "BACKSTEP_HOST": "plain"}
			for k, v := range c.env {
				env[k] = v
			}
			var got []string
			_, complaints, code := run(env, two(&got), c.args...)
			if code != fault.Done || !slices.Equal(got, c.want) {
				t.Errorf("%s, %s: code %d, %s\ngot %q, want %q", c.name, file, code, complaints, got, c.want)
			}
		}
	}
}

func TestHelpOfNothing(t *testing.T) {
	var got []string
	const want = "backstep: error: \"nosuch\" is not a step or a command\nbackstep: hint: they are release, operate\n"
	for _, args := range [][]string{{"nosuch"}, {"help", "nosuch"}, {"--help", "nosuch"}} {
		said, complaints, code := run(map[string]string{"BACKSTEP_HOST": "plain"}, two(&got), args...)
		if code != fault.Input || complaints != want || said != "" {
			t.Errorf("%q: code %d, said %q and complained\n%s", args, code, said, complaints)
		}
	}
	for _, args := range [][]string{nil, {"help"}, {"help", "release"}, {"release", "--help"}} {
		said, complaints, code := run(map[string]string{"BACKSTEP_HOST": "plain"}, two(&got), args...)
		if code != fault.Done || complaints != "" || !strings.Contains(said, "release") {
			t.Errorf("%q: code %d, said %q and complained\n%s", args, code, said, complaints)
		}
	}
}
