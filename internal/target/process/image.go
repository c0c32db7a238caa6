package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/release"
)

// errNoImage is wrapped by the error of a release whose image is not on the disk.
var errNoImage = errors.New("the image is not here")

// program is how an image is run.
type program struct {
	Entrypoint []string `json:"entrypoint"`
	Env        []string `json:"env,omitempty"`
	Dir        string   `json:"dir,omitempty"`
}

// root is the folder of an image. How it is run is in a file beside it, which is written last and removed first.
func (s *Supervisor) root(d release.Digest) string {
	return filepath.Join(s.o.Dir, "images", strings.TrimPrefix(string(d), "sha256:"))
}

// unpacked is how to run d when its image is on the disk.
func (s *Supervisor) unpacked(d release.Digest) (program, error) {
	var p program
	data, err := os.ReadFile(s.root(d) + ".json")
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	return p, err
}

// fetch gets the image of a release, unless it is on the disk.
func (s *Supervisor) fetch(ctx context.Context, r release.Release) error {
	if _, err := s.unpacked(r.Digest); err == nil {
		return nil
	}
	image, err := s.o.Registry.Image(ctx, r, runtime.GOOS, runtime.GOARCH)
	if err != nil {
		return err
	}
	if len(image.Entrypoint) == 0 {
		return fault.Inputf("%s has neither an entrypoint nor a command", r)
	}
	root := s.root(r.Digest)
	if err := unpack(ctx, root, image.Layers, imageBounds()); err != nil {
		return fmt.Errorf("unpack %s: %w", r, err)
	}
	return store(root+".json", program{image.Entrypoint, image.Env, image.Dir})
}

// store writes v to a file at once or not at all.
func store(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-") // 0600: variables may be secrets
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// discard removes an image, unless something runs from it, or is to be started from it.
func (s *Supervisor) discard(d release.Digest) error {
	root := s.root(d)
	gone, err := os.MkdirTemp(filepath.Dir(root), ".gone-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(gone)
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.ContainsFunc(s.instances, func(in *instance) bool { return in.Release.Digest == d }) ||
		slices.ContainsFunc(slices.Concat(s.owed, s.parked), func(one started) bool { return one.Release.Digest == d }) {
		return nil
	}
	for _, path := range []string{root + ".json", root} {
		if err := os.Rename(path, filepath.Join(gone, filepath.Base(path))); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
