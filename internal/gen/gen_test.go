package gen

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/backstep/backstep/internal/config"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/router"
	"github.com/backstep/backstep/internal/secret"
	"github.com/backstep/backstep/internal/step"
	"github.com/backstep/backstep/internal/target"
)

func sample(help string) step.Step {
	var s, image string
	return step.Step{Name: "sample", Summary: "A sample: with # signs", Doc: "Doc.",
		Inputs:  []input.Input{input.String(&s, "mode", help).OneOf("yes", "no").Or("no"), input.String(&image, "image", "The image.").Must().FromStep()},
		Outputs: []input.Output{{Name: "image", Help: "The image."}},
		Run:     func(context.Context, *step.Runtime) error { return nil }}
}

// Text that means something to YAML, to GitHub or to GitLab arrives as it is, and no value reaches a script.
func TestNastyHelp(t *testing.T) {
	const nasty = "colons: \"quotes\" 'both' ${{ github.token }} $[[ inputs.x ]] # and\nlines"
	files, err := Files([]step.Step{sample(nasty)}, config.Kinds{})
	if err != nil {
		t.Fatal(err)
	}
	var action struct {
		Inputs map[string]struct{ Description, Default string }
		Runs   struct{ Args []string }
	}
	if err := yaml.Unmarshal(files["actions/sample/action.yml"], &action); err != nil {
		t.Fatal(err)
	}
	if got := action.Inputs["mode"]; got.Description != nasty+" One of yes, no. Default: no" || got.Default != "" {
		t.Errorf("input mode is %+v: a default would go before what is written", got)
	}
	if len(action.Runs.Args) != 1 || action.Runs.Args[0] != "sample" {
		t.Errorf("arguments %q: want the step alone", action.Runs.Args)
	}
	spec, job, ok := strings.Cut(string(files["templates/sample/template.yml"]), "---\n")
	if !ok {
		t.Fatal("the component has no spec")
	}
	var component struct {
		Spec struct {
			Inputs map[string]struct {
				Default any
				Options []string
			}
		}
	}
	if err := yaml.Unmarshal([]byte(spec), &component); err != nil {
		t.Fatal(err)
	}
	in := component.Spec.Inputs
	if got := in["mode"]; strings.Join(got.Options, " ") != "yes no" || got.Default != "no" {
		t.Errorf("input mode is %+v", got)
	}
	if got := in["release-image"]; got.Default != "" {
		t.Errorf("input release-image is %+v: an earlier job may hand it on", got)
	}
	var jobs map[string]struct {
		Script    []string
		Variables map[string]struct {
			Value  string
			Expand bool
		}
	}
	if err := yaml.Unmarshal([]byte(job), &jobs); err != nil {
		t.Fatal(err)
	}
	for _, j := range jobs {
		if len(j.Script) != 1 || j.Script[0] != "backstep sample" {
			t.Errorf("script %q", j.Script)
		}
		if v := j.Variables["BACKSTEP_INPUT_MODE"]; v.Value != "$[[ inputs.mode ]]" || v.Expand {
			t.Errorf("BACKSTEP_INPUT_MODE is %+v", v)
		}
	}
}

func TestOneNameOneMeaning(t *testing.T) {
	other := sample("another help")
	other.Name = "other"
	_, err := Files([]step.Step{sample("help"), other}, config.Kinds{})
	if err == nil || err.Error() != "input mode of other is declared differently by another step" {
		t.Errorf("got %v", err)
	}
}

// What a user of GitLab may write, and may leave out.
func TestComponentInputs(t *testing.T) {
	s := sample("help")
	var count int
	var token secret.Value
	var env map[string]string
	s.Inputs = append(s.Inputs, input.Int(&count, "count", "How many.", 0, 9), input.Secret(&token, "token", "The key."),
		input.Map(&env, "env", "Variables."))
	files, err := Files([]step.Step{s}, config.Kinds{})
	if err != nil {
		t.Fatal(err)
	}
	text := string(files["templates/sample/template.yml"])
	if !strings.Contains(text, "\n# token is a secret: set BACKSTEP_TOKEN as a masked CI/CD variable.\n") {
		t.Errorf("the component does not say where its secret comes from:\n%s", text)
	}
	if strings.Contains(text, "inputs.token") {
		t.Errorf("the component has its secret as an input:\n%s", text)
	}
	var component struct {
		Spec struct {
			Inputs map[string]struct{ Description, Type, Regex, Default any }
		}
	}
	spec, job, _ := strings.Cut(text, "---\n")
	if err := yaml.Unmarshal([]byte(spec), &component); err != nil {
		t.Fatal(err)
	}
	in := component.Spec.Inputs
	if got := in["count"]; got.Regex != "^[0-9]*$" || got.Default != "" {
		t.Errorf("input count is %+v", got)
	}
	if got := in["env"]; got.Description != "Variables. KEY=VALUE, one a line." {
		t.Errorf("input env is %+v", got)
	}
	if got := in["rules"]; got.Type != "array" || !strings.Contains(job, "rules: \"$[[ inputs.rules ]]\"") {
		t.Errorf("input rules is %+v in\n%s", got, job)
	}
}

// A component runs on the default branch only, takes the outputs of no job that is not named, and is never cancelled half-way; what a
// person starts does not start by itself.
func TestComponentsRunWhereTheyShould(t *testing.T) {
	for _, byHand := range []bool{false, true} {
		s := sample("help")
		s.ByHand = byHand
		files, err := Files([]step.Step{s}, config.Kinds{})
		if err != nil {
			t.Fatal(err)
		}
		spec, job, _ := strings.Cut(string(files["templates/sample/template.yml"]), "---\n")
		var component struct {
			Spec struct {
				Inputs map[string]struct{ Default any }
			}
		}
		var jobs map[string]struct {
			Dependencies  string
			Interruptible *bool
		}
		if err := errors.Join(yaml.Unmarshal([]byte(spec), &component), yaml.Unmarshal([]byte(job), &jobs)); err != nil {
			t.Fatal(err)
		}
		want := "[map[if:$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH]]"
		if byHand {
			want = "[map[allow_failure:true if:$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH when:manual]]"
		}
		in := component.Spec.Inputs
		if got := fmt.Sprint(in["rules"].Default); got != want {
			t.Errorf("by hand %v: rules %s, want %s", byHand, got, want)
		}
		for _, j := range jobs {
			if fmt.Sprint(in["from"].Default) != "[]" || j.Dependencies != "$[[ inputs.from ]]" || j.Interruptible == nil || *j.Interruptible {
				t.Errorf("the job is %+v, and from %v", j, in["from"])
			}
		}
	}
}

// A page shows the shortest command, and no text of a declaration breaks a table.
func TestReference(t *testing.T) {
	files, err := Files([]step.Step{sample("one | two\nthree")}, config.Kinds{})
	if err != nil {
		t.Fatal(err)
	}
	page := string(files["docs/reference/sample.md"])
	for _, want := range []string{
		"```sh\nbackstep sample --image IMAGE [flags]\n```\n",
		"| `mode` | `BACKSTEP_MODE` | one \\| two three One of yes, no. | `no` |\n",
		"| `image` | `BACKSTEP_IMAGE` | The image. | required |\n",
		"[exit code](README.md#exit-codes)",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
}

// An operator command is documented, not packaged.
func TestOperatorCommand(t *testing.T) {
	s := sample("help")
	s.Operator = true
	files, err := Files([]step.Step{s}, config.Kinds{})
	if err != nil {
		t.Fatal(err)
	}
	if files["docs/reference/sample.md"] == nil {
		t.Error("an operator command has no page")
	}
	for _, name := range []string{"actions/sample/action.yml", "templates/sample/template.yml"} {
		if _, ok := files[name]; ok {
			t.Errorf("an operator command has %s", name)
		}
	}
}

// The page of backstep.yml shows examples where there are some, and the inputs of sections below those of their kind.
func TestExamplesAreShown(t *testing.T) {
	var labels map[string]string
	var roles map[string]struct{ Size string }
	var port int
	kinds := config.Kinds{Targets: []target.Kind{{Name: "cloud", Help: "A cloud.", Routed: []plan.Strategy{plan.BlueGreen},
		New: func() ([]input.Input, func(target.Environment) (target.Target, router.Router, error)) {
			return []input.Input{
				input.Int(&port, "port", "The port.", 1, 9),
				input.Map(&labels, "labels", "Labels.").Like(`{a: "b|c"}`),
				input.Sections(&roles, "roles", "Parts.", func(r *struct{ Size string }) []input.Input {
					return []input.Input{input.String(&r.Size, "size", "Its size.").Matching(regexp.MustCompile("^[0-9]+m$"), "5m")}
				}),
			}, nil
		}}}}
	files, err := Files(nil, kinds)
	if err != nil {
		t.Fatal(err)
	}
	page, schema := string(files["docs/reference/configuration.md"]), string(files["docs/reference/backstep.schema.json"])
	for _, want := range []string{
		"| `port` | The port. |  |  |\n| `labels` | Labels. Keys with values. |  | `labels: {a: \"b\\|c\"}` |\n",
		"\n## roles of target: {kind: cloud}\n\nParts.\n\n| key | what it is | default | example |\n|---|---|---|---|\n| `size` | Its size. |  | `size: 5m` |\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
	if !regexp.MustCompile(`"examples": \[\s*\{\s*"a": "b\|c"\s*\}\s*\]`).MatchString(schema) {
		t.Errorf("the schema has no example:\n%s", schema)
	}
}
