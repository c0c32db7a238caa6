package verify

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/backstep/backstep/internal/executor"
	"github.com/backstep/backstep/internal/verdict"
)

// The measures of a picture, in pixels but for bold.
const (
	bold      = 1.15 // how much wider a heading is
	width     = 760
	margin    = 20
	axis      = 52  // what stands left of a plot
	plot      = 130 // the height of a plot
	strip     = 20  // the height of the phases' names
	textSize  = 12
	lineGap   = 17
	titleSize = 18
	titleGap  = 24
)

// style is the look, in light and dark. Classes only: what draws an SVG without a browser often knows no variables.
const style = `text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,Helvetica,Arial,sans-serif;font-size:12px;fill:#1f2328}
.page{fill:#ffffff}.title{font-size:18px;font-weight:600}.head{font-size:13px;font-weight:600}.soft{fill:#59636e}
.grid{stroke:#d1d9e0;stroke-width:1;fill:none}.line{stroke:#1f2328;stroke-width:1.5;stroke-dasharray:6 4;fill:none}
.warm{fill:#bf8700;fill-opacity:.16}.bake{fill:#0969da;fill-opacity:.09}.wait{fill:#818b98;fill-opacity:.18}
.way,.rate{stroke-width:2.5;stroke-linejoin:round;stroke-linecap:round;fill:none}
.bad{stroke:#cf222e}.good{stroke:#1a7f37}.new{stroke:#8250df}.old{stroke:#59636e;stroke-dasharray:2 5}
text.bad{stroke:none;fill:#cf222e}text.good{stroke:none;fill:#1a7f37}text.none{fill:#9a6700}
circle.bad{fill:#cf222e}circle.good{fill:#1a7f37}circle.new{fill:#8250df}circle.old{fill:#59636e}
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.page{fill:#0d1117}.soft{fill:#9198a1}.grid{stroke:#3d444d}.line{stroke:#f0f6fc}
.warm{fill:#d29922}.bake{fill:#4493f8;fill-opacity:.14}.wait{fill:#9198a1}
.bad{stroke:#f85149}.good{stroke:#3fb950}.new{stroke:#ab7df8}.old{stroke:#9198a1}
text.bad{fill:#f85149}text.good{fill:#3fb950}text.none{fill:#d29922}
circle.bad{fill:#f85149}circle.good{fill:#3fb950}circle.new{fill:#ab7df8}circle.old{fill:#9198a1}}`

// picture is an SVG that is written from top to bottom.
type picture struct {
	body bytes.Buffer
	y    float64       // where the next thing begins
	end  time.Duration // what the right border is
}

// drawing is what a verify saw as an SVG: what the verdict is and why, the evidence on its way to it, and how often both releases have failed.
func drawing(v executor.Verification) []byte {
	e := v.Evidence
	p := &picture{y: margin, end: max(took(e), 10*time.Millisecond)}
	p.heading(v)
	if len(e.Ways) > 0 {
		phases := p.phases(e.Phases)
		p.evidence(e, phases)
		p.errors(v, phases)
	} else {
		p.paragraph("soft", "It was decided before any evidence was taken.", textSize, lineGap)
	}
	p.y += margin / 2
	for _, s := range []string{alone(e), promise(e), origin(e)} {
		p.paragraph("soft", s, textSize, lineGap)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%.0f\" viewBox=\"0 0 %d %.0f\" role=\"img\">\n<title>", width, p.y+margin/2, width, p.y+margin/2)
	b.WriteString(escaped(title(v)))
	fmt.Fprintf(&b, "</title>\n<style>%s</style>\n<rect class=\"page\" width=\"100%%\" height=\"100%%\" rx=\"6\"/>\n", style)
	b.Write(p.body.Bytes())
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// title is the verdict in one line.
func title(v executor.Verification) string {
	if took(v.Evidence) == 0 {
		return fmt.Sprintf("%s: %s at once", v.Release, v.Evidence.Verdict)
	}
	return fmt.Sprintf("%s: %s after %s", v.Release, v.Evidence.Verdict, span(took(v.Evidence)))
}

// colour is the class of what a verdict is written in.
func colour(v verdict.Verdict) string {
	return map[verdict.Verdict]string{verdict.Pass: "good", verdict.Fail: "bad"}[v]
}

func (p *picture) heading(v executor.Verification) {
	p.paragraph("title "+cmp.Or(colour(v.Evidence.Verdict), "none"), title(v), titleSize, titleGap)
	p.paragraph("", v.Evidence.Reason, textSize, lineGap)
	if v.Back.Moved {
		p.paragraph("", fmt.Sprintf("%s has the traffic again, after %s more", v.Back.Release, span(v.Back.Took)), textSize, lineGap)
	}
	p.paragraph("", v.Observed, textSize, lineGap)
}

// band is where a phase is, in pixels.
type band struct {
	class    string
	from, to float64
}

// phases writes their names above the plots, and below it those that are longer than their phase.
func (p *picture) phases(all []executor.Phase) []band {
	var bands []band
	var times []string
	fits := true
	from := time.Duration(0)
	p.y += margin / 4
	for _, one := range all {
		b := band{"bake", p.x(from), p.x(one.Until)}
		switch {
		case strings.HasPrefix(one.Name, executor.WarmingUp):
			b.class = "warm"
		case strings.HasPrefix(one.Name, executor.Waiting):
			b.class = "wait"
		}
		bands = append(bands, b)
		fmt.Fprintf(&p.body, "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\"/>\n", b.class, b.from, p.y, b.to-b.from, strip)
		if measured(one.Name, textSize) < b.to-b.from-6 {
			p.text("", (b.from+b.to)/2, p.y+14, "middle", one.Name)
		} else {
			fits = false
		}
		times = append(times, fmt.Sprintf("%s until %s", one.Name, span(one.Until)))
		from = one.Until
	}
	if len(all) > 0 {
		p.y += strip
	}
	if !fits {
		p.paragraph("soft", strings.Join(times, ", "), textSize, lineGap)
	}
	return bands
}

// x is where a time is.
func (p *picture) x(at time.Duration) float64 {
	return axis + margin + (width-axis-2*margin)*min(1, float64(at)/float64(p.end))
}

// frame draws what is behind a plot: the phases, lines at those shares of its height, and the time below it.
func (p *picture) frame(bands []band, labels []string, steps []float64) {
	for _, b := range bands {
		fmt.Fprintf(&p.body, "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\"/>\n", b.class, b.from, p.y, b.to-b.from, plot)
	}
	for i, share := range steps {
		y := p.y + plot*(1-share)
		fmt.Fprintf(&p.body, "<path class=\"grid\" d=\"M%d %.1fH%d\"/>\n", axis+margin, y, width-margin)
		p.text("soft", axis+margin-8, y+4, "end", labels[i])
	}
	const most = 8 // times below a plot
	step := rounded(p.end / most)
	for at := time.Duration(0); at <= p.end; at += max(step, p.end/most) {
		label, anchor := span(at), "middle"
		if p.x(at)+measured(label, textSize)/2 > width-margin {
			anchor = "end"
		}
		p.text("soft", p.x(at), p.y+plot+16, anchor, label)
	}
}

// evidence draws how far it had come, and the line that is crossed.
func (p *picture) evidence(e executor.Evidence, bands []band) {
	p.y += margin
	p.text("head", margin, p.y, "start", "How far the evidence has come")
	p.legend("way bad", "to a fail", 290)
	p.legend("way good", "to a pass", 390)
	p.y += margin
	p.text("", width-margin, p.y-6, "end", "the line of the verdict")
	p.frame(bands, []string{"0 %", "50 %", "100 %"}, []float64{0, 0.5, 1})
	fmt.Fprintf(&p.body, "<path class=\"line\" d=\"M%d %.1fH%d\"/>\n", axis+margin, p.y, width-margin)
	y := func(share float64) float64 { return p.y + plot*(1-min(1, max(0, share))) }
	for _, line := range []struct {
		class string
		of    func(executor.Way) float64
	}{{"good", func(w executor.Way) float64 { return w.Pass }}, {"bad", func(w executor.Way) float64 { return w.Fail }}} {
		fmt.Fprintf(&p.body, "<polyline class=\"way %s\" points=\"%.1f,%.1f", line.class, p.x(0), y(0))
		for _, w := range e.Ways {
			fmt.Fprintf(&p.body, " %.1f,%.1f", p.x(w.At), y(line.of(w)))
		}
		p.body.WriteString("\"/>\n")
	}
	if class := colour(e.Verdict); class != "" {
		last := e.Ways[len(e.Ways)-1]
		share := last.Pass
		if e.Verdict == verdict.Fail {
			share = last.Fail
		}
		fmt.Fprintf(&p.body, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"5\"/>\n", class, p.x(last.At), y(share))
	}
	p.y += plot + margin
}

// legend draws what a line means, to the right of a heading.
func (p *picture) legend(class, name string, x float64) {
	fmt.Fprintf(&p.body, "<path class=\"%s\" d=\"M%.1f %.1fh22\"/>\n", class, x, p.y-4)
	p.text("", x+28, p.y, "start", name)
}

// tops are the shares that a plot of error rates can end with.
var tops = []float64{0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1}

// topOf is the one that has room for a rate.
func topOf(rate float64) float64 {
	for _, t := range tops {
		if t >= rate {
			return t
		}
	}
	return 1
}

// errors draws how often both sides have failed.
func (p *picture) errors(v executor.Verification, bands []band) {
	const most = 40 // points of a line
	r := ratesOf(v.Evidence.Series, p.end, most)
	sides := []struct {
		class, name string
		whole       verdict.Counts
		of          func(verdict.Pair) verdict.Counts
	}{
		{"old", beside(v.Evidence), r.whole.Baseline, func(p verdict.Pair) verdict.Counts { return p.Baseline }},
		{"new", v.Release.String(), r.whole.Candidate, func(p verdict.Pair) verdict.Counts { return p.Candidate }},
	}
	p.y += margin + 4
	p.text("head", margin, p.y, "start", "How often they failed")
	top := 0.0
	for i := range sides {
		s := sides[len(sides)-1-i]
		if s.class == "old" && s.whole.Requests == 0 {
			continue
		}
		p.y += lineGap
		name := s.name + ": " + counted(s.whole)
		for i, line := range wrapped(name, width-2*margin-30, textSize) {
			if i == 0 {
				p.legend("rate "+s.class, line, margin)
				continue
			}
			p.y += lineGap
			p.text("", margin+28, p.y, "start", line)
		}
		for _, pair := range r.points {
			top = max(top, rate(s.of(pair)))
		}
	}
	top = topOf(top)
	p.y += margin / 2
	p.frame(bands, []string{"0 %", share(top)}, []float64{0, 1})
	for _, s := range sides {
		p.rates(s.class, r, s.of, top)
	}
	if r.whole.Candidate.Requests+r.whole.Baseline.Requests == 0 {
		p.text("soft", width/2, p.y+plot/2, "middle", "nothing was counted")
	}
	p.y += plot + margin
}

// rates draws one side; where nothing was counted the line has a gap.
func (p *picture) rates(class string, r rates, of func(verdict.Pair) verdict.Counts, top float64) {
	var run []string
	flush := func() {
		switch {
		case len(run) == 1:
			x, y, _ := strings.Cut(run[0], ",")
			fmt.Fprintf(&p.body, "<circle class=\"%s\" cx=\"%s\" cy=\"%s\" r=\"3\"/>\n", class, x, y)
		case len(run) > 1:
			fmt.Fprintf(&p.body, "<polyline class=\"rate %s\" points=\"%s\"/>\n", class, strings.Join(run, " "))
		}
		run = nil
	}
	for i, pair := range r.points {
		counts := of(pair)
		if counts.Requests == 0 {
			flush()
			continue
		}
		from, until := time.Duration(i)*r.step, min(time.Duration(i+1)*r.step, p.end)
		run = append(run, fmt.Sprintf("%.1f,%.1f", p.x((from+until)/2), p.y+plot*(1-rate(counts)/top)))
	}
	flush()
}

// beside is who it was compared with.
func beside(e executor.Evidence) string {
	if e.Other == nil {
		return "the release beside it"
	}
	return e.Other.String() + ", beside it"
}

func rate(c verdict.Counts) float64 {
	if c.Requests == 0 {
		return 0
	}
	return float64(c.Errors) / float64(c.Requests)
}

// counted is a side in words.
func counted(c verdict.Counts) string {
	if c.Requests == 0 {
		return "nothing was counted"
	}
	return fmt.Sprintf("%s failed (%s of %s)", share(rate(c)), grouped(c.Errors), grouped(c.Requests))
}

// promise says what the line of the verdict means.
func promise(e executor.Evidence) string {
	alpha, beta := 0.0, 0.0
	for _, s := range e.Series {
		alpha, beta = alpha+s.Rule.Alpha, max(beta, s.Rule.Beta)
	}
	if alpha == 0 {
		return ""
	}
	return fmt.Sprintf("At most %s of good releases ever get a fail, and at most %s of intolerable ones a pass.", share(alpha), share(beta))
}

// alone says what it was held to when nobody was there to compare it with.
func alone(e executor.Evidence) string {
	if len(e.Series) == 0 || within(e.Series, 0, math.MaxInt64).Baseline.Requests > 0 {
		return ""
	}
	return fmt.Sprintf("No other release was there to compare it with: it had to keep to %s of errors.", share(e.Series[0].Rule.Objective))
}

// origin says where the evidence comes from.
func origin(e executor.Evidence) string {
	if len(e.Series) == 0 {
		return ""
	}
	var names []string
	for _, s := range e.Series {
		names = append(names, s.Name)
	}
	return "Evidence: " + strings.Join(names, ", ") + "."
}

// share is a share in percent, with two digits that mean something, and 100 only for all.
func share(f float64) string {
	percent := 100 * f
	digits := 0
	switch {
	case percent == 0 || percent == 100:
	case percent < 0.1:
		digits = 3
	case percent < 1:
		digits = 2
	case percent < 10 || percent > 99:
		digits = 1
	}
	factor := math.Pow(10, float64(digits))
	rounded := math.Round(percent*factor) / factor
	if rounded == 100 && percent < 100 {
		return "almost 100 %"
	}
	return strconv.FormatFloat(rounded, 'f', -1, 64) + " %"
}

// grouped is a count as a person reads it: 1,234,567.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// span is a time as a person says it.
func span(d time.Duration) string {
	switch {
	case d == 0:
		return "0 s"
	case d < 10*time.Second:
		return strconv.FormatFloat(max(0.001, math.Round(d.Seconds()*1000)/1000), 'f', digits(d), 64) + " s"
	case d.Round(time.Second) < time.Minute:
		return strconv.Itoa(int(d.Round(time.Second).Seconds())) + " s"
	case d < time.Hour:
		return joined(int(d.Round(time.Second)/time.Second), "min", "s")
	}
	return joined(int(d.Round(time.Minute)/time.Minute), "h", "min")
}

// digits are those behind the point of so many seconds.
func digits(d time.Duration) int {
	n := d.Round(10 * time.Millisecond)
	switch {
	case d < 10*time.Millisecond:
		return 3
	case n%time.Second == 0:
		return 0
	case n%(100*time.Millisecond) == 0:
		return 1
	}
	return 2
}

// joined is a number of small units, of which 60 are a large one.
func joined(n int, large, small string) string {
	if n%60 == 0 {
		return fmt.Sprintf("%d %s", n/60, large)
	}
	return fmt.Sprintf("%d %s %d %s", n/60, large, n%60, small)
}

// paragraph writes a text in as many lines as it takes; "" is none.
func (p *picture) paragraph(class, s string, size, gap float64) {
	room := float64(width - 2*margin)
	if size > textSize {
		room /= bold
	}
	for _, line := range wrapped(s, room, size) {
		p.y += gap
		p.text(class, margin, p.y-gap/4, "start", line)
	}
}

func (p *picture) text(class string, x, y float64, anchor, s string) {
	fmt.Fprintf(&p.body, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", class, x, y, anchor, escaped(s))
}

// escaped is a text within XML. What cannot be seen, or turns what stands beside it around, is a mark.
func escaped(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return unicode.ReplacementChar
		}
		return r
	}, s)
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a builder takes everything
	return b.String()
}

// measured is about how wide a text is, and rather too much than too little: nobody knows the font.
func measured(s string, size float64) float64 {
	ems := 0.0
	for _, r := range s {
		switch {
		case r > 0x2e00: // ideographs, emoji
			ems += 1.05
		case strings.ContainsRune("mwMW@%", r):
			ems += 1
		case unicode.IsUpper(r):
			ems += 0.76
		case strings.ContainsRune("iljtfrI.,:;|!'()[] ", r):
			ems += 0.4
		default:
			ems += 0.64
		}
	}
	return ems * size
}

// wrapped is a text in lines of at most this width; a word that is longer is divided.
func wrapped(s string, most, size float64) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(s) {
		if line != "" && measured(line+" "+word, size) <= most {
			line += " " + word
			continue
		}
		if line != "" {
			lines = append(lines, line)
			line = ""
		}
		for _, r := range word {
			if measured(line+string(r), size) > most {
				lines = append(lines, line)
				line = ""
			}
			line += string(r)
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
