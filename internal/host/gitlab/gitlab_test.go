package gitlab

import (
	"fmt"
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
