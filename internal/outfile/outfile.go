// Package outfile writes the files that a step leaves behind in a folder of somebody else: in a checkout whose files strangers have
// committed, as root in a container of a runner that is not.
package outfile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// sizeLimit bounds what Read returns, in bytes.
const sizeLimit = 64 << 20

// mode is that of new files.
const mode = 0o644

// place opens the folder that path is in, and returns the name in it. A path below the working folder cannot leave it, whatever
// links are on the way.
func place(path string) (dir *os.Root, name string, err error) {
	if filepath.IsLocal(path) {
		dir, err = os.OpenRoot(".")
		return dir, path, err
	}
	dir, err = os.OpenRoot(filepath.Dir(path))
	return dir, filepath.Base(path), err
}

// Write makes a new file of data at path, whole or not at all, and gives it to the owner of its folder. What was there is
// replaced: a link too when it is below the working folder; elsewhere it is an error, since somebody may have meant what it
// leads to. Devices and pipes are written to.
func Write(path string, data []byte) error {
	dir, name, err := place(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	info, err := dir.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case info.Mode()&(fs.ModeDevice|fs.ModeNamedPipe) != 0:
		return into(dir, name, os.O_WRONLY, data)
	case info.IsDir():
		return fmt.Errorf("write %s: it is a folder", path)
	case !info.Mode().IsRegular() && !filepath.IsLocal(path):
		return fmt.Errorf("write %s: it is a link, and not followed", path)
	}
	fresh := filepath.Join(filepath.Dir(name), ".backstep-"+rand.Text())
	if err := into(dir, fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, data); err != nil {
		return err
	}
	giveAway(dir, fresh)
	if err := dir.Rename(fresh, name); err != nil {
		return errors.Join(err, dir.Remove(fresh))
	}
	return nil
}

func into(dir *os.Root, name string, flags int, data []byte) error {
	f, err := dir.OpenFile(name, flags, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// giveAway makes a file belong to the owner of its folder, who has to be able to remove it. Only root can, and needs to.
func giveAway(dir *os.Root, name string) {
	info, err := dir.Stat(filepath.Dir(name))
	if err != nil || os.Geteuid() != 0 {
		return
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok {
		_ = dir.Lchown(name, int(owner.Uid), int(owner.Gid))
	}
}

// Read is the content of the file at path, which has to be one: what is no file is as if it were not there, and the error wraps
// fs.ErrNotExist.
func Read(path string) ([]byte, error) {
	dir, name, err := place(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	info, err := dir.Lstat(name)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file: %w", path, fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	f, err := dir.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, sizeLimit))
}

// Append is Write of what is there, and data after it.
func Append(path string, data []byte) error {
	old, err := Read(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return Write(path, append(old, data...))
}
