package host_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/backstep/backstep/internal/host"
	"github.com/backstep/backstep/internal/host/hosttest"
	"github.com/backstep/backstep/internal/secret"
)

func unchanged(text string) string { return text }

// Ordinary text is printed as it is, and what is obeyed is written out.
func TestEscape(t *testing.T) {
	for text, want := range map[string]string{
		"deploy 1.0.0\tto [production] # 1\n": "deploy 1.0.0\tto [production] # 1\n",
		"a::b ## [x] #[y] 100 % — ja, Grüße":  "a::b ## [x] #[y] 100 % — ja, Grüße",
		"::error::x\n  ::x":                   ":\\u003aerror::x\n  :\\u003ax",
		": :x":                                ": :x",
		"a ##[b] ##vso[c] ###[d]":             "a ##\\u005bb] ##vso\\u005bc] ###\\u005bd]",
		"a\rb\x1b[1m\u009b\x00\u2028":         "a\\u000db\\u001b[1m\\u009b\\u0000\\u2028",
		"#\u200b#[x \U000e0001":               "#\\u200b#[x \\udb40\\udc01",
		"\xff and \xfe":                       "� and �",
	} {
		if got := host.Escape(text); got != want {
			t.Errorf("%q is printed as %q, want %q", text, got, want)
		}
	}
}

// A line that comes in pieces is one line: neither a command nor a secret gets through by being cut.
func TestPrinterWritesWholeLines(t *testing.T) {
	secrets := secret.NewKnown(nil)
	secrets.Learn("correct horse")
	for cut := range 40 {
		text := "is #" + "#[error]correct horse\n" + "  :" + ":notice::it"
		cut = min(cut, len(text))
		var out bytes.Buffer
		p := host.NewPrinter(&out, secrets.Redact)
		for _, piece := range []string{text[:cut], text[cut:]} {
			if n, err := p.Write([]byte(piece)); n != len(piece) || err != nil {
				t.Fatal(n, err)
			}
		}
		if err := p.Flush(); err != nil {
			t.Fatal(err)
		}
		if got, want := out.String(), "is ##\\u005berror]***\n  :\\u003anotice::it"; got != want {
			t.Errorf("cut at %d: %q, want %q", cut, got, want)
		}
	}
}

// FuzzPrinter looks for text that is a command of a host after it was printed, and for JSON that is another one.
func FuzzPrinter(f *testing.F) {
	for _, seed := range []string{"", "a\n::b::c", "\r::error::", "a ##[b]c", "#\u00ad#[x]", "##vso[task.x]", "##teamcity[x]", "\x1b]0;x\a",
		"section_end:1:x\r\x1b[0K", "\xe2\x80", "::a\u200b::", "\ufe0f::a::", "\u115f::a::b", "##" + strings.Repeat("a", 99) + "[x]"} {
		f.Add(seed, 3)
	}
	f.Fuzz(func(t *testing.T, text string, cut int) {
		var out bytes.Buffer
		p := host.NewPrinter(&out, unchanged)
		cut = min(max(0, cut), len(text))
		p.Write([]byte(text[:cut]))
		p.Write([]byte(text[cut:]))
		p.Flush()
		if found := hosttest.Commands(out.String()); len(found) > 0 {
			t.Errorf("%q is printed as %q, which gives %q", text, out.String(), found)
		}
		if host.Escape(out.String()) != out.String() {
			t.Errorf("%q is escaped twice", text)
		}
		data, err := json.Marshal(strings.ToValidUTF8(text, "?"))
		if err != nil {
			t.Fatal(err)
		}
		var back string
		if err := json.Unmarshal([]byte(host.Escape(string(data))), &back); err != nil || back != strings.ToValidUTF8(text, "?") {
			t.Errorf("%q became %q in JSON: %v", text, back, err)
		}
	})
}
