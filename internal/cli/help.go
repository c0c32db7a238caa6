package cli

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/step"
)

func overview(steps []step.Step) string {
	var b strings.Builder
	b.WriteString("backstep: CI steps that can step back\n\nUsage: backstep STEP [--input value …]\n")
	for _, operator := range []bool{false, true} {
		b.WriteString(map[bool]string{false: "\nSteps\n", true: "\nFor operators\n"}[operator])
		w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
		for _, s := range steps {
			if s.Operator == operator {
				fmt.Fprintf(w, "  %s\t%s\n", s.Name, s.Summary)
			}
		}
		w.Flush()
	}
	b.WriteString("\nExit codes\n")
	for _, c := range fault.Codes {
		fmt.Fprintf(&b, "  %d  %s\n", c.Code, c.Means)
	}
	b.WriteString("\nbackstep help STEP tells its inputs and outputs; backstep completion bash, zsh or fish completes them.\n")
	return b.String()
}

// Help is the help of one step, as --help prints it.
func Help(s step.Step) string {
	var b strings.Builder
	fmt.Fprintf(&b, "backstep %s: %s\n\n%s\n\nInputs, as flags or environment variables\n", s.Name, s.Summary, wrap(s.Doc))
	inputs := append(append([]input.Input{}, s.Inputs...), (&logging{}).inputs()...)
	for _, in := range inputs {
		fmt.Fprintf(&b, "  --%s  (%s)\n", in.Name, input.Variable(in.Name))
		for line := range strings.Lines(wrap(in.Help + rules(in))) {
			b.WriteString("        " + line)
		}
		b.WriteString("\n")
	}
	if len(s.Outputs) > 0 {
		b.WriteString("\nOutputs\n")
		w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
		for _, out := range s.Outputs {
			fmt.Fprintf(w, "  %s\t%s\n", out.Name, out.Help)
		}
		w.Flush()
	}
	return b.String()
}

func rules(in input.Input) string {
	var rules string
	if len(in.Options) > 0 {
		rules += " One of " + strings.Join(in.Options, ", ") + "."
	}
	if in.Required {
		rules += " Required."
	}
	if in.Multiple() {
		rules += " Several: repeat the flag, or one a line."
	}
	if in.Default != "" {
		rules += " Default " + in.Default + "."
	}
	return rules
}

// wrap breaks text at 88 columns.
func wrap(text string) string {
	const width = 88
	var b strings.Builder
	column := 0
	for _, word := range strings.Fields(text) {
		switch n := len([]rune(word)); {
		case column == 0:
			column = n
		case column+1+n > width:
			b.WriteByte('\n')
			column = n
		default:
			b.WriteByte(' ')
			column += 1 + n
		}
		b.WriteString(word)
	}
	return b.String()
}
