package gitlab

import (
	"slices"
	"testing"

	"github.com/backstep/backstep/internal/host"
	"github.com/backstep/backstep/internal/host/hosttest"
)

func TestDeployments(t *testing.T) {
	s := hosttest.GitLab(t)
	env := map[string]string{"CI_API_V4_URL": s.URL, "CI_PROJECT_ID": "42", "CI_JOB_TOKEN": hosttest.Token, "CI_COMMIT_SHA": "abc", "CI_COMMIT_REF_NAME": "main"}
	recorder := Kind().New(host.Environment{Getenv: func(k string) string { return env[k] }}).(host.Recorder)
	ctx := t.Context()
	for _, succeeded := range []bool{true, false} {
		end, why, err := recorder.Begin(ctx, host.Deployment{Environment: "production"})
		if err != nil || end == nil {
			t.Fatalf("%v, %q", err, why)
		}
		if err := end(ctx, succeeded); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range [][]string{{"running", "success"}, {"running", "failed"}} {
		if got := s.All()[i]; !slices.Equal(got.States, want) || got.SHA != "abc" || got.Ref != "main" || got.Environment != "production" {
			t.Errorf("deployment %d is %+v, want states %v", i+1, got, want)
		}
	}
	env["CI_ENVIRONMENT_NAME"] = "production"
	if end, why, err := recorder.Begin(ctx, host.Deployment{Environment: "production"}); end != nil || err != nil || why == "" || len(s.All()) != 2 {
		t.Errorf("beside the job's own: %q, %v", why, err)
	}
	delete(env, "CI_ENVIRONMENT_NAME")
	s.Forbid()
	if end, why, err := recorder.Begin(ctx, host.Deployment{Environment: "production"}); end != nil || err != nil || why != "the token of the job may not create deployments" {
		t.Errorf("a token that may not: %q, %v", why, err)
	}
	env["CI_JOB_TOKEN"] = ""
	if end, why, err := recorder.Begin(ctx, host.Deployment{Environment: "production"}); end != nil || err != nil || why == "" {
		t.Errorf("no token: %q, %v", why, err)
	}
}
