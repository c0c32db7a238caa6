package secret_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/backstep/backstep/internal/secret"
)

// A secret is taken out in every form that programs print it in.
func TestRedact(t *testing.T) {
	const (
		password = `p"ä/ss+w<rd=&%1`
		key      = "-----BEGIN KEY-----\nbm90IGEga2V5IGF0IGFsbA\nc2Vjb25kIGxpbmUgb2YgaXQ\n-----END KEY-----\n"
	)
	known := secret.NewKnown(nil)
	known.Learn(password)
	known.Learn(key)
	known.Learn("postgres://app:s3cr3t%2Fpass@db:5432/shop?sslmode=disable")
	known.Learn("Bearer t0ken-of-somebody")
	known.Learn("host=db user=app password=inDSN-12 dbname=shop")
	asJSON, _ := json.Marshal(password)
	for form, text := range map[string]string{
		"plain": password, "JSON": string(asJSON), "quoted": strconv.Quote(password), "ASCII": strconv.QuoteToASCII(password),
		"query": url.QueryEscape(password), "path": url.PathEscape(password), "HTML": html.EscapeString(password),
		"base64": base64.StdEncoding.EncodeToString([]byte(password)), "base64 of an address": base64.URLEncoding.EncodeToString([]byte(password)),
		"raw base64": base64.RawStdEncoding.EncodeToString([]byte(password)),
		"a line":     "c2Vjb25kIGxpbmUgb2YgaXQ", "a password in an address": "s3cr3t/pass", "as it stands there": "s3cr3t%2Fpass",
		"a header": "t0ken-of-somebody", "a connection string": "inDSN-12", "an address": "postgres://app:s3cr3t%2Fpass@db:5432/shop?sslmode=disable",
	} {
		got := known.Redact("before " + text + " after")
		if want := "before *** after"; strings.Trim(strings.NewReplacer(`"`, "", "=", "").Replace(got), " ") != want {
			t.Errorf("%s: %q became %q", form, text, got)
		}
	}
	for before := range 4 { // the header of basic authentication is the encoding of user:password
		text := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("u", before) + ":" + password + ":more"))
		if got := known.Redact(text); !strings.Contains(got, "***") || len(got) > len(text)-len(password) {
			t.Errorf("inside of an encoding, after %d bytes: %q became %q", before, text, got)
		}
	}
}

// What an address holds is no business of anybody, known or not.
func TestRedactAddresses(t *testing.T) {
	var nobody *secret.Known
	for text, want := range map[string]string{
		"GET https://ada:pw@r.example/v2/: 401":    "GET https://***@r.example/v2/: 401",
		`parse "https://ada:p%zw@git.example/x"`:   `parse "https://***@git.example/x"`,
		"r.example/shop@sha256:12 and ada@b.c":     "r.example/shop@sha256:12 and ada@b.c",
		"https://r.example/shop@sha256:12":         "https://r.example/shop@sha256:12",
		"postgres://a:b@c/d, redis://:secret@e:63": "postgres://***@c/d, redis://***@e:63",
	} {
		if got := nobody.Redact(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]string{
		"https://ada:pw@git.example/x@y": "https://git.example/x@y", "https://a:p%zz@git.example/x": "https://git.example/x",
		"https://a:p/w@git.example/x": "https://git.example/x", "git@git.example:x.git": "git@git.example:x.git", "https://git.example/x": "https://git.example/x",
		"shop": "shop", "https://token@git.example": "https://git.example",
	} {
		if got := secret.Address(text); got != want {
			t.Errorf("the address %q became %q, want %q", text, got, want)
		}
	}
}

// What was cut in the middle of a secret shows nothing of it; short secrets leave other words alone.
func TestRedactWhatWasCut(t *testing.T) {
	known := secret.NewKnown(nil)
	known.Learn("correct-horse-battery-staple")
	known.Learn("postgres://app:hunter2hunter2@db/shop")
	known.Learn("abc")
	for text, want := range map[string]string{
		"it said: correct-horse-batt":        "it said: ***",
		"tery-staple, it said\nbattery-stap": "***, it said\nbattery-stap",
		"dial postgres://app:hunter2hunt":    "dial ***",
		"connect to postgres://":             "connect to postgres://",
		"abcdef":                             "abcdef",
		"correct":                            "correct",
	} {
		if got := known.Redact(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

// A host is told each secret once, before anybody has it.
func TestLearnTellsOnce(t *testing.T) {
	var told []string
	known := secret.NewKnown(func(text string) { told = append(told, text) })
	for _, text := range []string{"first", "", "second", "first"} {
		if got := known.Learn(text); got.Reveal() != text {
			t.Errorf("%q became %q", text, got.Reveal())
		}
	}
	if want := []string{"first", "second"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	if got := fmt.Sprint(known.Learn("third"), (*secret.Known)(nil).Learn("fourth")); got != "*** ***" {
		t.Errorf("printed as %s", got)
	}
}

// FuzzRedact looks for a secret that is there after it was taken out.
func FuzzRedact(f *testing.F) {
	for _, seed := range [][2]string{{"secret", "a secret b"}, {"a\nb\nc", "b"}, {"****", "********"}, {"https://u:p@h", "x https://u:p@h"}, {"aaaa", "aaaaa"}} {
		f.Add(seed[0], seed[1], 1)
	}
	f.Fuzz(func(t *testing.T, text, around string, at int) {
		if len(text) < 4 || strings.ContainsAny(text, "*") || strings.Contains("https://***@", text) {
			t.Skip("too short, or *** itself")
		}
		known := secret.NewKnown(nil)
		known.Learn(text)
		at = min(max(0, at), len(around))
		for _, hidden := range []string{text, url.QueryEscape(text), strconv.Quote(text), base64.StdEncoding.EncodeToString([]byte(text))} {
			if got := known.Redact(around[:at] + hidden + around[at:]); strings.Contains(got, hidden) {
				t.Errorf("%q is in %q", hidden, got)
			}
		}
	})
}
