package verify

import (
	"bytes"
	"errors"
	"math"
	"time"

	"github.com/backstep/backstep/internal/executor"
	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/outfile"
	"github.com/backstep/backstep/internal/step"
	"github.com/backstep/backstep/internal/verdict"
	"github.com/backstep/backstep/internal/verdict/ticks"
)

// keep writes the evidence to the files that were asked for; "" is none.
func keep(v executor.Verification, record, picture string) error {
	var faults []error
	write := func(path string, data []byte) {
		if err := outfile.Write(path, data); err != nil {
			faults = append(faults, fault.Errorf(fault.Failed, "the verdict is written, and its evidence is not: %w", err))
		}
	}
	if record != "" {
		var b bytes.Buffer
		faults = append(faults, ticks.Write(&b, v.Evidence.Series))
		write(record, b.Bytes())
	}
	if picture != "" {
		write(picture, drawing(v))
	}
	return errors.Join(faults...)
}

// longest is how many points a line of a chart has at most.
const longest = 20

// charts are what a verify saw, for the page of the run.
func charts(v executor.Verification) []step.Chart {
	e := v.Evidence
	way := step.Chart{Title: "How far the evidence has come", Caption: "red: to a fail; green: to a pass; at 100 is the verdict", Until: took(e), Top: 1,
		Lines: []step.Line{{Colour: red, Points: []float64{0}}, {Colour: green, Points: []float64{0}}}}
	for _, w := range e.Ways {
		way.Lines[0].Points = append(way.Lines[0].Points, w.Fail)
		way.Lines[1].Points = append(way.Lines[1].Points, w.Pass)
	}
	r := ratesOf(e.Series, took(e), longest)
	failed := step.Chart{Title: "How often they failed", Caption: "violet: " + v.Release.String(), Until: time.Duration(len(r.points)) * r.step,
		Lines: []step.Line{{Colour: violet}}}
	if r.whole.Baseline.Requests > 0 {
		failed.Caption += "; grey: " + beside(e)
		failed.Lines = append(failed.Lines, step.Line{Colour: grey})
	}
	for _, p := range r.points {
		for i, c := range []verdict.Counts{p.Candidate, p.Baseline}[:len(failed.Lines)] {
			points := failed.Lines[i].Points
			at := rate(c)
			if c.Requests == 0 && len(points) > 0 {
				at = points[len(points)-1] // a chart has no gaps
			}
			failed.Lines[i].Points = append(points, at)
			failed.Top = max(failed.Top, at)
		}
	}
	failed.Top = topOf(failed.Top)
	return []step.Chart{way, failed}
}

// The colours of charts, which can be told apart in light and dark.
const (
	red    = "#cf222e"
	green  = "#1a7f37"
	violet = "#8250df"
	grey   = "#818b98"
)

// table is the phases, and how often both sides failed in each.
func table(v executor.Verification) step.Table {
	e := v.Evidence
	t := step.Table{Head: []string{"phase", "until", v.Release.String(), beside(e)}}
	from := time.Duration(0)
	for i, p := range e.Phases {
		until := p.Until
		if i == len(e.Phases)-1 {
			until = math.MaxInt64 // what came with the verdict
		}
		counts := within(e.Series, from, until)
		t.Rows = append(t.Rows, []string{p.Name, span(p.Until), counted(counts.Candidate), counted(counts.Baseline)})
		from = p.Until
	}
	return t
}
