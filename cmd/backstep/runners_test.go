package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backstep/backstep/internal/registry/registrytest"
	"github.com/backstep/backstep/internal/router/routertest"
)

// runnerImage is what the jobs of act and gitlab-ci-local run in, see .ci/runner-image.sh.
const runnerImage = "backstep-ci:1"

// team is a team's repository, made of examples/shop, with a registry and a load balancer of its own.
type team struct {
	t        *testing.T
	dir      string
	balancer routertest.Balancer
	service  string
	env      []string
}

func newTeam(t *testing.T) *team {
	t.Helper()
	image(t, true)
	tm := &team{t: t, dir: t.TempDir(), balancer: routertest.HAProxy(t), service: service()}
	registry := registrytest.Debian(t)
	t.Cleanup(func() { remove(tm.service) })
	if err := os.CopyFS(tm.dir, os.DirFS("../../examples/shop")); err != nil {
		t.Fatal(err)
	}
	tm.rewrite("service: shop", "service: "+tm.service, "registry.example.com", registry, "127.0.0.1:9999", tm.balancer.Remote)
	tm.sh("git init -q -b main && git config user.email ada@example.com && git config user.name ada && git remote add origin " + served(t))
	tm.commit("feat: orders")
	return tm
}

// served is the address of an empty git repository that can be pushed to, served by git itself.
func served(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	make := exec.Command("sh", "-ec", "git init -q --bare acme/shop.git && git -C acme/shop.git config http.receivepack true")
	make.Dir = root
	if out, err := make.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	core, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(&cgi.Handler{Path: filepath.Join(strings.TrimSpace(string(core)), "git-http-backend"),
		Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1"}})
	t.Cleanup(server.Close)
	return server.URL + "/acme/shop.git"
}

// rewrite replaces pairs of texts in all files of the repository.
func (tm *team) rewrite(pairs ...string) {
	tm.t.Helper()
	err := filepath.WalkDir(tm.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if d != nil && d.Name() == ".git" {
				return fs.SkipDir
			}
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, []byte(strings.NewReplacer(pairs...).Replace(string(text))), 0o644|modeOf(d))
	})
	if err != nil {
		tm.t.Fatal(err)
	}
}

func modeOf(d fs.DirEntry) fs.FileMode {
	info, err := d.Info()
	if err != nil {
		return 0
	}
	return info.Mode().Perm()
}

func (tm *team) sh(script string) string {
	tm.t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = tm.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		tm.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

func (tm *team) commit(message string) {
	tm.sh("chmod +x build.sh; git add -A && git commit -q --allow-empty -m '" + message + "' && git push -q origin HEAD:main")
}

// serves wants a customer to get this text.
func (tm *team) serves(text string) {
	tm.t.Helper()
	if got, err := asked("http://" + tm.balancer.Address); err != nil || !strings.Contains(got, text) {
		tm.t.Fatalf("customers get %q (%v), want %q", got, err, text)
	}
}

// said is one object that act prints with --json.
type said struct {
	Command, Name, Arg, Content, Msg, Job string
}

// act runs one workflow and tells whether it succeeded and what was said.
func (tm *team) act(event, workflow string, inputs ...string) (bool, []said) {
	tm.t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		tm.t.Fatal(err)
	}
	goroot, cache := tm.goenv("GOROOT"), tm.goenv("GOCACHE")
	args := []string{event, "--rm", "--json", "-W", ".github/workflows/" + workflow, "-P", "ubuntu-latest=" + runnerImage,
		"--pull=false", "--action-offline-mode", "--artifact-server-addr", "127.0.0.1", "--cache-server-addr", "127.0.0.1",
		"--actor", "ada", "--local-repository", "backstep/backstep@main=" + root,
		"--env", "DOCKER_API_VERSION=" + os.Getenv("DOCKER_API_VERSION"), "--env", "GOCACHE=" + cache,
		"--container-options", fmt.Sprintf("-v %s:/usr/local/go:ro -v %s:%s", goroot, cache, cache)}
	for _, in := range inputs {
		args = append(args, "--input", in)
	}
	cmd := exec.Command(os.Getenv("BACKSTEP_ACT"), args...)
	cmd.Dir, cmd.Env = tm.dir, append(os.Environ(), "XDG_CACHE_HOME="+filepath.Join(os.TempDir(), "backstep-act"), "DO_NOT_TRACK=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	failed := cmd.Run()
	var all []said
	for lines := bufio.NewScanner(&out); lines.Scan(); {
		var s said
		if json.Unmarshal(lines.Bytes(), &s) == nil {
			all = append(all, s)
			tm.t.Logf("%s | %s %s", s.Job, s.Command, strings.TrimSpace(s.Msg))
		} else {
			tm.t.Log(lines.Text())
		}
	}
	return failed == nil, all
}

func (tm *team) goenv(name string) string {
	return strings.TrimSpace(tm.sh("go env " + name))
}

// has says whether act said something with this command whose text contains all of the words.
func has(all []said, command string, words ...string) bool {
	for _, s := range all {
		text := s.Name + "=" + s.Arg + s.Content + s.Msg
		found := s.Command == command
		for _, w := range words {
			found = found && strings.Contains(text, w)
		}
		if found {
			return true
		}
	}
	return false
}

func TestE2EGitHubUnderAct(t *testing.T) {
	tm := newTeam(t)
	if os.Getenv("BACKSTEP_ACT") == "" {
		t.Fatal("BACKSTEP_ACT does not name act")
	}
	for _, name := range []string{"edge", "edge-sh"} {
		if code, out := docker(t, "", "tag", image(t, name == "edge-sh"), "ghcr.io/backstep/backstep:"+name); code != 0 {
			t.Fatal(out)
		}
	}
	ok, all := tm.act("push", "release.yml")
	if !ok || !has(all, "", "the verdict is pass, rolled back to nothing") || !has(all, "set-output", "version=0.1.0") || !has(all, "summary", "Deployed to production") {
		t.Fatalf("a good release: %v", ok)
	}
	tm.serves("shop ")
	if tags := tm.sh("git ls-remote --tags origin"); !strings.Contains(tags, "refs/tags/v0.1.0") {
		t.Errorf("the tags of origin: %s", tags)
	}

	tm.rewrite(`does    = "work"`, `does    = "fail"`)
	tm.commit("feat: discounts")
	ok, all = tm.act("push", "release.yml")
	// act does not start the jobs after one that failed, whatever their if says: the outputs are looked at themselves.
	if ok || !has(all, "set-output", "rolled-back-to=127.0.0.1") || !has(all, "error", "verdict fail on 0.2.0") ||
		!has(all, "summary", "serves again", "Runbook") {
		t.Fatalf("a bad release: %v", ok)
	}
	tm.serves("shop ")

	tm.rewrite(`does    = "fail"`, `does    = "work"`, "shop %s", "mended shop %s")
	tm.commit("fix: discounts")
	if ok, all = tm.act("push", "release.yml"); ok || !has(all, "error", "the environment is frozen") {
		t.Fatal("the environment was not frozen")
	}
	if ok, _ = tm.act("workflow_dispatch", "rollback.yml", "environment=production", "do=unfreeze", "reason=mended", "to=", "dry-run=false"); !ok {
		t.Fatal("unfreeze failed")
	}
	tm.commit("fix: discounts again")
	if ok, _ = tm.act("push", "release.yml"); !ok {
		t.Fatal("the mended release failed")
	}
	tm.serves("mended shop")

	if ok, all = tm.act("workflow_dispatch", "rollback.yml", "environment=production", "do=rollback", "reason=checkout is slow", "to=", "dry-run=true"); !ok ||
		!has(all, "", "shift 100 % of the traffic to 0.1.0") {
		t.Fatal("the dry run failed")
	}
	tm.serves("mended shop")
	if ok, all = tm.act("workflow_dispatch", "rollback.yml", "environment=production", "do=rollback", "reason=checkout is slow", "to=", "dry-run=false"); !ok ||
		!has(all, "summary", "Rolled back production", "checkout is slow") {
		t.Fatal("the manual rollback failed")
	}
	if got, _ := asked("http://" + tm.balancer.Address); strings.Contains(got, "mended") {
		t.Errorf("after the manual rollback customers get %q", got)
	}
}
