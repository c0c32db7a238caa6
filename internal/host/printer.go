package host

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Printer is where everything goes that is printed, except what a host is told on purpose: a line at a time, without the
// secrets that are known, and so that no host and no terminal takes any of it for a command. Several goroutines may write.
type Printer struct {
	mu     sync.Mutex
	out    io.Writer
	redact func(string) string
	open   []byte // the line that is not over yet
}

// NewPrinter is a printer to out. Redact takes the secrets out of a line.
func NewPrinter(out io.Writer, redact func(string) string) *Printer {
	return &Printer{out: out, redact: redact}
}

// Write prints the lines that are over; the rest waits for its end, or for Flush. The error is that of what is behind it.
func (p *Printer) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = append(p.open, text...)
	end := strings.LastIndexByte(string(p.open), '\n') + 1
	lines := string(p.open[:end])
	p.open = p.open[end:]
	return len(text), p.print(lines)
}

// Flush prints a line that has no end.
func (p *Printer) Flush() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	rest := string(p.open)
	p.open = nil
	return p.print(rest)
}

func (p *Printer) print(text string) error {
	if text == "" {
		return nil
	}
	_, err := io.WriteString(p.out, Escape(p.redact(text)))
	return err
}

// Escape makes text harmless: what hosts and terminals obey becomes \uXXXX, as JSON writes it, so that JSON stays what it is.
// These are `::` at the start of a line, `##[` and its like anywhere, and all characters that move a cursor, end a line for
// some, or are not seen. LF and tabs stay.
func Escape(text string) string {
	var b strings.Builder
	for line := range strings.Lines(strings.ToValidUTF8(text, string(utf8.RuneError))) {
		escapeLine(&b, line)
	}
	return b.String()
}

// escapeLine follows two marks: that only white space and at most one colon have come (start), and that `##` and letters have
// (mark), whose [ would make it a command: GitHub's ##[error], Azure's ##vso[…], TeamCity's ##teamcity[…].
func escapeLine(b *strings.Builder, line string) {
	start, mark := 0, 0
	for _, c := range line {
		switch {
		case !plain(c), c == ':' && start == 1, c == '[' && mark >= 2:
			writeEscaped(b, c)
		default:
			b.WriteRune(c)
		}
		switch {
		case c == ':' && start >= 0:
			start++
		case start > 0 || plain(c) && !unicode.IsSpace(c):
			start = -1
		}
		switch {
		case c == '#':
			mark++
		case mark < 2 || !unicode.IsLetter(c):
			mark = 0
		}
	}
}

// plain says that c is printed as it is. Variation selectors and their like are not seen, and the comparisons of .NET, in which
// GitHub's runner is written, pass over them.
func plain(c rune) bool {
	switch c {
	case '\n', '\t':
		return true
	}
	return !unicode.In(c, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

func writeEscaped(b *strings.Builder, c rune) {
	for _, unit := range utf16.Encode([]rune{c}) {
		fmt.Fprintf(b, `\u%04x`, unit)
	}
}
