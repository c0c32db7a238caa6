package secret

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Known is the secrets of a run, which its outputs must not hold. There is one in a process: what reads a secret makes it
// known, and what leaves the process, be it printed, stored or sent to a page, goes through Redact. A nil one knows none.
type Known struct {
	tell func(text string)

	mu     sync.RWMutex
	learnt map[string]bool
	forms  []string // everything that is taken out, the longest first
	all    *strings.Replacer
}

// The shortest texts that are taken out, in bytes. What is shorter is in many texts by chance, and is told from them by nobody.
const (
	shortest     = 4
	shortestPart = 8 // of a secret that was cut, or is inside of something encoded
)

// NewKnown knows nothing yet. Tell is called with each secret once, before anything else is done with it: a host hides it in its
// log. It may be nil.
func NewKnown(tell func(text string)) *Known {
	return &Known{tell: tell, learnt: map[string]bool{}, all: strings.NewReplacer()}
}

// Learn makes text a secret that is known from now on, with the passwords that are in it and in every usual encoding.
func (k *Known) Learn(text string) Value {
	if k == nil || text == "" {
		return New(text)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.learnt[text] {
		return New(text)
	}
	k.learnt[text] = true
	if k.tell != nil {
		k.tell(text)
	}
	for _, part := range parts(text) {
		k.forms = append(k.forms, encodings(part)...)
	}
	slices.SortFunc(k.forms, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	k.forms = slices.Compact(k.forms)
	pairs := make([]string, 0, 2*len(k.forms))
	for _, f := range k.forms {
		pairs = append(pairs, f, redacted)
	}
	k.all = strings.NewReplacer(pairs...)
	return New(text)
}

// Redact is text with *** in the place of every secret that is known, and of the user and the password in an address. Where a line
// begins or ends inside of a secret, as what was cut does, that part is taken out too.
func (k *Known) Redact(text string) string {
	return inAddress.ReplaceAllString(k.withoutKnown(text), "://"+redacted+"@")
}

func (k *Known) withoutKnown(text string) string {
	if k == nil {
		return text
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	var b strings.Builder
	for line := range strings.Lines(k.all.Replace(text)) {
		end := strings.TrimRight(line, "\r\n")
		b.WriteString(k.withoutEnds(end) + line[len(end):])
	}
	return b.String()
}

// withoutEnds is a line without the part of a secret that it begins or ends with.
func (k *Known) withoutEnds(line string) string {
	head, tail := 0, 0
	for _, f := range k.forms {
		least := shortestPart
		if i := strings.Index(f, "://"); i >= 0 {
			least += i + len("://") // the scheme is in many lines
		}
		for n := min(len(f)-1, len(line)); n >= least; n-- {
			if n > tail && strings.HasSuffix(line, f[:n]) {
				tail = n
			}
			if n > head && strings.HasPrefix(line, f[len(f)-n:]) {
				head = n
			}
		}
	}
	if head+tail >= len(line) && head+tail > 0 {
		return redacted
	}
	if tail > 0 {
		line = line[:len(line)-tail] + redacted
	}
	if head > 0 {
		line = redacted + line[head:]
	}
	return line
}

var (
	inAddress = regexp.MustCompile(`://[^/\s"'<>]*@`)
	// passwords are where connection strings have them: user:PASSWORD@, password=PASSWORD and "Bearer TOKEN".
	passwords = []*regexp.Regexp{
		regexp.MustCompile(`^(?:[a-zA-Z][a-zA-Z0-9+.-]*://)?[^:/@\s]*:(.+)@`),
		regexp.MustCompile(`(?i)\b(?:password|passwd|pwd|secret|token|key)=([^\s&;]+)`),
		regexp.MustCompile(`(?i)^(?:basic|bearer|token) +(\S+)`),
	}
)

// parts is what of a secret is one by itself: all of it, each line, and the passwords in it.
func parts(text string) []string {
	all := []string{text}
	for line := range strings.Lines(text) {
		all = append(all, strings.TrimSpace(line))
	}
	for _, p := range passwords {
		for _, m := range p.FindAllStringSubmatch(text, -1) {
			all = append(all, m[1])
			if plain, err := url.PathUnescape(m[1]); err == nil {
				all = append(all, plain)
			}
		}
	}
	return all
}

// encodings is a text in the forms that programs print it in; none when it is too short.
func encodings(text string) []string {
	if len(text) < shortest {
		return nil
	}
	quoted, _ := json.Marshal(text) // a string always has a form
	forms := []string{text, inner(string(quoted)), inner(strconv.Quote(text)), inner(strconv.QuoteToASCII(text)),
		url.QueryEscape(text), url.PathEscape(text), html.EscapeString(text)}
	for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		forms = append(forms, e.EncodeToString([]byte(text)))
		for before := range 3 {
			forms = append(forms, inside(e, text, before))
		}
	}
	return slices.DeleteFunc(forms, func(f string) bool { return len(f) < shortest })
}

// inner is a quoted text without its quotes.
func inner(quoted string) string { return quoted[1 : len(quoted)-1] }

// inside is what the encoding of anything shows of text when before bytes (modulo 3) come before it: all characters that are made
// of text alone. "" when they are too few to be told from others.
func inside(e *base64.Encoding, text string, before int) string {
	encoded := e.EncodeToString([]byte(strings.Repeat("x", before) + text))
	first, last := (before*8+5)/6, (before+len(text))*8/6
	if last-first < shortestPart {
		return ""
	}
	return encoded[first:last]
}

// Address is an address without the user and the password that it may hold, also when it is not well formed.
func Address(text string) string {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return text
	}
	end := strings.IndexAny(rest, "/?#")
	if _, err := url.Parse(text); err != nil || end < 0 {
		end = len(rest) // where a password ends is not known
	}
	if at := strings.LastIndexByte(rest[:end], '@'); at >= 0 {
		rest = rest[at+1:]
	}
	return scheme + "://" + rest
}
