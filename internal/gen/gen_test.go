package gen

import (
	"context"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/step"
)

func sample(help string) step.Step {
	var s, image string
	return step.Step{Name: "sample", Summary: "A sample: with # signs", Doc: "Doc.",
		Inputs:  []input.Input{input.String(&s, "mode", help).OneOf("yes", "no").Or("no"), input.String(&image, "image", "The image.").Must()},
		Outputs: []input.Output{{Name: "image", Help: "The image."}},
		Run:     func(context.Context, *step.Runtime) error { return nil }}
}

// Text that means something to YAML, to GitHub or to GitLab arrives as it is, and no value reaches a script.
func TestNastyHelp(t *testing.T) {
	const nasty = "colons: \"quotes\" 'both' ${{ github.token }} $[[ inputs.x ]] # and\nlines"
	files, err := Files([]step.Step{sample(nasty)}, []byte("{}"))
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
	if got := action.Inputs["mode"]; got.Description != nasty+" One of yes, no." || got.Default != "no" {
		t.Errorf("input mode is %+v", got)
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
				Default *string
				Options []string
			}
		}
	}
	if err := yaml.Unmarshal([]byte(spec), &component); err != nil {
		t.Fatal(err)
	}
	in := component.Spec.Inputs
	if got := in["mode"]; strings.Join(got.Options, " ") != "yes no" || got.Default == nil || *got.Default != "no" {
		t.Errorf("input mode is %+v", got)
	}
	if got := in["release-image"]; got.Default == nil || *got.Default != "" {
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
		if v := j.Variables["BACKSTEP_MODE"]; v.Value != "$[[ inputs.mode ]]" || v.Expand {
			t.Errorf("BACKSTEP_MODE is %+v", v)
		}
	}
}

func TestOneNameOneMeaning(t *testing.T) {
	other := sample("another help")
	other.Name = "other"
	_, err := Files([]step.Step{sample("help"), other}, []byte("{}"))
	if err == nil || err.Error() != "input mode of other is declared differently by another step" {
		t.Errorf("got %v", err)
	}
}
