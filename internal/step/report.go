package step

import (
	"fmt"
	"strings"
	"time"

	"github.com/backstep/backstep/internal/plan"
)

// Report is what a step shows of itself on the run's page.
type Report struct {
	Title    string
	Rows     [][2]string
	Timeline []string // what happened, in order
	Chart    Chart
	Incident bool   // somebody has to act: the report leads to the runbook
	Notes    string // Markdown that ends it
}

// Chart is lines over time, all of them from 0 to 100 %.
type Chart struct {
	Title string
	Until time.Duration
	Lines [][]float64 // points at even steps, from 0 to 1
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
	return r
}

// Markdown is the report as a heading, a table and a mermaid timeline.
func (r Report) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n| | |\n|---|---|\n", cell(r.Title))
	for _, row := range r.Rows {
		fmt.Fprintf(&b, "| %s | %s |\n", cell(row[0]), cell(row[1]))
	}
	if len(r.Timeline) > 0 {
		b.WriteString("\n```mermaid\ntimeline\n")
		for i, line := range r.Timeline {
			fmt.Fprintf(&b, "  %d : %s\n", i+1, event(line))
		}
		b.WriteString("```\n")
	}
	if len(r.Chart.Lines) > 0 && len(r.Chart.Lines[0]) > 1 {
		fmt.Fprintf(&b, "\n```mermaid\nxychart-beta\n  title \"%s\"\n  x-axis \"seconds\" 0 --> %.3g\n  y-axis \"percent\" 0 --> 100\n",
			event(r.Chart.Title), r.Chart.Until.Seconds())
		for _, line := range r.Chart.Lines {
			b.WriteString("  line [")
			for i, p := range line {
				if i > 0 {
					b.WriteString(", ")
				}
				fmt.Fprintf(&b, "%.0f", 100*p)
			}
			b.WriteString("]\n")
		}
		b.WriteString("```\n")
	}
	if r.Notes != "" {
		b.WriteString("\n" + r.Notes)
	}
	if r.Incident {
		b.WriteString("\n[Runbook: what to do now](" + runbook + ")\n")
	}
	return b.String()
}

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
