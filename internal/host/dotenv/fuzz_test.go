package dotenv

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzReport looks for a value that sets another variable than its own, or is another one when it is read.
func FuzzReport(f *testing.F) {
	for _, seed := range []string{"1.0.0", "", " x ", "a\nLD_PRELOAD=x", "a\rb", "\u2028LD_PRELOAD=x", "#", "\"quoted\"", "\x00"} {
		f.Add(seed, "BACKSTEP_DIGEST=sha256:1\n")
	}
	f.Add("x", "BACKSTEP_VERSION=old\nBACKSTEP_VERSION=older\nnothing\n")
	f.Fuzz(func(t *testing.T, value, old string) {
		r := Report{Path: filepath.Join(t.TempDir(), "x.env")}
		if err := os.WriteFile(r.Path, []byte(old), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := r.Set("version", value); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(r.Path)
		if err != nil {
			t.Fatal(err)
		}
		count := 0
		for line := range strings.FieldsFuncSeq(string(text), func(c rune) bool { return c == '\n' || c == '\r' }) {
			switch {
			case line == "BACKSTEP_VERSION="+value:
				count++
			case !strings.Contains(old, line):
				t.Errorf("%q put the line %q into the report", value, line)
			}
		}
		if count > 1 || count == 0 && value != "" && !strings.ContainsAny(value, "\r\n") {
			t.Errorf("%q is %d times in %q", value, count, text)
		}
		if got := Get(r.Path, "version"); count == 1 && got != value {
			t.Errorf("%q is read as %q", value, got)
		}
	})
}
