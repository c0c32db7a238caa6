package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/backstep/backstep/internal/registry/registrytest"
)

// image is the container image that make e2e has built; with sh it is the one with a shell.
func image(t *testing.T, sh bool) string {
	t.Helper()
	name := os.Getenv("BACKSTEP_TEST_IMAGE")
	if name == "" {
		t.Skip("needs the image: run make e2e")
	}
	if sh {
		name += "-sh"
	}
	return name
}

// docker runs docker with these arguments and tells its exit code and all it said.
func docker(t *testing.T, stdin string, args ...string) (int, string) {
	t.Helper()
	cmd := exec.Command("docker", args...)
	cmd.Stdin = strings.NewReader(stdin)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), said.String()
}

// GitHub's runner starts the container of an action like this, see DockerCommandManager.DockerRun in
// github.com/actions/runner: the workspace belongs to uid 1001, the step is root.
func TestE2EContractOfGitHub(t *testing.T) {
	name := image(t, true)
	top := t.TempDir()
	for _, dir := range []string{"ws", "files", "home", "temp"} {
		if err := os.Mkdir(filepath.Join(top, dir), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"output", "summary"} {
		if err := os.WriteFile(filepath.Join(top, "files", file), nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	ws := filepath.Join(top, "ws")
	bare := filepath.Join(top, "origin.git")
	repository := registrytest.Debian(t) + "/acme/shop"
	script := fmt.Sprintf("cd %s && git init -q -b main && git config user.email a@b && git config user.name ada && echo x >file && git add file && "+
		"git commit -qm 'feat: orders' && git init -q --bare %s && git remote add origin /github/temp/origin.git && git push -q %s main && "+
		"mv %s %s/temp/ && chown -R 1001:121 %s %s/files %s/home", ws, bare, bare, bare, top, ws, top, top)
	if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	run := func(env ...string) (int, string) {
		args := []string{"run", "--workdir", "/github/workspace", "--rm", "--network", "host", "-e", "HOME=/github/home", "-e", "GITHUB_ACTIONS=true", "-e", "CI=true",
			"-e", "GITHUB_OUTPUT=/github/file_commands/output", "-e", "GITHUB_STEP_SUMMARY=/github/file_commands/summary",
			"-e", "GITHUB_ACTOR=ada", "-e", "GITHUB_WORKSPACE=/github/workspace",
			"-v", "/var/run/docker.sock:/var/run/docker.sock", "-v", top + "/temp:/github/temp", "-v", top + "/home:/github/home",
			"-v", top + "/files:/github/file_commands", "-v", ws + ":/github/workspace"}
		for _, e := range env[1:] {
			args = append(args, "-e", e)
		}
		return docker(t, "", append(args, name, env[0])...)
	}
	if code, said := run("build-image", "INPUT_REPOSITORY="+repository, "INPUT_FILES=file:/file", "INPUT_ENTRYPOINT=/file", "INPUT_BUILDER=layers"); code != 0 {
		t.Fatalf("build-image: %d\n%s", code, said)
	}
	output, _ := os.ReadFile(filepath.Join(top, "files", "output"))
	if !strings.Contains(string(output), "digest<<") {
		t.Fatalf("no digest among the outputs:\n%s", output)
	}
	code, said := run("semver-tag", "INPUT_GIT-TAG=true", "INPUT_IMAGE=")
	if code != 0 {
		t.Fatalf("semver-tag: %d\n%s", code, said)
	}
	if out, err := exec.Command("git", "-c", "safe.directory=*", "-C", filepath.Join(top, "temp", "origin.git"), "tag").Output(); err != nil || strings.TrimSpace(string(out)) != "v0.1.0" {
		t.Errorf("the tags of origin are %q, %v", out, err)
	}
	err := filepath.WalkDir(ws, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Sys().(*syscall.Stat_t).Uid != 1001 {
			t.Errorf("%s belongs to uid %d", path, info.Sys().(*syscall.Stat_t).Uid)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if code, said := run("deploy", "INPUT_ENVIRONMENT=production", "INPUT_IMAGE=x"); code != 2 || !strings.Contains(said, "::error") {
		t.Errorf("an input fault: exit code %d\n%s", code, said)
	}
}

// GitLab's runner starts the image of a job with a search for a shell and gives it the script on its standard
// input, see shells/bash.go in gitlab.com/gitlab-org/gitlab-runner.
func TestE2EContractOfGitLab(t *testing.T) {
	detect := "if [ -x /usr/local/bin/bash ]; then\n\texec /usr/local/bin/bash \nelif [ -x /usr/bin/bash ]; then\n\texec /usr/bin/bash \n" +
		"elif [ -x /bin/bash ]; then\n\texec /bin/bash \nelif [ -x /usr/local/bin/sh ]; then\n\texec /usr/local/bin/sh \n" +
		"elif [ -x /usr/bin/sh ]; then\n\texec /usr/bin/sh \nelif [ -x /bin/sh ]; then\n\texec /bin/sh \n" +
		"elif [ -x /busybox/sh ]; then\n\texec /busybox/sh \nelse\n\techo shell not found\n\texit 1\nfi\n\n"
	script := "set -eo pipefail\nset +o noclobber\necho it ran\nbackstep --version\nexit 7\n"
	for _, entrypoint := range [][]string{nil, {"--entrypoint", ""}} {
		args := append([]string{"run", "--rm", "-i"}, entrypoint...)
		code, said := docker(t, script, append(args, image(t, true), "sh", "-c", detect)...)
		if code != 7 || !strings.Contains(said, "it ran") {
			t.Errorf("with %q: exit code %d\n%s", entrypoint, code, said)
		}
	}
	if code, said := docker(t, script, "run", "--rm", "-i", image(t, false), "sh", "-c", detect); code != 1 || !strings.Contains(said, "use the one whose tag ends in -sh") {
		t.Errorf("the image without a shell: exit code %d\n%s", code, said)
	}
}

// Jenkins keeps the container of a docker agent up with cat, as its own user, and runs each sh step in it, see
// the docker-workflow plugin.
func TestE2EContractOfJenkins(t *testing.T) {
	name := image(t, true)
	ws := t.TempDir()
	if err := os.Chmod(ws, 0o777); err != nil {
		t.Fatal(err)
	}
	code, id := docker(t, "", "run", "-t", "-d", "-u", "4711:4711", "--read-only", "--cap-drop", "ALL", "-w", ws, "-v", ws+":"+ws+":rw,z", "-e", "JENKINS_URL=http://j/",
		"-e", "BUILD_URL=http://j/job/shop/7/", name, "cat")
	if code != 0 {
		t.Fatal(id)
	}
	id = strings.TrimSpace(id)
	defer docker(t, "", "rm", "-f", id)
	if code, said := docker(t, "", "exec", id, "sh", "-c", "backstep --version && backstep help verify >help.txt && id -u"); code != 0 || !strings.Contains(said, "4711") {
		t.Errorf("exit code %d\n%s", code, said)
	}
	if code, said := docker(t, "", "exec", id, "sh", "-c", "backstep status --environment production"); code != 2 || !strings.Contains(said, "there is no backstep.yml") {
		t.Errorf("exit code %d\n%s", code, said)
	}
}

func TestE2EImage(t *testing.T) {
	for _, sh := range []bool{false, true} {
		name := image(t, sh)
		code, said := docker(t, "", "run", "--rm", "--read-only", "--cap-drop", "ALL", "--user", "9:9", "--network", "none", name, "--version")
		if code != 0 || strings.TrimSpace(said) == "" || strings.Contains(said, "(devel)") {
			t.Errorf("%s: exit code %d, %q", name, code, said)
		}
	}
	if code, said := docker(t, "", "run", "--rm", image(t, true), "sh", "-c", "cat /usr/share/backstep/sbom.cdx.json"); code != 0 || !strings.Contains(said, "pkg:golang/github.com/google/go-containerregistry@") {
		t.Errorf("the list of what is in it: exit code %d\n%.300s", code, said)
	}
}
