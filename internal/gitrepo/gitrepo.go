// Package gitrepo asks git about releases: which tags there are, which of them HEAD contains, and which commits
// came since. It runs the git program, fetches what a shallow clone lacks, and creates tags without ever
// moving one. It never changes the user's git configuration.
package gitrepo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/backstep/backstep/internal/child"
	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/secret"
)

// remote is the one that CI systems clone from.
const remote = "origin"

// ErrNoRemote is wrapped by the error of a repository that has no origin.
var ErrNoRemote = errors.New("no remote named origin")

// Repo is a git work tree.
type Repo struct {
	top        string
	env        []string
	configured int    // how many keys of git's configuration env sets
	foreign    bool   // it belongs to another user, and is not tamed yet
	tamed      bool   // it belongs to another user, and runs nothing any more
	boundary   string // the commit behind the end of a shallow clone, when fetchSince has proven it
}

// Tag is a git tag and the commit it leads to.
type Tag struct {
	Name   string
	Commit string // full hash
}

// Commit is a commit with its whole message.
type Commit struct {
	Hash    string
	Time    time.Time // the committer's
	Message string
}

// Open finds the work tree that dir is in. A folder outside of any work tree is a fault.
func Open(dir string) (*Repo, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return nil, fault.Inputf("open the git repository: %w", err)
	}
	for top := abs; ; top = filepath.Dir(top) {
		if _, err := os.Stat(filepath.Join(top, ".git")); err == nil {
			r := &Repo{top: top, foreign: foreign(top)}
			r.env, r.configured = environment(os.Environ())
			// A container rarely runs as the user who owns the checkout: git is told that this one work tree may be read.
			r.configure("safe.directory", top)
			return r, nil
		}
		if top == filepath.Dir(top) {
			return nil, fault.Inputf("%s is in no git repository", dir).
				WithHint("check the code out before this step, or name its folder with context")
		}
	}
}

// needed are the variables of git and ssh, so that credentials given by them go on working; with CI_JOB_TOKEN GitLab's own
// credential helper logs in.
var needed = []string{"GIT_*", "SSH_AUTH_SOCK", "SSH_ASKPASS", "XDG_CONFIG_HOME", "CI_JOB_TOKEN"}

// environment is what git gets of inherited, and how many keys of the configuration that sets.
func environment(inherited []string) (env []string, count int) {
	env = slices.DeleteFunc(child.Environment(inherited, needed...), func(entry string) bool {
		name, value, _ := strings.Cut(entry, "=")
		switch name {
		case "GIT_CONFIG_COUNT":
			if n, err := strconv.Atoi(value); err == nil && n > 0 {
				count = n
			}
			return true
		case "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_NAMESPACE":
			return true
		}
		return strings.HasPrefix(name, "GIT_TRACE") // it would be taken for what git says
	})
	return append(env, "LC_ALL=C", "GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0"), count
}

// failure is a git command that ended with another exit code than 0.
type failure struct {
	command string
	stderr  string
	code    int
}

func (f *failure) Error() string {
	if f.stderr == "" {
		return fmt.Sprintf("git %s: exit code %d", f.command, f.code)
	}
	return fmt.Sprintf("git %s: %s", f.command, f.stderr)
}

// run gives the standard output of git. The error of a refused command is a *failure.
func (r *Repo) run(ctx context.Context, stdin string, args ...string) (string, error) {
	if r.foreign {
		if err := r.tame(ctx); err != nil {
			return "", err
		}
	}
	if end, ok := otherEnd[args[0]]; ok && r.tamed {
		args = slices.Insert(slices.Clone(args), 1, end)
	}
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir, cmd.Env = r.top, r.env
	cmd.WaitDelay = 5 * time.Second // a helper of git may hold the pipes
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if args[0] == "fetch" || args[0] == "mktag" || args[0] == "push" {
		r.giveBack()
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return stdout.String(), nil
	case ctx.Err() != nil:
		return "", fmt.Errorf("git %s: %w", args[0], ctx.Err())
	case errors.Is(err, exec.ErrNotFound):
		return "", fault.Errorf(fault.Failed, "git is not installed").WithHint("use the image of this step, or install git")
	case errors.As(err, &exit):
		text := (*secret.Known)(nil).Redact(strings.TrimSpace(stderr.String()))
		text = strings.Join(strings.Fields(strings.TrimPrefix(text, "fatal: ")), " ")
		return "", &failure{args[0], text, exit.ExitCode()}
	}
	return "", fmt.Errorf("git %s: %w", args[0], err)
}

// giveBack makes what git has just written belong to the owner of the repository. A container of GitHub runs as
// root in a checkout of somebody else, who has to be able to remove it afterwards. What cannot be given back is
// left: the step has done its work.
func (r *Repo) giveBack() {
	top, err := os.Stat(filepath.Join(r.top, ".git"))
	if err != nil || os.Geteuid() != 0 {
		return
	}
	owner, ok := top.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return
	}
	root, err := os.OpenRoot(r.top) // the owner may put a link where a folder was, on the way
	if err != nil {
		return
	}
	defer root.Close()
	_ = fs.WalkDir(root.FS(), ".git", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := d.Info(); err == nil {
			if s, ok := info.Sys().(*syscall.Stat_t); ok && s.Uid == 0 {
				_ = root.Lchown(path, int(owner.Uid), int(owner.Gid))
			}
		}
		return nil
	})
}

func exitedWith(err error, codes ...int) bool {
	var f *failure
	return errors.As(err, &f) && slices.Contains(codes, f.code)
}

// Top is the root of the work tree.
func (r *Repo) Top() string { return r.top }

// Origin is the address of the remote origin, "" when there is none, and the branch at hand.
func (r *Repo) Origin(ctx context.Context) (address, branch string, err error) {
	address, err = r.run(ctx, "", "config", "--get", "remote.origin.url")
	if err != nil && !exitedWith(err, 1) {
		return "", "", err
	}
	branch, err = r.run(ctx, "", "symbolic-ref", "--short", "HEAD")
	if exitedWith(err, 128) {
		branch, err = "main", nil // detached
	}
	return strings.TrimSpace(address), strings.TrimSpace(branch), err
}

// Head is the commit that is checked out. A repository without a commit is a fault.
func (r *Repo) Head(ctx context.Context) (Commit, error) {
	if _, err := r.run(ctx, "", "rev-parse", "--verify", "--quiet", "HEAD"); exitedWith(err, 1) {
		return Commit{}, fault.Inputf("the git repository %s has no commit", r.top).
			WithHint("commit something, or check out a branch that has commits")
	}
	commits, err := r.log(ctx, "--max-count=1", "HEAD")
	if err != nil {
		return Commit{}, err
	}
	return commits[0], nil
}

func (r *Repo) log(ctx context.Context, args ...string) ([]Commit, error) {
	out, err := r.run(ctx, "", append([]string{"log", "-z", "--topo-order", "--no-show-signature", "--no-color", "--no-notes",
		"--no-mailmap", "--encoding=UTF-8", "--format=%H%n%ct%n%B"}, append(args, "--")...)...)
	if err != nil {
		return nil, err
	}
	var commits []Commit
	for entry := range strings.SplitSeq(strings.TrimSuffix(out, "\x00"), "\x00") {
		if entry == "" {
			continue
		}
		parts := strings.SplitN(entry, "\n", 3)
		if len(parts) != 3 {
			return nil, fmt.Errorf("git log: %q: want a hash, a time and a message", entry)
		}
		seconds, err := strconv.ParseInt(parts[1], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("git log: time of %s: %w", parts[0], err)
		}
		commits = append(commits, Commit{parts[0], time.Unix(seconds, 0).UTC(), parts[2]})
	}
	return commits, nil
}

// Since lists the commits that HEAD contains and tag, which Latest gave, does not, newest first. A zero tag lists
// everything there is.
func (r *Repo) Since(ctx context.Context, tag Tag) ([]Commit, error) {
	if tag.Commit == "" || tag.Commit == r.boundary {
		return r.log(ctx, "HEAD")
	}
	return r.log(ctx, "HEAD", "^"+tag.Commit)
}

// Shallow says that the history is cut off.
func (r *Repo) Shallow(ctx context.Context) (bool, error) {
	out, err := r.run(ctx, "", "rev-parse", "--is-shallow-repository")
	return strings.TrimSpace(out) == "true", err
}

// Dirty says that a tracked file differs from HEAD, or that there is an untracked one that is not ignored.
func (r *Repo) Dirty(ctx context.Context) (bool, error) {
	out, err := r.run(ctx, "", "status", "--porcelain")
	return out != "", err
}

// LocalTags lists the tags in the clone that begin with prefix and lead to a commit.
func (r *Repo) LocalTags(ctx context.Context, prefix string) ([]Tag, error) {
	out, err := r.run(ctx, "", "for-each-ref", "--format=%(refname)%00%(objectname)%00%(*objectname)", "refs/tags")
	if err != nil {
		return nil, err
	}
	var tags []Tag
	for line := range strings.Lines(out) {
		parts := strings.Split(strings.TrimSuffix(line, "\n"), "\x00")
		if len(parts) != 3 {
			return nil, fmt.Errorf("git for-each-ref: %q: want a name and two hashes", line)
		}
		name := strings.TrimPrefix(parts[0], "refs/tags/")
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		commit := parts[1]
		if parts[2] != "" {
			commit = parts[2]
		}
		tags = append(tags, Tag{name, commit})
	}
	return tags, nil
}

// RemoteTags lists the tags of origin that begin with prefix. Without an origin the error wraps ErrNoRemote.
func (r *Repo) RemoteTags(ctx context.Context, prefix string) ([]Tag, error) {
	if _, err := r.run(ctx, "", "config", "--get", "remote."+remote+".url"); exitedWith(err, 1) {
		return nil, fmt.Errorf("list the tags of %s: %w", remote, ErrNoRemote)
	} else if err != nil {
		return nil, err
	}
	return r.listRemote(ctx, "refs/tags/"+literal.Replace(prefix)+"*")
}

var literal = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

func (r *Repo) listRemote(ctx context.Context, patterns ...string) ([]Tag, error) {
	out, err := r.run(ctx, "", append([]string{"ls-remote", "--tags", remote}, patterns...)...)
	if err != nil {
		return nil, fmt.Errorf("list the tags of %s: %w", remote, err)
	}
	var tags []Tag
	at := make(map[string]int)
	for line := range strings.Lines(out) {
		hash, ref, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		name, isTag := strings.CutPrefix(ref, "refs/tags/")
		if !ok || !isTag {
			continue
		}
		name, peeled := strings.CutSuffix(name, "^{}")
		if i, seen := at[name]; seen {
			if peeled {
				tags[i].Commit = hash
			}
			continue
		}
		at[name] = len(tags)
		tags = append(tags, Tag{name, hash})
	}
	return tags, nil
}

// Latest is the first of tags that HEAD contains, and false when HEAD contains none of them. With fetch it brings what
// a shallow clone lacks: the commits since the first tag when that is enough, else the whole history, without files.
// Without fetch a shallow clone that cannot tell is a fault.
func (r *Repo) Latest(ctx context.Context, tags []Tag, fetch bool) (Tag, bool, error) {
	if len(tags) == 0 {
		return Tag{}, false, nil
	}
	head, err := r.Head(ctx)
	if err != nil {
		return Tag{}, false, err
	}
	if tags[0].Commit == head.Hash {
		return tags[0], true, nil
	}
	shallow, err := r.Shallow(ctx)
	if err != nil {
		return Tag{}, false, err
	}
	if shallow {
		if !fetch {
			return Tag{}, false, ShallowFault()
		}
		enough, err := r.fetchSince(ctx, head.Hash, tags[0])
		if err != nil {
			return Tag{}, false, err
		}
		if enough {
			return tags[0], true, nil
		}
		if err := r.complete(ctx, head.Hash); err != nil {
			return Tag{}, false, err
		}
	}
	return r.contained(ctx, tags)
}

// ShallowFault is the fault of a clone that lacks the history which the answer needs.
func ShallowFault() error {
	return fault.Inputf("the clone is shallow: the history since the last release is missing").
		WithHint("set fetch: auto, or clone everything: fetch-depth: 0 for actions/checkout, GIT_DEPTH: \"0\" in GitLab")
}

// fetchSince asks for the commits from head back to tag. It says whether what came proves that head contains
// tag and that nothing between is missing. git marks a merge with one parent behind the tag as a boundary and
// so hides its other parents: such a history is not proven.
func (r *Repo) fetchSince(ctx context.Context, head string, tag Tag) (bool, error) {
	_, err := r.run(ctx, "", "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--filter=tree:0",
		"--shallow-exclude=refs/tags/"+tag.Name, remote, head)
	if ctx.Err() != nil {
		return false, err
	}
	if err != nil {
		return false, nil // not supported, or nothing is newer than the tag: the whole history tells
	}
	ends, err := r.run(ctx, "", "rev-list", "--max-parents=0", "HEAD")
	if err != nil {
		return false, err
	}
	proven := false
	for end := range strings.FieldsSeq(ends) {
		raw, err := r.run(ctx, "", "cat-file", "commit", end)
		if err != nil {
			return false, err
		}
		header, _, _ := strings.Cut(raw, "\n\n")
		var parents []string
		for line := range strings.Lines(header) {
			if parent, ok := strings.CutPrefix(line, "parent "); ok {
				parents = append(parents, strings.TrimSpace(parent))
			}
		}
		if len(parents) > 1 {
			return false, nil
		}
		proven = proven || len(parents) == 1 && parents[0] == tag.Commit
	}
	if proven {
		r.boundary = tag.Commit
	}
	return proven, nil
}

// complete brings all commits; files only when origin cannot leave them out.
func (r *Repo) complete(ctx context.Context, head string) error {
	fetch := []string{"fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--unshallow"}
	_, err := r.run(ctx, "", append(fetch, "--filter=tree:0", remote, head)...)
	if err != nil && ctx.Err() == nil {
		_, err = r.run(ctx, "", append(fetch, remote)...)
	}
	if err != nil {
		return fault.Errorf(fault.Failed, "fetch the history from %s: %w", remote, err).
			WithHint("clone everything: fetch-depth: 0 for actions/checkout, GIT_DEPTH: \"0\" in GitLab")
	}
	return nil
}

// contained needs a complete history. It never asks for a commit by name: in a partial clone git would fetch it
// with its whole history.
func (r *Repo) contained(ctx context.Context, tags []Tag) (Tag, bool, error) {
	for _, limit := range []string{"--max-count=2000", "--max-count=-1"} { // the newest tag is nearly always near
		out, err := r.run(ctx, "", "rev-list", limit, "HEAD")
		if err != nil {
			return Tag{}, false, err
		}
		history := make(map[string]bool)
		for hash := range strings.FieldsSeq(out) {
			history[hash] = true
		}
		i := slices.IndexFunc(tags, func(t Tag) bool { return history[t.Commit] })
		if i == 0 || i > 0 && limit == "--max-count=-1" {
			return tags[i], true, nil
		}
	}
	return Tag{}, false, nil
}

// CreateTag makes the annotated tag on commit in origin, and says whether it was this call that made it. It
// never moves a tag: one that is on the same commit is fine, and one on another commit is a fault.
func (r *Repo) CreateTag(ctx context.Context, name, commit, message string) (bool, error) {
	if _, err := r.run(ctx, "", "check-ref-format", "refs/tags/"+name); err != nil {
		if exitedWith(err, 1) {
			return false, fault.Inputf("%q is no name for a git tag", name).WithHint("change tag-prefix")
		}
		return false, err
	}
	object, err := r.tagObject(ctx, name, commit, message)
	if err != nil {
		return false, fmt.Errorf("make the git tag %s: %w", name, err)
	}
	out, failed := r.run(ctx, "", "push", "--porcelain", "--no-verify", remote, object+":refs/tags/"+name)
	if failed == nil {
		return strings.Contains(out, "\n*\t"), nil // = is the very object that another run made in this second
	}
	if ctx.Err() != nil {
		return false, failed
	}
	// The name may be taken, or the answer to a push that went well may be lost: origin knows.
	existing, err := r.listRemote(ctx, "refs/tags/"+name, "refs/tags/"+name+"^{}")
	if err != nil {
		return false, errors.Join(fmt.Errorf("push the git tag %s: %w", name, failed), err)
	}
	for _, tag := range existing {
		if tag.Name == name && tag.Commit == commit {
			return false, nil
		}
		if tag.Name == name {
			return false, TakenFault(tag, commit)
		}
	}
	return false, fault.Errorf(fault.Failed, "push the git tag %s: %w", name, failed).
		WithHint("let the job push tags: permissions: contents: write in GitHub, a token that may push in GitLab")
}

// TakenFault is the fault of a tag that has to be on commit and is on another one.
func TakenFault(tag Tag, commit string) error {
	return fault.Errorf(fault.Failed, "the git tag %s is on %s, this commit is %s: a tag is never moved", tag.Name, short(tag.Commit), short(commit)).
		WithHint("another run took this version: release the newest commit, which contains it, or give version")
}

func short(hash string) string { return hash[:min(12, len(hash))] }

// tagObject writes the tag's object without a name in this clone, so that a refused push leaves nothing behind.
func (r *Repo) tagObject(ctx context.Context, name, commit, message string) (string, error) {
	tagger, err := r.run(ctx, "", "-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT")
	if exitedWith(err, 128) {
		tagger, err = r.run(ctx, "", "-c", "user.name=backstep", "-c", "user.email=backstep@localhost", "var", "GIT_COMMITTER_IDENT")
	}
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("object %s\ntype commit\ntag %s\ntagger %s\n\n%s\n", commit, name, strings.TrimSpace(tagger), strings.TrimSpace(message))
	out, err := r.run(ctx, text, "mktag")
	return strings.TrimSpace(out), err
}
