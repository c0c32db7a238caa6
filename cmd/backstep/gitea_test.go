package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/router/routertest"
)

// checkout is the action that Gitea, which has no marketplace, needs for actions/checkout.
const checkout = `name: checkout
description: The commit of the run, with all tags.
runs:
  using: composite
  steps:
    - shell: bash
      env: {TOKEN: "${{ github.token }}"}
      run: |
        git init -q .
        git config http.$GITHUB_SERVER_URL/.extraheader "AUTHORIZATION: basic $(printf 'x-access-token:%s' "$TOKEN" | base64 | tr -d '\n')"
        git remote add origin "$GITHUB_SERVER_URL/$GITHUB_REPOSITORY"
        git fetch -q --tags origin "$GITHUB_SHA"
        git checkout -q "$GITHUB_SHA"
`

const giteaIni = `RUN_USER = root
RUN_MODE = prod
I_AM_BEING_UNSAFE_RUNNING_AS_ROOT = true
WORK_PATH = %[1]s
[server]
HTTP_ADDR = 127.0.0.1
HTTP_PORT = %[2]d
ROOT_URL = http://127.0.0.1:%[2]d/
STATIC_ROOT_PATH = %[3]s
DISABLE_SSH = true
OFFLINE_MODE = true
[database]
DB_TYPE = sqlite3
PATH = %[1]s/gitea.db
[security]
INSTALL_LOCK = true
SECRET_KEY = for-a-test-only
[repository]
ROOT = %[1]s/repositories
DEFAULT_BRANCH = main
ENABLE_PUSH_CREATE_USER = true
ENABLE_PUSH_CREATE_ORG = true
DEFAULT_PUSH_CREATE_PRIVATE = false
[actions]
ENABLED = true
DEFAULT_ACTIONS_URL = self
[log]
LEVEL = warn
`

const giteaRunner = `runner: {file: %[1]s/runner, capacity: 1, fetch_interval: 1s, labels: ["ubuntu-latest:docker://%[2]s"], envs: {DOCKER_API_VERSION: "%[3]s"}}
cache: {enabled: false}
container: {network: host, force_pull: false}
`

// forge is a Gitea with its runner.
type forge struct {
	t          *testing.T
	url, token string
	dir        string
}

func newForge(t *testing.T) *forge {
	t.Helper()
	programs := os.Getenv("BACKSTEP_GITEA")
	if programs == "" {
		t.Skip("Gitea is not built: see .ci/gitea.sh, which make e2e runs")
	}
	dir, at := t.TempDir(), routertest.Port(t)
	f := &forge{t: t, dir: dir, url: fmt.Sprintf("http://127.0.0.1:%d", at)}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ini := write("app.ini", fmt.Sprintf(giteaIni, dir, at, filepath.Join(programs, "static")))
	gitea, runner := filepath.Join(programs, "gitea"), filepath.Join(programs, "gitea-runner")
	f.start(gitea, "web", "-c", ini)
	f.until("Gitea answers", func() bool {
		answer, err := http.Get(f.url + "/api/v1/version")
		if err == nil {
			answer.Body.Close()
		}
		return err == nil && answer.StatusCode == http.StatusOK
	})
	f.run(gitea, "-c", ini, "admin", "user", "create", "--username", "acme", "--password", "for-a-test-0nly", "--email", "a@b.example", "--admin", "--must-change-password=false")
	f.token = lastLine(f.run(gitea, "-c", ini, "admin", "user", "generate-access-token", "--username", "acme", "--token-name", "t", "--scopes", "all", "--raw"))
	for _, org := range []string{"backstep", "actions"} {
		f.call(http.MethodPost, "/orgs", map[string]string{"username": org}, nil)
	}
	config := write("runner.yml", fmt.Sprintf(giteaRunner, dir, runnerImage, os.Getenv("DOCKER_API_VERSION")))
	registration := lastLine(f.run(gitea, "-c", ini, "actions", "generate-runner-token"))
	f.run(runner, "register", "--no-interactive", "--instance", f.url, "--token", registration, "--name", "r", "-c", config)
	f.start(runner, "daemon", "-c", config)
	return f
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

func (f *forge) start(name string, args ...string) {
	f.t.Helper()
	cmd := exec.Command(name, args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &said, &said, time.Second
	cmd.Env = append(os.Environ(), "HOME="+f.dir) // the runner keeps what it has cloned there
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		if f.t.Failed() {
			f.t.Logf("%s said:\n%s", filepath.Base(name), said.String())
		}
	})
}

func (f *forge) run(name string, args ...string) string {
	f.t.Helper()
	var out, said bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		f.t.Fatalf("%s %v: %v\n%s%s", name, args, err, out.String(), said.String())
	}
	return out.String()
}

func (f *forge) until(what string, done func() bool) {
	f.t.Helper()
	for end := time.Now().Add(3 * time.Minute); !done(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatalf("waited too long until %s", what)
		}
	}
}

func (f *forge) call(method, path string, in, out any) {
	f.t.Helper()
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			f.t.Fatal(err)
		}
	}
	request, err := http.NewRequest(method, f.url+"/api/v1"+path, &body)
	if err != nil {
		f.t.Fatal(err)
	}
	request.Header.Set("Authorization", "token "+f.token)
	request.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		f.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode >= 300 {
		f.t.Fatalf("%s %s: %d %s %v", method, path, answer.StatusCode, text, err)
	}
	if out != nil {
		if err := json.Unmarshal(text, out); err != nil {
			f.t.Fatalf("%s: %v", text, err)
		}
	}
}

// address is where a repository is pushed to and cloned from.
func (f *forge) address(repository string) string {
	return strings.Replace(f.url, "http://", "http://acme:"+f.token+"@", 1) + "/" + repository + ".git"
}

// ended waits for the newest run, the count-th of acme/shop, and says whether it succeeded; its logs go to the test's.
func (f *forge) ended(count int) (bool, string) {
	f.t.Helper()
	type run struct {
		ID                 int64
		Status, Conclusion string
	}
	var newest run
	f.until(fmt.Sprintf("run %d has ended", count), func() bool {
		var all struct {
			Runs []run `json:"workflow_runs"`
		}
		f.call(http.MethodGet, "/repos/acme/shop/actions/runs", nil, &all)
		if len(all.Runs) < count {
			return false
		}
		newest = all.Runs[0]
		for _, r := range all.Runs {
			if r.ID > newest.ID {
				newest = r
			}
		}
		return newest.Status == "completed"
	})
	var jobs struct{ Jobs []struct{ ID int64 } }
	f.call(http.MethodGet, fmt.Sprintf("/repos/acme/shop/actions/runs/%d/jobs", newest.ID), nil, &jobs)
	var logs strings.Builder
	for _, j := range jobs.Jobs {
		request, err := http.NewRequest(http.MethodGet, fmt.Sprintf("%s/api/v1/repos/acme/shop/actions/jobs/%d/logs", f.url, j.ID), nil)
		if err != nil {
			f.t.Fatal(err)
		}
		request.Header.Set("Authorization", "token "+f.token)
		if answer, err := http.DefaultClient.Do(request); err == nil {
			_, _ = io.Copy(&logs, answer.Body)
			answer.Body.Close()
		}
	}
	f.t.Logf("run %d: %s\n%s", count, newest.Conclusion, logs.String())
	return newest.Conclusion == "success", logs.String()
}

// A real forge with a real runner: push, a service that serves; a bad commit, taken back; the freeze ended by hand.
func TestE2EGitea(t *testing.T) {
	f := newForge(t)
	tm := newTeam(t)
	pinned := "actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683"
	push := func(dir, repository string) {
		cmd := exec.Command("sh", "-ec", "cd \"$1\" && git init -q -b main && git add -A && git -c user.name=a -c user.email=a@b.example commit -qm start && "+
			"git tag v4 && git push -q \"$2\" main v4", "sh", dir, f.address(repository))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	action := t.TempDir()
	if err := os.WriteFile(filepath.Join(action, "action.yml"), []byte(checkout), 0o644); err != nil {
		t.Fatal(err)
	}
	push(action, "actions/checkout")
	ours := &team{t: t, dir: t.TempDir()}
	for _, name := range []string{"actions", ".github"} {
		if err := os.CopyFS(filepath.Join(ours.dir, name), os.DirFS("../../"+name)); err != nil {
			t.Fatal(err)
		}
	}
	ours.rewrite(pinned, "actions/checkout@v4")
	push(ours.dir, "backstep/backstep")

	tm.rewrite(pinned, "actions/checkout@v4")
	tm.sh("git remote set-url origin " + f.address("acme/shop") + " && rm -rf .gitlab-ci.yml .gitignore .github/workflows/release.yml")
	if err := os.WriteFile(filepath.Join(tm.dir, ".github/workflows/release.yml"), []byte("on: {push: {branches: [main]}}\njobs:\n  release:\n"+
		"    uses: backstep/backstep/.github/workflows/chain.yml@main\n    with: {environment: production, repository: \""+
		strings.TrimSpace(strings.TrimPrefix(tm.sh("grep repository: backstep.yml"), "repository:"))+"\"}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	program := func(does string) {
		if err := built(tm.dir, "1.0.0", does); err != nil {
			t.Fatal(err)
		}
	}
	program("work")
	tm.commit("feat: the first release")
	if ok, logs := f.ended(1); !ok || !strings.Contains(logs, "verdict=pass") {
		t.Fatal("a good release failed")
	}
	tm.serves("shop 1.0.0")
	if tags := tm.sh("git ls-remote --tags origin"); !strings.Contains(tags, "refs/tags/v0.1.0") {
		t.Errorf("the tags of origin: %s", tags)
	}
	program("fail")
	tm.commit("feat: the bad one")
	if ok, logs := f.ended(2); ok || !strings.Contains(logs, "verdict fail on 0.2.0") {
		t.Fatal("a bad release was not taken back")
	}
	tm.serves("shop 1.0.0")
	f.call(http.MethodPost, "/repos/acme/shop/actions/workflows/rollback.yml/dispatches", map[string]any{"ref": "main",
		"inputs": map[string]string{"environment": "production", "do": "unfreeze", "reason": "mended", "to": "", "dry-run": "false"}}, nil)
	if ok, _ := f.ended(3); !ok {
		t.Fatal("unfreeze failed")
	}
}
