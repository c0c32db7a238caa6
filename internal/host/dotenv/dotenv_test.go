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

// A value that a report cannot hold does not leave the value before it there.
func TestReportKeepsNoStaleValue(t *testing.T) {
	for _, value := range []string{"", "two\nlines", "two\rlines"} {
		r := Report{Path: filepath.Join(t.TempDir(), "backstep.env")}
		for _, v := range [][2]string{{"previous", "sha256:1"}, {"seq", "7"}, {"previous", value}} {
			if err := r.Set(v[0], v[1]); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := read(t, r.Path), "BACKSTEP_SEQ=7\n"; got != want {
			t.Errorf("after %q the report is %q, want %q", value, got, want)
		}
		if got := Get(filepath.Join(filepath.Dir(r.Path), "backstep-outputs.json"), "previous"); got != value {
			t.Errorf("beside it is %q, want %q", got, value)
		}
	}
}

// A report with limits never goes beyond them: it keeps what it had, without the value that was replaced.
func TestReportWithinLimits(t *testing.T) {
	r := Report{Path: filepath.Join(t.TempDir(), "backstep.env"), Bytes: 100, Variables: 3}
	for i := range 3 {
		if err := r.Set(fmt.Sprintf("o-%d", i), "x"); err != nil {
			t.Fatal(err)
		}
	}
	const beside = ": o-%d is only in backstep-outputs.json beside it"
	for _, c := range []struct {
		output      int
		value, want string
	}{
		{3, "x", r.Path + " would have 4 variables, and at most 3 are taken" + beside},
		{0, strings.Repeat("y", 200), r.Path + " would have 244 bytes, and at most 100 are taken" + beside},
	} {
		want := fmt.Sprintf(c.want, c.output)
		if err := r.Set(fmt.Sprintf("o-%d", c.output), c.value); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		if got := Get(filepath.Join(filepath.Dir(r.Path), "backstep-outputs.json"), fmt.Sprintf("o-%d", c.output)); got != c.value {
			t.Errorf("beside it is %q, want %q", got, c.value)
		}
	}
	if got, want := read(t, r.Path), "BACKSTEP_O_1=x\nBACKSTEP_O_2=x\n"; got != want {
		t.Errorf("the report is %q, want %q", got, want)
	}
	unlimited := Report{Path: filepath.Join(t.TempDir(), "backstep.env")}
	for i := range 30 {
		if err := unlimited.Set(fmt.Sprintf("o-%d", i), strings.Repeat("x", 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if got := Get(unlimited.Path, "o-29"); len(got) != 1000 {
		t.Errorf("without limits: %d bytes", len(got))
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
