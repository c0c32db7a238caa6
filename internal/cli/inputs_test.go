package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/step"
)

// told are two steps with inputs of every kind; the first one notes what it got.
func told(got *string) []step.Step {
	var dryRun bool
	var prefix, onFail, image, other string
	var tags []string
	return []step.Step{
		{Name: "deploy", Inputs: []input.Input{
			input.Bool(&dryRun, "dry-run", "Only plan."),
			input.String(&prefix, "tag-prefix", "The prefix.").Or("v").MayBeEmpty(),
			input.String(&onFail, "on-fail", "What then.").OneOf("report", "rollback").Or("report"),
			input.String(&image, "image", "The image."),
			input.List(&tags, "tags", "The tags."),
		}, Outputs: []input.Output{{Name: "digest"}}, Run: func(context.Context, *step.Runtime) error {
			*got = fmt.Sprintf("%v %q %s %q %q", dryRun, prefix, onFail, image, tags)
			return nil
		}},
		{Name: "verify", Inputs: []input.Input{input.String(&other, "bake", "How long.")},
			Run: func(context.Context, *step.Runtime) error { return nil }},
	}
}

// One order of precedence on every host: a flag, what the host hands to the step, what stands around it, the default. What is
// written always goes before a default, wherever the default comes from.
func TestExplicitGoesBeforeDefault(t *testing.T) {
	hosts := []struct{ name, own string }{{"github", "INPUT_%s"}, {"gitlab", "BACKSTEP_INPUT_%s"}, {"plain", "PLUGIN_%s"}}
	const none = `false "v" report "" []`
	for _, h := range hosts {
		own := func(name string) string { return fmt.Sprintf(h.own, name) }
		for _, c := range []struct {
			what string
			env  map[string]string
			args []string
			want string
		}{
			{"nothing", nil, nil, none},
			{"around", map[string]string{"BACKSTEP_DRY_RUN": "true"}, nil, `true "v" report "" []`},
			{"around, and empty at the step", map[string]string{"BACKSTEP_DRY_RUN": "true", own("DRY_RUN"): ""}, nil, `true "v" report "" []`},
			{"at the step", map[string]string{"BACKSTEP_ON_FAIL": "report", own("ON_FAIL"): "rollback"}, nil, `false "v" rollback "" []`},
			{"a flag", map[string]string{"BACKSTEP_DRY_RUN": "true", own("DRY_RUN"): "true"}, []string{"--dry-run=false"}, none},
			{"an empty flag", nil, []string{"--tag-prefix", ""}, `false "" report "" []`},
			{"an empty flag stops what stands around", map[string]string{"BACKSTEP_IMAGE": "x"}, []string{"--image="}, none},
			{"an empty variable that means something", map[string]string{"BACKSTEP_TAG_PREFIX": ""}, nil, `false "" report "" []`},
			{"an empty variable that means nothing", map[string]string{"BACKSTEP_ON_FAIL": "", "BACKSTEP_IMAGE": ""}, nil, none},
			{"an empty prefix at the step", map[string]string{own("TAG_PREFIX"): ""}, nil, `false "" report "" []`},
			{"a default that the host hands on", map[string]string{own("TAG_PREFIX"): "v", "BACKSTEP_TAG_PREFIX": "w"}, nil, `false "w" report "" []`},
			{"a list", map[string]string{own("TAGS"): "a\nb"}, nil, `false "v" report "" ["a" "b"]`},
		} {
			env := map[string]string{"BACKSTEP_HOST": h.name}
			maps.Copy(env, c.env)
			var got string
			_, complaints, code := run(env, told(&got), append([]string{"deploy"}, c.args...)...)
			if code != fault.Done || got != c.want || complaints != "" {
				t.Errorf("%s, %s: code %d, got %s, want %s\n%s", h.name, c.what, code, got, c.want, complaints)
			}
		}
	}
}

// GitLab writes the default of a component's input into the job: it must not hide what stands around.
func TestADefaultOfAComponentIsNotGiven(t *testing.T) {
	var got string
	env := map[string]string{"BACKSTEP_HOST": "gitlab", "BACKSTEP_INPUT_DRY_RUN": "false", "BACKSTEP_DRY_RUN": "true",
		"BACKSTEP_INPUT_ON_FAIL": "report", "BACKSTEP_ON_FAIL": "rollback"}
	if _, complaints, code := run(env, told(&got), "deploy"); code != fault.Done || got != `true "v" rollback "" []` {
		t.Errorf("code %d, got %s\n%s", code, got, complaints)
	}
}

// A value that is empty where it means nothing is most likely a variable that nobody has set.
func TestEmptyFlags(t *testing.T) {
	for flag, want := range map[string]string{
		"--on-fail=": "backstep: error: --on-fail: it is empty\nbackstep: hint: leave it out for the default, report\n",
		"--dry-run=": "backstep: error: --dry-run: it is empty\nbackstep: hint: leave it out for the default, false\n",
	} {
		var got string
		if _, complaints, code := run(map[string]string{"BACKSTEP_HOST": "plain"}, told(&got), "deploy", flag); code != fault.Input || complaints != want {
			t.Errorf("%s: code %d\n%s", flag, code, complaints)
		}
	}
}

// On GitLab a step hands on its own outputs only, whatever an earlier job or the repository has left in the folder.
func TestAReportIsBegunAnew(t *testing.T) {
	dir := t.TempDir()
	report := filepath.Join(dir, "backstep.env")
	for name, text := range map[string]string{"backstep.env": "LD_PRELOAD=/evil.so\nBACKSTEP_IMAGE=web\n", "backstep-outputs.json": `{"image": "web"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	steps := []step.Step{{Name: "deploy", Run: func(_ context.Context, rt *step.Runtime) error {
		return errors.Join(rt.Host.Output("digest", "d"), rt.Host.Output("version", "1.0.0"))
	}}, {Name: "status", Operator: true, Run: func(context.Context, *step.Runtime) error { return nil }}}
	for _, name := range []string{"deploy", "status"} {
		if _, complaints, code := run(map[string]string{"BACKSTEP_HOST": "gitlab", "BACKSTEP_OUTPUT": report}, steps, name); code != fault.Done {
			t.Fatalf("%s: code %d, %s", name, code, complaints)
		}
		text, err := os.ReadFile(report)
		if want := "BACKSTEP_DIGEST=d\nBACKSTEP_VERSION=1.0.0\n"; err != nil || string(text) != want {
			t.Errorf("after %s the report is %q, %v; want %q", name, text, err, want)
		}
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "backstep-outputs.json")); strings.Contains(string(text), "web") {
		t.Errorf("beside it is %s", text)
	}
}

// What is misspelt is never passed over in silence, wherever it is written.
func TestMisspeltInputs(t *testing.T) {
	for _, c := range []struct {
		what, host string
		env        map[string]string
		args       []string
		code       fault.Code
		want       string
	}{
		{"with: on GitHub", "github", map[string]string{"INPUT_ONFAIL": "rollback"}, nil, fault.Input,
			"backstep: error: INPUT_ONFAIL: deploy takes no input onfail\nbackstep: hint: did you mean on-fail?\n"},
		{"in a component of GitLab", "gitlab", map[string]string{"BACKSTEP_INPUT_DRYRUN": "true"}, nil, fault.Input,
			"backstep: error: BACKSTEP_INPUT_DRYRUN: deploy takes no input dryrun\nbackstep: hint: did you mean dry-run?\n"},
		{"settings of a plugin", "plain", map[string]string{"PLUGIN_IMAGES": "x"}, nil, fault.Input,
			"backstep: error: PLUGIN_IMAGES: deploy takes no input images\nbackstep: hint: did you mean image?\n"},
		{"an input of another step", "github", map[string]string{"INPUT_BAKE": "1m"}, nil, fault.Done,
			"backstep: warning: deploy takes no input bake: INPUT_BAKE is not read\n"},
		{"somebody else's", "github", map[string]string{"INPUT_WHO-TO-GREET": "x"}, nil, fault.Done,
			"backstep: warning: deploy takes no input who-to-greet: INPUT_WHO-TO-GREET is not read\n"},
		{"what the runner sets itself", "github", map[string]string{"INPUT_ARGS": "x", "INPUT_STEP": "deploy", "INPUT_ONFAIL": ""}, nil, fault.Done, ""},
		{"a variable", "plain", map[string]string{"BACKSTEP_ONFAIL": "rollback"}, nil, fault.Done,
			"backstep: warning: BACKSTEP_ONFAIL is not read: no step has such an input; did you mean BACKSTEP_ON_FAIL?\n"},
		{"a variable of nobody", "gitlab", map[string]string{"BACKSTEP_COFFEE_MACHINE": "on"}, nil, fault.Done,
			"backstep: warning: BACKSTEP_COFFEE_MACHINE is not read: no step has such an input\n"},
		{"an output of an earlier job", "gitlab", map[string]string{"BACKSTEP_DIGEST": "x", "BACKSTEP_BAKE": "1m", "BACKSTEP_OUTPUT": "x", "BACKSTEP_LOG_LEVEL": "warn"}, nil, fault.Done, ""},
		{"a flag", "plain", nil, []string{"--onfail", "rollback"}, fault.Input,
			"backstep: error: flag provided but not defined: -onfail\nbackstep: hint: did you mean --on-fail?\n"},
	} {
		env := map[string]string{"BACKSTEP_HOST": c.host}
		maps.Copy(env, c.env)
		var got string
		_, complaints, code := run(env, told(&got), append([]string{"deploy"}, c.args...)...)
		if code != c.code || complaints != c.want {
			t.Errorf("%s: code %d, complained\n%swant\n%s", c.what, code, complaints, c.want)
		}
	}
}

// A plugin has no arguments: a setting tells the step.
func TestAPluginIsToldItsStep(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		code fault.Code
		want string
	}{
		{map[string]string{"PLUGIN_STEP": "deploy", "PLUGIN_TAGS": "a,b"}, fault.Done, ""},
		{map[string]string{"PLUGIN_IMAGE": "x"}, fault.Input, "backstep: error: PLUGIN_STEP: nothing says which step is to run\nbackstep: hint: set step to one of deploy, verify\n"},
		{map[string]string{"PLUGIN_STEP": "deplyo"}, fault.Input, "backstep: error: \"deplyo\" is not a step or a command\nbackstep: hint: did you mean deploy?\n"},
	} {
		c.env["BACKSTEP_HOST"] = "plain"
		var got string
		_, complaints, code := run(c.env, told(&got))
		if code != c.code || complaints != c.want || code == fault.Done && got != `false "v" report "" ["a" "b"]` {
			t.Errorf("%v: code %d, got %s\n%s", c.env, code, got, complaints)
		}
	}
}

// Help keeps to the terminal.
func TestHelpFits(t *testing.T) {
	long := told(new(string))
	long[0].Summary = strings.Repeat("many words ", 20)
	long[0].Doc = strings.Repeat("more words ", 30)
	long[0].Inputs[0].Help = strings.Repeat("even more ", 30)
	long[0].Outputs[0].Help = strings.Repeat("and out ", 30)
	for columns, want := range map[string]int{"60": 60, "80": 80, "": 80, "300": 80} {
		for _, args := range [][]string{{"help"}, {"help", "deploy"}, {"deploy", "--help"}} {
			said, _, code := run(map[string]string{"BACKSTEP_HOST": "plain", "COLUMNS": columns}, long, args...)
			for line := range strings.Lines(said) {
				if n := len([]rune(strings.TrimRight(line, "\n"))); n > want || code != fault.Done {
					t.Errorf("%s columns, %q: a line has %d: %s", columns, args, n, line)
				}
			}
		}
	}
}

func TestCompletionWantsAShell(t *testing.T) {
	var got string
	for _, c := range []struct{ args, want string }{
		{"completion", "backstep: error: completion wants the name of a shell\nbackstep: hint: backstep completion bash, zsh or fish\n"},
		{"completion ksh", "backstep: error: shell \"ksh\" is not one of bash, zsh, fish\n"},
	} {
		if _, complaints, code := run(map[string]string{"BACKSTEP_HOST": "plain"}, told(&got), strings.Fields(c.args)...); code != fault.Input || complaints != c.want {
			t.Errorf("%s: code %d\n%s", c.args, code, complaints)
		}
	}
}
