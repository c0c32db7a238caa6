package config

import (
	"strings"

	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/secret"
)

// Section is a part of backstep.yml, for the reference.
type Section struct {
	Title  string
	Help   string
	Inputs []input.Input
}

// Sections are all parts of the file, made of the declarations that the parser uses.
func Sections(kinds Kinds) []Section {
	var strategy string
	var weights []string
	var variables map[string]secret.Value
	all := []Section{
		{"The file", "`environments` holds the environments by their names.", (&Config{}).inputs()},
		{"environments.NAME", "Besides these: `target`, `router` and `verify`.", (&Environment{}).inputs(&strategy, &weights, &variables)},
	}
	for _, k := range kinds.Targets {
		inputs, _ := k.New()
		can := "Without a router it can " + joined(k.Strategies) + "."
		if len(k.Strategies) == 0 {
			can = "It needs a router."
		}
		if len(k.Routed) > 0 {
			can += " Behind a router it can " + joined(k.Routed) + "."
		}
		all = append(all, Section{"target: {kind: " + k.Name + "}", k.Help + " " + can, inputs})
		for _, in := range inputs {
			if in.Type == input.SectionsOf {
				all = append(all, Section{in.Name + " of target: {kind: " + k.Name + "}", in.Help, in.Inner})
			}
		}
	}
	for _, k := range kinds.Routers {
		inputs, _ := k.New()
		all = append(all, Section{"router: {kind: " + k.Name + "}", k.Help, inputs})
	}
	all = append(all, Section{"verify", "Besides these: `probes`, a list of evidence of the kinds below. See [how a release is judged](../verdict.md).", (&Verify{}).inputs()})
	for _, k := range kinds.Probes {
		what := "A probe: it asks the release itself. "
		switch {
		case k.NewMeter != nil:
			what = "A meter: it counts what customers get. "
		case k.NewWatch != nil:
			what = "A watch: it says what others have found to be wrong. "
		}
		all = append(all, Section{"probes: [{kind: " + k.Name + "}]", what + k.Help, append((&ProbeConfig{}).inputs(k), k.Inputs()...)})
	}
	return all
}

func joined[T plan.Strategy | string](all []T) string {
	var s []string
	for _, x := range all {
		s = append(s, string(x))
	}
	return strings.Join(s, ", ")
}
