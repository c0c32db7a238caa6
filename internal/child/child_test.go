package child_test

import (
	"slices"
	"testing"

	"github.com/backstep/backstep/internal/child"
)

// A child gets what it needs, and nothing of ours.
func TestEnvironment(t *testing.T) {
	ours := []string{"PATH=/bin", "LC_ALL=C", "LCX=x", "PATHS=x", "INPUT_TOKEN=x", "INPUT_REGISTRY-PASSWORD=x", "BACKSTEP_REGISTRY_PASSWORD=x",
		"GITHUB_TOKEN=x", "ACTIONS_ID_TOKEN_REQUEST_TOKEN=x", "CI_JOB_TOKEN=x", "CI_REGISTRY_PASSWORD=x", "DSN=x", "GIT_SSH_COMMAND=ssh -i k", "no equals"}
	if got, want := child.Environment(ours), []string{"PATH=/bin", "LC_ALL=C"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := child.Environment(ours, "GIT_*"), []string{"PATH=/bin", "LC_ALL=C", "GIT_SSH_COMMAND=ssh -i k"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
