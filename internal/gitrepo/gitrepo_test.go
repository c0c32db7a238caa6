package gitrepo

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/backstep/backstep/internal/fault"
)

// clean keeps the tester's own configuration out.
func clean(t *testing.T) {
	t.Helper()
	t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	t.Setenv("GIT_CONFIG_SYSTEM", os.DevNull)
	t.Setenv("HOME", t.TempDir())
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=T", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"}, args...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// origin is a bare repository and a clone of it to work in.
func origin(t *testing.T) (url, work string) {
	t.Helper()
	clean(t)
	dir := t.TempDir()
	bare := filepath.Join(dir, "origin.git")
	git(t, dir, "init", "--quiet", "--bare", bare)
	git(t, bare, "config", "uploadpack.allowFilter", "true")
	url, work = "file://"+bare, filepath.Join(dir, "work")
	git(t, dir, "clone", "--quiet", url, work)
	return url, work
}

func commit(t *testing.T, work, message string) string {
	t.Helper()
	git(t, work, "commit", "--quiet", "--allow-empty", "-m", message)
	return git(t, work, "rev-parse", "HEAD")
}

func push(t *testing.T, work string) {
	t.Helper()
	git(t, work, "push", "--quiet", "--tags", "origin", "HEAD")
}

func clone(t *testing.T, url string, args ...string) *Repo {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "clone")
	git(t, t.TempDir(), append(append([]string{"clone", "--quiet"}, args...), url, dir)...)
	return open(t, dir)
}

func open(t *testing.T, dir string) *Repo {
	t.Helper()
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func subjects(commits []Commit) string {
	var all []string
	for _, c := range commits {
		subject, _, _ := strings.Cut(c.Message, "\n")
		all = append(all, subject)
	}
	return strings.Join(all, ", ")
}

// since asks what the step asks: the newest tag that HEAD contains, and what came after it.
func since(t *testing.T, r *Repo, names ...string) string {
	t.Helper()
	remote, err := r.RemoteTags(t.Context(), "v")
	if err != nil {
		t.Fatal(err)
	}
	var tags []Tag
	for _, name := range names {
		for _, tag := range remote {
			if tag.Name == name {
				tags = append(tags, tag)
			}
		}
	}
	tag, ok, err := r.Latest(t.Context(), tags, true)
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		return "none"
	}
	commits, err := r.Since(t.Context(), tag)
	if err != nil {
		t.Fatal(err)
	}
	return tag.Name + ": " + subjects(commits)
}

func TestHistoryIsTheSameInEveryClone(t *testing.T) {
	url, work := origin(t)
	for _, m := range []string{"one", "two", "three"} {
		commit(t, work, m)
	}
	git(t, work, "tag", "v1.0.0")
	commit(t, work, "four")
	git(t, work, "tag", "-a", "-m", "x", "v1.1.0")
	for _, m := range []string{"five\n\nwith a body", "six", "seven"} {
		commit(t, work, m)
	}
	push(t, work)
	for _, c := range []struct {
		name string
		args []string
	}{
		{"complete", nil},
		{"without tags", []string{"--no-tags"}},
		{"depth 1", []string{"--depth=1"}},
		{"depth 2", []string{"--depth=2"}},
		{"depth 5, beyond the tag", []string{"--depth=5"}},
		{"partial", []string{"--filter=tree:0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, want := since(t, clone(t, url, c.args...), "v1.1.0", "v1.0.0"), "v1.1.0: seven, six, five"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if got, want := since(t, clone(t, url, c.args...), "v1.0.0"), "v1.0.0: seven, six, five, four"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestShallowFetchIsSmall(t *testing.T) {
	url, work := origin(t)
	for range 10 {
		commit(t, work, "old")
	}
	git(t, work, "tag", "v1.0.0")
	commit(t, work, "new")
	commit(t, work, "newer")
	push(t, work)
	r := clone(t, url, "--depth=1")
	if got := since(t, r, "v1.0.0"); got != "v1.0.0: newer, new" {
		t.Errorf("got %q", got)
	}
	if n := git(t, r.top, "rev-list", "--count", "HEAD"); n != "2" {
		t.Errorf("%s commits were fetched, want 2", n)
	}
}

// A branch that forked before the tag and was merged after it is behind a merge that git cuts off.
func TestShallowCloneOfAMerge(t *testing.T) {
	url, work := origin(t)
	commit(t, work, "base")
	git(t, work, "checkout", "--quiet", "-b", "side")
	commit(t, work, "feat: side")
	git(t, work, "checkout", "--quiet", "main")
	commit(t, work, "main")
	git(t, work, "tag", "v1.0.0")
	git(t, work, "merge", "--quiet", "--no-ff", "-m", "merge", "side")
	push(t, work)
	if got := since(t, clone(t, url, "--depth=1"), "v1.0.0"); got != "v1.0.0: merge, feat: side" {
		t.Errorf("got %q", got)
	}

	// Another commit on the tag ends the history properly, and so must not prove the merge beside it.
	git(t, work, "checkout", "--quiet", "-b", "other", "v1.0.0")
	commit(t, work, "fix: other")
	git(t, work, "merge", "--quiet", "--no-ff", "-m", "merge again", "main")
	push(t, work)
	got := since(t, clone(t, url, "--depth=1", "--branch=other"), "v1.0.0")
	if !strings.Contains(got, "feat: side") || !strings.Contains(got, "fix: other") || strings.Contains(got, "base") {
		t.Errorf("got %q", got)
	}
}

func TestShallowCloneOfAnotherBranch(t *testing.T) {
	url, work := origin(t)
	commit(t, work, "one")
	git(t, work, "tag", "v1.0.0")
	git(t, work, "checkout", "--quiet", "-b", "1.x")
	commit(t, work, "fix: old line")
	push(t, work)
	git(t, work, "checkout", "--quiet", "main")
	commit(t, work, "feat!: new line")
	git(t, work, "tag", "v2.0.0")
	push(t, work)
	for _, args := range [][]string{{"--branch=1.x"}, {"--branch=1.x", "--depth=1"}} {
		if got := since(t, clone(t, url, args...), "v2.0.0", "v1.0.0"); got != "v1.0.0: fix: old line" {
			t.Errorf("%v: got %q", args, got)
		}
	}
}

func TestHeadAtAndBehindATag(t *testing.T) {
	url, work := origin(t)
	commit(t, work, "one")
	git(t, work, "tag", "v1.0.0")
	git(t, work, "branch", "old")
	commit(t, work, "two")
	git(t, work, "tag", "v1.1.0")
	push(t, work)
	git(t, work, "push", "--quiet", "origin", "old")
	if got := since(t, clone(t, url, "--depth=1"), "v1.1.0", "v1.0.0"); got != "v1.1.0: " {
		t.Errorf("at the tag: got %q", got)
	}
	if got := since(t, clone(t, url, "--depth=1", "--branch=old"), "v1.1.0", "v1.0.0"); got != "v1.0.0: " {
		t.Errorf("behind the tag: got %q", got)
	}
}

func TestShallowWithoutFetchIsAFault(t *testing.T) {
	url, work := origin(t)
	commit(t, work, "one")
	git(t, work, "tag", "v1.0.0")
	commit(t, work, "two")
	push(t, work)
	r := clone(t, url, "--depth=1")
	_, _, err := r.Latest(t.Context(), []Tag{{"v1.0.0", strings.Repeat("0", 40)}}, false)
	const want = "the clone is shallow: the history since the last release is missing"
	if err == nil || err.Error() != want || fault.CodeOf(err) != fault.Input ||
		fault.HintOf(err) != `set fetch: auto, or clone everything: fetch-depth: 0 for actions/checkout, GIT_DEPTH: "0" in GitLab` {
		t.Errorf("got %v, hint %q", err, fault.HintOf(err))
	}
}

func TestTagsByPrefix(t *testing.T) {
	_, work := origin(t)
	head := commit(t, work, "one")
	git(t, work, "tag", "v1.0.0")
	git(t, work, "tag", "-a", "-m", "x", "api/v2.0.0")
	git(t, work, "tag", "vnext")
	push(t, work)
	r := open(t, work)
	for prefix, want := range map[string]string{"v": "v1.0.0 vnext", "api/v": "api/v2.0.0", "": "api/v2.0.0 v1.0.0 vnext", "*": ""} {
		local, err := r.LocalTags(t.Context(), prefix)
		if err != nil {
			t.Fatal(err)
		}
		remote, err := r.RemoteTags(t.Context(), prefix)
		if err != nil {
			t.Fatal(err)
		}
		for where, tags := range map[string][]Tag{"local": local, "remote": remote} {
			var names []string
			for _, tag := range tags {
				// ls-remote matches the end of a name too; what matters is that none is missing
				if strings.HasPrefix(tag.Name, prefix) {
					names = append(names, tag.Name)
				}
				if tag.Commit != head {
					t.Errorf("%s %s: got commit %s, want %s", where, tag.Name, tag.Commit, head)
				}
			}
			if got := strings.Join(names, " "); got != want {
				t.Errorf("%s prefix %q: got %q, want %q", where, prefix, got, want)
			}
		}
	}
}

func TestHeadDirtyAndSubfolder(t *testing.T) {
	_, work := origin(t)
	hash := commit(t, work, "one\n\nbody: ü")
	sub := filepath.Join(work, "a", "b")
	if err := os.MkdirAll(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	r := open(t, sub)
	head, err := r.Head(t.Context())
	if err != nil || head.Hash != hash || head.Message != "one\n\nbody: ü\n" || head.Time.IsZero() {
		t.Errorf("got %+v, %v", head, err)
	}
	if dirty, err := r.Dirty(t.Context()); err != nil || dirty {
		t.Errorf("clean: got %v, %v", dirty, err)
	}
	if err := os.WriteFile(filepath.Join(sub, "new"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if dirty, err := r.Dirty(t.Context()); err != nil || !dirty {
		t.Errorf("with a new file: got %v, %v", dirty, err)
	}
}

func TestFaults(t *testing.T) {
	clean(t)
	dir := t.TempDir()
	_, err := Open(dir)
	if want := dir + " is in no git repository"; err == nil || err.Error() != want || fault.CodeOf(err) != fault.Input {
		t.Errorf("got %v, want %s", err, want)
	}
	git(t, dir, "init", "--quiet")
	r := open(t, dir)
	_, err = r.Head(t.Context())
	if want := "the git repository " + r.top + " has no commit"; err == nil || err.Error() != want || fault.CodeOf(err) != fault.Input {
		t.Errorf("got %v, want %s", err, want)
	}
	if _, err := r.RemoteTags(t.Context(), "v"); !errors.Is(err, ErrNoRemote) || err.Error() != "list the tags of origin: no remote named origin" {
		t.Errorf("got %v", err)
	}
	git(t, dir, "remote", "add", "origin", "https://user:hunter2@127.0.0.1:1/x.git")
	if _, err := r.RemoteTags(t.Context(), "v"); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v, want an error without the password", err)
	}
	head := commit(t, dir, "one")
	_, err = r.CreateTag(t.Context(), "v 1", head, "x")
	if err == nil || err.Error() != `"v 1" is no name for a git tag` {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Head(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestCreateTagNeverMovesOne(t *testing.T) {
	url, work := origin(t)
	first := commit(t, work, "one")
	second := commit(t, work, "two")
	push(t, work)
	r := clone(t, url, "--depth=1")
	if created, err := r.CreateTag(t.Context(), "v1.0.0", second, "v1.0.0"); err != nil || !created {
		t.Fatalf("got %v, %v", created, err)
	}
	if created, err := r.CreateTag(t.Context(), "v1.0.0", second, "v1.0.0"); err != nil || created {
		t.Errorf("again: got %v, %v", created, err)
	}
	_, err := open(t, work).CreateTag(t.Context(), "v1.0.0", first, "v1.0.0")
	want := "the git tag v1.0.0 is on " + second[:12] + ", this commit is " + first[:12] + ": a tag is never moved"
	if err == nil || err.Error() != want || fault.HintOf(err) == "" {
		t.Errorf("got %v, want %s", err, want)
	}
	bare := strings.TrimPrefix(url, "file://")
	if got := git(t, bare, "cat-file", "-t", "v1.0.0"); got != "tag" {
		t.Errorf("the tag is a %s, want an annotated one", got)
	}
	if got := git(t, bare, "rev-parse", "v1.0.0^{commit}"); got != second {
		t.Errorf("the tag is on %s, want %s", got, second)
	}
	if got := git(t, work, "config", "--local", "--list"); strings.Contains(got, "safe.directory") || strings.Contains(got, "user.") {
		t.Errorf("the configuration was changed:\n%s", got)
	}
}

func TestRefusedPushSaysWhatToAllow(t *testing.T) {
	url, work := origin(t)
	head := commit(t, work, "one")
	push(t, work)
	hook := filepath.Join(strings.TrimPrefix(url, "file://"), "hooks", "pre-receive")
	if err := os.WriteFile(hook, []byte("#!/bin/sh\necho no tags here >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := open(t, work).CreateTag(t.Context(), "v1.0.0", head, "v1.0.0")
	if err == nil || !strings.HasPrefix(err.Error(), "push the git tag v1.0.0: git push: ") || !strings.Contains(err.Error(), "no tags here") ||
		fault.HintOf(err) != "let the job push tags: permissions: contents: write in GitHub, a token that may push in GitLab" {
		t.Errorf("got %v, hint %q", err, fault.HintOf(err))
	}
}

func TestOfEightTagsOnDifferentCommitsOneWins(t *testing.T) {
	url, work := origin(t)
	var commits []string
	for range 8 {
		commits = append(commits, commit(t, work, "x"))
	}
	push(t, work)
	created := make([]bool, len(commits))
	errs := make([]error, len(commits))
	var wg sync.WaitGroup
	for i, c := range commits {
		r := open(t, work)
		wg.Go(func() { created[i], errs[i] = r.CreateTag(t.Context(), "v9.0.0", c, "v9.0.0") })
	}
	wg.Wait()
	winner := git(t, strings.TrimPrefix(url, "file://"), "rev-parse", "v9.0.0^{commit}")
	for i, c := range commits {
		want := "the git tag v9.0.0 is on " + winner[:12] + ", this commit is " + c[:12] + ": a tag is never moved"
		switch {
		case c == winner:
			if !created[i] || errs[i] != nil {
				t.Errorf("the winner: got %v, %v", created[i], errs[i])
			}
		case created[i] || errs[i] == nil || errs[i].Error() != want:
			t.Errorf("a loser: got %v, %v", created[i], errs[i])
		}
	}
}

func TestEnvironmentKeepsInheritedConfiguration(t *testing.T) {
	env, count := environment([]string{"HOME=b", "GIT_DIR=/x", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http.extraHeader", "GIT_CONFIG_VALUE_0=X: y"})
	r := Repo{env: env, configured: count}
	r.configure("safe.directory", "/w")
	got := strings.Join(r.env, "|")
	const want = "HOME=b|GIT_CONFIG_KEY_0=http.extraHeader|GIT_CONFIG_VALUE_0=X: y|LC_ALL=C|GIT_TERMINAL_PROMPT=0|GIT_OPTIONAL_LOCKS=0|" +
		"GIT_CONFIG_KEY_1=safe.directory|GIT_CONFIG_VALUE_1=/w|GIT_CONFIG_COUNT=2"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// git and what it starts have none of our secrets.
func TestGitHasNoSecretsOfOurs(t *testing.T) {
	for _, name := range []string{"INPUT_TOKEN", "INPUT_REGISTRY-PASSWORD", "BACKSTEP_REGISTRY_PASSWORD", "GITHUB_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "DSN"} {
		t.Setenv(name, "hunter2")
	}
	_, work := origin(t)
	commit(t, work, "one")
	said := filepath.Join(t.TempDir(), "said")
	git(t, work, "config", "core.fsmonitor", "env >"+said+"; false")
	if _, err := open(t, work).Dirty(t.Context()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(said)
	if err != nil || !strings.Contains(string(text), "PATH=") || strings.Contains(string(text), "hunter2") {
		t.Errorf("a child of git has %s, %v", text, err)
	}
}

// What a repository of another user names as a program never runs, by whatever key, hook or file; what it has else goes on to
// count.
func TestStrangersConfigurationRunsNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a folder away")
	}
	url, work := origin(t)
	commit(t, work, "one")
	push(t, work)
	trap := t.TempDir()
	program := filepath.Join(trap, "run")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho \"$0 $*\" >>"+trap+"/ran\nexec git-upload-pack \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(work, ".gitattributes"), []byte("* filter=f diff=d merge=m\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	git(t, work, "config", "http.extraHeader", "Authorization: basic x")
	extra := filepath.Join(trap, "config")
	for _, key := range []string{"core.fsmonitor", "core.askPass", "core.pager", "core.alternateRefsCommand", "credential.helper", "filter.f.clean", "filter.f.process",
		"diff.external", "diff.d.textconv", "diff.d.command", "merge.m.driver", "gpg.program", "remote.origin.uploadpack", "remote.origin.receivepack", "core.sshCommand", "core.gitProxy"} {
		git(t, work, "config", key, program)
		git(t, work, "config", "--file", extra, key, program)
	}
	git(t, work, "config", "filter.f.required", "true")
	git(t, work, "config", "include.path", extra)
	git(t, work, "config", "protocol.ext.allow", "always")
	git(t, work, "config", "log.showSignature", "true")
	for _, name := range []string{"reference-transaction", "pre-push", "post-index-change", "fsmonitor-watchman", "pre-auto-gc", "post-checkout"} {
		if err := os.Symlink(program, filepath.Join(work, ".git", "hooks", name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := filepath.WalkDir(work, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, 12345, 12345))
	}); err != nil {
		t.Fatal(err)
	}
	everything := func() {
		r := open(t, work)
		if _, err := r.Dirty(t.Context()); err != nil {
			t.Error(err)
		}
		head, err := r.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r.RemoteTags(t.Context(), "")
		r.Since(t.Context(), Tag{})
		r.Origin(t.Context())
		r.CreateTag(t.Context(), "v1.0.0", head.Hash, "one")
		r.complete(t.Context(), head.Hash)
		if out, err := r.run(t.Context(), "", "config", "http.extraHeader"); err != nil || !strings.Contains(out, "basic x") {
			t.Errorf("the credentials of the checkout: %q, %v", out, err)
		}
	}
	for _, address := range []string{url, "ext::" + program + " %S", "ssh://git@127.0.0.1:1/x", "git://127.0.0.1:1/x"} {
		git(t, work, "-c", "safe.directory=*", "config", "--file", filepath.Join(work, ".git", "config"), "remote.origin.url", address)
		if err := os.Chown(filepath.Join(work, ".git", "config"), 12345, 12345); err != nil {
			t.Fatal(err)
		}
		everything()
		if ran, err := os.ReadFile(filepath.Join(trap, "ran")); err == nil {
			t.Errorf("origin %s: this ran:\n%s", address, ran)
			os.Remove(filepath.Join(trap, "ran"))
		}
	}
}

// A container step is rarely the user who owns the checkout; root in the tests can play both.
func TestCheckoutOfAnotherOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a folder away")
	}
	_, work := origin(t)
	hash := commit(t, work, "one")
	for _, path := range []string{work, filepath.Join(work, ".git")} {
		if err := os.Chown(path, 12345, 12345); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("git", "-C", work, "status").CombinedOutput(); err == nil {
		t.Fatalf("git takes the folder of another owner as it is: %s", out)
	}
	if head, err := open(t, work).Head(t.Context()); err != nil || head.Hash != hash {
		t.Errorf("got %+v, %v", head, err)
	}
}
