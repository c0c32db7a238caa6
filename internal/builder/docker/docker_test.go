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
	dir := t.TempDir()
	for name, text := range map[string]string{"Dockerfile": "FROM scratch\nARG WHAT\nLABEL what=$WHAT\nCOPY app /app\nENTRYPOINT [\"/app\"]\n", "app": "program"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	client := registry.New()
	digest, err := New(client).Build(t.Context(), builder.Request{Repository: host + "/shop", Tags: []string{"1.0.0", "stable"},
		Context: dir, Dockerfile: "Dockerfile", OS: "linux", Arch: "amd64", Arguments: map[string]string{"WHAT": "a b; c"},
		Labels: map[string]string{"org.opencontainers.image.version": "1.0.0"}})
	if err != nil {
		t.Fatal(err, fault.HintOf(err))
	}
	for _, tag := range []string{"1.0.0", "stable"} {
		r, err := client.Resolve(t.Context(), registry.Reference{Repository: host + "/shop", Tag: tag})
		if err != nil || r.Digest != digest || r.Version != "1.0.0" {
			t.Errorf("tag %s is %+v, %v; want %s in version 1.0.0", tag, r, err, digest)
		}
	}
	if err := client.Complete(t.Context(), release.Release{Repository: host + "/shop", Digest: digest}); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY missing /\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = New(client).Build(t.Context(), builder.Request{Repository: host + "/shop", Context: dir, Dockerfile: "Dockerfile", OS: "linux", Arch: "amd64"})
	if err == nil || fault.CodeOf(err) != fault.Failed || fault.HintOf(err) == "" {
		t.Errorf("a build that fails: %v, hint %q", err, fault.HintOf(err))
	}
}
