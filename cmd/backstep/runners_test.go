package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/backstep/backstep/internal/registry/registrytest"
	"github.com/backstep/backstep/internal/router/haproxy"
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
}

func newTeam(t *testing.T) *team {
	t.Helper()
	// The actions and components of main name these images.
	for _, name := range []string{"edge", "edge-sh"} {
		if code, out := docker(t, "", "tag", image(t, name == "edge-sh"), "ghcr.io/backstep/backstep:"+name); code != 0 {
			t.Fatal(out)
		}
	}
	tm := &team{t: t, dir: t.TempDir(), balancer: routertest.HAProxy(t, haproxy.Slots), service: service()}
	registry := registrytest.Debian(t)
	t.Cleanup(func() { remove(tm.service, registry+"/acme/shop") })
	if err := os.CopyFS(tm.dir, os.DirFS("../../examples/shop")); err != nil {
		t.Fatal(err)
	}
	tm.rewrite("service: shop", "service: "+tm.service, "registry.example.com", registry, "127.0.0.1:9999", tm.balancer.Remote)
	tm.sh("git init -q -b main && git config user.email ada@example.com && git config user.name ada && git config http.postBuffer 100000000 && git remote add origin " + served(t))
	tm.commit("feat: orders")
	return tm
}

// served is the address of an empty git repository that can be pushed to, served by git itself. Beside it is
// backstep's own, with the components of this tree.
func served(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	tree, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	make := exec.Command("sh", "-ec", "git init -q --bare acme/shop.git && git -C acme/shop.git config http.receivepack true && git init -q -b main work && "+
		"cp -r \"$1\"/templates work/ && cd work && git add -A && git -c user.name=a -c user.email=a@b commit -qm components && "+
		"git clone -q --bare . ../backstep/backstep.git", "sh", tree)
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

// write writes one file of the repository.
func (tm *team) write(name, text string) {
	tm.t.Helper()
	path := filepath.Join(tm.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tm.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		tm.t.Fatal(err)
	}
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

// act runs one workflow, with inputs or flags of act's own, and tells whether it succeeded and what was said.
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
		if strings.HasPrefix(in, "--") {
			args = append(args, in)
			continue
		}
		args = append(args, "--input", in)
	}
	cmd := exec.Command(os.Getenv("BACKSTEP_ACT"), args...)
	cmd.Dir, cmd.Env = tm.dir, append(os.Environ(), "XDG_CACHE_HOME="+tm.t.TempDir(), "DO_NOT_TRACK=1")
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

	tm.rewrite(`does    = "fail"`, `does    = "work"`, `name    = "shop"`, `name    = "mended shop"`)
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

// What else can start a workflow, and what can be wrong with one: secrets of the application, an alert, a fork's pull request, a
// variable around an action, a misspelt input.
func TestE2EGitHubEvents(t *testing.T) {
	tm := newTeam(t)
	tm.rewrite("    drain: 2s", "    env: {API_TOKEN: {env: API_TOKEN}}\n    drain: 2s")
	tm.commit("feat: a secret")
	// Secrets of the application reach the release, and no log.
	const application = "--secret=APPLICATION=# of production\nAPI_TOKEN=s3cr=t-of-ada\n"
	ok, all := tm.act("push", "release.yml", application)
	if !ok || !has(all, "", "the verdict is pass") {
		t.Fatal("a chain with a secret of the application failed")
	}
	for _, s := range all {
		if strings.Contains(s.Msg+s.Content, "s3cr=t-of-ada") && s.Command != "add-mask" {
			t.Errorf("the secret is in the log: %+v", s)
		}
	}
	if _, out := docker(t, "", "ps", "--format", "{{.Names}}", "--filter", "name="+tm.service); out != "" {
		if _, env := docker(t, "", "inspect", "--format", "{{.Config.Env}}", strings.Fields(out)[0]); !strings.Contains(env, "API_TOKEN=s3cr=t-of-ada") {
			t.Errorf("the release has %s", env)
		}
	}
	if ok, all = tm.act("push", "release.yml"); ok || !has(all, "error", "API_TOKEN") {
		t.Error("deployed without its secret")
	}

	// A variable around the action goes before a default, and a misspelt input is no default either.
	image := tm.image()
	tm.write(".github/workflows/plan.yml", "on: push\njobs:\n  plan:\n    runs-on: ubuntu-latest\n    env: {BACKSTEP_DRY_RUN: 'true', API_TOKEN: x}\n    steps:\n      - uses: actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683\n"+
		"      - {uses: backstep/backstep/actions/deploy@main, with: {environment: production, image: '"+image+"'}}\n")
	before := tm.history()
	if ok, all = tm.act("push", "plan.yml"); !ok || !has(all, "", "of the traffic to 0.1.0") || tm.history() != before {
		t.Errorf("BACKSTEP_DRY_RUN around an action: %v, the ledger went from\n%sto\n%s", ok, before, tm.history())
	}
	tm.write(".github/workflows/plan.yml", "on: push\njobs:\n  plan:\n    runs-on: ubuntu-latest\n    steps:\n      - uses: actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683\n"+
		"      - {uses: backstep/backstep/actions/verify@main, with: {environment: production, onfail: rollback}}\n")
	if ok, all = tm.act("push", "plan.yml"); ok || !has(all, "error", "verify takes no input onfail", "did you mean on-fail?") || tm.history() != before {
		t.Error("a misspelt input was passed over")
	}

	// A fork's pull request has a token that only reads, and no secrets.
	tm.write("event.json", `{"pull_request": {"head": {"ref": "patch", "repo": {"full_name": "eve/shop"}}, "base": {"ref": "main", "repo": {"full_name": "acme/shop"}}}}`)
	if ok, all = tm.act("pull_request", "pull-request.yml", "--eventpath=event.json", "--secret=GITHUB_TOKEN=", "--env=GITHUB_REPOSITORY=acme/shop"); !ok ||
		!has(all, "set-output", "version=0.1.") || tm.history() != before {
		t.Error("the pull request of a fork failed, or changed something")
	}

	// An alert starts the rollback; nothing is left to go back to, and that is what is told.
	tm.write("event.json", `{"action": "rollback", "client_payload": {"environment": "production", "reason": "too many errors", "to": "9.9.9"}}`)
	if ok, all = tm.act("repository_dispatch", "rollback.yml", "--eventpath=event.json", application); ok || !has(all, "error", `"9.9.9" is not one that the ledger could go back to`) {
		t.Error("the alert did not reach the rollback")
	}
}

// image is what the ledger says is live, as registry/name:version.
func (tm *team) image() string {
	return strings.TrimSpace(strings.TrimPrefix(tm.sh("grep repository: backstep.yml"), "repository:")) + ":0.1.0"
}

// history is the ledger's events.
func (tm *team) history() string {
	tm.t.Helper()
	cmd := exec.Command("backstep", "history", "--environment", "production")
	cmd.Dir, cmd.Env = tm.dir, append(os.Environ(), "BACKSTEP_HOST=plain", "API_TOKEN=x")
	out, err := cmd.CombinedOutput()
	if err != nil {
		tm.t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// gitlab runs the jobs of the pipeline, or all that are not manual, and tells whether they succeeded and what was said.
func (tm *team) gitlab(args ...string) (bool, string) {
	tm.t.Helper()
	goroot, cache := tm.goenv("GOROOT"), tm.goenv("GOCACHE")
	all := append([]string{"--pull-policy", "if-not-present", "--helper-image", runnerImage, "--network", "host",
		"--volume", "/var/run/docker.sock:/var/run/docker.sock", "--volume", goroot + ":/usr/local/go:ro", "--volume", cache + ":" + cache,
		"--variable", "GOCACHE=" + cache, "--variable", "DOCKER_API_VERSION=" + os.Getenv("DOCKER_API_VERSION")}, args...)
	cmd := exec.Command(os.Getenv("BACKSTEP_GITLAB_CI_LOCAL"), all...)
	cmd.Dir, cmd.Env = tm.dir, append(os.Environ(), "FORCE_COLOR=0", "GITLAB_CI=false", "GIT_AUTHOR_NAME=ada", "GITLAB_USER_LOGIN=ada")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	tm.t.Log(out.String())
	return err == nil, out.String()
}

func TestE2EGitLabPipeline(t *testing.T) {
	tm := newTeam(t)
	if os.Getenv("BACKSTEP_GITLAB_CI_LOCAL") == "" {
		t.Fatal("BACKSTEP_GITLAB_CI_LOCAL does not name gitlab-ci-local")
	}
	tm.rewrite("golang:1.26", runnerImage)
	tm.commit("chore: the runner")
	tm.sh("git push -q origin HEAD:main; git fetch -q && git remote set-head origin main")
	ok, out := tm.gitlab()
	if !ok || !strings.Contains(out, "the verdict is pass, rolled back to nothing") {
		t.Fatal("a good release failed")
	}
	tm.serves("shop ")
	if tags := tm.sh("git ls-remote --tags origin"); !strings.Contains(tags, "refs/tags/v0.1.0") {
		t.Errorf("the tags of origin: %s", tags)
	}

	tm.rewrite(`does    = "work"`, `does    = "fail"`)
	tm.commit("feat: discounts")
	ok, out = tm.gitlab()
	if ok || !strings.Contains(out, "verdict fail on 0.2.0") || !strings.Contains(out, "the verdict is fail, rolled back to 127.0.0.1") {
		t.Fatal("a bad release was not taken back")
	}
	tm.serves("shop ")

	tm.rewrite(`does    = "fail"`, `does    = "work"`, `name    = "shop"`, `name    = "mended shop"`)
	tm.commit("fix: discounts")
	if ok, out = tm.gitlab(); ok || !strings.Contains(out, "the environment is frozen") {
		t.Fatal("the environment was not frozen")
	}
	if _, out = tm.gitlab("unfreeze"); !strings.Contains(out, "input reason is missing") {
		t.Fatal("unfrozen without a reason")
	}
	if ok, _ = tm.gitlab("unfreeze", "--variable", "BACKSTEP_REASON=mended"); !ok {
		t.Fatal("unfreeze failed")
	}
	tm.commit("fix: discounts again")
	if ok, _ = tm.gitlab(); !ok {
		t.Fatal("the mended release failed")
	}
	tm.serves("mended shop")
	if ok, out = tm.gitlab("rollback", "--variable", "BACKSTEP_REASON=checkout is slow", "--variable", "BACKSTEP_DRY_RUN=true"); !ok ||
		!strings.Contains(out, "of the traffic to 0.1.0") {
		t.Fatal("the dry run failed")
	}
	tm.serves("mended shop")
	if ok, _ = tm.gitlab("rollback", "--variable", "BACKSTEP_REASON=checkout is slow"); !ok {
		t.Fatal("the manual rollback failed")
	}
	if got, _ := asked("http://" + tm.balancer.Address); strings.Contains(got, "mended") {
		t.Errorf("after the manual rollback customers get %q", got)
	}
}

// Two chains of one repository stand side by side: each deploys its own image, whatever the other hands on, and whoever has put
// a report or a dotenv variable of another job there.
func TestE2EGitLabTwoChains(t *testing.T) {
	tm := newTeam(t)
	registry, _, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(tm.sh("grep repository: backstep.yml"), "repository:")), "/")
	pipeline := "stages: [program, build, deploy, verify, rollback]\ninclude:\n"
	for i, name := range []string{"api", "web"} {
		repository := registry + "/acme/" + name
		t.Cleanup(func() { remove(tm.service+"-"+name, repository) })
		pipeline += "  - component: $CI_SERVER_FQDN/backstep/backstep/pipeline@main\n    inputs: {environment: production, repository: " + repository +
			", config: " + name + ".yml, job-prefix: " + name + "-, tag-prefix: " + name + "/v, from: [program]}\n"
		tm.write(name+".yml", "service: "+tm.service+"-"+name+"\nrepository: "+repository+"\nenvironments:\n  production:\n    target: {kind: docker, port: 8080, publish: \"127.0.0.1:"+strconv.Itoa(unused(t, 20000+5000*i))+"\"}\n"+
			"    settle: 0s\n    verify: {bake: 3s, patience: 20s, probes: [{kind: http, path: /, rate: 100}]}\n")
	}
	tm.write(".gitlab-ci.yml", pipeline+"program:\n  stage: program\n  image: "+runnerImage+"\n  script: [./build.sh, 'printf \"BACKSTEP_IMAGE="+registry+"/acme/evil:1\\nBACKSTEP_DIGEST=sha256:evil\\n\" >foreign.env']\n"+
		"  artifacts: {paths: [shop], reports: {dotenv: foreign.env}}\n")
	tm.write("backstep.env", "BACKSTEP_IMAGE="+registry+"/acme/evil:2\n")
	tm.commit("feat: two services")
	tm.sh("git fetch -q && git remote set-head origin main")
	ok, out := tm.gitlab()
	if !ok {
		t.Fatal("the chains failed")
	}
	for _, name := range []string{"api", "web"} {
		if labels := labelsOf(t, tm.service+"-"+name); !strings.Contains(labels, registry+"/acme/"+name+"@sha256:") {
			t.Errorf("%s runs %s", name, labels)
		}
	}
	for line := range strings.Lines(out) {
		if strings.Contains(line, "evil") && !strings.HasPrefix(strings.TrimSpace(line), "program") {
			t.Errorf("what a foreign job has put there came through: %s", line)
		}
	}
}

// unused is a port that nobody listens on, and below those that the system gives to connections.
func unused(t *testing.T, from int) int {
	t.Helper()
	for port := from + os.Getpid()%5000; port < 32000; port++ {
		if l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// labelsOf is the images of the containers of a service.
func labelsOf(t *testing.T, service string) string {
	t.Helper()
	_, out := docker(t, "", "ps", "--format", "{{.Names}} {{.Image}}", "--no-trunc", "--filter", "name="+service)
	return out
}

// Each component is read with GitLab's schema, with only what it requires.
func TestE2EGitLabComponents(t *testing.T) {
	tm := newTeam(t)
	include := func(inputs string) string {
		return "stages: [deploy]\ninclude:\n" + inputs
	}
	component := func(name, inputs string) string {
		return "  - component: $CI_SERVER_FQDN/backstep/backstep/" + name + "@main\n    inputs: {" + inputs + "}\n"
	}
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(tm.dir, ".gitlab-ci.yml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(include(component("build-image", "repository: r.example.com/shop") + component("semver-tag", "") +
		component("deploy", "environment: production") + component("verify", "environment: production, on-fail: rollback") +
		component("rollback", "environment: production, job-name: back")))
	ok, out := tm.gitlab("--list")
	// gitlab-ci-local fetches the components beside one another, and two of them may make the same folder; it keeps those it has.
	for range 5 {
		if !strings.Contains(out, "cannot create directory") {
			break
		}
		ok, out = tm.gitlab("--list")
	}
	if !ok || !strings.Contains(out, "back ") {
		t.Error("the components were refused")
	}
	for _, bad := range []string{component("verify", "environment: production, on-fail: explode"), component("deploy", ""),
		component("pipeline", "environment: Prod!, repository: r.example.com/shop")} {
		write(include(bad))
		if ok, _ := tm.gitlab("--list"); ok {
			t.Errorf("taken, and should not be: %s", bad)
		}
	}
}

// The example of a plain shell, with nothing around it.
func TestE2EShellScript(t *testing.T) {
	tm := newTeam(t)
	repository := strings.TrimSpace(strings.TrimPrefix(tm.sh("grep repository: backstep.yml"), "repository:"))
	script, err := filepath.Abs("../../examples/shell/release.sh")
	if err != nil {
		t.Fatal(err)
	}
	release := func() (int, string) {
		tm.sh("./build.sh")
		cmd := exec.Command("sh", script, "production", repository)
		cmd.Dir, cmd.Env = tm.dir, append(os.Environ(), "BACKSTEP_HOST=plain")
		out, _ := cmd.CombinedOutput()
		return cmd.ProcessState.ExitCode(), string(out)
	}
	if code, out := release(); code != 0 || !strings.Contains(out, "verdict=pass") {
		t.Fatalf("a good release: %d\n%s", code, out)
	}
	tm.rewrite(`does    = "work"`, `does    = "fail"`)
	tm.commit("feat: discounts")
	if code, out := release(); code != 5 || !strings.Contains(out, "verdict fail on 0.2.0") {
		t.Fatalf("a bad release: %d\n%s", code, out)
	}
	tm.serves("shop ")
}

// A new user has a repository with a Dockerfile: init, commit, push, a service that serves; then a bad commit.
func TestE2ENewUser(t *testing.T) {
	tm := newTeam(t)
	repository := strings.TrimSpace(strings.TrimPrefix(tm.sh("grep repository: backstep.yml"), "repository:"))
	tm.sh("rm -rf .github .gitlab-ci.yml .gitignore backstep.yml && git commit -qam 'chore: start'")
	program := func(does string) {
		if err := built(tm.dir, "1.0.0", does); err != nil {
			t.Fatal(err)
		}
	}
	program("work")
	init := exec.Command("backstep", "init", "--ci", "github", "--service", tm.service, "--repository", repository,
		"--haproxy", tm.balancer.Remote, "--backend", tm.balancer.Backend)
	init.Dir, init.Env = tm.dir, append(os.Environ(), "BACKSTEP_HOST=plain")
	if out, err := init.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	tm.rewrite("    verify:\n      bake: 5m", "    try: 0s\n    verify:\n      bake: 3s\n      objective: 5%\n      negligible: 5%", "path: /}", "path: /, rate: 50}") // the test has no minute
	tm.commit("feat: the first release")
	if ok, all := tm.act("push", "release.yml"); !ok || !has(all, "set-output", "verdict=pass") {
		t.Fatal("the first release failed")
	}
	tm.serves("shop 1.0.0")
	program("fail")
	tm.commit("feat: the bad one")
	if ok, all := tm.act("push", "release.yml"); ok || !has(all, "set-output", "rolled-back-to="+repository) {
		t.Fatal("the bad release was not taken back")
	}
	tm.serves("shop 1.0.0")
}
