// Package plain is the host of everything else: a shell, Jenkins, Drone, Woodpecker, and the CI systems that
// are known by their variables only.
package plain

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/backstep/backstep/internal/host"
	"github.com/backstep/backstep/internal/host/dotenv"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/outfile"
	"github.com/backstep/backstep/internal/secret"
)

// Kind is the plain host. It always detects, so it comes last.
func Kind() host.Kind {
	return host.Kind{
		Name:   "plain",
		Help:   "a shell, or any other CI system",
		Prefix: "PLUGIN_", // the settings of a plugin, on Drone, Woodpecker and CNB
		Beside: []string{"step"},
		Decode: settings,
		Detect: func(func(string) string) bool { return true },
		New:    func(env host.Environment) host.Host { return plain{env} },
	}
}

// settings puts a list or a map of a plugin's settings one a line: a list arrives with commas, a map as JSON.
func settings(in input.Input, value string) string {
	switch {
	case in.Type == input.MapOf && strings.HasPrefix(value, "{"):
		var all map[string]any
		if json.Unmarshal([]byte(value), &all) != nil {
			return value
		}
		var lines []string
		for _, key := range slices.Sorted(maps.Keys(all)) {
			lines = append(lines, fmt.Sprintf("%s=%v", key, all[key]))
		}
		return strings.Join(lines, "\n")
	case in.Type == input.ListOf && !strings.Contains(value, "\n"):
		return strings.ReplaceAll(value, ",", "\n")
	}
	return value
}

type plain struct{ env host.Environment }

var (
	_ host.Host       = plain{}
	_ host.Keeper     = plain{}
	_ host.Summarizer = plain{}
)

func (p plain) Name() string { return "plain" }

// Secrets are the tokens of the systems that are known.
func (p plain) Secrets() []string {
	return []string{"CI_NETRC_PASSWORD", "DRONE_NETRC_PASSWORD", "DRONE_SYSTEM_SECRET"}
}

// system is a CI system that is known by its variables. Each field is read from the first of its names that is
// set; an id is all of its names, joined.
type system struct {
	by                                        string // the variable that is only there on it
	id, url, actor, repository, commit, named []string
}

// systems are the ones that are known. The names are those of the systems' own documentation:
// https://www.jenkins.io/doc/book/pipeline/jenkinsfile/#using-environment-variables,
// https://woodpecker-ci.org/docs/usage/environment, https://docs.drone.io/pipeline/environment/reference/,
// https://help.aliyun.com/en/yunxiao/user-guide/environment-variables (云效 Flow, which tells no address of a run),
// https://ci.coding.net/docs/env.html, https://docs.cnb.cool/zh/build/build-in-env.html, https://help.gitee.com/gitee-go/pipeline/parameter (tells none either).
var systems = []system{
	{by: "CODING_BUILD_ID", id: []string{"CODING_BUILD_ID"}, url: []string{"CODING_BUILD_WEB_URL"}, actor: []string{"CODING_BUILD_USER"},
		commit: []string{"CODING_COMMIT"}, named: []string{"CODING_BRANCH"}}, // before Jenkins, which it is made of
	{by: "CNB", id: []string{"CNB_BUILD_ID"}, url: []string{"CNB_BUILD_WEB_URL"}, actor: []string{"CNB_BUILD_USER"},
		repository: []string{"CNB_REPO_URL_HTTPS"}, commit: []string{"CNB_COMMIT"}, named: []string{"CNB_BRANCH"}},
	{by: "BUILD_TAG", id: []string{"BUILD_TAG"}, url: []string{"BUILD_URL"}, actor: []string{"BUILD_USER_ID"},
		repository: []string{"GIT_URL"}, commit: []string{"GIT_COMMIT"}, named: []string{"GIT_BRANCH"}},
	{by: "DRONE", id: []string{"DRONE_REPO", "DRONE_BUILD_NUMBER"}, url: []string{"DRONE_BUILD_LINK"},
		actor: []string{"DRONE_BUILD_TRIGGER", "DRONE_COMMIT_AUTHOR"}, repository: []string{"DRONE_REPO_LINK"},
		commit: []string{"DRONE_COMMIT_SHA"}, named: []string{"DRONE_COMMIT_REF"}},
	{by: "CI_PIPELINE_NUMBER", id: []string{"CI_REPO", "CI_PIPELINE_NUMBER"}, url: []string{"CI_PIPELINE_URL", "CI_PIPELINE_LINK"},
		actor: []string{"CI_COMMIT_AUTHOR"}, repository: []string{"CI_REPO_URL", "CI_REPO_LINK"},
		commit: []string{"CI_COMMIT_SHA"}, named: []string{"CI_COMMIT_REF"}},
	{by: "GITEE_PIPELINE_BUILD_NUMBER", id: []string{"GITEE_PIPELINE_NAME", "GITEE_PIPELINE_BUILD_NUMBER"},
		actor: []string{"GITEE_PIPELINE_TRIGGER_USER"}, repository: []string{"GITEE_REPO"},
		commit: []string{"GITEE_COMMIT"}, named: []string{"GITEE_BRANCH"}},
	{by: "BUILD_EXECUTOR", id: []string{"PIPELINE_ID", "BUILD_NUMBER"}, actor: []string{"BUILD_EXECUTOR"},
		commit: []string{"CI_COMMIT_SHA"}, named: []string{"CI_COMMIT_REF_NAME"}},
	{}, // a shell
}

// Run reads the variables of the system at work. BACKSTEP_RUN, BACKSTEP_RUN_URL and BACKSTEP_ACTOR go before them.
func (p plain) Run() host.Run {
	get := p.env.Getenv
	first := func(names []string) string {
		for _, n := range names {
			if v := get(n); v != "" {
				return v
			}
		}
		return ""
	}
	s := systems[slices.IndexFunc(systems, func(s system) bool { return s.by == "" || get(s.by) != "" })]
	var id []string
	for _, n := range s.id {
		if v := get(n); v != "" {
			id = append(id, v)
		}
	}
	return host.Run{
		ID:         cmp.Or(get("BACKSTEP_RUN"), strings.Join(id, "-")),
		URL:        cmp.Or(get("BACKSTEP_RUN_URL"), first(s.url)),
		Actor:      cmp.Or(get("BACKSTEP_ACTOR"), first(s.actor), get("USER"), get("LOGNAME")),
		Repository: secret.Address(first(s.repository)),
		Commit:     first(s.commit),
		Ref:        first(s.named),
	}
}

// Handed reads what an earlier step has written to the file that BACKSTEP_OUTPUT names: the steps of a script hand
// on what they find out.
func (p plain) Handed(name string) (string, string) {
	if path := p.env.Getenv("BACKSTEP_OUTPUT"); path != "" {
		if value := dotenv.Get(path, name); value != "" {
			return value, path
		}
	}
	return "", ""
}

// Output prints name=value, a value of several lines as a JSON string, and writes to the file that
// BACKSTEP_OUTPUT names: a JSON object when it ends in .json, else a dotenv file.
func (p plain) Output(name, value string) error {
	printed := value
	if strings.ContainsAny(value, "\r\n") {
		printed = strconv.Quote(value)
	}
	p.env.Stdout(name + "=" + printed)
	switch path := p.env.Getenv("BACKSTEP_OUTPUT"); {
	case path == "":
		return nil
	case strings.HasSuffix(path, ".json"):
		return dotenv.JSON{Path: path}.Set(name, value)
	default:
		return dotenv.Report{Path: path}.Set(name, value)
	}
}

// Summary appends to the file that BACKSTEP_SUMMARY names.
func (p plain) Summary(markdown string) error {
	path := p.env.Getenv("BACKSTEP_SUMMARY")
	if path == "" {
		return nil
	}
	return outfile.Append(path, []byte(markdown+"\n"))
}
