package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Ctrl-C at any moment ends the demo with a word, not with a panic, and leaves no file and no process behind.
func TestTheDemoIsInterrupted(t *testing.T) {
	program, err := exec.LookPath("backstep")
	if err != nil {
		t.Fatal(err)
	}
	for i, after := range []time.Duration{20, 100, 200, 350, 500, 700, 1000, 1500, 2000, 3000, 4500, 6500, 9000} {
		after *= time.Millisecond
		whole := i%2 == 0 // a terminal signals the whole group, a CI system often the process alone
		t.Run(after.String()+map[bool]string{true: " group", false: " alone"}[whole], func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("", "bs") // a socket's path has to be short
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			cmd := exec.Command(program, "demo")
			cmd.Env = append(os.Environ(), "TMPDIR="+dir, "BACKSTEP_HOST=plain")
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			var said bytes.Buffer
			cmd.Stderr = &said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(after)
			to := cmd.Process.Pid
			if whole {
				to = -to
			}
			if err := syscall.Kill(to, syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil || strings.Contains(said.String(), "panic") || strings.Contains(said.String(), "goroutine") {
				t.Fatalf("%v\n%s", err, said.String())
			}
			if code := cmd.ProcessState.ExitCode(); code == 1 && !strings.Contains(said.String(), "backstep: error: cancelled: interrupt signal received\n") {
				t.Errorf("it does not say why it ended:\n%s", said.String())
			} else if code != 1 && after >= 500*time.Millisecond { // before, the signal can come before the program has begun
				t.Errorf("exit code %d\n%s", code, said.String())
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 && after >= 500*time.Millisecond {
				t.Errorf("left behind: %v", left)
			}
			for end := time.Now().Add(10 * time.Second); !errors.Is(syscall.Kill(-cmd.Process.Pid, 0), syscall.ESRCH); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(end) {
					_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
					t.Fatal("processes are left behind")
				}
			}
		})
	}
}
