package docker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backstep/backstep/internal/builder"
	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/registry/registrytest"
	"github.com/backstep/backstep/internal/release"
)

func TestWhatBelongsIntoTheDockerfile(t *testing.T) {
	_, err := New(registry.New()).Build(t.Context(), builder.Request{Context: t.TempDir(), Dockerfile: "../Dockerfile",
		Base: "r.example/base:1", Entrypoint: []string{"/x"}})
	want := "input base is for builder layers\ninput entrypoint is for builder layers\ndockerfile ../Dockerfile leaves the context "
	if err == nil || err.Error()[:len(want)] != want || fault.CodeOf(err) != fault.Input {
		t.Errorf("got  %v\nwant %s…", err, want)
	}
}

func TestE2EBuild(t *testing.T) {
	host := registrytest.Debian(t)
	if err := Engine(t.Context()); err != nil {
		t.Fatal(err)
	}
	client := registry.New()
	viaAPI, err := newAPI(client)
	if err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]engine{"command": command{client}, "api": viaAPI} {
		t.Run(name, func(t *testing.T) { builds(t, host+"/"+name, docker{client}, e) })
	}
}

func builds(t *testing.T, repository string, b docker, e engine) {
	dir := t.TempDir()
	for name, text := range map[string]string{"Dockerfile": "FROM scratch\nARG WHAT\nLABEL what=$WHAT\nCOPY app /app\nENTRYPOINT [\"/app\"]\n", "app": "program", ".dockerignore": "*\n!app\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	client := b.client
	digest, err := b.by(t.Context(), e, builder.Request{Repository: repository, Tags: []string{"1.0.0", "stable"},
		Context: dir, Dockerfile: "Dockerfile", OS: "linux", Arch: "amd64", Arguments: map[string]string{"WHAT": "a b; c"},
		Labels: map[string]string{"org.opencontainers.image.version": "1.0.0"}})
	if err != nil {
		t.Fatal(err, fault.HintOf(err))
	}
	for _, tag := range []string{"1.0.0", "stable"} {
		r, err := client.Resolve(t.Context(), registry.Reference{Repository: repository, Tag: tag})
		if err != nil || r.Digest != digest || r.Version != "1.0.0" {
			t.Errorf("tag %s is %+v, %v; want %s in version 1.0.0", tag, r, err, digest)
		}
	}
	if err := client.Complete(t.Context(), release.Release{Repository: repository, Digest: digest}); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY missing /\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = b.by(t.Context(), e, builder.Request{Repository: repository, Context: dir, Dockerfile: "Dockerfile", OS: "linux", Arch: "amd64"})
	if err == nil || fault.CodeOf(err) != fault.Failed || fault.HintOf(err) == "" {
		t.Errorf("a build that fails: %v, hint %q", err, fault.HintOf(err))
	}
}

// The docker command has neither our secrets nor the credentials of the checkout, and nobody can read the build's arguments.
func TestDockerCommandSeesNoSecrets(t *testing.T) {
	for _, name := range []string{"INPUT_TOKEN", "BACKSTEP_REGISTRY_PASSWORD", "CI_JOB_TOKEN", "DSN"} {
		t.Setenv(name, "hunter2")
	}
	dir, bin, said := t.TempDir(), t.TempDir(), t.TempDir()
	for name, text := range map[string]string{"Dockerfile": "FROM scratch\nCOPY . /\n", "app": "program", ".git/config": "hunter2", "vendor/x/.git/config": "hunter2", "vendor/x/y": "z"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	program := "#!/bin/sh\nenv >" + said + "/env\necho \"$@\" >" + said + "/args\ncat >" + said + "/context.tar\n" +
		"while [ $# -gt 0 ]; do if [ \"$1\" = --iidfile ]; then echo sha256:1 >\"$2\"; fi; shift; done\n"
	if err := os.WriteFile(filepath.Join(bin, "docker"), []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	build := func() (env, args, context string) {
		t.Helper()
		r := builder.Request{Context: dir, Dockerfile: "Dockerfile", OS: "linux", Arch: "amd64", Arguments: map[string]string{"NPM_TOKEN": "correct-horse"}}
		if id, err := (command{}).build(t.Context(), r); err != nil || id != "sha256:1" {
			t.Fatal(id, err)
		}
		var texts [3]string
		for i, name := range []string{"env", "args", "context.tar"} {
			text, err := os.ReadFile(filepath.Join(said, name))
			if err != nil {
				t.Fatal(err)
			}
			texts[i] = string(text)
		}
		return texts[0], texts[1], texts[2]
	}
	env, args, context := build()
	if strings.Contains(env, "hunter2") || !strings.Contains(env, "\nNPM_TOKEN=correct-horse\n") {
		t.Errorf("docker has the variables\n%s", env)
	}
	if strings.Contains(args, "correct-horse") || !strings.Contains(args, "--build-arg NPM_TOKEN ") {
		t.Errorf("docker is called with %s", args)
	}
	if strings.Contains(context, "hunter2") || !strings.Contains(context, "program") || !strings.Contains(context, "vendor/x/y") {
		t.Errorf("the context is %q", context)
	}
	// Who asks for .git gets it.
	if err := os.WriteFile(filepath.Join(dir, ".dockerignore"), []byte("!.git\napp\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, context := build(); !strings.Contains(context, ".git/config") || strings.Contains(context, "program") {
		t.Errorf("with !.git the context is %q", context)
	}
	// The Dockerfile's own file goes before that of the context.
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile.dockerignore"), []byte("vendor\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, context := build(); strings.Contains(context, ".git/config") || strings.Contains(context, "vendor/x") || !strings.Contains(context, "program") {
		t.Errorf("with Dockerfile.dockerignore the context is %q", context)
	}
	err := check(builder.Request{Context: dir, Dockerfile: "Dockerfile", Arguments: map[string]string{"PATH": "/x", "DOCKER_HOST": "x", "A": "b"}})
	if want := "build argument \"DOCKER_HOST\" would change the docker command itself\nbuild argument \"PATH\" would change the docker command itself"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
