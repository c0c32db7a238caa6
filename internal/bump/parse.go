// Package bump decides the next version from commit messages and the versions that exist. It is pure: what
// git and the registry know is handed to it.
package bump

import (
	"fmt"
	"regexp"
	"strings"
)

// Level is how far a version moves. None is the zero value.
type Level int

// The levels, lowest first.
const (
	None Level = iota
	Patch
	Minor
	Major
)

// String is none, patch, minor or major.
func (l Level) String() string {
	switch l {
	case Patch:
		return "patch"
	case Minor:
		return "minor"
	case Major:
		return "major"
	}
	return "none"
}

// ParseLevel is the level that String calls s.
func ParseLevel(s string) (Level, error) {
	for l := None; l <= Major; l++ {
		if l.String() == s {
			return l, nil
		}
	}
	return None, fmt.Errorf("bump %q: want none, patch, minor or major", s)
}

// Message is what a commit message says in the words of Conventional Commits 1.0.0. A message that does not
// follow them has a Subject and no Type.
type Message struct {
	Hash     string
	Type     string // lower case; "" when the header is not conventional
	Scope    string
	Subject  string   // the description, or the whole first line when there is no type
	Breaking bool     // a ! in the header, or a BREAKING CHANGE footer
	Note     string   // the text of the BREAKING CHANGE footer, on one line
	Revert   bool     // the commit takes another one back
	Reverts  []string // the hashes it takes back, full or abbreviated
	header   string   // the whole first line
	quoted   string   // the header it takes back, for hosts that leave the hash out
}

var (
	headerShape  = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9_-]*)(?:\(([^()]*)\))?(!)?:[ \t]+(\S.*)$`)
	footerShape  = regexp.MustCompile(`^(BREAKING CHANGE|[A-Za-z][A-Za-z0-9-]*)(?::(?:[ \t]|$)|[ \t]#)(.*)$`)
	revertShape  = regexp.MustCompile(`^(?:Revert|Reapply) "(.*)"$`)
	revertedHash = regexp.MustCompile(`(?m)^This reverts commit ([0-9a-f]{7,64})\b`)
	hashShape    = regexp.MustCompile(`\b[0-9a-f]{7,64}\b`)
	pullNumber   = regexp.MustCompile(` \(#[0-9]+\)$`)
)

// Parse reads the message text of the commit hash. Every text has a meaning: there is no error.
func Parse(hash, text string) Message {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	header, body, _ := strings.Cut(strings.TrimLeft(text, "\n"), "\n")
	header = strings.TrimSpace(header)
	m := Message{Hash: hash, Subject: header, header: header}
	if h := headerShape.FindStringSubmatch(header); h != nil {
		m.Type, m.Scope, m.Breaking, m.Subject = strings.ToLower(h[1]), strings.TrimSpace(h[2]), h[3] == "!", h[4]
	}
	var references []string
	for _, f := range footers(body) {
		switch f.token {
		case "BREAKING CHANGE", "BREAKING-CHANGE":
			m.Breaking = true
			if m.Note == "" {
				m.Note = f.value
			}
		case "Refs":
			references = append(references, hashShape.FindAllString(f.value, -1)...)
		}
	}
	bare := pullNumber.ReplaceAllString(header, "")
	for _, h := range revertedHash.FindAllStringSubmatch(body, -1) {
		m.Reverts = append(m.Reverts, h[1])
	}
	switch quoted := revertShape.FindStringSubmatch(bare); {
	case quoted != nil:
		m.Revert = true
		if strings.HasPrefix(bare, "Revert ") {
			m.quoted = quoted[1]
		}
	case m.Type == "revert":
		m.Revert, m.quoted = true, m.Subject
		m.Reverts = append(m.Reverts, references...)
	default:
		m.Reverts = nil
	}
	return m
}

type footer struct{ token, value string }

// footers are the trailers of the paragraphs that begin with one. A paragraph of prose has none, even when
// a line of it happens to look like a trailer after wrapping.
func footers(body string) []footer {
	var all []footer
	begins, inside := true, false
	for line := range strings.Lines(body) {
		line = strings.TrimRight(line, " \t\n")
		if line == "" {
			begins, inside = true, false
			continue
		}
		f := footerShape.FindStringSubmatch(line)
		switch {
		case f != nil && (begins || inside):
			all = append(all, footer{f[1], strings.TrimSpace(f[2])})
			inside = true
		case inside:
			last := &all[len(all)-1]
			last.value = strings.TrimSpace(last.value + " " + strings.TrimSpace(line))
		}
		begins = false
	}
	return all
}

// Level is what this one commit asks for: a breaking change major, feat minor, fix and perf patch, anything
// else and every revert none.
func (m Message) Level() Level {
	switch {
	case m.Revert:
		return None
	case m.Breaking:
		return Major
	case m.Type == "feat":
		return Minor
	case m.Type == "fix", m.Type == "perf":
		return Patch
	}
	return None
}

// Kept leaves out the reverts, and the commits that a revert among them takes back. The messages are in
// topological order, newest first, so that the revert of a revert brings the first commit back.
func Kept(messages []Message) []Message {
	var kept []Message
	gone := make([]bool, len(messages))
	for i, m := range messages {
		if gone[i] {
			continue
		}
		if !m.Revert {
			kept = append(kept, m)
			continue
		}
		for j := i + 1; j < len(messages); j++ {
			if gone[j] || !m.takesBack(messages[j]) {
				continue
			}
			gone[j] = true
			if len(m.Reverts) == 0 {
				break // a header names the newest commit that has it
			}
		}
	}
	return kept
}

func (m Message) takesBack(older Message) bool {
	for _, hash := range m.Reverts {
		if strings.HasPrefix(older.Hash, hash) {
			return true
		}
	}
	return len(m.Reverts) == 0 && m.quoted != "" &&
		pullNumber.ReplaceAllString(older.header, "") == pullNumber.ReplaceAllString(m.quoted, "")
}

// Of is the highest level that the messages ask for, after Kept.
func Of(messages []Message) Level {
	level := None
	for _, m := range Kept(messages) {
		level = max(level, m.Level())
	}
	return level
}
