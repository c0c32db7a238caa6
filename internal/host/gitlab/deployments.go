package gitlab

import (
	"cmp"
	"context"
	"fmt"
	"net/http"

	api "gitlab.com/gitlab-org/api/client-go"

	"github.com/backstep/backstep/internal/host"
)

var _ host.Recorder = gitlab{}

// Begin creates a deployment that is running, with the token of the job. A job with `environment:` has one
// already, and tells so by CI_ENVIRONMENT_NAME.
func (g gitlab) Begin(ctx context.Context, d host.Deployment) (func(context.Context, bool) error, string, error) {
	get := g.env.Getenv
	if get("CI_ENVIRONMENT_NAME") != "" {
		return nil, "the job has an environment, and records it", nil
	}
	token, project := get("CI_JOB_TOKEN"), get("CI_PROJECT_ID")
	if token == "" || project == "" || get("CI_API_V4_URL") == "" {
		return nil, "there is no token for GitLab's API", nil
	}
	client, err := api.NewJobClient(token, api.WithBaseURL(get("CI_API_V4_URL")))
	if err != nil {
		return nil, "", fmt.Errorf("gitlab: %w", err)
	}
	made, response, err := client.Deployments.CreateProjectDeployment(project, &api.CreateProjectDeploymentOptions{
		Environment: api.Ptr(d.Environment), SHA: api.Ptr(cmp.Or(d.Commit, get("CI_COMMIT_SHA"))), Ref: api.Ptr(get("CI_COMMIT_REF_NAME")),
		Tag: api.Ptr(get("CI_COMMIT_TAG") != ""), Status: api.Ptr(api.DeploymentStatusRunning)}, api.WithContext(ctx))
	if response != nil && (response.StatusCode == http.StatusForbidden || response.StatusCode == http.StatusUnauthorized) {
		return nil, "the token of the job may not create deployments", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("gitlab: create a deployment: %w", err)
	}
	return func(ctx context.Context, succeeded bool) error {
		status := api.DeploymentStatusFailed
		if succeeded {
			status = api.DeploymentStatusSuccess
		}
		_, _, err := client.Deployments.UpdateProjectDeployment(project, made.ID, &api.UpdateProjectDeploymentOptions{Status: &status}, api.WithContext(ctx))
		if err != nil {
			err = fmt.Errorf("gitlab: update deployment %d: %w", made.ID, err)
		}
		return err
	}, "", nil
}
