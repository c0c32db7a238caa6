package gen

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/backstep/backstep/internal/config"
	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/step"
)

// reference is the page of one step.
func reference(s step.Step) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "<!-- %s -->\n# %s\n\n%s.\n\n%s\n\n", header, s.Name, s.Summary, s.Doc)
	fmt.Fprintf(&b, "```sh\nbackstep %s\n```\n\n## Inputs\n\n", usage(s))
	b.WriteString("As flags of `backstep " + s.Name + "`, as variables of the environment, and as the host has them (`with:` on GitHub, `inputs:` on GitLab).\n\n")
	b.WriteString("| input | variable | what it is | default |\n|---|---|---|---|\n")
	for _, in := range s.Inputs {
		what, def := told(in, help(in))
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s |\n", in.Name, input.Variable(in.Name), what, def)
	}
	if len(s.Outputs) > 0 {
		b.WriteString("\n## Outputs\n\n| output | what it is |\n|---|---|\n")
		for _, out := range s.Outputs {
			fmt.Fprintf(&b, "| `%s` | %s |\n", out.Name, cell(out.Help))
		}
	}
	b.WriteString("\nHow it ended is told by the [exit code](README.md#exit-codes).\n")
	return b.Bytes()
}

// told is what an input is and its default, as cells of a table.
func told(in input.Input, help string) (what, def string) {
	if in.Secret {
		help += " A secret: it is masked in logs."
	}
	switch {
	case in.Required:
		def = "required"
	case in.Default != "":
		def = "`" + in.Default + "`"
	}
	return cell(help), cell(def)
}

// configuration is the page of backstep.yml.
func configuration(sections []config.Section) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "<!-- %s -->\n# backstep.yml\n\nEditors know it by [its JSON Schema](backstep.schema.json). A secret is given as `{env: NAME}`, the variable to take it from.\n", header)
	for _, s := range sections {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", s.Title, s.Help)
		b.WriteString(keys(s.Inputs))
	}
	return b.Bytes()
}

// keys is the table of a section; it shows examples when there is one.
func keys(inputs []input.Input) string {
	if len(inputs) == 0 {
		return ""
	}
	shown := slices.ContainsFunc(inputs, func(in input.Input) bool { return in.Example != "" })
	table := "\n| key | what it is | default |\n|---|---|---|\n"
	if shown {
		table = "\n| key | what it is | default | example |\n|---|---|---|---|\n"
	}
	for _, in := range inputs {
		what, def := told(in, explained(in, " A list.", " Keys with values."))
		table += fmt.Sprintf("| `%s` | %s | %s |", in.Name, what, def)
		if in.Example != "" {
			table += " " + cell("`"+in.Name+": "+in.Example+"`") + " |"
		} else if shown {
			table += "  |"
		}
		table += "\n"
	}
	return table
}

// usage is the shortest command line that runs s.
func usage(s step.Step) string {
	words := []string{s.Name}
	for _, in := range s.Inputs {
		if in.Required {
			words = append(words, "--"+in.Name, strings.ToUpper(strings.ReplaceAll(in.Name, "-", "_")))
		}
	}
	return strings.Join(append(words, "[flags]"), " ")
}

// cell is text that stays in one cell of a table.
func cell(s string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", "\\|")
}

// index is the page that leads to the others.
func index(steps []step.Step) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "<!-- %s -->\n# Reference\n", header)
	for _, operator := range []bool{false, true} {
		b.WriteString(map[bool]string{false: "\n## Steps\n\n", true: "\n## For operators\n\n"}[operator])
		for _, s := range steps {
			if s.Operator == operator {
				fmt.Fprintf(&b, "- [%s](%s.md): %s\n", s.Name, s.Name, s.Summary)
			}
		}
	}
	b.WriteString("- `backstep completion bash`, `zsh` or `fish` prints the completion of that shell.\n")
	b.WriteString("\n## Exit codes\n\n| code | means |\n|---|---|\n")
	for _, c := range fault.Codes {
		fmt.Fprintf(&b, "| %d | %s |\n", c.Code, c.Means)
	}
	b.WriteString("\n## Configuration\n\nWhat [backstep.yml](configuration.md) can say; its [JSON Schema](backstep.schema.json).\n")
	return b.Bytes()
}
