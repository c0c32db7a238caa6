package process

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/registry"
)

// The most that an image may hold.
const (
	entryLimit   = 100_000
	sizeLimit    = 4 << 30 // bytes, unpacked
	paddingLimit = 1 << 20 // bytes after the end of an archive
)

// unpack writes the layers to the folder root, unless it is there already. What would leave the folder is
// refused, and so are devices.
func unpack(root string, layers []registry.Layer) error {
	if exists(root) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(root), 0o700); err != nil {
		return err
	}
	fresh, err := os.MkdirTemp(filepath.Dir(root), ".unpacking-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(fresh)
	dir, err := os.OpenRoot(fresh)
	if err != nil {
		return err
	}
	defer dir.Close()
	u := unpacker{dir: dir}
	for _, l := range layers {
		if err := u.layer(l); err != nil {
			return fmt.Errorf("layer %s: %w", l.Digest.Short(), err)
		}
	}
	if err := u.inside(); err != nil {
		return err
	}
	if err := os.Rename(fresh, root); err != nil && !exists(root) { // somebody else may have been faster
		return err
	}
	return nil
}

// inside makes sure that no link leads out of the folder, through whatever other links: text alone does not tell that.
func (u *unpacker) inside() error {
	return fs.WalkDir(u.dir.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink == 0 {
			return err
		}
		if _, err := u.dir.Stat(name); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ELOOP) {
			return fault.Inputf("entry %q: it leads out of its folder: %w", name, err)
		}
		return nil
	})
}

type unpacker struct {
	dir     *os.Root
	entries int
	size    int64
}

func (u *unpacker) layer(l registry.Layer) error {
	content, err := l.Open()
	if err != nil {
		return err
	}
	defer content.Close()
	source := &source{Reader: content}
	archive := tar.NewReader(source)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			// Read to the end, so that the digest of the whole layer is checked.
			n, err := io.CopyN(io.Discard, content, paddingLimit+1)
			if n > paddingLimit {
				return fault.Inputf("more than %d bytes come after the end of the archive", paddingLimit)
			}
			if !errors.Is(err, io.EOF) {
				return err
			}
			return nil
		}
		if err != nil {
			return err
		}
		if err := u.entry(h, archive); err != nil {
			if source.err != nil {
				return source.err // the download failed, not what is in it: it may be tried again
			}
			return fault.Inputf("entry %q: %w", h.Name, err)
		}
	}
}

// source remembers why reading failed.
type source struct {
	io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	u.entries++
	u.size += h.Size
	if u.entries > entryLimit || u.size > sizeLimit {
		return fmt.Errorf("the image has more than %d entries or %d bytes", entryLimit, sizeLimit)
	}
	name := strings.TrimPrefix(path.Clean(h.Name), "/")
	if name == "." || name == "" {
		return nil
	}
	if !filepath.IsLocal(name) {
		return errors.New("it leaves its folder")
	}
	if base, gone := strings.CutPrefix(path.Base(name), ".wh."); gone {
		if base == ".wh..opq" {
			return u.dir.RemoveAll(path.Dir(name))
		}
		return u.dir.RemoveAll(path.Join(path.Dir(name), base))
	}
	if h.Typeflag != tar.TypeDir {
		if err := u.dir.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		if err := u.dir.RemoveAll(name); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.dir.MkdirAll(name, 0o755)
	case tar.TypeReg:
		f, err := u.dir.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, os.FileMode(h.Mode)&0o755|0o400)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		return errors.Join(err, f.Close())
	case tar.TypeSymlink:
		to := h.Linkname
		if path.IsAbs(to) || !filepath.IsLocal(path.Join(path.Dir(name), to)) {
			return fmt.Errorf("it links to %q, outside of its folder", to)
		}
		return u.dir.Symlink(to, name)
	case tar.TypeLink:
		return u.dir.Link(strings.TrimPrefix(path.Clean(h.Linkname), "/"), name)
	}
	return fmt.Errorf("type %q is neither a file, a folder nor a link", h.Typeflag)
}
