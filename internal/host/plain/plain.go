// Package plain is the host of everything else: a shell, Jenkins, Drone, Woodpecker, and the CI systems that
// are known by their variables only.
package plain

import (
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/backstep/backstep/internal/host"
	"github.com/backstep/backstep/internal/host/dotenv"
	"github.com/backstep/backstep/internal/input"
)

// Kind is the plain host. It always detects, so it comes last.
func Kind() host.Kind {
	return host.Kind{
		Name:   "plain",
		Help:   "a shell, or any other CI system",
		Detect: func(func(string) string) bool { return true },
		New:    func(env host.Environment) host.Host { return plain{env} },
	}
}

type plain struct{ env host.Environment }

var (
	_ host.Host       = plain{}
	_ host.Summarizer = plain{}
)

func (p plain) Name() string { return "plain" }

// Run tries the variables of Jenkins, Drone and Woodpecker, and falls back to the user of this machine.
func (p plain) Run() host.Run {
	first := func(names ...string) string {
		for _, n := range names {
			if v := p.env.Getenv(n); v != "" {
				return v
			}
		}
		return ""
	}
	return host.Run{
		ID:         first("BACKSTEP_RUN", "BUILD_TAG", "CI_PIPELINE_NUMBER", "DRONE_BUILD_NUMBER", "PIPELINE_ID"),
		URL:        first("BACKSTEP_RUN_URL", "BUILD_URL", "CI_PIPELINE_URL", "DRONE_BUILD_LINK"),
		Actor:      first("BACKSTEP_ACTOR", "BUILD_USER_ID", "CI_COMMIT_AUTHOR", "DRONE_COMMIT_AUTHOR", "USER", "LOGNAME"),
		Repository: withoutUser(first("GIT_URL", "CI_REPO_URL", "DRONE_REPO_LINK")),
		Commit:     first("GIT_COMMIT", "CI_COMMIT_SHA", "DRONE_COMMIT_SHA"),
		Ref:        first("GIT_BRANCH", "CI_COMMIT_REF", "DRONE_COMMIT_REF"),
	}
}

// withoutUser is an address without the user and password that it may hold: it becomes a label.
func withoutUser(address string) string {
	if u, err := url.Parse(address); err == nil && u.User != nil {
		u.User = nil
		return u.String()
	}
	return address
}

// Input reads BACKSTEP_, then PLUGIN_, which Drone and Woodpecker set.
func (p plain) Input(name string) (string, string) {
	v := input.Variable(name)
	for _, v := range []string{v, strings.Replace(v, "BACKSTEP_", "PLUGIN_", 1)} {
		if value := p.env.Getenv(v); value != "" {
			return value, v
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
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintln(f, markdown)
	return err
}
