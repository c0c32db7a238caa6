package github

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/backstep/backstep/internal/host"
	"github.com/backstep/backstep/internal/secret"
)

var _ host.Recorder = (*github)(nil)

// descriptionLimit is the most characters of a description that GitHub takes.
const descriptionLimit = 140

// answerLimit bounds the answers of the API, in bytes.
const answerLimit = 4 << 20

// deployment and status are what is read of GitHub's answers:
// https://docs.github.com/en/rest/deployments/deployments, https://docs.github.com/en/rest/deployments/statuses.
type (
	deployment struct {
		ID int64 `json:"id"`
	}
	status struct {
		TargetURL string `json:"target_url"`
		LogURL    string `json:"log_url"`
	}
)

// Begin creates a deployment that is in progress. A job with `environment:` has one already, which its statuses
// tell: they lead to this run.
func (g *github) Begin(ctx context.Context, d host.Deployment) (func(context.Context, bool) error, string, error) {
	run := g.Run()
	repository, commit := g.env.Getenv("GITHUB_REPOSITORY"), cmp.Or(d.Commit, run.Commit)
	if d.Token.IsZero() || repository == "" || g.env.Getenv("GITHUB_API_URL") == "" {
		return nil, "there is no token for GitHub's API", nil
	}
	api := api{base: g.env.Getenv("GITHUB_API_URL") + "/repos/" + repository, token: d.Token, http: &http.Client{Timeout: 10 * time.Second}}
	own, err := api.recorded(ctx, d.Environment, run)
	if refused(err) {
		return nil, "the token may not: permissions: deployments: write", nil
	}
	if err != nil || own {
		return nil, "the job has an environment, and records it", err
	}
	var made deployment
	err = api.call(ctx, http.MethodPost, "/deployments", map[string]any{"ref": commit, "environment": d.Environment,
		"auto_merge": false, "required_contexts": []string{}, "description": cut(d.Description)}, &made)
	if refused(err) {
		return nil, "the token may not: permissions: deployments: write", nil
	}
	if err != nil {
		return nil, "", err
	}
	tell := func(ctx context.Context, state string) error {
		body := map[string]any{"state": state, "log_url": run.URL, "description": cut(d.Description)}
		if d.Address != "" {
			body["environment_url"] = d.Address
		}
		return api.call(ctx, http.MethodPost, fmt.Sprintf("/deployments/%d/statuses", made.ID), body, nil)
	}
	end := func(ctx context.Context, succeeded bool) error {
		if succeeded {
			return tell(ctx, "success")
		}
		return tell(ctx, "failure")
	}
	return end, "", tell(ctx, "in_progress")
}

// recorded says whether a deployment to the environment belongs to this run.
func (a api) recorded(ctx context.Context, environment string, run host.Run) (bool, error) {
	var all []deployment
	query := url.Values{"environment": {environment}, "sha": {run.Commit}, "per_page": {"10"}}
	if err := a.call(ctx, http.MethodGet, "/deployments?"+query.Encode(), nil, &all); err != nil {
		return false, err
	}
	for _, d := range all {
		var statuses []status
		if err := a.call(ctx, http.MethodGet, fmt.Sprintf("/deployments/%d/statuses?per_page=10", d.ID), nil, &statuses); err != nil {
			return false, err
		}
		for _, s := range statuses {
			// The runner's own leads to the job, one of ours to the run as a whole.
			if strings.Contains(s.LogURL+s.TargetURL, "/runs/"+run.ID+"/") {
				return true, nil
			}
		}
	}
	return false, nil
}

// api calls the REST API of one repository.
type api struct {
	base  string
	token secret.Value
	http  *http.Client
}

// answeredError is an answer that is no success.
type answeredError struct {
	what   string
	status int
	text   string
}

func (e *answeredError) Error() string {
	return fmt.Sprintf("github: %s: %d: %s", e.what, e.status, e.text)
}

// refused says that the token lacks the permission. GitHub answers 404 for what it does not want to show.
func refused(err error) bool {
	a, ok := err.(*answeredError)
	return ok && (a.status == http.StatusForbidden || a.status == http.StatusNotFound || a.status == http.StatusUnauthorized)
}

func (a api) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, a.base+path, body)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/vnd.github+json")
	request.Header.Set("Authorization", "Bearer "+a.token.Reveal())
	request.Header.Set("X-GitHub-Api-Version", "2022-11-28")
	if in != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := a.http.Do(request)
	if err != nil {
		return fmt.Errorf("github: %w", err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, answerLimit))
	if err != nil {
		return fmt.Errorf("github: read the answer: %w", err)
	}
	if response.StatusCode >= 300 {
		var said struct{ Message string }
		_ = json.Unmarshal(data, &said)
		return &answeredError{method + " " + strings.SplitN(path, "?", 2)[0], response.StatusCode, said.Message}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, out)
}

func cut(s string) string {
	if runes := []rune(s); len(runes) > descriptionLimit {
		return string(runes[:descriptionLimit-1]) + "…"
	}
	return s
}
