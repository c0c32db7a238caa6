// Package layers is the builder that needs neither a Dockerfile nor a daemon: it puts files on a base image.
// The same input gives the same digest to the byte.
package layers

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"

	"github.com/backstep/backstep/internal/builder"
	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/release"
)

// compression is part of every digest: with another level or library the same input gives other digests.
const compression = 6

// New is the builder; images go through client.
func New(client *registry.Client) builder.Builder { return layers{client} }

type layers struct{ client *registry.Client }

// Build makes one layer of the files, streams it through a temporary file, and pushes the image.
func (b layers) Build(ctx context.Context, r builder.Request) (release.Digest, error) {
	img, err := b.base(ctx, r)
	if err != nil {
		return "", err
	}
	if len(r.Files) > 0 {
		format, err := img.MediaType()
		if err != nil {
			return "", fmt.Errorf("read the base: %w", err)
		}
		l, err := newLayer(ctx, r)
		if err != nil {
			return "", err
		}
		defer l.remove()
		l.format = types.OCILayer
		if format == types.DockerManifestSchema2 {
			l.format = types.DockerLayer
		}
		img, err = mutate.Append(img, mutate.Addendum{Layer: l, MediaType: l.format,
			History: v1.History{Created: v1.Time{Time: r.Created}, CreatedBy: "backstep build-image"}})
		if err != nil {
			return "", fmt.Errorf("add the files: %w", err)
		}
	}
	if img, err = configured(img, r); err != nil {
		return "", err
	}
	return b.client.Push(ctx, r.Repository, img, r.Tags...)
}

// base is the image to build on, which has to be for the platform that is wanted.
func (b layers) base(ctx context.Context, r builder.Request) (v1.Image, error) {
	if r.Base == "" {
		if len(r.Files) == 0 {
			return nil, fault.Inputf("there are neither files nor a base: the image would be empty").WithHint("give --files FROM:TO")
		}
		img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
		return mutate.ConfigMediaType(img, types.OCIConfigJSON), nil
	}
	ref, err := registry.ParseReference(r.Base)
	if err != nil {
		return nil, err
	}
	img, err := b.client.Base(ctx, ref, r.OS, r.Arch)
	if errors.Is(err, registry.ErrNotFound) {
		return nil, fault.Inputf("base image %s does not exist", r.Base)
	}
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read the configuration of %s: %w", r.Base, err)
	}
	if file.OS != r.OS || file.Architecture != r.Arch {
		return nil, fault.Inputf("base image %s is for %s/%s, not %s/%s", r.Base, file.OS, file.Architecture, r.OS, r.Arch).
			WithHint("choose the platform with --platform, or another base")
	}
	return img, nil
}

// configured is the image with everything of r that is not a file.
func configured(img v1.Image, r builder.Request) (v1.Image, error) {
	file, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read the configuration of the base: %w", err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = r.OS, r.Arch // an empty base has none
	file.Created = v1.Time{Time: r.Created}
	c := &file.Config
	if len(r.Entrypoint) > 0 {
		c.Entrypoint, c.Cmd = r.Entrypoint, nil
	}
	if len(r.Command) > 0 {
		c.Cmd = r.Command
	}
	for _, v := range r.Env {
		key, _, _ := strings.Cut(v, "=")
		c.Env = slices.DeleteFunc(c.Env, func(old string) bool { return strings.HasPrefix(old, key+"=") })
		c.Env = append(c.Env, v)
	}
	if len(c.Entrypoint) == 0 && len(c.Cmd) == 0 {
		return nil, fault.Inputf("the image has neither an entrypoint nor a command").WithHint("give --entrypoint, once for each word")
	}
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	for key, value := range r.Labels {
		c.Labels[key] = value
	}
	if c.ExposedPorts == nil && len(r.Ports) > 0 {
		c.ExposedPorts = map[string]struct{}{}
	}
	for _, p := range r.Ports {
		c.ExposedPorts[p] = struct{}{}
	}
	if r.User != "" {
		c.User = r.User
	}
	if r.Dir != "" {
		c.WorkingDir = r.Dir
	}
	img, err = mutate.ConfigFile(img, file)
	if err != nil {
		return nil, fmt.Errorf("write the configuration: %w", err)
	}
	if format, err := img.MediaType(); err != nil || format != types.OCIManifestSchema1 {
		return img, err // a manifest in Docker's format has no annotations
	}
	return mutate.Annotations(img, r.Labels).(v1.Image), nil
}

// layer is a compressed layer in a temporary file.
type layer struct {
	path         string
	digest, diff v1.Hash
	size         int64
	format       types.MediaType
}

var _ v1.Layer = (*layer)(nil)

func (l *layer) Digest() (v1.Hash, error)            { return l.digest, nil }
func (l *layer) DiffID() (v1.Hash, error)            { return l.diff, nil }
func (l *layer) Compressed() (io.ReadCloser, error)  { return os.Open(l.path) }
func (l *layer) Size() (int64, error)                { return l.size, nil }
func (l *layer) MediaType() (types.MediaType, error) { return l.format, nil }
func (l *layer) remove()                             { os.Remove(l.path) }

// Uncompressed is what the layer was made of.
func (l *layer) Uncompressed() (io.ReadCloser, error) {
	f, err := os.Open(l.path)
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{z, f}, nil
}

// counter counts and hashes what goes through it.
type counter struct {
	hash.Hash
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.Hash.Write(p)
}

// newLayer writes the files of r to a temporary file, hashing both sides of the compression on the way.
func newLayer(ctx context.Context, r builder.Request) (*layer, error) {
	f, err := os.CreateTemp("", "backstep-layer-")
	if err != nil {
		return nil, err
	}
	l := &layer{path: f.Name()}
	compressed, plain := &counter{Hash: sha256.New()}, sha256.New()
	z, err := gzip.NewWriterLevel(io.MultiWriter(f, compressed), compression)
	if err == nil {
		archive := tar.NewWriter(io.MultiWriter(z, plain))
		err = pack(ctx, archive, r)
		err = errors.Join(err, archive.Close(), z.Close())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		l.remove()
		return nil, err
	}
	l.size = compressed.n
	l.digest = v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", compressed.Sum(nil))}
	l.diff = v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", plain.Sum(nil))}
	return l, nil
}

// entry is a file or an empty folder of the archive.
type entry struct {
	from string // inside the context
	info fs.FileInfo
}

// pack writes the files in the order of their names, owned by root, all of one time, with one of two modes.
// Folders are only written when they are empty: the others are made by whoever unpacks, and one that the base
// has stays as it is, be it a link or of another mode.
func pack(ctx context.Context, archive *tar.Writer, r builder.Request) error {
	root, err := os.OpenRoot(r.Context)
	if err != nil {
		return fault.Inputf("context: %w", err)
	}
	defer root.Close()
	entries := map[string]entry{}
	var faults []error
	for _, file := range r.Files {
		if err := collect(root, file, entries); err != nil {
			faults = append(faults, err)
		}
	}
	if len(faults) == 0 && r.Base == "" && len(r.Entrypoint) > 0 {
		program := strings.TrimPrefix(path.Join("/", r.Dir, r.Entrypoint[0]), "/")
		if path.IsAbs(r.Entrypoint[0]) {
			program = strings.TrimPrefix(path.Clean(r.Entrypoint[0]), "/")
		}
		if e, there := entries[program]; !there || e.info.IsDir() {
			faults = append(faults, fault.Inputf("entrypoint %s is not among the files", r.Entrypoint[0]).
				WithHint("the image has %s", strings.Join(some(entries), ", ")))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := write(archive, root, name, entries[name], r.Created); err != nil {
			return fmt.Errorf("add %s: %w", name, err)
		}
	}
	return nil
}

// some is the first names of entries, for a hint.
func some(entries map[string]entry) []string {
	const most = 5
	names := slices.Sorted(maps.Keys(entries))
	if len(names) > most {
		names = append(names[:most], "…")
	}
	for i, name := range names[:min(most, len(names))] {
		names[i] = "/" + name
	}
	return names
}

// collect finds what one file or folder brings. A destination that ends in / is a folder.
func collect(root *os.Root, file builder.File, into map[string]entry) error {
	from := path.Clean(filepath.ToSlash(file.From))
	if !filepath.IsLocal(from) {
		return fault.Inputf("file %q leaves the context", file.From).WithHint("name it from the context folder, without ..")
	}
	info, err := root.Lstat(from)
	if err != nil {
		return fault.Inputf("file %q: %w", file.From, err).WithHint("files are named from the context folder")
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return notPacked(from)
	}
	to := file.To
	if !info.IsDir() && strings.HasSuffix(to, "/") {
		to += path.Base(from)
	}
	to = strings.TrimPrefix(path.Clean("/"+to), "/")
	return fs.WalkDir(root.FS(), from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".git" && name != from {
				return fs.SkipDir // it can hold credentials
			}
			if content, err := fs.ReadDir(root.FS(), name); err != nil || len(content) > 0 {
				return err
			}
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !info.IsDir() && !info.Mode().IsRegular() {
			return notPacked(name)
		}
		inside := strings.TrimPrefix(strings.TrimPrefix(name, from), "/")
		if from == "." {
			inside = strings.TrimPrefix(name, ".")
		}
		place := path.Join(to, inside)
		if place == "" {
			return nil
		}
		if other, twice := into[place]; twice && other.from != name {
			return fault.Inputf("%s and %s are both to be /%s", other.from, name, place)
		}
		into[place] = entry{from: name, info: info}
		return nil
	})
}

func notPacked(name string) error {
	return fault.Inputf("%s is neither a file nor a folder", name).
		WithHint("links and devices are not packed: name what it points to")
}

func write(archive *tar.Writer, root *os.Root, name string, e entry, created time.Time) error {
	h := &tar.Header{Name: name, ModTime: created.Truncate(time.Second), Format: tar.FormatPAX, Mode: 0o755}
	if e.info.IsDir() {
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
		return archive.WriteHeader(h)
	}
	h.Typeflag, h.Size = tar.TypeReg, e.info.Size()
	if e.info.Mode()&0o111 == 0 {
		h.Mode = 0o644
	}
	if err := archive.WriteHeader(h); err != nil {
		return err
	}
	f, err := root.Open(e.from)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(archive, f)
	return err
}
