package verify

import (
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/executor"
	"github.com/backstep/backstep/internal/step"
	"github.com/backstep/backstep/internal/verdict"
	"github.com/backstep/backstep/internal/verdict/ticks"
)

var evidence = executor.Evidence{
	Series: []ticks.Series{{Name: "haproxy", Ticks: []verdict.Tick{{Elapsed: time.Second, Candidate: verdict.Counts{Requests: 10, Errors: 4}}}}},
	Ways:   []executor.Way{{At: time.Second, Fail: 0.25, Pass: 0}, {At: 2 * time.Second, Fail: 1, Pass: 0.1}},
}

func TestKeep(t *testing.T) {
	dir := t.TempDir()
	record, picture := filepath.Join(dir, "ticks.csv"), filepath.Join(dir, "evidence.svg")
	if err := keep(evidence, record, picture); err != nil {
		t.Fatal(err)
	}
	csv, err := os.ReadFile(record)
	if err != nil || !strings.Contains(string(csv), "\nhaproxy,1,1,10,4,0,0\n") {
		t.Errorf("%s, %v", csv, err)
	}
	svg, err := os.ReadFile(picture)
	if err != nil || !strings.Contains(string(svg), "40.0,200.0 320.0,160.0 600.0,40.0") { // 0, a quarter at half time, and all of it
		t.Errorf("%s, %v", svg, err)
	}
	for d := xml.NewDecoder(strings.NewReader(string(svg))); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := keep(evidence, filepath.Join(dir, "no", "ticks.csv"), ""); err == nil || !strings.Contains(err.Error(), "the verdict is written") {
		t.Errorf("a folder that is not there: %v", err)
	}
	if err := keep(executor.Evidence{}, "", ""); err != nil {
		t.Errorf("nothing asked for: %v", err)
	}
	if got := drawing(nil); !strings.Contains(string(got), "</svg>") {
		t.Errorf("no evidence: %s", got)
	}
}

func TestChart(t *testing.T) {
	text := step.Report{Title: "Verified production", Chart: chart(evidence.Ways)}.Markdown()
	for _, want := range []string{"```mermaid\nxychart-beta\n", "x-axis \"seconds\" 0 --> 2\n", "  line [25, 100]\n  line [0, 10]\n```\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if text := (step.Report{Title: "x"}).Markdown(); strings.Contains(text, "mermaid") {
		t.Errorf("a chart of nothing:\n%s", text)
	}
}
