package gitlab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backstep/backstep/internal/host"
)

// GitLab refuses the whole report of a job when it is too large or has too many variables.
func TestReportsStayWithinTheLimits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "backstep.env")
	h := Kind().New(host.Environment{Getenv: func(name string) string { return map[string]string{"BACKSTEP_OUTPUT": path}[name] }})
	want := path + " would have 5140 bytes, and at most 5120 are taken: metadata is only in backstep-outputs.json beside it"
	if err := h.Output("metadata", strings.Repeat("x", 5121)); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	for i := range 20 {
		if err := h.Output(fmt.Sprintf("o-%d", i), "x"); err != nil {
			t.Fatal(err)
		}
	}
	want = path + " would have 21 variables, and at most 20 are taken: one-more is only in backstep-outputs.json beside it"
	if err := h.Output("one-more", "x"); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// What somebody has committed under the names of the report is no output of ours: neither variables nor where a link leads. What
// an earlier step of the same job has put out is.
func TestReportIsBegunAnew(t *testing.T) {
	for _, forged := range []string{"LD_PRELOAD=/tmp/x.so\nBACKSTEP_CONFIG=evil.yml\nBACKSTEP_IMAGE=r/evil@sha256:1\n", ""} {
		t.Chdir(t.TempDir())
		outside := filepath.Join(t.TempDir(), "victim")
		if err := os.WriteFile(outside, []byte("untouched"), 0o644); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"backstep.env": forged, "backstep-outputs.json": `{"image": "r/evil@sha256:1", "$job": "7"}`} {
			err := os.WriteFile(name, []byte(text), 0o644)
			if forged == "" {
				err = errors.Join(os.Remove(name), os.Symlink(outside, name))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		env := map[string]string{"CI_JOB_ID": "7", "CI_JOB_TOKEN": "t0ken"}
		open := func() host.Host {
			return Kind().New(host.Environment{Getenv: func(k string) string { return env[k] }})
		}
		for _, v := range [][2]string{{"version", "1.0.0"}, {"digest", "sha256:2"}} { // two steps
			if err := open().Output(v[0], v[1]); err != nil {
				t.Fatal(err)
			}
		}
		read := func(path string) string {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
		if got, want := read("backstep.env"), "BACKSTEP_VERSION=1.0.0\nBACKSTEP_DIGEST=sha256:2\n"; got != want {
			t.Errorf("the report is %q, want %q", got, want)
		}
		if got := read("backstep-outputs.json"); strings.Contains(got, "evil") || !strings.Contains(got, `"version": "1.0.0"`) {
			t.Errorf("beside it is %s", got)
		}
		if got := read(outside); got != "untouched" {
			t.Errorf("what the link leads to is %q", got)
		}
	}
}

// Text of strangers becomes no variable of later jobs.
func TestForeignTextIsBeside(t *testing.T) {
	t.Chdir(t.TempDir())
	h := Kind().New(host.Environment{Getenv: func(k string) string { return map[string]string{"CI_JOB_ID": "7"}[k] }})
	if err := errors.Join(h.(host.Besider).Beside("reason", "$(reboot)"), h.Output("verdict", "fail")); err != nil {
		t.Fatal(err)
	}
	report, err := os.ReadFile("backstep.env")
	if err != nil || string(report) != "BACKSTEP_VERDICT=fail\n" {
		t.Errorf("the report is %q, %v", report, err)
	}
	if beside, err := os.ReadFile("backstep-outputs.json"); err != nil || !strings.Contains(string(beside), `"reason": "$(reboot)"`) {
		t.Errorf("beside it is %s, %v", beside, err)
	}
}
