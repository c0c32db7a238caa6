package outfile

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func text(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func owned(t *testing.T, path string) uint32 {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Uid
}

// A file that was committed as a link, or in a folder that is one, leads nowhere.
func TestWriteFollowsNoLink(t *testing.T) {
	outside := t.TempDir()
	victim := filepath.Join(outside, "victim")
	if err := os.WriteFile(victim, []byte("untouched"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	for name, to := range map[string]string{"link": victim, "folder": outside, "hanging": filepath.Join(outside, "new")} {
		if err := os.Symlink(to, name); err != nil {
			t.Fatal(err)
		}
	}
	for _, write := range []func(string, []byte) error{Write, Append} {
		for _, path := range []string{"link", "hanging"} {
			if err := write(path, []byte("ours")); err != nil {
				t.Errorf("%s: %v", path, err)
			}
			if got := text(t, path); got != "ours" && got != "oursours" {
				t.Errorf("%s is %q", path, got)
			}
		}
		for _, path := range []string{"folder/victim", "folder/new", "folder/../victim"} {
			if err := write(path, []byte("ours")); err == nil {
				t.Errorf("%s was written", path)
			}
		}
	}
	if got := text(t, victim); got != "untouched" {
		t.Errorf("the link's target is %q", got)
	}
	if all, err := os.ReadDir(outside); err != nil || len(all) != 1 {
		t.Errorf("outside there is %v, %v", all, err)
	}
	if _, err := Read("folder/victim"); err == nil {
		t.Error("what is outside was read")
	}
	// Who names a place outside means it, and not where a link there leads.
	link := filepath.Join(outside, "absolute")
	if err := os.Symlink(victim, link); err != nil {
		t.Fatal(err)
	}
	if err := Write(link, []byte("ours")); err == nil || err.Error() != "write "+link+": it is a link, and not followed" {
		t.Errorf("a link elsewhere: %v", err)
	}
	if err := Write(victim, []byte("named")); err != nil || text(t, victim) != "named" {
		t.Errorf("a file elsewhere: %v, %q", err, text(t, victim))
	}
}

// Root in a container leaves nothing behind that the owner of the folder cannot remove.
func TestWriteGivesAway(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	t.Chdir(t.TempDir())
	const somebody = 1001
	if err := os.Mkdir("out", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown("out", somebody, somebody); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"out/x", "y"} {
		if err := Write(path, []byte("ours")); err != nil {
			t.Fatal(err)
		}
	}
	if got := owned(t, "out/x"); got != somebody {
		t.Errorf("it belongs to %d, and its folder to %d", got, somebody)
	}
	if got := owned(t, "y"); got != 0 {
		t.Errorf("in our own folder it belongs to %d", got)
	}
}

// What is no file to be replaced is not destroyed, and nothing is left behind.
func TestWriteToWhatIsNoFile(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("folder", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Write("folder", nil); err == nil || err.Error() != "write folder: it is a folder" {
		t.Errorf("a folder: %v", err)
	}
	if err := Write(os.DevNull, []byte("ours")); err != nil {
		t.Errorf("a device: %v", err)
	}
	if info, err := os.Lstat(os.DevNull); err != nil || info.Mode().IsRegular() {
		t.Errorf("the device is %v, %v", info.Mode(), err)
	}
	if all, err := os.ReadDir("."); err != nil || len(all) != 1 {
		t.Errorf("there is %v, %v", all, err)
	}
}
