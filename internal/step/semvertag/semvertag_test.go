package semvertag

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/host"
	"github.com/backstep/backstep/internal/host/plain"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/step"
)

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

// origin is a bare repository and a clone of it to work in, without the tester's own configuration.
func origin(t *testing.T) (url, work string) {
	t.Helper()
	t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	t.Setenv("GIT_CONFIG_SYSTEM", os.DevNull)
	t.Setenv("HOME", t.TempDir())
	dir := t.TempDir()
	bare := filepath.Join(dir, "origin.git")
	git(t, dir, "init", "--quiet", "--bare", bare)
	git(t, bare, "config", "uploadpack.allowFilter", "true")
	url, work = "file://"+bare, filepath.Join(dir, "work")
	git(t, dir, "clone", "--quiet", url, work)
	return url, work
}

// history makes a commit of every word that has a space or a colon in it, and a tag of every other one.
func history(t *testing.T, work string, entries ...string) {
	t.Helper()
	for _, e := range entries {
		if strings.ContainsAny(e, " :") {
			git(t, work, "commit", "--quiet", "--allow-empty", "-m", e)
		} else {
			git(t, work, "tag", e)
		}
	}
	git(t, work, "push", "--quiet", "--tags", "origin", "HEAD")
}

func clone(t *testing.T, url string, args ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "clone")
	git(t, t.TempDir(), append(append([]string{"clone", "--quiet"}, args...), url, dir)...)
	return dir
}

// runStep runs the step as a pipeline would: inputs are name=value.
func runStep(t *testing.T, dir string, inputs ...string) (outputs map[string]string, log string, err error) {
	t.Helper()
	given := map[string]string{"context": dir}
	for _, in := range inputs {
		name, value, _ := strings.Cut(in, "=")
		given[name] = value
	}
	file := filepath.Join(t.TempDir(), "outputs.json")
	getenv := func(name string) string {
		if name == "BACKSTEP_OUTPUT" {
			return file
		}
		return ""
	}
	var logged bytes.Buffer
	rt := &step.Runtime{Host: plain.Kind().New(host.Environment{Getenv: getenv, Stdout: func(string) {}}),
		Log: slog.New(slog.NewTextHandler(&logged, nil)), Getenv: getenv}
	s := Step()
	err = input.Read(s.Inputs, func(in input.Input) (string, string) { return given[in.Name], "--" + in.Name })
	for _, in := range s.Inputs {
		if value, ok := given[in.Name]; ok && value == "" && in.Blank && err == nil {
			err = in.Empty("--" + in.Name)
		}
	}
	if err == nil {
		err = s.Run(t.Context(), rt)
	}
	if data, readErr := os.ReadFile(file); readErr == nil {
		if err := json.Unmarshal(data, &outputs); err != nil {
			t.Fatal(err)
		}
	}
	return outputs, logged.String(), err
}

func outputs(t *testing.T, dir string, inputs ...string) map[string]string {
	t.Helper()
	out, log, err := runStep(t, dir, inputs...)
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	return out
}

func expect(t *testing.T, got map[string]string, want ...string) {
	t.Helper()
	for _, w := range want {
		name, value, _ := strings.Cut(w, "=")
		if text, ok := got[name]; !ok || text != value {
			t.Errorf("output %s: got %q, want %q", name, text, value)
		}
	}
}

func expectFault(t *testing.T, err error, code fault.Code, text string) {
	t.Helper()
	if err == nil || err.Error() != text || fault.CodeOf(err) != code {
		t.Errorf("got  %v (code %d)\nwant %s (code %d)", err, fault.CodeOf(err), text, code)
	}
	for _, e := range fault.Each(err) {
		if fault.HintOf(e) == "" {
			t.Errorf("%v has no hint", e)
		}
	}
}

// image pushes a new image to the repository and returns its name by digest.
func image(t *testing.T, repository string) (name, digest string) {
	t.Helper()
	img, err := random.Image(16, 1)
	if err != nil {
		t.Fatal(err)
	}
	d, err := registry.New().Push(t.Context(), repository, img)
	if err != nil {
		t.Fatal(err)
	}
	return repository + "@" + string(d), string(d)
}

func repository(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(ggcr.New(ggcr.Logger(slog.NewLogLogger(slog.DiscardHandler, 0))))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://") + "/acme/shop"
}

func on(t *testing.T, repository, tag string) string {
	t.Helper()
	d, err := registry.New().Head(t.Context(), repository, tag)
	if err != nil {
		t.Fatal(err)
	}
	return string(d)
}

func TestVersions(t *testing.T) {
	for _, c := range []struct {
		name    string
		history []string
		inputs  []string
		want    []string
	}{
		{"feature", []string{"one: x", "v1.3.9", "feat: y"}, nil,
			[]string{"version=1.4.0", "previous-version=1.3.9", "tag=v1.4.0", "bump=minor", "released=true", "image=", "digest=", "tags="}},
		{"nothing", []string{"one: x", "v1.3.9", "docs: y"}, nil,
			[]string{"version=1.3.9", "tag=v1.3.9", "bump=none", "released=false", "notes="}},
		{"first", []string{"initial commit"}, nil, []string{"version=0.1.0", "previous-version=", "bump=patch", "released=true"}},
		{"first, as told", []string{"initial commit"}, []string{"initial-version=1.0.0"}, []string{"version=1.0.0"}},
		{"first, in a channel", []string{"initial commit"}, []string{"prerelease=rc"}, []string{"version=0.1.0-rc.1"}},
		{"explicit bump", []string{"one: x", "v0.3.9", "docs: y"}, []string{"bump=major"}, []string{"version=1.0.0", "bump=major"}},
		{"break on 0.x", []string{"one: x", "v0.3.9", "feat!: y"}, nil, []string{"version=0.4.0", "bump=minor"}},
		{"bump none", []string{"one: x", "v1.0.0", "feat: y"}, []string{"bump=none"}, []string{"version=1.0.0", "bump=none", "released=false"}},
		{"explicit version", []string{"one: x", "v1.0.0", "docs: y"}, []string{"version=1.7.0-alpha"},
			[]string{"version=1.7.0-alpha", "previous-version=1.0.0", "bump=minor", "released=true"}},
		{"channel opens", []string{"one: x", "v1.2.0", "feat: y"}, []string{"prerelease=rc"}, []string{"version=1.3.0-rc.1"}},
		{"channel goes on", []string{"one: x", "v1.2.0", "feat: y", "v1.3.0-rc.1", "fix: z"}, []string{"prerelease=rc"},
			[]string{"version=1.3.0-rc.2", "previous-version=1.3.0-rc.1", "bump=minor"}},
		{"channel has nothing new", []string{"one: x", "v1.2.0", "feat: y", "v1.3.0-rc.1", "docs: z"}, []string{"prerelease=rc"},
			[]string{"version=1.3.0-rc.1", "released=false"}},
		{"channel before any release", []string{"one: x", "v0.1.0-rc.1", "fix: y"}, []string{"prerelease=rc"}, []string{"version=0.1.0-rc.2"}},
		{"channel ends", []string{"one: x", "v1.2.0", "feat: y", "v1.3.0-rc.1", "docs: z"}, nil, []string{"version=1.3.0", "bump=minor"}},
		{"channel ends on the same commit", []string{"one: x", "v1.2.0", "feat: y", "v1.3.0-rc.1"}, nil, []string{"version=1.3.0"}},
		{"another component", []string{"one: x", "v1.2.0", "api/v7.0.0", "fix: y"}, nil, []string{"version=1.2.1"}},
		{"this component", []string{"one: x", "v1.2.0", "api/v7.0.0", "fix: y"}, []string{"tag-prefix=api/v"}, []string{"version=7.0.1", "tag=api/v7.0.1"}},
		{"junk", []string{"one: x", "v1.2.0", "vnext", "v9", "v9.9", "fix: y"}, nil, []string{"version=1.2.1"}},
		{"tagged commit", []string{"one: x", "v1.2.0", "feat: y", "v1.3.0"}, nil,
			[]string{"version=1.3.0", "previous-version=1.2.0", "bump=none", "released=false"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			url, work := origin(t)
			history(t, work, c.history...)
			for _, args := range [][]string{nil, {"--no-tags"}, {"--depth=1"}} {
				expect(t, outputs(t, clone(t, url, args...), c.inputs...), c.want...)
			}
		})
	}
}

func TestNotesAreOfTheNewCommits(t *testing.T) {
	url, work := origin(t)
	history(t, work, "feat: old", "v1.0.0", "feat: new", "fix: mended")
	notes := outputs(t, clone(t, url, "--depth=1"))["notes"]
	if !strings.HasPrefix(notes, "## 1.1.0\n\n### Features\n\n- new (") || !strings.Contains(notes, "\n### Fixes\n\n- mended (") || strings.Contains(notes, "old") {
		t.Errorf("got\n%s", notes)
	}
}

func TestImageTags(t *testing.T) {
	repo := repository(t)
	url, work := origin(t)
	history(t, work, "one: x", "v1.3.9", "feat: y")
	name, digest := image(t, repo)
	got := outputs(t, clone(t, url, "--depth=1"), "image="+name, "git-tag=true")
	expect(t, got, "version=1.4.0", "released=true", "tags=1.4.0\n1.4\n1\nlatest", "image="+name, "digest="+digest)
	for _, tag := range []string{"1.4.0", "1.4", "1", "latest"} {
		if d := on(t, repo, tag); d != digest {
			t.Errorf("%s is on %s, want %s", tag, d, digest)
		}
	}

	// The same run once more, as after a crash: everything is as it was.
	expect(t, outputs(t, clone(t, url, "--depth=1"), "image="+name, "git-tag=true"),
		"version=1.4.0", "previous-version=1.3.9", "bump=minor", "released=true", "tags=1.4.0\n1.4\n1\nlatest")

	// The same commit built again into another image is nothing new, and moves nothing.
	rebuilt, _ := image(t, repo)
	out, log, err := runStep(t, clone(t, url, "--depth=1"), "image="+rebuilt)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, out, "version=1.4.0", "released=false", "bump=none", "tags=", "image="+rebuilt)
	if why := "1.4.0 is released already, as " + digest[7:19]; !strings.Contains(log, why) {
		t.Errorf("the log does not say %q:\n%s", why, log)
	}
	if d := on(t, repo, "1.4.0"); d != digest {
		t.Errorf("1.4.0 was moved to %s", d)
	}

	// A fix of an old line takes 1.3 only.
	git(t, work, "fetch", "--quiet", "--tags")
	git(t, work, "checkout", "--quiet", "-b", "1.3.x", "v1.3.9")
	history(t, work, "fix: z")
	old, oldDigest := image(t, repo)
	expect(t, outputs(t, clone(t, url, "--depth=1", "--branch=1.3.x"), "image="+old), "version=1.3.10", "tags=1.3.10\n1.3")
	if on(t, repo, "latest") != digest || on(t, repo, "1") != digest || on(t, repo, "1.3") != oldDigest {
		t.Error("the floating tags are not where they belong")
	}

	// A prerelease, and a release that is told not to, take none.
	expect(t, outputs(t, work, "image="+old, "version=3.0.0-rc.1+b7"), "tags=3.0.0-rc.1_b7")
	expect(t, outputs(t, work, "image="+old, "version=3.0.0", "floating-tags=false"), "tags=3.0.0")
}

// Two services of a monorepo in one repository for images: each has its own tags there, and moves only its own.
func TestImageTagsOfTwoServicesInOneRepository(t *testing.T) {
	shared := repository(t)
	url, work := origin(t)
	history(t, work, "one: x", "api/v1.3.9", "web/v1.3.9", "feat: y")
	api, apiDigest := image(t, shared)
	web, webDigest := image(t, shared)
	expect(t, outputs(t, clone(t, url), "image="+api, "tag-prefix=api/v", "git-tag=true"), "version=1.4.0", "tag=api/v1.4.0", "tags=api-1.4.0\napi-1.4\napi-1\napi-latest")
	expect(t, outputs(t, clone(t, url), "image="+web, "tag-prefix=web/v", "git-tag=true"), "version=1.4.0", "tag=web/v1.4.0", "tags=web-1.4.0\nweb-1.4\nweb-1\nweb-latest")
	if on(t, shared, "api-1.4.0") != apiDigest || on(t, shared, "api-latest") != apiDigest || on(t, shared, "web-latest") != webDigest {
		t.Error("a tag of one service is on the image of the other")
	}
	// An old line of one is not held up by what the other has released, nor by what its own has.
	old, _ := image(t, shared)
	expect(t, outputs(t, work, "image="+old, "tag-prefix=api/v", "version=1.2.9"), "tags=api-1.2.9\napi-1.2")
	expect(t, outputs(t, work, "image="+old, "tag-prefix=other/v", "version=0.1.0"), "tags=other-0.1.0\nother-0.1\nother-latest")

	for _, c := range []struct{ repository, prefix, given, want string }{
		{"/api", "api/v", "auto", "1.0.0"}, // a repository of its own
		{"-api", "services/api/v", "auto", "1.0.0"},
		{"/api", "services/api/v", "auto", "1.0.0"},
		{"", "services/api/v", "auto", "services-api-1.0.0"},
		{"", "Services/API_2/", "auto", "services-api_2-1.0.0"},
		{"/other-api", "my-api/v", "auto", "my-api-1.0.0"},
		{"", "@acme/api@", "auto", "acme-api-1.0.0"},
		{"", "v", "auto", "1.0.0"},
		{"", "release-", "auto", "1.0.0"},
		{"", "/v", "auto", "1.0.0"},
		{"", "api/v", "", "1.0.0"},
		{"", "v", "api-", "api-1.0.0"},
		{"/api", "api/v", "front.", "front.1.0.0"},
	} {
		name, _ := image(t, repository(t)+c.repository)
		got := outputs(t, work, "image="+name, "tag-prefix="+c.prefix, "image-tag-prefix="+c.given, "version=1.0.0", "floating-tags=false")
		expect(t, got, "tags="+c.want)
	}
	for _, given := range []string{"bs.", "-x", "a/b", "a b"} {
		if _, _, err := runStep(t, work, "image="+api, "image-tag-prefix="+given, "version=1.0.0"); fault.CodeOf(err) != fault.Input {
			t.Errorf("%q: %v", given, err)
		}
	}
}

func TestNothingNewTagsNothing(t *testing.T) {
	repo := repository(t)
	url, work := origin(t)
	history(t, work, "one: x", "v1.0.0", "docs: y")
	name, digest := image(t, repo)
	out, log, err := runStep(t, clone(t, url), "image="+name, "git-tag=true")
	if err != nil {
		t.Fatal(err)
	}
	expect(t, out, "released=false", "tags=", "image="+name, "digest="+digest)
	if !strings.Contains(log, "none of the 1 commits since 1.0.0 asks for a release") {
		t.Errorf("the log does not say why:\n%s", log)
	}
	if tags, err := registry.New().Tags(t.Context(), repo); err == nil && len(tags) > 0 {
		t.Errorf("the image has the tags %q", tags)
	}
}

func TestVersionOfAnotherImageIsAFault(t *testing.T) {
	repo := repository(t)
	_, work := origin(t)
	history(t, work, "one: x", "v1.0.0", "fix: y")
	first, a := image(t, repo)
	second, b := image(t, repo)
	outputs(t, work, "image="+first)
	_, _, err := runStep(t, work, "image="+second, "git-tag=true")
	expectFault(t, err, fault.Failed, "the tag "+repo+":1.0.1 is on "+a[7:19]+", this image is "+b[7:19]+": a version is never moved")
	if got, want := fault.HintOf(err), "if another service has its images in this repository too: image-tag-prefix, or a repository of its own; else give another version"; got != want {
		t.Errorf("with git-tag: hint %q, want %q", got, want)
	}
	_, _, err = runStep(t, work, "image="+second)
	if got, want := fault.HintOf(err), "set git-tag: true, so that the next version counts from this one, or give another version"; got != want {
		t.Errorf("without: hint %q, want %q", got, want)
	}
	if d := on(t, repo, "1.0.1"); d != a {
		t.Errorf("1.0.1 was moved to %s", d)
	}
	if tags := git(t, work, "ls-remote", "--tags", "origin"); strings.Contains(tags, "v1.0.1") {
		t.Errorf("the commit was tagged:\n%s", tags)
	}
}

func TestGitTagOfAnotherCommitIsAFault(t *testing.T) {
	_, work := origin(t)
	history(t, work, "one: x", "v1.0.0", "feat: y")
	git(t, work, "branch", "side")
	history(t, work, "fix: z", "v1.1.0")
	taken := git(t, work, "rev-parse", "HEAD")
	git(t, work, "checkout", "--quiet", "side")
	here := git(t, work, "rev-parse", "HEAD")
	for _, inputs := range [][]string{nil, {"version=1.1.0"}} {
		_, _, err := runStep(t, work, inputs...)
		expectFault(t, err, fault.Failed, "the git tag v1.1.0 is on "+taken[:12]+", this commit is "+here[:12]+": a tag is never moved")
	}
}

func TestTwoRunsOnTwoCommitsGiveAVersionOnce(t *testing.T) {
	url, work := origin(t)
	history(t, work, "one: x", "v1.0.0")
	var clones []string
	for _, branch := range []string{"a", "b", "c"} {
		git(t, work, "checkout", "--quiet", "-b", branch, "v1.0.0")
		history(t, work, "feat: "+branch)
		clones = append(clones, clone(t, url, "--depth=1", "--branch="+branch))
	}
	errs := make([]error, len(clones))
	var wg sync.WaitGroup
	for i, dir := range clones {
		wg.Go(func() { _, _, errs[i] = runStep(t, dir, "git-tag=true") })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !strings.HasPrefix(err.Error(), "the git tag v1.1.0 is on ") {
			t.Errorf("got %v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d runs took 1.1.0, want one", won)
	}
}

func TestInputFaults(t *testing.T) {
	_, work := origin(t)
	history(t, work, "one: x")
	_, _, err := runStep(t, work, "version=v1.0", "bump=major", "prerelease=rc")
	expectFault(t, err, fault.Input, "version \"v1.0\" is no SemVer: want for example 1.4.2\n"+
		"version and bump exclude each other\nversion and prerelease exclude each other")
	_, _, err = runStep(t, work, "bump=huge", "initial-version=1", "prerelease=-", "fetch=x")
	const want = `--bump: "huge" is not one of auto, major, minor, patch, none
--prerelease: "-": want for example rc
--initial-version: "1": want for example 0.1.0
--fetch: "x" is not one of auto, never`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	repo := repository(t)
	_, _, err = runStep(t, work, "image="+repo+":nope")
	if err == nil || !strings.HasPrefix(err.Error(), "image "+repo+":nope does not exist: ") || fault.CodeOf(err) != fault.Input || fault.HintOf(err) == "" {
		t.Errorf("got %v", err)
	}
}

func TestRepositoriesThatCannotTell(t *testing.T) {
	url, work := origin(t)
	history(t, work, "one: x", "v1.0.0", "feat: y")

	_, _, err := runStep(t, clone(t, url, "--depth=1"), "fetch=never")
	expectFault(t, err, fault.Input, "the clone is shallow: the history since the last release is missing")

	shallow := clone(t, url, "--depth=1")
	git(t, shallow, "remote", "remove", "origin")
	_, _, err = runStep(t, shallow)
	expectFault(t, err, fault.Failed, "list the tags of origin: no remote named origin")

	empty := t.TempDir()
	_, _, err = runStep(t, empty)
	expectFault(t, err, fault.Input, empty+" is in no git repository")
	expect(t, outputs(t, empty, "version=1.2.3"), "version=1.2.3", "released=true")

	git(t, empty, "init", "--quiet")
	_, _, err = runStep(t, empty)
	expectFault(t, err, fault.Input, "the git repository "+empty+" has no commit")

	whole := clone(t, url)
	git(t, whole, "remote", "set-url", "origin", "file:///nowhere/at/all")
	out, log, err := runStep(t, whole)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, out, "version=1.1.0")
	if !strings.Contains(log, "origin cannot be asked; the tags in this clone are used") {
		t.Errorf("the log does not tell:\n%s", log)
	}
	expect(t, outputs(t, whole, "fetch=never"), "version=1.1.0")
}
