// Package gitlab is the host of GitLab CI/CD.
package gitlab

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"

	"github.com/backstep/backstep/internal/host"
	"github.com/backstep/backstep/internal/host/dotenv"
)

// What GitLab takes of a dotenv report: bytes, and the least number of variables that an instance allows by
// default. It refuses the whole report of a job that has more.
const (
	sizeLimit     = 5 << 10
	variableLimit = 20
)

// Kind is the gitlab host.
func Kind() host.Kind {
	return host.Kind{
		Name:    "gitlab",
		Help:    "GitLab CI/CD",
		Prefix:  "BACKSTEP_INPUT_", // a dotenv report goes before the variables of a job, and none has these names
		Default: true,
		Detect:  func(getenv func(string) string) bool { return getenv("GITLAB_CI") != "" },
		New:     func(env host.Environment) host.Host { return gitlab{env} },
	}
}

type gitlab struct{ env host.Environment }

var (
	_ host.Host      = gitlab{}
	_ host.Besider   = gitlab{}
	_ host.Starter   = gitlab{}
	_ host.Registrar = gitlab{}
)

func (g gitlab) Name() string { return "gitlab" }

// Secrets are the predefined variables that GitLab masks itself. Its address of the repository has the token in it.
func (g gitlab) Secrets() []string {
	return []string{"CI_JOB_TOKEN", "CI_REGISTRY_PASSWORD", "CI_DEPLOY_PASSWORD", "CI_DEPENDENCY_PROXY_PASSWORD", "CI_REPOSITORY_URL"}
}

// Run reads the predefined variables. A pipeline is the run, and a job its attempt.
func (g gitlab) Run() host.Run {
	get := g.env.Getenv
	return host.Run{ID: get("CI_PIPELINE_ID"), Attempt: get("CI_JOB_ID"), URL: get("CI_JOB_URL"), Actor: get("GITLAB_USER_LOGIN"),
		Repository: get("CI_PROJECT_URL"), Commit: get("CI_COMMIT_SHA"), Ref: get("CI_COMMIT_REF_NAME")}
}

// Output writes to the dotenv report that the component declares. What a dotenv report cannot hold, such as
// release notes, goes into a JSON file beside it; a value that would be too much for the report is an error.
func (g gitlab) Output(name, value string) error {
	return g.report().Set(name, value)
}

// Beside writes to the JSON file only: GitLab makes variables of a dotenv report, which every later job runs with.
func (g gitlab) Beside(name, value string) error {
	return g.report().Beside(name, value)
}

func (g gitlab) report() dotenv.Report {
	return dotenv.Report{Path: g.path(), Bytes: sizeLimit, Variables: variableLimit, Job: g.job()}
}

// job names the job so that nobody can have committed it before: with its token, of which nothing can be told from it.
func (g gitlab) job() string {
	id := g.env.Getenv("CI_JOB_ID")
	if id == "" {
		return ""
	}
	h := hmac.New(sha256.New, []byte(g.env.Getenv("CI_JOB_TOKEN")))
	h.Write([]byte(id))
	return hex.EncodeToString(h.Sum(nil))
}

// Start removes the report of others: GitLab has put the artifacts of earlier jobs into the folder, and a repository can
// hold such a file.
func (g gitlab) Start() error { return g.report().Begin() }

// RegistryLogin is the job's login for the registry of the instance, wherever that is.
func (g gitlab) RegistryLogin(name string) (username, password string) {
	get := g.env.Getenv
	if name == "" || name != get("CI_REGISTRY") {
		return "", ""
	}
	return get("CI_REGISTRY_USER"), get("CI_REGISTRY_PASSWORD")
}

func (g gitlab) path() string {
	if p := g.env.Getenv("BACKSTEP_OUTPUT"); p != "" {
		return p
	}
	return "backstep.env"
}
