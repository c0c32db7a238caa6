// The command image makes a container image of folders, a layer each. The same content, labels and time give the same digest to the byte,
// whatever the clock, the umask, the user and the order of the file system say. It prints the digest.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/backstep/backstep/internal/registry"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// wanted is what the command line says.
type wanted struct {
	reference, archive, arch string
	push                     bool
	created                  time.Time
	labels                   map[string]string
	roots                    []string
}

func parse(args []string) (wanted, error) {
	w := wanted{labels: map[string]string{}}
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.StringVar(&w.reference, "tag", "", "the image, as registry/name:tag")
	flags.StringVar(&w.archive, "archive", "", "a file for docker load to write")
	flags.StringVar(&w.arch, "arch", "amd64", "the architecture, as Go names it")
	flags.BoolVar(&w.push, "push", false, "push it, with the login of docker login")
	created := flags.Int64("created", 0, "the time of everything in it, in seconds since 1970")
	flags.Func("label", "KEY=VALUE, once for each", func(s string) error {
		key, value, ok := strings.Cut(s, "=")
		if !ok {
			return fmt.Errorf("%q is not KEY=VALUE", s)
		}
		w.labels[key] = value
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return w, err
	}
	w.created, w.roots = time.Unix(*created, 0).UTC(), flags.Args()
	if w.reference == "" || len(w.roots) == 0 {
		return w, errors.New("give -tag and at least one folder")
	}
	return w, nil
}

func run(ctx context.Context, args []string, out io.Writer) error {
	w, err := parse(args)
	if err != nil {
		return err
	}
	img, err := build(w)
	if err != nil {
		return err
	}
	if w.archive != "" {
		tag, err := name.NewTag(w.reference)
		if err != nil {
			return err
		}
		if err := tarball.WriteToFile(w.archive, tag, img); err != nil {
			return fmt.Errorf("write %s: %w", w.archive, err)
		}
	}
	if w.push {
		ref, err := registry.ParseReference(w.reference)
		if err != nil {
			return err
		}
		if _, err := registry.New().Push(ctx, ref.Repository, img, ref.Tag); err != nil {
			return err
		}
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, digest)
	return err
}

// build is the image of w.
func build(w wanted) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, root := range w.roots {
		var packed bytes.Buffer
		if err := pack(&packed, root, w.created); err != nil {
			return nil, fmt.Errorf("pack %s: %w", root, err)
		}
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(packed.Bytes())), nil },
			tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestCompression))
		if err != nil {
			return nil, err
		}
		history := v1.History{Created: v1.Time{Time: w.created}, CreatedBy: "ship/image"}
		if img, err = mutate.Append(img, mutate.Addendum{Layer: layer, MediaType: types.OCILayer, History: history}); err != nil {
			return nil, err
		}
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Created = "linux", w.arch, v1.Time{Time: w.created}
	file.Config = v1.Config{
		Env:        []string{"PATH=/usr/local/bin:/usr/bin:/bin"},
		Entrypoint: []string{"/usr/local/bin/backstep"},
		Labels:     w.labels,
	}
	if img, err = mutate.ConfigFile(img, file); err != nil {
		return nil, err
	}
	return mutate.Annotations(img, w.labels).(v1.Image), nil
}

// pack writes what is below root in the order of names, owned by root, of one time. A mode is one of four: a folder, one that everybody
// may write to, a program, another file.
func pack(to io.Writer, root string, created time.Time) error {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer dir.Close()
	archive := tar.NewWriter(to)
	err = fs.WalkDir(dir.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		h := &tar.Header{Name: path, ModTime: created, Format: tar.FormatPAX, Mode: 0o755}
		switch mode := info.Mode(); {
		case mode.IsDir():
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
			if mode&fs.ModeSticky != 0 {
				h.Mode = 0o1777
			}
		case mode&fs.ModeSymlink != 0:
			h.Typeflag, h.Mode = tar.TypeSymlink, 0o777
			if h.Linkname, err = dir.Readlink(path); err != nil {
				return err
			}
		case mode.IsRegular():
			h.Typeflag, h.Size = tar.TypeReg, info.Size()
			if mode&0o111 == 0 {
				h.Mode = 0o644
			}
		default:
			return fmt.Errorf("%s is no file, folder or link", path)
		}
		if err := archive.WriteHeader(h); err != nil || h.Typeflag != tar.TypeReg {
			return err
		}
		content, err := dir.ReadFile(path)
		if err != nil {
			return err
		}
		_, err = archive.Write(content)
		return err
	})
	return errors.Join(err, archive.Close())
}
