package process

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/registry"
)

// bounds are the most that an image may hold: few bytes of a compressed layer can be very many.
type bounds struct {
	entries int
	bytes   int64 // of all layers as they are unpacked, with what is not a file's
	time    time.Duration
}

// imageBounds are wide for the static binaries that this target takes.
func imageBounds() bounds { return bounds{entries: 100_000, bytes: 1 << 30, time: 10 * time.Minute} }

// unpack writes the layers to the folder root, unless it is there already. What would leave the folder is
// refused, on whatever way through links, and so are devices.
func unpack(ctx context.Context, root string, layers []registry.Layer, most bounds) error {
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
	ctx, cancel := context.WithTimeoutCause(ctx, most.time, fault.Inputf("it takes longer than %s", most.time))
	defer cancel()
	u := unpacker{ctx: ctx, dir: dir, most: most}
	for _, l := range layers {
		if err := u.layer(l); err != nil {
			return fmt.Errorf("layer %s: %w", l.Digest.Short(), err)
		}
	}
	if err := u.contained(); err != nil {
		return err
	}
	if err := os.Rename(fresh, root); err != nil && !exists(root) { // somebody else may have been faster
		return err
	}
	return nil
}

type unpacker struct {
	ctx     context.Context
	dir     *os.Root
	most    bounds
	entries int
	bytes   int64    // read so far
	links   []string // symbolic ones, by their names
}

// contained makes sure that no link leads out of the folder. Its text alone does not tell: folders on the way can be links, and
// later entries can make them so. What leads nowhere is let be.
func (u *unpacker) contained() error {
	for _, name := range u.links {
		if _, err := u.dir.Stat(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fault.Inputf("entry %q: it links to outside of its folder: %w", name, err)
		}
	}
	return nil
}

func (u *unpacker) layer(l registry.Layer) error {
	content, err := l.Open()
	if err != nil {
		return err
	}
	defer content.Close()
	source := &source{Reader: content, unpacker: u}
	archive := tar.NewReader(source)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			// Read to the end, so that the digest of the whole layer is checked.
			_, err = io.Copy(io.Discard, source)
			return err
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

// source keeps to the bounds, and remembers why reading failed.
type source struct {
	io.Reader
	*unpacker
	err error
}

func (s *source) Read(p []byte) (int, error) {
	if s.err = context.Cause(s.ctx); s.err != nil {
		return 0, s.err
	}
	n, err := s.Reader.Read(p)
	if s.bytes += int64(n); s.bytes > s.most.bytes {
		err = fault.Inputf("the image has more than %d bytes", s.most.bytes)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	if u.entries++; u.entries > u.most.entries {
		return fmt.Errorf("the image has more than %d entries", u.most.entries)
	}
	if h.Size > u.most.bytes {
		return fmt.Errorf("the image has more than %d bytes", u.most.bytes)
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
		f, err := u.dir.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, os.FileMode(h.Mode)&0o755|0o400) // #nosec G115 -- nine bits of it are taken
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		return errors.Join(err, f.Close())
	case tar.TypeSymlink:
		to := h.Linkname
		if path.IsAbs(to) || !filepath.IsLocal(path.Join(path.Dir(name), to)) { // #nosec G305 -- this is the check
			return fmt.Errorf("it links to %q, outside of its folder", to)
		}
		u.links = append(u.links, name)
		return u.dir.Symlink(to, name)
	case tar.TypeLink:
		u.links = append(u.links, name) // what it is another name of can be a symbolic link
		return u.dir.Link(strings.TrimPrefix(path.Clean(h.Linkname), "/"), name)
	}
	return fmt.Errorf("type %q is neither a file, a folder nor a link", h.Typeflag)
}
