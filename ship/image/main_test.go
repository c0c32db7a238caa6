package main

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/registry/registrytest"
)

// tree makes a folder to pack, with modes and times as a checkout has them by chance.
func tree(t *testing.T, umask os.FileMode, when time.Time, names ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"bin", "tmp"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		mode := os.FileMode(0o666)
		if strings.HasPrefix(name, "bin/") {
			mode = 0o777
		}
		path := filepath.Join(root, name)
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode&^umask); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("tool", filepath.Join(root, "bin", "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(root, "tmp"), os.ModeSticky|0o777); err != nil {
		t.Fatal(err)
	}
	return root
}

func digest(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	if err := run(t.Context(), append([]string{"-tag", "r/x:1", "-created", "1700000000", "-label", "a=b"}, args...), &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestTheSameContentIsTheSameDigest(t *testing.T) {
	first := digest(t, tree(t, 0o022, time.Unix(1, 0), "a", "b", "bin/tool"))
	if second := digest(t, tree(t, 0o077, time.Unix(1e9, 0), "bin/tool", "b", "a")); second != first {
		t.Errorf("times, modes and order make another image: %s, %s", first, second)
	}
	if other := digest(t, tree(t, 0o022, time.Unix(1, 0), "a", "bin/tool")); other == first {
		t.Error("another content is the same image")
	}
	if other := digest(t, "-label", "a=c", tree(t, 0o022, time.Unix(1, 0), "a", "b", "bin/tool")); other == first {
		t.Error("another label is the same image")
	}
}

// What is packed comes out again: links, the modes, one time and one owner.
func TestArchive(t *testing.T) {
	file := filepath.Join(t.TempDir(), "image.tar")
	digest(t, "-archive", file, tree(t, 0o077, time.Unix(1, 0), "a", "bin/tool"))
	img, err := tarball.ImageFromPath(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	layers := mutate.Extract(img)
	defer layers.Close()
	var got []string
	for archive := tar.NewReader(layers); ; {
		h, err := archive.Next()
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 1700000000 {
			t.Errorf("%s belongs to %d:%d and is of %s", h.Name, h.Uid, h.Gid, h.ModTime)
		}
		got = append(got, h.FileInfo().Mode().String()+" "+h.Name+" "+h.Linkname)
	}
	want := "-rw-r--r-- a \ndrwxr-xr-x bin \nLrwxrwxrwx bin/link tool\n-rwxr-xr-x bin/tool \ndtrwxrwxrwx tmp "
	if strings.Join(got, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
}

// What is pushed has the digest that is printed.
func TestPush(t *testing.T) {
	repository := registrytest.InProcess(t) + "/acme/backstep"
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-tag", repository + ":1.2.3", "-push", tree(t, 0o022, time.Unix(1, 0), "bin/tool")}, &out); err != nil {
		t.Fatal(err)
	}
	ref, err := registry.ParseReference(repository + ":1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	if r, err := registry.New().Resolve(t.Context(), ref); err != nil || string(r.Digest)+"\n" != out.String() {
		t.Errorf("the registry has %v, %v, want %s", r.Digest, err, out.String())
	}
}
