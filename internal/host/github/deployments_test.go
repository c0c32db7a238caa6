package github

import (
	"os"
	"slices"
	"testing"

	"github.com/backstep/backstep/internal/host"
	"github.com/backstep/backstep/internal/host/hosttest"
	"github.com/backstep/backstep/internal/secret"
)

func recorder(s *hosttest.Server) host.Recorder {
	env := map[string]string{"GITHUB_API_URL": s.URL, "GITHUB_REPOSITORY": "acme/shop", "GITHUB_SERVER_URL": "https://github.com",
		"GITHUB_RUN_ID": "77", "GITHUB_SHA": "abc"}
	return Kind().New(host.Environment{Getenv: func(k string) string { return env[k] }, Command: func(string) {}}).(host.Recorder)
}

func TestDeployments(t *testing.T) { deployments(t, "") }

// The same, each request checked against GitHub's published OpenAPI.
func TestE2EDeployments(t *testing.T) {
	spec := os.Getenv("BACKSTEP_GITHUB_OPENAPI")
	if spec == "" {
		t.Skip("needs GitHub's OpenAPI: run make e2e")
	}
	deployments(t, spec)
}

func deployments(t *testing.T, spec string) {
	s := hosttest.GitHub(t, spec)
	ctx := t.Context()
	d := host.Deployment{Environment: "production", Description: "deploy 1.0.0", Address: "https://shop.example.com", Token: secret.New(hosttest.Token)}
	for _, succeeded := range []bool{true, false, true} {
		end, why, err := recorder(s).Begin(ctx, d)
		if err != nil || end == nil {
			t.Fatalf("%v, %q", err, why)
		}
		if err := end(ctx, succeeded); err != nil {
			t.Fatal(err)
		}
	}
	want := [][]string{{"in_progress", "success", "inactive"}, {"in_progress", "failure"}, {"in_progress", "success"}}
	for i, got := range s.All() {
		if !slices.Equal(got.States, want[i]) || got.Environment != "production" || got.Ref != "abc" ||
			got.Statuses[1].LogURL != "https://github.com/acme/shop/actions/runs/77" || got.Statuses[1].EnvironmentURL != "https://shop.example.com" {
			t.Errorf("deployment %d is %+v, want states %v", i+1, got, want[i])
		}
	}

	// A job with an environment has one of its own: no second one.
	s.Add(hosttest.Deployment{Environment: "production", SHA: "abc", States: []string{"in_progress"},
		Statuses: []hosttest.Status{{State: "in_progress", LogURL: "https://github.com/acme/shop/actions/runs/77/job/5"}}})
	if end, why, err := recorder(s).Begin(ctx, d); end != nil || err != nil || why != "the job has an environment, and records it" || len(s.All()) != 4 {
		t.Errorf("beside the job's own: %q, %v, %d deployments", why, err, len(s.All()))
	}

	s.Forbid()
	if end, why, err := recorder(s).Begin(ctx, d); end != nil || err != nil || why != "the token may not: permissions: deployments: write" {
		t.Errorf("a token that may not: %q, %v", why, err)
	}
	d.Token = secret.Value{}
	if end, why, err := recorder(s).Begin(ctx, d); end != nil || err != nil || why != "there is no token for GitHub's API" {
		t.Errorf("no token: %q, %v", why, err)
	}
}

func TestCut(t *testing.T) {
	long := string(make([]rune, 200))
	if got := []rune(cut(long)); len(got) != descriptionLimit || got[descriptionLimit-1] != '…' {
		t.Errorf("%d characters", len(got))
	}
}
