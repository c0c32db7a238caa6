package verify

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/backstep/backstep/internal/executor"
	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/outfile"
	"github.com/backstep/backstep/internal/step"
	"github.com/backstep/backstep/internal/verdict/ticks"
)

// keep writes the evidence to the files that were asked for; "" is none.
func keep(e executor.Evidence, record, picture string) error {
	var faults []error
	write := func(path string, data []byte) {
		if err := outfile.Write(path, data); err != nil {
			faults = append(faults, fault.Errorf(fault.Failed, "the verdict is written, and its evidence is not: %w", err))
		}
	}
	if record != "" {
		var b bytes.Buffer
		faults = append(faults, ticks.Write(&b, e.Series))
		write(record, b.Bytes())
	}
	if picture != "" {
		write(picture, drawing(e.Ways))
	}
	return errors.Join(faults...)
}

// title says what the lines mean.
const title = "Evidence on the way to a fail (first line) and to a pass (second); 100 is a verdict"

func chart(ways []executor.Way) step.Chart {
	c := step.Chart{Title: title, Lines: make([][]float64, 2)}
	for _, w := range ways {
		c.Until = w.At
		c.Lines[0] = append(c.Lines[0], w.Fail)
		c.Lines[1] = append(c.Lines[1], w.Pass)
	}
	return c
}

// The measures of a drawing, in pixels.
const (
	width  = 640
	height = 240
	margin = 40
)

// drawing is the evidence over time as an SVG: the way to a fail is red, the way to a pass is green.
func drawing(ways []executor.Way) []byte {
	until := time.Second
	if len(ways) > 0 {
		until = max(ways[len(ways)-1].At, time.Millisecond)
	}
	x := func(at time.Duration) float64 { return margin + (width-2*margin)*float64(at)/float64(until) }
	y := func(share float64) float64 { return height - margin - (height-2*margin)*share }
	var b bytes.Buffer
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" role=\"img\" font-family=\"sans-serif\" font-size=\"12\">\n", width, height)
	fmt.Fprintf(&b, "<title>%s</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n", title)
	for _, share := range []float64{0, 0.5, 1} {
		fmt.Fprintf(&b, "<path d=\"M%d %.1fH%d\" stroke=\"#ddd\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.0f %%</text>\n",
			margin, y(share), width-margin, margin-6, y(share)+4, 100*share)
	}
	for i, line := range []struct {
		name, colour string
		of           func(executor.Way) float64
	}{{"to a fail", "#cf222e", func(w executor.Way) float64 { return w.Fail }}, {"to a pass", "#1a7f37", func(w executor.Way) float64 { return w.Pass }}} {
		fmt.Fprintf(&b, "<polyline fill=\"none\" stroke-width=\"2\" stroke=\"%s\" points=\"%.1f,%.1f", line.colour, x(0), y(0))
		for _, w := range ways {
			fmt.Fprintf(&b, " %.1f,%.1f", x(w.At), y(line.of(w)))
		}
		fmt.Fprintf(&b, "\"/>\n<text x=\"%d\" y=\"%d\" fill=\"%s\">%s</text>\n", margin+100*i, margin-14, line.colour, line.name)
	}
	fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%.3g s</text>\n</svg>\n", width-margin, height-margin+20, until.Seconds())
	return b.Bytes()
}
