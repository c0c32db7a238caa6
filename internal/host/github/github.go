// Package github is the host of GitHub Actions, and of the systems that speak its protocol, such as Gitea's.
package github

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/sethvargo/go-githubactions"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/host"
)

// The limits of GitHub's runner.
const (
	summaryLimit    = 1 << 20 // bytes a step; beyond them the whole summary is dropped
	annotationLimit = 10      // of each level and step
	messageLimit    = 4096    // characters of an annotation
)

// Kind is the github host.
func Kind() host.Kind {
	return host.Kind{
		Name:   "github",
		Help:   "GitHub Actions, and Gitea's",
		Prefix: "INPUT_",
		Beside: []string{"step", "args", "entrypoint", "pre-entrypoint", "post-entrypoint"}, // step is of our action for all of them
		Detect: func(getenv func(string) string) bool { return getenv("GITHUB_ACTIONS") == "true" },
		New: func(env host.Environment) host.Host {
			return &github{env: env, annotated: map[host.Level]int{},
				commands: githubactions.New(githubactions.WithGetenv(env.Getenv), githubactions.WithWriter(lines(env.Command)))}
		},
	}
}

type github struct {
	env       host.Environment
	commands  *githubactions.Action
	annotated map[host.Level]int
}

var (
	_ host.Host       = (*github)(nil)
	_ host.Masker     = (*github)(nil)
	_ host.Issuer     = (*github)(nil)
	_ host.Summarizer = (*github)(nil)
	_ host.Drawer     = (*github)(nil)
	_ host.Annotator  = (*github)(nil)
	_ host.Registrar  = (*github)(nil)
)

// lines hands each write on as a line.
type lines func(string)

func (l lines) Write(p []byte) (int, error) {
	l(strings.TrimRight(string(p), "\r\n"))
	return len(p), nil
}

func (g *github) Name() string { return "github" }

// Secrets are the tokens of a job, as far as a step is given them.
func (g *github) Secrets() []string {
	return []string{"GITHUB_TOKEN", "GH_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ACTIONS_RUNTIME_TOKEN"}
}

// Run reads the variables that GitHub documents.
func (g *github) Run() host.Run {
	get := g.env.Getenv
	r := host.Run{ID: get("GITHUB_RUN_ID"), Attempt: get("GITHUB_RUN_ATTEMPT"), Actor: get("GITHUB_TRIGGERING_ACTOR"),
		Commit: get("GITHUB_SHA"), Ref: get("GITHUB_REF")}
	if r.Actor == "" {
		r.Actor = get("GITHUB_ACTOR")
	}
	if server, name := get("GITHUB_SERVER_URL"), get("GITHUB_REPOSITORY"); server != "" && name != "" {
		r.Repository = server + "/" + name
		r.URL = r.Repository + "/actions/runs/" + r.ID
	}
	return r
}

// Output appends to GITHUB_OUTPUT. It does not use the library: its delimiter is fixed, so that a value which
// contains it could set other outputs. Ours is new for each value.
func (g *github) Output(name, value string) error {
	path := g.env.Getenv("GITHUB_OUTPUT")
	if path == "" {
		return fault.Inputf("GITHUB_OUTPUT is not set").WithHint("run it in a step of a workflow, or set BACKSTEP_HOST=plain")
	}
	if name == "" || strings.ContainsAny(name, "=<\r\n") {
		return fmt.Errorf("%q is no name of an output", name)
	}
	delimiter := "backstep_" + rand.Text()
	if strings.Contains(value, delimiter) {
		return errors.New("the value contains the delimiter") // 130 random bits
	}
	return appendTo(path, fmt.Sprintf("%s<<%s\n%s\n%s\n", name, delimiter, value, delimiter))
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644) // #nosec G302 -- the runner that reads it is another user
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// Token asks the runner for the job's OIDC token.
func (g *github) Token(ctx context.Context, audience string) (string, error) {
	return g.commands.GetIDToken(ctx, audience)
}

// RegistryLogin is the job's token, for GitHub's own registry and no other: ghcr.io, or that of a GitHub Enterprise Server.
func (g *github) RegistryLogin(name string) (username, password string) {
	get := g.env.Getenv
	own := "ghcr.io"
	if server, err := url.Parse(get("GITHUB_SERVER_URL")); err == nil && server.Host != "" && server.Host != "github.com" {
		own = "containers." + server.Host
	}
	token := cmp.Or(get("INPUT_TOKEN"), get("GITHUB_TOKEN"))
	if name != own || token == "" {
		return "", ""
	}
	return get("GITHUB_ACTOR"), token
}

// Mask hides each line of a secret.
func (g *github) Mask(secret string) {
	for line := range strings.Lines(secret) {
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			g.commands.AddMask(line)
		}
	}
}

// Summary appends to the page of the run.
func (g *github) Summary(markdown string) error {
	path := g.env.Getenv("GITHUB_STEP_SUMMARY")
	if path == "" {
		return nil
	}
	if len(markdown) >= summaryLimit {
		const cut = "\n\n(cut)\n"
		kept := markdown[:summaryLimit-len(cut)-1]
		markdown = kept[:strings.LastIndex(kept, "\n")+1] + cut
	}
	return appendTo(path, markdown+"\n")
}

// Draws says that GitHub's pages draw mermaid, and so do Gitea's.
func (g *github) Draws() bool { return true }

// Annotate marks the run, and within the limits of the runner.
func (g *github) Annotate(level host.Level, place, message string) {
	if g.annotated[level]++; g.annotated[level] > annotationLimit {
		return
	}
	if runes := []rune(message); len(runes) > messageLimit {
		message = string(runes[:messageLimit-1]) + "…"
	}
	a := g.commands
	parts := strings.Split(place, ":")
	if len(parts) == 3 {
		a = a.WithFieldsMap(map[string]string{"file": parts[0], "line": parts[1], "col": parts[2]})
	} else if place != "" {
		message = place + ": " + message
	}
	switch level {
	case host.Error:
		a.Errorf("%s", message)
	case host.Warning:
		a.Warningf("%s", message)
	default:
		a.Noticef("%s", message)
	}
}
