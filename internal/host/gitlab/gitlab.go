// Package gitlab is the host of GitLab CI/CD.
package gitlab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

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
	_ host.Starter   = gitlab{}
	_ host.Registrar = gitlab{}
)

func (g gitlab) Name() string { return "gitlab" }

// Run reads the predefined variables. A pipeline is the run, and a job its attempt.
func (g gitlab) Run() host.Run {
	get := g.env.Getenv
	return host.Run{ID: get("CI_PIPELINE_ID"), Attempt: get("CI_JOB_ID"), URL: get("CI_JOB_URL"), Actor: get("GITLAB_USER_LOGIN"),
		Repository: get("CI_PROJECT_URL"), Commit: get("CI_COMMIT_SHA"), Ref: get("CI_COMMIT_REF_NAME")}
}

// Output writes to the dotenv report that the component declares. What a dotenv report cannot hold, such as
// release notes, goes into a JSON file beside it; a value that would be too much for the report is an error.
func (g gitlab) Output(name, value string) error {
	return dotenv.Report{Path: g.path(), Bytes: sizeLimit, Variables: variableLimit}.Set(name, value)
}

// Start removes the report and what is beside it: GitLab has put the artifacts of earlier jobs into the folder, and a repository can
// hold such a file.
func (g gitlab) Start() error {
	for _, path := range []string{g.path(), dotenv.Beside(g.path())} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("begin the outputs anew: %w", err)
		}
	}
	return nil
}

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
