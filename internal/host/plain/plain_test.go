package plain

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backstep/backstep/internal/host"
	"github.com/backstep/backstep/internal/input"
)

func open(env map[string]string) (host.Host, *[]string) {
	var said []string
	return Kind().New(host.Environment{Getenv: func(k string) string { return env[k] },
		Stdout: func(line string) { said = append(said, line) }}), &said
}

func TestOutputs(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ file, want string }{
		{"out.json", "{\n  \"notes\": \"a\\nb\",\n  \"version\": \"1.0.0\"\n}\n"},
		{"out.env", "BACKSTEP_VERSION=1.0.0\n"},
	} {
		path := filepath.Join(dir, c.file)
		h, said := open(map[string]string{"BACKSTEP_OUTPUT": path})
		for _, v := range [][2]string{{"version", "1.0.0"}, {"notes", "a\nb"}} {
			if err := h.Output(v[0], v[1]); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != c.want {
			t.Errorf("%s is %q, %v; want %q", c.file, got, err, c.want)
		}
		if want := "version=1.0.0|notes=\"a\\nb\""; strings.Join(*said, "|") != want {
			t.Errorf("said %q, want %q", *said, want)
		}
	}
}

func TestRun(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		want host.Run
	}{
		"Jenkins": {map[string]string{"BUILD_TAG": "jenkins-shop-7", "BUILD_URL": "https://ci/job/7/", "BUILD_USER_ID": "ada", "GIT_COMMIT": "abc",
			"GIT_URL": "https://ada:token@git.example/shop.git", "GIT_BRANCH": "main"},
			host.Run{ID: "jenkins-shop-7", URL: "https://ci/job/7/", Actor: "ada", Commit: "abc", Repository: "https://git.example/shop.git", Ref: "main"}},
		"Jenkins with an address that is none": {map[string]string{"BUILD_TAG": "x", "GIT_URL": "https://ada:to%zzken@git.example/shop.git"},
			host.Run{ID: "x", Repository: "https://git.example/shop.git"}},
		"Woodpecker": {map[string]string{"CI_PIPELINE_NUMBER": "7", "CI_PIPELINE_URL": "https://ci/7", "CI_COMMIT_AUTHOR": "ada", "CI_COMMIT_SHA": "abc"},
			host.Run{ID: "7", URL: "https://ci/7", Actor: "ada", Commit: "abc"}},
		"Drone": {map[string]string{"DRONE": "true", "DRONE_REPO": "acme/shop", "DRONE_BUILD_NUMBER": "7", "DRONE_BUILD_LINK": "https://ci/7",
			"DRONE_COMMIT_AUTHOR": "ada", "DRONE_COMMIT_SHA": "abc", "DRONE_COMMIT_REF": "refs/heads/main"},
			host.Run{ID: "acme/shop-7", URL: "https://ci/7", Actor: "ada", Commit: "abc", Ref: "refs/heads/main"}},
		"Flow": {map[string]string{"PIPELINE_ID": "12", "BUILD_NUMBER": "7", "BUILD_EXECUTOR": "Zhang San", "CI_COMMIT_SHA": "abc",
			"CI_COMMIT_REF_NAME": "master"}, host.Run{ID: "12-7", Actor: "Zhang San", Commit: "abc", Ref: "master"}},
		"CNB": {map[string]string{"CNB": "true", "CNB_BUILD_ID": "cnb-1", "CNB_BUILD_WEB_URL": "https://c/1", "CNB_BUILD_USER": "ada", "CNB_COMMIT": "abc",
			"CNB_BRANCH": "main", "CNB_REPO_URL_HTTPS": "https://cnb.cool/acme/shop"},
			host.Run{ID: "cnb-1", URL: "https://c/1", Actor: "ada", Commit: "abc", Ref: "main", Repository: "https://cnb.cool/acme/shop"}},
		"CODING": {map[string]string{"BUILD_TAG": "jenkins-7", "CODING_BUILD_ID": "7", "CODING_BUILD_WEB_URL": "https://c/7", "CODING_BUILD_USER": "ada", "CODING_COMMIT": "abc",
			"CODING_BRANCH": "main"}, host.Run{ID: "7", URL: "https://c/7", Actor: "ada", Commit: "abc", Ref: "main"}},
		"Gitee Go": {map[string]string{"GITEE_PIPELINE_NAME": "release", "GITEE_PIPELINE_BUILD_NUMBER": "7", "GITEE_PIPELINE_TRIGGER_USER": "ada",
			"GITEE_COMMIT": "abc", "GITEE_BRANCH": "main", "GITEE_REPO": "shop"},
			host.Run{ID: "release-7", Actor: "ada", Commit: "abc", Ref: "main", Repository: "shop"}},
		"one's own": {map[string]string{"BUILD_TAG": "jenkins-shop-7", "BACKSTEP_RUN": "r", "BACKSTEP_RUN_URL": "https://r", "BACKSTEP_ACTOR": "eve"},
			host.Run{ID: "r", URL: "https://r", Actor: "eve"}},
		"shell": {map[string]string{"USER": "ada"}, host.Run{Actor: "ada"}},
	} {
		if h, _ := open(c.env); h.Run() != c.want {
			t.Errorf("%s: %+v, want %+v", name, h.Run(), c.want)
		}
	}
}

// What a step has written is handed on to who asks for it.
func TestHandedOn(t *testing.T) {
	for _, name := range []string{"out.env", "out.json"} {
		env := map[string]string{"BACKSTEP_OUTPUT": filepath.Join(t.TempDir(), name)}
		h, _ := open(env)
		if v, from := h.(host.Keeper).Handed("image"); v != "" || from != "" {
			t.Errorf("%s: image is %q from %q before anything is written", name, v, from)
		}
		if err := h.Output("image", "r/x@sha256:1"); err != nil {
			t.Fatal(err)
		}
		if v, from := h.(host.Keeper).Handed("image"); v != "r/x@sha256:1" || from != env["BACKSTEP_OUTPUT"] {
			t.Errorf("%s: image is %q from %s", name, v, from)
		}
	}
}

// Drone, Woodpecker and CNB join a list with commas and write a map as JSON.
func TestSettings(t *testing.T) {
	var list []string
	var keyed map[string]string
	var text string
	for _, c := range []struct {
		in          input.Input
		value, want string
	}{
		{input.List(&list, "tags", ""), "1.0.0,latest", "1.0.0\nlatest"},
		{input.List(&list, "tags", ""), "a,b\nc", "a,b\nc"},
		{input.Map(&keyed, "labels", ""), `{"b":"x=1","a":2}`, "a=2\nb=x=1"},
		{input.Map(&keyed, "labels", ""), "a=1", "a=1"},
		{input.Map(&keyed, "labels", ""), "{a", "{a"},
		{input.String(&text, "reason", ""), "slow, and wrong", "slow, and wrong"},
	} {
		if got := Kind().Decode(c.in, c.value); got != c.want {
			t.Errorf("%s %q is %q, want %q", c.in.Name, c.value, got, c.want)
		}
	}
}
