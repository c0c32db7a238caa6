package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/step"
)

// What help is wide, in columns: what the terminal says in COLUMNS, within bounds.
const (
	widthDefault = 80
	widthLeast   = 40
)

func (p process) columns() int {
	if n, err := strconv.Atoi(p.getenv("COLUMNS")); err == nil && n > 0 {
		return min(max(n, widthLeast), widthDefault)
	}
	return widthDefault
}

func overview(steps []step.Step, width int) string {
	var b strings.Builder
	b.WriteString("backstep: CI steps that can step back\n\nUsage: backstep STEP [--input value …]\n")
	for _, operator := range []bool{false, true} {
		b.WriteString(map[bool]string{false: "\nSteps\n", true: "\nFor operators\n"}[operator])
		var rows [][2]string
		for _, s := range steps {
			if s.Operator == operator {
				rows = append(rows, [2]string{s.Name, s.Summary})
			}
		}
		b.WriteString(table(rows, width))
	}
	b.WriteString("\nExit codes\n")
	var codes [][2]string
	for _, c := range fault.Codes {
		codes = append(codes, [2]string{fmt.Sprint(c.Code), c.Means})
	}
	b.WriteString(table(codes, width))
	b.WriteString("\n" + wrap("backstep help STEP tells its inputs and outputs; backstep completion bash, zsh or fish completes them.", width) + "\n")
	return b.String()
}

// table is two columns, of which the second is wrapped.
func table(rows [][2]string, width int) string {
	first := 0
	for _, r := range rows {
		first = max(first, len(r[0]))
	}
	var b strings.Builder
	for _, r := range rows {
		left := fmt.Sprintf("  %-*s   ", first, r[0])
		text := wrap(r[1], width-len(left))
		b.WriteString(left + strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", len(left))) + "\n")
	}
	return b.String()
}

// Help is the help of one step, as --help prints it, at most width columns wide where words allow.
func Help(s step.Step, width int) string {
	var b strings.Builder
	b.WriteString(wrap("backstep "+s.Name+": "+s.Summary, width) + "\n\n" + wrap(s.Doc, width) + "\n\nInputs, as flags or environment variables\n")
	const indent = "        "
	inputs := append(append([]input.Input{}, s.Inputs...), (&logging{}).inputs()...)
	for _, in := range inputs {
		fmt.Fprintf(&b, "  --%s  (%s)\n", in.Name, input.Variable(in.Name))
		for line := range strings.Lines(wrap(in.Help+rules(in), width-len(indent))) {
			b.WriteString(indent + line)
		}
		b.WriteString("\n")
	}
	if len(s.Outputs) > 0 {
		b.WriteString("\nOutputs\n")
		var rows [][2]string
		for _, out := range s.Outputs {
			rows = append(rows, [2]string{out.Name, out.Help})
		}
		b.WriteString(table(rows, width))
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

// wrap breaks text between words, so that its lines have at most width columns.
func wrap(text string, width int) string {
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
