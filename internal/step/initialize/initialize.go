// Package initialize declares the command that writes backstep.yml and the workflows into a repository.
package initialize

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/gitrepo"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/step"
)

//go:embed files
var files embed.FS

// The CI systems that files are written for.
const (
	auto   = "auto"
	github = "github"
	gitlab = "gitlab"
)

// written is where each file goes, by the CI system it is for.
var written = []struct{ system, from, to string }{
	{"", "backstep.yml", "backstep.yml"},
	{github, "release.yml", ".github/workflows/release.yml"},
	{github, "rollback.yml", ".github/workflows/rollback.yml"},
	{gitlab, "gitlab-ci.yml", ".gitlab-ci.yml"},
}

// answers are what the files are made of.
type answers struct {
	Service, Repository, HAProxy, Backend, Branch string
	Ledger                                        string // its repository, where the first push makes it; else ""
	Port                                          int
	GHCR                                          bool // the registry is GitHub's own
}

// Step declares init.
func Step() step.Step {
	var a answers
	var dir, system string
	return step.Step{
		Name:     "init",
		Summary:  "Write backstep.yml and the workflows of this repository",
		Operator: true,
		Doc: "Looks at the remote, the branch and the Dockerfile, and writes backstep.yml with one environment on a Docker " +
			"engine, a repository of its own for the ledger where the first push makes it (GHCR, GitLab, Harbor), and the workflows of GitHub or the pipeline of GitLab that release and roll back. A file that is there already is left as it is.",
		Inputs: []input.Input{
			input.String(&dir, "context", step.ContextHelp).Or("."),
			input.String(&system, "ci", "The CI system to write for; auto asks the remote.").OneOf(auto, github, gitlab).Or(auto),
			input.String(&a.Service, "service", "The name of what is deployed; that of the repository when it is left out.").
				Matching(regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`), "shop"),
			input.String(&a.Repository, "repository", "The repository to push to, registry/name."),
			input.Int(&a.Port, "port", "The port that the service listens on; what the Dockerfile exposes, or 8080, when it is left out.", 1, 65535),
			input.String(&a.HAProxy, "haproxy", "The stats socket of the HAProxy in front, a path or host:port; without it one container takes the place of the other."),
			input.String(&a.Backend, "backend", "Its backend; the name of the service when it is left out."),
		},
		Run: func(ctx context.Context, rt *step.Runtime) error {
			system, err := a.complete(ctx, dir, system)
			if err != nil {
				return err
			}
			return a.write(rt, dir, system)
		},
	}
}

var (
	remoteShape = regexp.MustCompile(`^(?:[a-z+]+://)?(?:[^@/]+@)?([^/:]+)(?::[0-9]+)?[:/](.+?)(?:\.git)?/?$`)
	exposed     = regexp.MustCompile(`(?mi)^\s*EXPOSE\s+([0-9]+)`)
	unnamed     = regexp.MustCompile(`[^a-z0-9-]+`)
)

// complete fills in what was not given from what the repository says, and tells the CI system.
func (a *answers) complete(ctx context.Context, dir, system string) (string, error) {
	repo, err := gitrepo.Open(dir)
	if err != nil {
		return "", err
	}
	remote, branch, err := repo.Origin(ctx)
	if err != nil {
		return "", err
	}
	a.Branch = branch
	server, path := "", filepath.Base(repo.Top())
	if m := remoteShape.FindStringSubmatch(remote); m != nil {
		server, path = m[1], m[2]
	}
	if system == auto {
		if system, err = recognised(repo.Top(), server); err != nil {
			return "", err
		}
	}
	if a.Service == "" {
		a.Service = strings.Trim(unnamed.ReplaceAllString(strings.ToLower(path[strings.LastIndex(path, "/")+1:]), "-"), "-")
	}
	if a.Backend == "" {
		a.Backend = a.Service
	}
	switch {
	case a.Repository != "":
	case server == "github.com":
		a.Repository = "ghcr.io/" + strings.ToLower(path)
	case server == "gitlab.com":
		a.Repository = "registry.gitlab.com/" + strings.ToLower(path)
	default:
		return "", fault.Inputf("the registry of %s is not known", path).WithHint("give --repository registry.example.com/acme/%s", a.Service)
	}
	if a.Repository, err = registry.ParseRepository(a.Repository); err != nil {
		return "", err
	}
	host, _, _ := strings.Cut(a.Repository, "/")
	if kind, known := registry.KindOf(host); known && kind.Makes {
		a.Ledger = a.Repository + "/backstep"
	}
	a.GHCR = strings.HasPrefix(a.Repository, "ghcr.io/")
	dockerfile, err := os.ReadFile(filepath.Join(dir, "Dockerfile"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err != nil {
		return "", fault.Inputf("there is no Dockerfile in %s", dir).WithHint("write one: the release is built from it")
	}
	if a.Port == 0 {
		a.Port = 8080
		if m := exposed.FindSubmatch(dockerfile); m != nil {
			if _, err := fmt.Sscan(string(m[1]), &a.Port); err != nil {
				return "", fault.Inputf("Dockerfile: EXPOSE %s: %w", m[1], err)
			}
		}
	}
	return system, nil
}

// recognised is the CI system of a repository: by what is in it, else by the server it comes from.
func recognised(top, server string) (string, error) {
	for _, known := range [][2]string{{".gitlab-ci.yml", gitlab}, {".github/workflows", github}} {
		if _, err := os.Stat(filepath.Join(top, known[0])); err == nil {
			return known[1], nil
		}
	}
	switch {
	case strings.Contains(server, "gitlab"):
		return gitlab, nil
	case strings.Contains(server, "github"), strings.Contains(server, "gitea"):
		return github, nil
	}
	return "", fault.Inputf("the CI system of %s is not known", server).
		WithHint("give --ci github or --ci gitlab; for others see examples/ of backstep")
}

// write writes the files that are not there and tells of each.
func (a *answers) write(rt *step.Runtime, dir, system string) error {
	root, err := os.OpenRoot(dir) // a link in the repository leads nowhere else
	if err != nil {
		return err
	}
	defer root.Close()
	for _, w := range written {
		if !slices.Contains([]string{"", system}, w.system) {
			continue
		}
		text, err := a.render(w.from)
		if err != nil {
			return err
		}
		if err := root.MkdirAll(path.Dir(w.to), 0o755); err != nil {
			return err
		}
		f, err := root.OpenFile(w.to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) {
			fmt.Fprintf(rt.Stdout, "%s is there already, and left as it is\n", w.to)
			continue
		}
		if err != nil {
			return err
		}
		_, err = f.Write(text)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		fmt.Fprintf(rt.Stdout, "%s is written\n", w.to)
	}
	fmt.Fprintf(rt.Stdout, "read them, commit, and push to %s\n", a.Branch)
	return nil
}

func (a *answers) render(name string) ([]byte, error) {
	text, err := files.ReadFile("files/" + name)
	if err != nil || name == "rollback.yml" {
		return text, err // it is the same for everybody
	}
	t, err := template.New(name).Parse(string(text))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, a)
	return b.Bytes(), err
}
