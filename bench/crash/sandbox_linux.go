package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

// The stages of a suite on Docker engines, as stageVariable has them: outside it builds the program, first it is process 1 of a sandbox,
// and inside it does its work.
const (
	stageVariable   = "CRASH_STAGE"
	programVariable = "CRASH_PROGRAM"
	parentVariable  = "CRASH_PARENT"
	stageFirst      = "first"
	stageInside     = "inside"
)

// needed are the programs that engines take, and the Debian packages that have them.
var needed = [][2]string{{"dockerd", "docker.io"}, {"containerd", "containerd"}, {"docker-proxy", "docker.io"}, {"haproxy", "haproxy"}, {"ip", "iproute2"}}

// able says what is missing for engines of our own, or nil.
func able() error {
	var faults []error
	if os.Getuid() != 0 {
		faults = append(faults, errors.New("-target docker starts engines of its own, and for that it has to be root"))
	}
	for _, n := range needed {
		if _, err := exec.LookPath(n[0]); err != nil {
			faults = append(faults, fmt.Errorf("-target docker needs %s: install %s", n[0], n[1]))
		}
	}
	return errors.Join(faults...)
}

// sandbox runs the suite where it has processes, mounts and a network of its own: engines, containers, bridges and addresses are
// gone with it, whatever happens, and the machine's own engine sees nothing of them. It returns the exit code.
func sandbox(ctx context.Context) (int, error) {
	if os.Getenv(stageVariable) == stageFirst {
		return first()
	}
	if err := able(); err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", "cr") // short: the names of sockets are limited
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		return 1, err
	}
	program, err := buildProgram(ctx, bin)
	if err != nil {
		return 1, err
	}
	parent := fmt.Sprintf("/backstep-crash-%d", os.Getpid())
	defer removeGroups(parent)
	cmd, err := again(stageFirst, "TMPDIR="+dir, programVariable+"="+program, parentVariable+"="+parent)
	if err != nil {
		return 1, err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("-target docker needs namespaces of its own: %w", err)
	}
	defer context.AfterFunc(ctx, func() { cmd.Process.Signal(syscall.SIGTERM) })()
	_ = cmd.Wait() // it has said what is wrong
	return cmd.ProcessState.ExitCode(), nil
}

// again is this program once more, at another stage.
func again(stage string, more ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(append(os.Environ(), more...), stageVariable+"="+stage)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd, nil
}

// first is process 1 of the sandbox: it makes it a place to work in, and buries the processes that nobody else waits for.
func first() (int, error) {
	for _, m := range []struct {
		what, where, kind string
		flags             uintptr
	}{{"none", "/", "", syscall.MS_REC | syscall.MS_PRIVATE}, {"proc", "/proc", "proc", 0}, {"run", "/run", "tmpfs", 0}} {
		if err := syscall.Mount(m.what, m.where, m.kind, m.flags, ""); err != nil {
			return 1, fmt.Errorf("mount %s: %w", m.where, err)
		}
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return 1, fmt.Errorf("ip link set lo up: %w: %s", err, out)
	}
	cmd, err := again(stageInside)
	if err != nil {
		return 1, err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	go func() {
		for range signals {
			cmd.Process.Signal(syscall.SIGTERM)
		}
	}()
	for {
		var status syscall.WaitStatus
		switch pid, err := syscall.Wait4(-1, &status, 0, nil); {
		case err == syscall.EINTR:
		case err != nil:
			return 1, fmt.Errorf("wait for the suite: %w", err)
		case pid == cmd.Process.Pid && status.Signaled():
			return 1, fmt.Errorf("the suite ended by %s", status.Signal())
		case pid == cmd.Process.Pid:
			return status.ExitStatus(), nil
		}
	}
}

// removeGroups removes the control groups that engines have made below parent, deepest first. The kernel lets nobody remove one that is used.
func removeGroups(parent string) {
	roots, _ := filepath.Glob("/sys/fs/cgroup/*" + parent)
	for _, root := range append(roots, "/sys/fs/cgroup"+parent) {
		var all []string
		_ = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				all = append(all, path)
			}
			return nil
		})
		for i := len(all) - 1; i >= 0; i-- {
			_ = syscall.Rmdir(all[i])
		}
	}
}
