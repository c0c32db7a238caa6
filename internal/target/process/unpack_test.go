package process

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

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
		{"up through links", []tar.Header{{Name: "d", Linkname: ".", Typeflag: tar.TypeSymlink}, {Name: "d/d/d/up", Linkname: "../../..", Typeflag: tar.TypeSymlink}},
			`entry "d/d/d/up": it links to outside of its folder: statat d/d/d/up: path escapes from parent`},
		{"up through a link in its text", []tar.Header{{Name: "d", Linkname: ".", Typeflag: tar.TypeSymlink}, {Name: "up", Linkname: "d/../e", Typeflag: tar.TypeSymlink}},
			`entry "up": it links to outside of its folder: statat up: path escapes from parent`},
		{"a folder that becomes a link", []tar.Header{{Name: "a/b/l", Linkname: "../../x", Typeflag: tar.TypeSymlink}, {Name: "h", Linkname: "a/b/l", Typeflag: tar.TypeLink}},
			`entry "h": it links to outside of its folder: statat h: path escapes from parent`},
		{"through a link", []tar.Header{{Name: "d", Linkname: ".", Typeflag: tar.TypeSymlink}, {Name: "d/up", Linkname: "..", Typeflag: tar.TypeSymlink}, {Name: "d/up/evil", Typeflag: tar.TypeReg}},
			`layer 0123456789ab: entry "d/up/evil": mkdirat up: statat d/up: path escapes from parent`},
		{"everything gone", []tar.Header{{Name: ".wh..wh..opq", Typeflag: tar.TypeReg}}, `layer 0123456789ab: entry ".wh..wh..opq": RemoveAll .: invalid argument`},
		{"device", []tar.Header{{Name: "null", Typeflag: tar.TypeChar}}, `layer 0123456789ab: entry "null": type '3' is neither a file, a folder nor a link`},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "images", "x")
			err := unpack(t.Context(), root, []registry.Layer{layer(t, c.headers...)}, imageBounds())
			if err == nil || err.Error() != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(root), "*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// counted is a layer of this many bytes, of which nothing is a file's.
func counted(size int64) registry.Layer {
	return registry.Layer{Digest: "sha256:0123456789abcdef", Open: func() (io.ReadCloser, error) {
		return io.NopCloser(io.LimitReader(zeros{}, size)), nil
	}}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// A layer that is small on its way can be very large: it is read no further than to the bounds of the image.
func TestBounds(t *testing.T) {
	most := bounds{entries: 3, bytes: 1 << 20, time: time.Minute}
	small := layer(t, tar.Header{Name: "a", Typeflag: tar.TypeReg})
	many := layer(t, tar.Header{Name: "a", Typeflag: tar.TypeReg}, tar.Header{Name: "b", Typeflag: tar.TypeReg}, tar.Header{Name: "c", Typeflag: tar.TypeReg}, tar.Header{Name: "d", Typeflag: tar.TypeReg})
	for _, c := range []struct {
		name   string
		layers []registry.Layer
		most   bounds
		want   string
	}{
		{"within them", []registry.Layer{small, small, counted(1 << 19)}, most, ""},
		{"padding", []registry.Layer{counted(1 << 40)}, most, "layer 0123456789ab: the image has more than 1048576 bytes"},
		{"padding of several", []registry.Layer{counted(1 << 19), counted(1 << 19), counted(1 << 19)}, most, "layer 0123456789ab: the image has more than 1048576 bytes"},
		{"entries", []registry.Layer{many}, most, `layer 0123456789ab: entry "d": the image has more than 3 entries`},
		{"time", []registry.Layer{small}, bounds{entries: 3, bytes: 1 << 20, time: -1}, "layer 0123456789ab: it takes longer than -1ns"},
	} {
		root := filepath.Join(t.TempDir(), "images", "x")
		said := ""
		if err := unpack(t.Context(), root, c.layers, c.most); err != nil {
			said = err.Error()
		}
		if said != c.want || exists(root) != (c.want == "") {
			t.Errorf("%s: got %q, want %q", c.name, said, c.want)
		}
	}
}

func TestLayersAndWhiteouts(t *testing.T) {
	root := filepath.Join(t.TempDir(), "images", "x")
	err := unpack(t.Context(), root, []registry.Layer{
		layer(t, tar.Header{Name: "a/one", Typeflag: tar.TypeReg, Mode: 0o755}, tar.Header{Name: "a/two", Typeflag: tar.TypeReg, Mode: 0o644}),
		layer(t, tar.Header{Name: "a/.wh.two", Typeflag: tar.TypeReg}, tar.Header{Name: "b", Linkname: "a/one", Typeflag: tar.TypeSymlink},
			tar.Header{Name: "nowhere", Linkname: "a/none", Typeflag: tar.TypeSymlink}, tar.Header{Name: "here", Linkname: ".", Typeflag: tar.TypeSymlink}),
	}, imageBounds())
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
