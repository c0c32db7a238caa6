package house

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A release names its images by digest and its actions by commit; nothing that can be moved is left.
func TestRelease(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"action.yml", "actions", "templates", ".github/workflows", ".ci"} {
		from := filepath.Join(root, name)
		info, err := os.Stat(from)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, name)
		if !info.IsDir() {
			text, err := os.ReadFile(from)
			if err == nil {
				err = os.WriteFile(to, text, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		} else if err := os.CopyFS(to, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) (string, error) {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b", "GIT_CONFIG_GLOBAL=/dev/null")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, args := range [][]string{{"git", "init", "-q", "-b", "main"}, {"git", "add", "-A"}, {"git", "commit", "-qm", "tree"}} {
		if out, err := run(args...); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	one, two := "sha256:"+strings.Repeat("1", 64), "sha256:"+strings.Repeat("2", 64)
	for _, bad := range [][]string{{"1.2.3", "latest", two}, {"v1.2.3", one, two}, {"1.2.3", one, "sha256:2"}} {
		if out, err := run(append([]string{"sh", ".ci/release.sh"}, bad...)...); err == nil {
			t.Errorf("%v was released: %s", bad, out)
		}
	}
	if out, err := run("sh", ".ci/release.sh", "1.2.3", one, two); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	tags, _ := run("git", "tag")
	if got := strings.Fields(tags); strings.Join(got, " ") != "1.2.3 v1 v1.2 v1.2.3" {
		t.Errorf("tags %q", got)
	}
	images := regexp.MustCompile(`ghcr\.io/backstep/backstep:\S+`)
	want := map[string]bool{"ghcr.io/backstep/backstep:1.2.3@" + one: true, "ghcr.io/backstep/backstep:1.2.3-sh@" + two: true}
	files, _ := run("git", "ls-files", "action.yml", "actions", "templates", ".github/workflows/chain.yml", ".github/workflows/rollback.yml")
	seen := map[string]bool{}
	for _, name := range strings.Fields(files) {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, image := range images.FindAllString(string(text), -1) {
			image = strings.Trim(image, `"'`)
			seen[image] = true
			if !want[image] {
				t.Errorf("%s names %s", name, image)
			}
		}
		if strings.Contains(string(text), "@main") {
			t.Errorf("%s uses a branch", name)
		}
	}
	if len(seen) != 2 {
		t.Errorf("the images are %v", seen)
	}
	commit, _ := run("git", "rev-parse", "v1.2.3^{commit}~1")
	if chain, _ := os.ReadFile(filepath.Join(dir, ".github/workflows/chain.yml")); !strings.Contains(string(chain), "actions/deploy@"+strings.TrimSpace(commit)) {
		t.Error("chain.yml does not use the commit before")
	}
}
