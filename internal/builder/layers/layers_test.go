package layers

import (
	"archive/tar"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/backstep/backstep/internal/builder"
	"github.com/backstep/backstep/internal/fault"
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

func TestFaults(t *testing.T) {
	host := registrytest.InProcess(t)
	base(t, host+"/base:arm", "arm64", nil)
	dir := folder(t, 0o755, time.Unix(1, 0))
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	app := []string{"/app"}
	for _, c := range []struct {
		name, base string
		files      []builder.File
		entrypoint []string
		want       string
	}{
		{"outside", "", []builder.File{{From: "../x", To: "/x"}}, app, `file "../x" leaves the context`},
		{"link", "", []builder.File{{From: "link", To: "/x"}}, app, "link is neither a file nor a folder"},
		{"nothing", "", nil, app, "there are neither files nor a base: the image would be empty"},
		{"no program", "", []builder.File{{From: "app", To: "/app"}}, []string{"/bin/app"}, "entrypoint /bin/app is not among the files"},
		{"no entrypoint", "", []builder.File{{From: "app", To: "/app"}}, nil, "the image has neither an entrypoint nor a command"},
		{"two for one", "", []builder.File{{From: "app", To: "/x"}, {From: "static/a.css", To: "/x"}}, []string{"/x"}, "app and static/a.css are both to be /x"},
		{"no base", host + "/base:2", nil, app, "base image " + host + "/base:2 does not exist"},
		{"another platform", host + "/base:arm", nil, app, "base image " + host + "/base:arm is for linux/arm64, not linux/amd64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := New(registry.New()).Build(t.Context(), builder.Request{Repository: host + "/x", Context: dir, OS: "linux",
				Arch: "amd64", Base: c.base, Files: c.files, Entrypoint: c.entrypoint})
			if err == nil || err.Error() != c.want || fault.CodeOf(err) != fault.Input {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

// base pushes an image for others to build on.
func base(t *testing.T, ref, arch string, format func(v1.Image) v1.Image) {
	t.Helper()
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: arch,
		RootFS: v1.RootFS{Type: "layers"}, Config: v1.Config{Env: []string{"A=old", "B=kept"}}})
	if err != nil {
		t.Fatal(err)
	}
	if format != nil {
		img = format(img)
	}
	name, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(name, img); err != nil {
		t.Fatal(err)
	}
}

// On a base, only files are added: its own folders keep their modes and stay links. Neither is .git packed.
func TestOnABase(t *testing.T) {
	host := registrytest.InProcess(t)
	base(t, host+"/base:oci", "amd64", func(i v1.Image) v1.Image { return mutate.MediaType(i, types.OCIManifestSchema1) })
	base(t, host+"/base:docker", "amd64", nil)
	dir := folder(t, 0o755, time.Unix(1, 0))
	for _, name := range []string{".git/config", "static/.git/config"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte("token"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "cache"), 0o755); err != nil {
		t.Fatal(err)
	}
	for format, layer := range map[string]types.MediaType{"oci": types.OCILayer, "docker": types.DockerLayer} {
		digest, err := New(registry.New()).Build(t.Context(), builder.Request{Repository: host + "/shop", Context: dir, OS: "linux",
			Arch: "amd64", Base: host + "/base:" + format, Env: []string{"A=new"}, Labels: map[string]string{"l": "1"},
			Files:   []builder.File{{From: ".", To: "/src"}, {From: "app", To: "/bin/"}, {From: "app", To: "/"}},
			Command: []string{"/bin/app"}})
		if err != nil {
			t.Fatal(err)
		}
		ref, err := name.NewDigest(host + "/shop@" + string(digest))
		if err != nil {
			t.Fatal(err)
		}
		img, err := remote.Image(ref)
		if err != nil {
			t.Fatal(err)
		}
		manifest, err := img.Manifest()
		if err != nil || len(manifest.Layers) != 1 || manifest.Layers[0].MediaType != layer || (format == "oci") != (manifest.Annotations["l"] == "1") {
			t.Errorf("%s: manifest %+v, %v", format, manifest, err)
		}
		file, err := img.ConfigFile()
		if err != nil || !slices.Equal(file.Config.Env, []string{"B=kept", "A=new"}) || file.Config.Labels["l"] != "1" {
			t.Errorf("%s: configuration %+v, %v", format, file, err)
		}
		want := []string{"app", "bin/app", "src/app", "src/cache/", "src/static/a.css", "src/static/b.css"}
		if got := content(t, img); !slices.Equal(got, want) {
			t.Errorf("%s: the layer holds %q, want %q", format, got, want)
		}
	}
}

// content is the names in the only layer of an image.
func content(t *testing.T, img v1.Image) (names []string) {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	open, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	for archive := tar.NewReader(open); ; {
		h, err := archive.Next()
		if err == io.EOF {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}
