package dotenv

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// What a dotenv report can hold goes there, one line a key; everything goes beside it.
func TestReport(t *testing.T) {
	dir := t.TempDir()
	r := Report{Path: filepath.Join(dir, "backstep.env")}
	for _, v := range [][2]string{{"version", "1.0.0"}, {"image", "r/x@sha256:1"}, {"version", "1.1.0"}, {"notes", "# 1.1.0\nlive=evil"}, {"empty", ""}} {
		if err := r.Set(v[0], v[1]); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := read(t, r.Path), "BACKSTEP_IMAGE=r/x@sha256:1\nBACKSTEP_VERSION=1.1.0\n"; got != want {
		t.Errorf("the report is %q, want %q", got, want)
	}
	var all map[string]string
	if err := json.Unmarshal([]byte(read(t, filepath.Join(dir, "backstep-outputs.json"))), &all); err != nil {
		t.Fatal(err)
	}
	if all["version"] != "1.1.0" || all["notes"] != "# 1.1.0\nlive=evil" || len(all) != 4 {
		t.Errorf("beside it is %q", all)
	}
}

// GitLab refuses a report that is too large or has too many variables: ours never is, and keeps what it had.
func TestReportStaysWithinLimits(t *testing.T) {
	r := Report{Path: filepath.Join(t.TempDir(), "backstep.env")}
	for i := range 30 {
		if err := r.Set(fmt.Sprintf("o-%d", i), "x"); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Set("o-0", strings.Repeat("y", 6000)); err != nil {
		t.Fatal(err)
	}
	got := read(t, r.Path)
	if lines := strings.Count(got, "\n"); lines != 20 || len(got) > 5<<10 || !strings.HasPrefix(got, "BACKSTEP_O_0=x\nBACKSTEP_O_1=x\n") {
		t.Errorf("%d lines, %d bytes: %.60q", lines, len(got), got)
	}
}

func TestWhatCannotBeWrittenIsAnError(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "no", "such")
	if (Report{Path: nowhere}).Set("a", "b") == nil || (JSON{Path: nowhere}).Set("a", "b") == nil {
		t.Error("a file that cannot be written is no error")
	}
	other := filepath.Join(t.TempDir(), "x.json")
	if err := os.WriteFile(other, []byte("[]"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := (JSON{Path: other}).Set("a", "b"); err == nil || read(t, other) != "[]" {
		t.Errorf("somebody else's file: %v, now %s", err, read(t, other))
	}
}
