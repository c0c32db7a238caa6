package step

import (
	"html"
	"strings"
	"testing"

	"github.com/backstep/backstep/internal/host"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/secret"
)

// shown is how Markdown reads a text: without backslashes before punctuation, and with entities. Live lists the marks that are not
// escaped: they would make a link, a table cell, emphasis, code or HTML.
func shown(markdown string) (text, live string) {
	var b strings.Builder
	for i := 0; i < len(markdown); i++ {
		switch c := markdown[i]; {
		case c == '\\' && i+1 < len(markdown) && strings.IndexByte("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", markdown[i+1]) >= 0:
			i++
			b.WriteByte(markdown[i])
		case strings.IndexByte("[]|*_`<>\\", c) >= 0:
			live += string(c)
		default:
			b.WriteByte(c)
		}
	}
	return html.UnescapeString(b.String()), live
}

// Text of strangers stays text in a report.
func TestCellIsNoMarkup(t *testing.T) {
	for _, text := range []string{`[x](https://evil.example)`, `\[x\](https://evil.example)`, `\\[x](y)`, `a | b`, `\| b`, "`code`", `\`, `<img src=x>`,
		`&lt;img&gt;`, `**bold** __too__`, `![x](y)`, `\`} {
		if got, live := shown(cell(text)); got != text || live != "" {
			t.Errorf("%q is written as %q, shown as %q with the marks %q", text, cell(text), got, live)
		}
	}
}

// pages is a host that keeps what it is given.
type pages struct {
	host.Host
	outputs, beside map[string]string
	summary         string
}

func (p *pages) Output(name, value string) error { p.outputs[name] = value; return nil }
func (p *pages) Beside(name, value string) error { p.beside[name] = value; return nil }
func (p *pages) Summary(markdown string) error   { p.summary = markdown; return nil }

// What strangers have a part in becomes no variable, and no page shows a secret, also when Markdown writes it otherwise.
func TestWhatAHostIsHanded(t *testing.T) {
	secrets := secret.NewKnown(nil)
	secrets.Learn("p|a_s*s")
	p := &pages{outputs: map[string]string{}, beside: map[string]string{}}
	rt := Runtime{Host: p, Secrets: secrets}
	err := rt.Outputs(Value{Output: input.Output{Name: "verdict"}, Value: "fail"}, Value{Output: input.Output{Name: "reason", Foreign: true}, Value: "it said p|a_s*s"})
	if err != nil || p.outputs["verdict"] != "fail" || len(p.outputs) != 1 || p.beside["reason"] != "it said ***" {
		t.Errorf("handed on %q, and beside %q, %v", p.outputs, p.beside, err)
	}
	rt.Summary(Report{Title: "p|a_s*s", Rows: [][2]string{{"why", "p|a_s*s"}}, Notes: "p|a_s*s"})
	if strings.Contains(p.summary, "a_s") || strings.Contains(p.summary, "a\\_s") || strings.Count(p.summary, "***")+strings.Count(p.summary, "\\*\\*\\*") != 3 {
		t.Errorf("the page is\n%s", p.summary)
	}
}

// FuzzCell looks for text that is markup, or another text, when it is in a cell.
func FuzzCell(f *testing.F) {
	for _, seed := range []string{`\[x\](url)`, "a\r\nb", `\\\`, "&amp;", "&#91;x]"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		want := strings.NewReplacer("\r", " ", "\n", " ").Replace(text)
		if got, live := shown(cell(text)); got != want || live != "" {
			t.Errorf("%q is written as %q, shown as %q with the marks %q", text, cell(text), got, live)
		}
	})
}
