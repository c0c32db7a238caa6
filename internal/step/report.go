package step

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backstep/backstep/internal/plan"
)

// Report is what a step shows of itself on the run's page.
type Report struct {
	Title    string
	Rows     [][2]string
	Timeline []string // what happened, in order
	Table    Table
	Charts   []Chart
	Incident bool   // somebody has to act: the report leads to the runbook
	Notes    string // Markdown that ends it
}

// Table is rows of cells under a head.
type Table struct {
	Head []string
	Rows [][]string
}

// Chart is lines over time.
type Chart struct {
	Title, Caption string
	Until          time.Duration
	Top            float64 // where the axis ends, as a share
	Lines          []Line
}

// Line is points at even steps, as shares.
type Line struct {
	Colour string // #rrggbb
	Points []float64
}

// Timeline is a plan as a report shows it.
func Timeline(p plan.Plan) []string {
	var lines []string
	for _, op := range p {
		lines = append(lines, op.String())
	}
	return lines
}

// Unwritten is the row of what the ledger does not say yet; none when err is nil.
func Unwritten(err error) [][2]string {
	if err == nil {
		return nil
	}
	return [][2]string{{"ledger", "not written yet (" + err.Error() + "); it is kept on the target, and the next run writes it down"}}
}

// Secrets is the row of the secrets that have changed since a restored release was deployed; none when all are the same.
func Secrets(changed []string) [][2]string {
	if len(changed) == 0 {
		return nil
	}
	return [][2]string{{"secrets changed since", strings.Join(changed, ", ") + "; it has those of today from its next start on"}}
}

// Partial is how far a plan came, for the page of a change that failed.
func Partial(done, notTried plan.Plan, failed string) [][2]string {
	var rows [][2]string
	for _, op := range done {
		rows = append(rows, [2]string{"done", op.String()})
	}
	rows = append(rows, [2]string{"failed", failed})
	for _, op := range notTried {
		rows = append(rows, [2]string{"not tried", op.String()})
	}
	return rows
}

// redacted is the report without secrets. They are looked for before the text becomes Markdown, which writes it otherwise.
func (r Report) redacted(redact func(string) string) Report {
	rows := make([][2]string, len(r.Rows))
	for i, row := range r.Rows {
		rows[i] = [2]string{redact(row[0]), redact(row[1])}
	}
	r.Title, r.Rows, r.Notes = redact(r.Title), rows, redact(r.Notes)
	r.Table.Head, r.Table.Rows = redacted(redact, r.Table.Head), slices.Clone(r.Table.Rows)
	for i, row := range r.Table.Rows {
		r.Table.Rows[i] = redacted(redact, row)
	}
	r.Charts = slices.Clone(r.Charts)
	for i, c := range r.Charts {
		r.Charts[i].Title, r.Charts[i].Caption = redact(c.Title), redact(c.Caption)
	}
	return r
}

func redacted(redact func(string) string, cells []string) []string {
	clean := make([]string, len(cells))
	for i, c := range cells {
		clean[i] = redact(c)
	}
	return clean
}

// Markdown is the report as a heading and tables, and as pictures too where the page draws mermaid.
func (r Report) Markdown(mermaid bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n| | |\n|---|---|\n", cell(r.Title))
	for _, row := range r.Rows {
		fmt.Fprintf(&b, "| %s | %s |\n", cell(row[0]), cell(row[1]))
	}
	r.Table.write(&b)
	if len(r.Timeline) > 0 && mermaid {
		b.WriteString("\n```mermaid\ntimeline\n")
	} else if len(r.Timeline) > 0 {
		b.WriteString("\n")
	}
	for i, line := range r.Timeline {
		if mermaid {
			fmt.Fprintf(&b, "  %d : %s\n", i+1, event(line))
			continue
		}
		fmt.Fprintf(&b, "%d. %s\n", i+1, cell(line))
	}
	if len(r.Timeline) > 0 && mermaid {
		b.WriteString("```\n")
	}
	for _, c := range r.Charts {
		if mermaid && len(c.Lines) > 0 && len(c.Lines[0].Points) > 1 {
			c.write(&b)
		}
	}
	if r.Notes != "" {
		b.WriteString("\n" + r.Notes)
	}
	if r.Incident {
		b.WriteString("\n[Runbook: what to do now](" + runbook + ")\n")
	}
	return b.String()
}

// write writes the table, unless it has no rows.
func (t Table) write(b *strings.Builder) {
	if len(t.Rows) == 0 {
		return
	}
	b.WriteString("\n")
	for i, row := range append([][]string{t.Head}, t.Rows...) {
		for _, c := range row {
			fmt.Fprintf(b, "| %s ", cell(c))
		}
		b.WriteString("|\n")
		if i == 0 {
			b.WriteString(strings.Repeat("|---", len(row)) + "|\n")
		}
	}
}

// write draws the chart. What it shows stands above it, as text: mermaid cuts a title that is too long.
func (c Chart) write(b *strings.Builder) {
	var colours []string
	for _, l := range c.Lines {
		colours = append(colours, l.Colour)
	}
	fmt.Fprintf(b, "\n**%s** (%s)\n\n```mermaid\n---\nconfig:\n  themeVariables:\n    xyChart:\n      plotColorPalette: \"%s\"\n---\nxychart-beta\n"+
		"  x-axis \"seconds\" 0 --> %s\n  y-axis \"percent\" 0 --> %s\n", cell(c.Title), cell(c.Caption), strings.Join(colours, ", "), number(c.Until.Seconds()), number(100*c.Top))
	for _, l := range c.Lines {
		points := make([]string, len(l.Points))
		for i, p := range l.Points {
			points[i] = number(100 * p)
		}
		fmt.Fprintf(b, "  line [%s]\n", strings.Join(points, ", "))
	}
	b.WriteString("```\n")
}

// number is f with at most two digits behind the point.
func number(f float64) string { return strconv.FormatFloat(math.Round(f*100)/100, 'f', -1, 64) }

// runbook is the page for those who are called.
const runbook = "https://github.com/backstep/backstep/blob/main/docs/runbook.md"

// cell keeps text from leaving its table cell or becoming markup.
func cell(s string) string {
	return strings.NewReplacer("\\", "\\\\", "&", "&amp;", "\r", " ", "\n", " ", "|", "\\|", "<", "&lt;", ">", "&gt;",
		"`", "\\`", "*", "\\*", "_", "\\_", "[", "\\[", "]", "\\]").Replace(s)
}

// event keeps text from leaving its place in a timeline, where : ; and # have a meaning.
func event(s string) string {
	return strings.NewReplacer("\r", " ", "\n", " ", ":", " ", ";", ",", "#", " ", "`", "'", "<", "(", ">", ")").Replace(s)
}
