package layers

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/builder"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/registry/registrytest"
	"github.com/backstep/backstep/internal/release"
)

// folder is a context with the same content each time, but with other times and modes.
func folder(t *testing.T, mode os.FileMode, at time.Time) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"app": "#!program", "static/b.css": "b", "static/a.css": "a"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestSameInputSameDigest(t *testing.T) {
	repository := registrytest.InProcess(t) + "/acme/shop"
	client := registry.New()
	build := func(dir string, created time.Time) release.Digest {
		d, err := New(client).Build(t.Context(), builder.Request{Repository: repository, Tags: []string{"1.0.0"}, Context: dir,
			OS: "linux", Arch: "amd64", Created: created, Labels: map[string]string{"b": "2", "a": "1"},
			Files:      []builder.File{{From: "static", To: "/srv"}, {From: "app", To: "/app"}},
			Entrypoint: []string{"/app"}, Env: []string{"A=1"}, Ports: []string{"80/tcp"}, User: "65532"})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	one := build(folder(t, 0o755, time.Unix(1, 0)), time.Unix(1000, 0))
	two := build(folder(t, 0o711, time.Unix(99999, 0)), time.Unix(1000, 0))
	other := build(folder(t, 0o755, time.Unix(1, 0)), time.Unix(2000, 0))
	if one != two {
		t.Errorf("the same input gave %s and %s", one, two)
	}
	if one == other {
		t.Error("another time gave the same digest: the time is not in the image")
	}
	r := release.Release{Repository: repository, Digest: two}
	if err := client.Complete(t.Context(), r); err != nil {
		t.Error(err)
	}
	img, err := client.Image(t.Context(), r, "linux", "amd64")
	if err != nil || len(img.Layers) != 1 || len(img.Entrypoint) != 1 || img.Entrypoint[0] != "/app" {
		t.Errorf("image %+v, %v", img, err)
	}
}

func TestFilesOutsideAreRefused(t *testing.T) {
	dir := folder(t, 0o644, time.Unix(1, 0))
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "static", "link")); err != nil {
		t.Fatal(err)
	}
	for from, want := range map[string]string{
		"../x":   `file "../x" leaves the context`,
		"static": "static/link is neither a file nor a folder",
	} {
		_, err := New(registry.New()).Build(t.Context(), builder.Request{Repository: "127.0.0.1:1/x", Context: dir, OS: "linux",
			Arch: "amd64", Files: []builder.File{{From: from, To: "/x"}}, Entrypoint: []string{"/x"}})
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", from, err, want)
		}
	}
}
