package process

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/backstep/backstep/internal/registry"
)

func layer(t *testing.T, headers ...tar.Header) registry.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len("text"))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(w, "text"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return registry.Layer{Digest: "sha256:0123456789abcdef", Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b.Bytes())), nil
	}}
}

func TestHostileArchives(t *testing.T) {
	for _, c := range []struct {
		name    string
		headers []tar.Header
		want    string
	}{
		{"parent", []tar.Header{{Name: "../evil", Typeflag: tar.TypeReg}}, `layer 0123456789ab: entry "../evil": it leaves its folder`},
		{"absolute link", []tar.Header{{Name: "l", Linkname: "/etc", Typeflag: tar.TypeSymlink}}, `layer 0123456789ab: entry "l": it links to "/etc", outside of its folder`},
		{"link up", []tar.Header{{Name: "a/l", Linkname: "../../etc", Typeflag: tar.TypeSymlink}}, `layer 0123456789ab: entry "a/l": it links to "../../etc", outside of its folder`},
		{"link up through links", []tar.Header{{Name: "d", Linkname: ".", Typeflag: tar.TypeSymlink}, {Name: "d/d/d/up", Linkname: "../../..", Typeflag: tar.TypeSymlink}},
			`entry "up": it leads out of its folder: statat up: path escapes from parent`},
		{"device", []tar.Header{{Name: "null", Typeflag: tar.TypeChar}}, `layer 0123456789ab: entry "null": type '3' is neither a file, a folder nor a link`},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "images", "x")
			err := unpack(root, []registry.Layer{layer(t, c.headers...)})
			if err == nil || err.Error() != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(root), "*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestLayersAndWhiteouts(t *testing.T) {
	root := filepath.Join(t.TempDir(), "images", "x")
	err := unpack(root, []registry.Layer{
		layer(t, tar.Header{Name: "a/one", Typeflag: tar.TypeReg, Mode: 0o755}, tar.Header{Name: "a/two", Typeflag: tar.TypeReg, Mode: 0o644}),
		layer(t, tar.Header{Name: "a/.wh.two", Typeflag: tar.TypeReg}, tar.Header{Name: "b", Linkname: "a/one", Typeflag: tar.TypeSymlink}),
	})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(root, "b")); err != nil || info.Mode()&0o111 == 0 {
		t.Errorf("b: %v, %v; want a program", info, err)
	}
	if exists(filepath.Join(root, "a/two")) {
		t.Error("a/two survived its whiteout")
	}
}

// What comes after the end of an archive is read to check the digest, within bounds.
func TestALayerWithoutEnd(t *testing.T) {
	small := layer(t, tar.Header{Name: "a", Typeflag: tar.TypeReg})
	read := 0
	endless := registry.Layer{Digest: small.Digest, Open: func() (io.ReadCloser, error) {
		archive, err := small.Open()
		return io.NopCloser(io.MultiReader(archive, zeros{&read})), err
	}}
	err := unpack(filepath.Join(t.TempDir(), "x"), []registry.Layer{endless})
	if want := "layer 0123456789ab: more than 1048576 bytes come after the end of the archive"; err == nil || err.Error() != want || read > 2<<20 {
		t.Errorf("read %d bytes, %v; want %s", read, err, want)
	}
}

// zeros are 1 GiB of them.
type zeros struct{ read *int }

func (z zeros) Read(p []byte) (int, error) {
	if *z.read > 1<<30 {
		return 0, io.EOF
	}
	clear(p)
	*z.read += len(p)
	return len(p), nil
}
