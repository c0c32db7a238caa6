package verify

import (
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/executor"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/step"
	"github.com/backstep/backstep/internal/verdict"
	"github.com/backstep/backstep/internal/verdict/ticks"
)

// look is a folder to write the pictures of all cases to, for a person to look at.
var look = flag.String("look", "", "write the pictures to this folder")

func named(version, digit string) release.Release {
	return release.Release{Version: version, Digest: release.Digest("sha256:" + strings.Repeat(digit, 64))}
}

// seen is a verification of 1.1.0 beside 1.0.0.
func seen(v verdict.Verdict, reason string, ways []executor.Way, phases []executor.Phase, t ...verdict.Tick) executor.Verification {
	old := named("1.0.0", "a")
	return executor.Verification{Release: named("1.1.0", "b"), Evidence: executor.Evidence{Verdict: v, Reason: reason, Ways: ways, Phases: phases, Other: &old,
		Series: []ticks.Series{{Name: "checks", Ticks: t, Rule: verdict.Setting{Rule: verdict.Probed, Options: verdict.Options{Alpha: 0.009, Beta: 0.01}}}}}}
}

// small is a fail after two seconds, with two ticks.
func small() executor.Verification {
	return seen(verdict.Fail, "10 of 20 failed", []executor.Way{{At: time.Second, Fail: 0.25}, {At: 2 * time.Second, Fail: 1, Pass: 0.1}},
		[]executor.Phase{{Name: executor.WarmingUp, Until: time.Second}, {Name: executor.Baking, Until: 2 * time.Second}},
		verdict.Tick{Elapsed: -time.Minute, Baseline: verdict.Counts{Requests: 7, Errors: 7}}, // history is no part of it
		verdict.Tick{Elapsed: time.Second, Candidate: verdict.Counts{Requests: 10}, Baseline: verdict.Counts{Requests: 10}},
		verdict.Tick{Elapsed: 2 * time.Second, Candidate: verdict.Counts{Requests: 10, Errors: 10}, Baseline: verdict.Counts{Requests: 10, Errors: 1}})
}

// course is a verification of so long, with the rates of errors of both sides from a time on.
func course(v verdict.Verdict, reason string, took, bake time.Duration, bad float64, from time.Duration) executor.Verification {
	var all []verdict.Tick
	var ways []executor.Way
	every := max(took/400, 50*time.Millisecond)
	for at := every; at <= took; at += every {
		n, share := int(10*every.Seconds()+0.999), 0.012
		errors := func(share float64) int { return int(share*float64(n) + float64((at/every*37)%100)/100) }
		if at >= from {
			share = bad
		}
		all = append(all, verdict.Tick{Elapsed: at, Candidate: verdict.Counts{Requests: n, Errors: min(n, errors(share))}, Baseline: verdict.Counts{Requests: n, Errors: errors(0.01)}})
		part := float64(at) / float64(took)
		w := executor.Way{At: at, Pass: part * part}
		if v == verdict.Fail {
			w = executor.Way{At: at, Fail: max(0, float64(at-from)/float64(took-from)), Pass: part * 0.1}
		}
		ways = append(ways, w)
	}
	if n := len(ways); n > 0 && v == verdict.Fail {
		ways[n-1].Fail = 1
	}
	phases := []executor.Phase{{Name: executor.WarmingUp, Until: min(took, bake/5)}}
	if took > bake/5 {
		phases = append(phases, executor.Phase{Name: executor.Baking, Until: min(took, bake)})
	}
	if took > bake {
		phases = append(phases, executor.Phase{Name: executor.Waiting, Until: took})
	}
	return seen(v, reason, ways, phases, all...)
}

// cases are pictures that are easily ugly.
func cases() map[string]executor.Verification {
	all := map[string]executor.Verification{
		"small":   small(),
		"plain":   course(verdict.Fail, "3 of 3 failed, from the first on, and of the other release 0 of 3", 200*time.Millisecond, 5*time.Minute, 1, 0),
		"slowly":  course(verdict.Fail, "25 times the errors: 40 % of the last 400, and of the other release 1 %", 95*time.Second, 5*time.Minute, 0.4, 40*time.Second),
		"pass":    course(verdict.Pass, "within what is harmless: 1.2 % and 1 % of 18,000 each", 30*time.Minute, 5*time.Minute, 0.012, 0),
		"unknown": course(verdict.Unknown, "12 requests are too few", 30*time.Minute, 5*time.Minute, 0, 0),
		"one":     seen(verdict.Fail, "the release died: exit code 1", []executor.Way{{At: 50 * time.Millisecond, Fail: 1}}, []executor.Phase{{Name: executor.WarmingUp, Until: 50 * time.Millisecond}}),
		"none":    {Release: named("1.1.0", "b"), Evidence: executor.Evidence{Verdict: verdict.Fail, Reason: "the release died: exit code 1"}},
	}
	back := course(verdict.Fail, "25 times the errors", 95*time.Second, 5*time.Minute, 0.4, 40*time.Second)
	back.Back = executor.RolledBack{Moved: true, Release: named("1.0.0", "a"), Took: 62 * time.Millisecond}
	all["back"] = back
	alone := course(verdict.Pass, "0.2 % of 1,000", 5*time.Minute, 5*time.Minute, 0.002, 0)
	alone.Evidence.Other, alone.Evidence.Series[0].Rule.Objective = nil, 0.01
	for i := range alone.Evidence.Series[0].Ticks {
		alone.Evidence.Series[0].Ticks[i].Baseline = verdict.Counts{}
	}
	all["alone"] = alone
	long := course(verdict.Fail, strings.Repeat("checks: 12 of 30 failed within 2 s, and of the other release 0 of 30; ", 4), 31*time.Second, 5*time.Minute, 0.5, 4*time.Second)
	long.Release.Version = "2026.10.4-rc.17+build.20261004T101112Z.feature-the-checkout-of-everything-and-then-some.WWWWWWWWMMMMMMMM"
	long.Evidence.Other.Version = "2026.10.3+" + strings.Repeat("x", 150)
	all["long"] = long
	hostile := small()
	hostile.Release.Version = hostileText
	hostile.Evidence.Other.Version = hostileText
	hostile.Evidence.Reason = hostileText
	hostile.Evidence.Series[0].Name = hostileText
	hostile.Observed = hostileText
	all["hostile"] = hostile
	return all
}

const hostileText = "</text><script>alert(1)</script>&amp;\"'\x00\x1b[31m\u202e\ufffe<![CDATA[ ]]> --> $version\n| a | b |"

// read is the text of an SVG, and what tags and attributes it has. Anything else than well-formed XML is an error of the test.
func read(t *testing.T, svg []byte) (text string, tags map[string]bool) {
	t.Helper()
	tags = map[string]bool{}
	for d := xml.NewDecoder(strings.NewReader(string(svg))); ; {
		token, err := d.Token()
		if err == io.EOF {
			return text, tags
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
		switch token := token.(type) {
		case xml.StartElement:
			tags[token.Name.Local] = true
			if strings.HasPrefix(token.Name.Local, "on") || token.Name.Local == "script" {
				t.Errorf("a picture with %v", token)
			}
		case xml.CharData:
			text += string(token) + " "
		}
	}
}

func TestPicturesAreWhole(t *testing.T) {
	for name, v := range cases() {
		svg := drawing(v)
		text, tags := read(t, svg)
		flat := strings.ReplaceAll(strings.Join(strings.Fields(text), ""), "�", "")
		wanted := []string{title(v), "the line of the verdict", "How often they failed", v.Evidence.Reason, v.Observed}
		if name == "none" {
			wanted = []string{"1.1.0 (bbbbbbbbbbbb): fail at once", v.Evidence.Reason, "before any evidence was taken"}
		}
		for _, want := range wanted {
			want = strings.Join(strings.Fields(want), "")
			if name != "hostile" && !strings.Contains(flat, want) {
				t.Errorf("%s: %q is not in\n%s", name, want, text)
			}
		}
		for _, p := range v.Evidence.Phases {
			if !strings.Contains(text, p.Name) {
				t.Errorf("%s: phase %q is not in\n%s", name, p.Name, text)
			}
		}
		for tag := range tags {
			if !strings.Contains(" svg title style rect text path polyline circle ", " "+tag+" ") {
				t.Errorf("%s: a picture with <%s>", name, tag)
			}
		}
		if strings.Contains(string(svg), "NaN") || strings.Contains(string(svg), "Inf") {
			t.Errorf("%s: what cannot be drawn:\n%s", name, svg)
		}
		if *look != "" {
			if err := os.WriteFile(filepath.Join(*look, name+".svg"), svg, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Nothing of what strangers have said is markup, and nothing of it that can be seen is lost.
func TestHostileTextStaysText(t *testing.T) {
	v := cases()["hostile"]
	svg := string(drawing(v))
	text, _ := read(t, []byte(svg))
	if strings.Contains(svg, "<script") || strings.ContainsAny(text, "\x00\x1b\u202e") {
		t.Errorf("text became markup:\n%s", svg)
	}
	if n := strings.Count(strings.ReplaceAll(text, " ", ""), "<script>alert(1)</script>"); n < 4 {
		t.Errorf("the text is there %d times:\n%s", n, text)
	}
	page := step.Report{Title: "x", Table: table(v), Charts: charts(v)}.Markdown(true)
	if strings.Contains(page, "<script") || strings.Contains(page, "| a | b |") {
		t.Errorf("text became markup:\n%s", page)
	}
}

// The shape of a small picture: where the lines are, what they cross, and which phase is where.
func TestShape(t *testing.T) {
	svg := string(drawing(small()))
	x := func(part float64) string { return fmt.Sprintf("%.1f", axis+margin+(width-axis-2*margin)*part) }
	for _, want := range []string{
		">1.1.0 (bbbbbbbbbbbb): fail after 2 s</text>",
		"<rect class=\"warm\" x=\"" + x(0), "<rect class=\"bake\" x=\"" + x(0.5), // the phases, half and half
		">warm-up</text>", ">bake</text>",
		">1.1.0 (bbbbbbbbbbbb): 50 % failed (10 of 20)</text>", ">1.0.0 (aaaaaaaaaaaa), beside it: 5 % failed (1 of 20)</text>",
		">At most 0.9 % of good releases ever get a fail, and at most 1 % of intolerable ones a pass.</text>",
	} {
		if !strings.Contains(svg, want) {
			t.Errorf("%s is not in\n%s", want, svg)
		}
	}
	line, way := between(svg, "<path class=\"line\" d=\"M"+fmt.Sprint(axis+margin)+" ", "H"), between(svg, "<polyline class=\"way bad\" points=\"", "\"")
	points := strings.Fields(way)
	if len(points) != 3 || points[2] != x(1)+","+line || !strings.HasPrefix(points[1], x(0.5)+",") {
		t.Errorf("the way %q does not end on the line at %s", way, line)
	}
	circle := between(svg, "<circle class=\"bad\" cx=\"", " r=")
	if circle != x(1)+"\" cy=\""+line+"\"" {
		t.Errorf("the verdict is at %q, and the line at %s", circle, line)
	}
	if rates := strings.Fields(between(svg, "<polyline class=\"rate new\" points=\"", "\"")); len(rates) != 2 {
		t.Errorf("the rates are %q", rates)
	}
}

func between(s, from, to string) string {
	_, s, _ = strings.Cut(s, from)
	s, _, _ = strings.Cut(s, to)
	return s
}

func TestRates(t *testing.T) {
	second := func(n int, c, b verdict.Counts) verdict.Tick {
		return verdict.Tick{Elapsed: time.Duration(n) * time.Second, Candidate: c, Baseline: b}
	}
	one := verdict.Counts{Requests: 1}
	all := []ticks.Series{{Ticks: []verdict.Tick{second(-1, one, one), second(1, one, one), second(2, one, verdict.Counts{}), second(3, one, one)}},
		{Rule: verdict.Setting{Options: verdict.Options{Tick: 2 * time.Second}}, Ticks: []verdict.Tick{second(2, verdict.Counts{Requests: 10, Errors: 4}, one)}}}
	r := ratesOf(all, 3*time.Second, 40)
	if r.step != 2*time.Second || len(r.points) != 2 || r.points[0].Candidate != (verdict.Counts{Requests: 12, Errors: 4}) ||
		r.points[1].Baseline != one || r.whole.Candidate.Requests != 13 {
		t.Errorf("the rates are %+v", r)
	}
	var many []verdict.Tick
	for i := range 3000 {
		many = append(many, verdict.Tick{Elapsed: time.Duration(i+1) * time.Millisecond, Candidate: one})
	}
	if r := ratesOf([]ticks.Series{{Ticks: many}}, 3*time.Second, 40); r.step != 100*time.Millisecond || len(r.points) != 30 || r.points[29].Candidate.Requests != 100 {
		t.Errorf("the rates are %+v", r)
	}
	if r := ratesOf([]ticks.Series{{Ticks: many[:4]}}, 4*time.Millisecond, 40); len(r.points) != 1 {
		t.Errorf("few requests are %+v", r)
	}
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0 s", 52 * time.Millisecond: "0.05 s", 200 * time.Millisecond: "0.2 s", 4 * time.Millisecond: "0.004 s", 3*time.Second + 2*time.Millisecond: "3 s",
		95 * time.Second: "1 min 35 s", 59900 * time.Millisecond: "1 min", 30 * time.Minute: "30 min", 65 * time.Minute: "1 h 5 min", 10*time.Minute + 20*time.Millisecond: "10 min"} {
		if got := span(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
	for f, want := range map[float64]string{0: "0 %", 1: "100 %", 0.4: "40 %", 0.012: "1.2 %", 0.0005: "0.05 %", 0.99951: "almost 100 %", 0.9961: "99.6 %", 0.001: "0.1 %"} {
		if got := share(f); got != want {
			t.Errorf("%v is %q, want %q", f, got, want)
		}
	}
	if got := grouped(1234567) + " " + grouped(999) + " " + grouped(1000); got != "1,234,567 999 1,000" {
		t.Error(got)
	}
}

// No line is wider than the page, and none loses a letter.
func TestWrapped(t *testing.T) {
	for _, s := range []string{"", "short", strings.Repeat("many words ", 60), strings.Repeat("W", 300), strings.Repeat("界", 200), "a " + strings.Repeat("x", 200) + " b"} {
		lines := wrapped(s, 700, textSize)
		for _, l := range lines {
			if measured(l, textSize) > 700 {
				t.Errorf("%q is too wide", l)
			}
		}
		if strings.Join(strings.Fields(strings.Join(lines, "")), "") != strings.Join(strings.Fields(s), "") {
			t.Errorf("%q is %q", s, lines)
		}
	}
}

func TestKeep(t *testing.T) {
	dir := t.TempDir()
	record, picture := filepath.Join(dir, "ticks.csv"), filepath.Join(dir, "evidence.svg")
	if err := keep(small(), record, picture); err != nil {
		t.Fatal(err)
	}
	csv, err := os.ReadFile(record)
	if err != nil || !strings.Contains(string(csv), "\nchecks,3,2,10,10,10,1\n") {
		t.Errorf("%s, %v", csv, err)
	}
	svg, err := os.ReadFile(picture)
	if err != nil || !strings.Contains(string(svg), "</svg>") {
		t.Errorf("%s, %v", svg, err)
	}
	if err := keep(small(), filepath.Join(dir, "no", "ticks.csv"), ""); err == nil || !strings.Contains(err.Error(), "the verdict is written") {
		t.Errorf("a folder that is not there: %v", err)
	}
	if err := keep(executor.Verification{}, "", ""); err != nil {
		t.Errorf("nothing asked for: %v", err)
	}
}

func TestCharts(t *testing.T) {
	v := small()
	r := step.Report{Title: "Verified production", Table: table(v), Charts: charts(v)}
	tables := "| phase | until | 1.1.0 (bbbbbbbbbbbb) | 1.0.0 (aaaaaaaaaaaa), beside it |\n|---|---|---|---|\n" +
		"| warm-up | 1 s | 0 % failed (0 of 10) | 0 % failed (0 of 10) |\n| bake | 2 s | 100 % failed (10 of 10) | 10 % failed (1 of 10) |\n"
	drawn := r.Markdown(true)
	for _, want := range []string{tables, "```mermaid\n---\nconfig:\n", "plotColorPalette: \"#cf222e, #1a7f37\"\n", "\nxychart-beta\n  x-axis \"seconds\" 0 --> 2\n  y-axis \"percent\" 0 --> 100\n  line [0, 25, 100]\n  line [0, 0, 10]\n```\n",
		"violet: 1.1.0 (bbbbbbbbbbbb); grey: 1.0.0 (aaaaaaaaaaaa), beside it", "  line [0, 100]\n  line [0, 10]\n"} {
		if !strings.Contains(drawn, want) {
			t.Errorf("%q is not in\n%s", want, drawn)
		}
	}
	if text := r.Markdown(false); !strings.Contains(text, tables) || strings.Contains(text, "mermaid") {
		t.Errorf("a page that draws nothing:\n%s", text)
	}
	if text := (step.Report{Title: "x", Charts: charts(cases()["none"]), Table: table(cases()["none"])}).Markdown(true); strings.Contains(text, "phase") {
		t.Errorf("a table of nothing:\n%s", text)
	}
}
