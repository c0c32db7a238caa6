package bump

import (
	"fmt"
	"strings"
	"unicode"
)

// longest is the number of runes of a commit's text that the notes show; messages are written by anybody.
const longest = 300

// Notes are release notes in Markdown: a heading with the version, then the breaking changes, features, fixes
// and the rest, newest first, as the messages are. Reverts and what they take back are left out. No text of a commit can
// become markup, a link or a mention.
func Notes(version string, messages []Message) string {
	groups := []struct {
		title string
		takes func(Message) bool
	}{
		{"Breaking changes", func(m Message) bool { return m.Breaking }},
		{"Features", func(m Message) bool { return m.Type == "feat" }},
		{"Fixes", func(m Message) bool { return m.Type == "fix" }},
		{"Performance", func(m Message) bool { return m.Type == "perf" }},
		{"Other changes", func(m Message) bool { return m.Type != "" }},
	}
	lines := make([][]string, len(groups))
	for _, m := range Kept(messages) {
		for i, g := range groups {
			if g.takes(m) {
				lines[i] = append(lines[i], note(m))
				break
			}
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "## %s\n", escape(version))
	for i, g := range groups {
		if len(lines[i]) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n### %s\n\n%s\n", g.title, strings.Join(lines[i], "\n"))
	}
	return b.String()
}

func note(m Message) string {
	var b strings.Builder
	b.WriteString("- ")
	if m.Scope != "" {
		fmt.Fprintf(&b, "**%s**: ", escape(m.Scope))
	}
	b.WriteString(escape(m.Subject))
	if len(m.Hash) >= 7 {
		fmt.Fprintf(&b, " (%s)", m.Hash[:7])
	}
	if m.Note != "" {
		b.WriteString(": " + escape(m.Note))
	}
	return b.String()
}

// escape makes text plain Markdown on one line. A dot or a hyphen inside a word or a number stays as it is, since
// it means nothing there and notes are also read raw.
func escape(text string) string {
	var b strings.Builder
	runes := []rune(text)
	for i, r := range runes {
		if i == longest {
			b.WriteRune('…')
			break
		}
		switch {
		case unicode.IsSpace(r):
			b.WriteByte(' ')
		case unicode.In(r, unicode.Cc, unicode.Cf):
		case r == '@':
			b.WriteString("@&#8203;") // a zero-width space: a host sees no mention
		case r == ',' || r == '/' || r == '(' || (r == '.' || r == '-') && inside(runes, i):
			b.WriteRune(r)
		case r < unicode.MaxASCII && (unicode.IsPunct(r) || unicode.IsSymbol(r)):
			b.WriteByte('\\')
			b.WriteRune(r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// inside says that the rune at i is between letters or digits, and not the dot of a www. that would make a link.
func inside(runes []rune, i int) bool {
	if i == 0 || i+1 == len(runes) {
		return false
	}
	before, after := runes[i-1], runes[i+1]
	word := func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }
	return word(before) && word(after) && unicode.ToLower(before) != 'w'
}
