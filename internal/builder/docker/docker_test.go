package docker

import (
	"os"
	"path/filepath"
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
