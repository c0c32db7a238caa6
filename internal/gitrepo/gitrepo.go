// Package gitrepo asks the git command about a repository. It changes no configuration, and no argument ever
// reaches a shell.
package gitrepo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/backstep/backstep/internal/fault"
)

// Repo is the repository that a folder is in.
type Repo struct{ dir string }

// Open names the folder. It asks nothing yet.
func Open(dir string) Repo { return Repo{dir} }

// Commit is one commit.
type Commit struct {
	Commit  string // the full hash
	Time    time.Time
	Message string
}

// run runs git with these arguments and returns what it printed. The repository is trusted whoever owns it:
// in a container the workspace belongs to somebody else, and git would refuse it.
func (r Repo) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return "", fault.Inputf("git is not installed")
	}
	if err != nil {
		return "", &gitError{command: args[0], said: strings.TrimSpace(said.String()), err: err}
	}
	return out.String(), nil
}

// gitError is what git said when it failed.
type gitError struct {
	command, said string
	err           error
}

func (e *gitError) Error() string { return fmt.Sprintf("git %s: %s", e.command, e.said) }
func (e *gitError) Unwrap() error { return e.err }

func says(err error, text string) bool {
	var g *gitError
	return errors.As(err, &g) && strings.Contains(g.said, text)
}

// Head is the commit that is checked out.
func (r Repo) Head(ctx context.Context) (Commit, error) {
	if _, err := os.Stat(r.dir); err != nil {
		return Commit{}, fault.Inputf("context: %w", err)
	}
	out, err := r.run(ctx, "log", "-1", "--format=%H %ct", "HEAD", "--")
	switch {
	case says(err, "not a git repository"):
		dir, _ := filepath.Abs(r.dir)
		return Commit{}, fault.Inputf("%s is in no git repository", dir).WithHint("check it out first")
	case says(err, "bad revision"), says(err, "does not have any commits"), says(err, "unknown revision"):
		return Commit{}, fault.Inputf("the repository has no commit yet")
	case err != nil:
		return Commit{}, err
	}
	hash, seconds, _ := strings.Cut(strings.TrimSpace(out), " ")
	n, err := strconv.ParseInt(seconds, 10, 64)
	return Commit{Commit: hash, Time: time.Unix(n, 0).UTC()}, err
}

// Shallow says whether history is missing.
func (r Repo) Shallow(ctx context.Context) (bool, error) {
	out, err := r.run(ctx, "rev-parse", "--is-shallow-repository")
	return strings.TrimSpace(out) == "true", err
}

// Merged lists the tags with a prefix that are in the history of HEAD.
func (r Repo) Merged(ctx context.Context, prefix string) ([]string, error) {
	out, err := r.run(ctx, "for-each-ref", "--merged=HEAD", "--format=%(refname:strip=2)", "refs/tags/"+prefix+"*")
	return strings.Fields(out), err
}

// Tags lists every tag with a prefix, with the commit it names: those here, and those of the remote when
// there is one that answers.
func (r Repo) Tags(ctx context.Context, prefix string) (map[string]string, error) {
	tags := map[string]string{}
	out, err := r.run(ctx, "for-each-ref", "--format=%(refname:strip=2) %(objectname) %(*objectname)", "refs/tags/"+prefix+"*")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		tags[f[0]] = f[len(f)-1]
	}
	if !r.hasRemote(ctx) {
		return tags, nil
	}
	out, err = r.run(ctx, "ls-remote", "--tags", "origin", prefix+"*")
	if err != nil {
		return nil, fmt.Errorf("list the tags of origin: %w", err)
	}
	for line := range strings.Lines(out) {
		hash, name, ok := strings.Cut(strings.TrimSpace(line), "\trefs/tags/")
		if name, annotated := strings.CutSuffix(name, "^{}"); ok && (annotated || tags[name] == "") {
			tags[name] = hash
		}
	}
	return tags, nil
}

func (r Repo) hasRemote(ctx context.Context) bool {
	_, err := r.run(ctx, "remote", "get-url", "origin")
	return err == nil
}

// Deepen brings the history from HEAD back to the tag, and the tags with the prefix that are in it. It asks
// for just these commits, without their files; a server that cannot do that gives the whole history. An
// empty tag means all of it.
func (r Repo) Deepen(ctx context.Context, prefix, tag string) error {
	if tag != "" {
		_, err := r.run(ctx, "fetch", "--no-tags", "--filter=tree:0", "--shallow-exclude=refs/tags/"+tag, "origin", "HEAD")
		if err == nil || says(err, "no commits selected for shallow requests") {
			return nil
		}
	}
	_, err := r.run(ctx, "fetch", "--filter=tree:0", "--unshallow", "origin", "+refs/tags/"+prefix+"*:refs/tags/"+prefix+"*")
	if err != nil {
		return fault.Errorf(fault.Input, "the clone is shallow, and its history cannot be fetched: %w", err).
			WithHint("clone it whole: fetch-depth: 0 on GitHub, GIT_DEPTH: 0 on GitLab")
	}
	return nil
}

// Since lists the commits after a tag, newest first; all of them when tag is empty. Merge commits are left
// out: what they merge is there.
func (r Repo) Since(ctx context.Context, tag string) ([]Commit, error) {
	span := "HEAD"
	if _, err := r.run(ctx, "rev-parse", "--verify", "--quiet", "refs/tags/"+tag); tag != "" && err == nil {
		span = "refs/tags/" + tag + "..HEAD"
	}
	out, err := r.run(ctx, "log", "-z", "--no-merges", "--format=%H%n%B", span, "--")
	if err != nil {
		return nil, err
	}
	var commits []Commit
	for text := range strings.SplitSeq(strings.TrimRight(out, "\x00"), "\x00") {
		if hash, message, ok := strings.Cut(text, "\n"); ok {
			commits = append(commits, Commit{Commit: hash, Message: message})
		}
	}
	return commits, nil
}

// Tag makes an annotated tag of HEAD and pushes it when there is a remote. A tag is never moved: one that is
// there already on the same commit is fine, on another it is a fault. It reports whether it made the tag.
func (r Repo) Tag(ctx context.Context, name, message string) (made bool, err error) {
	head, err := r.Head(ctx)
	if err != nil {
		return false, err
	}
	tags, err := r.Tags(ctx, name)
	if err != nil {
		return false, err
	}
	if on, there := tags[name]; there {
		return false, sameCommit(name, on, head.Commit)
	}
	if _, err := r.run(ctx, "-c", "user.name=backstep", "-c", "user.email=backstep@localhost",
		"tag", "--annotate", "--message="+message, "--", name, head.Commit); err != nil {
		return false, err
	}
	if !r.hasRemote(ctx) {
		return true, nil
	}
	if _, err := r.run(ctx, "push", "origin", "refs/tags/"+name); err != nil {
		_, _ = r.run(ctx, "tag", "--delete", name) // ours only: nobody has seen it
		if tags, again := r.Tags(ctx, name); again == nil && tags[name] != "" {
			return false, sameCommit(name, tags[name], head.Commit) // somebody was faster
		}
		return false, fault.Errorf(fault.Failed, "push git tag %s: %w", name, err).
			WithHint("the job needs leave to push tags: contents: write on GitHub")
	}
	return true, nil
}

func sameCommit(name, on, want string) error {
	if on == want {
		return nil
	}
	return fault.Inputf("git tag %s is on commit %.12s already, not on %.12s", name, on, want).
		WithHint("a tag is never moved: choose another version")
}
