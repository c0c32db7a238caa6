package nginx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/backstep/backstep/internal/child"
)

// errTooLong is the error of a program that was ended since it took too long.
var errTooLong = errors.New("it did not end in time")

const (
	printedLimit  = 64 << 20 // bytes of a configuration that is kept
	complainLimit = 4 << 10  // bytes of what a program complains of
	administrator = "/usr/sbin"
)

// run runs a program, or the usual one when it is none, and ends it and all it has started with the timeout.
func (f *front) run(ctx context.Context, argv []string, usual ...string) (said, complaint string, err error) {
	if len(argv) == 0 {
		argv = usual
	}
	ctx, cancel := context.WithTimeoutCause(ctx, f.timeout, errTooLong)
	defer cancel()
	program, err := exec.LookPath(argv[0])
	if errors.Is(err, exec.ErrNotFound) {
		program, err = exec.LookPath(filepath.Join(administrator, filepath.Base(argv[0]))) // is in the path of root only
	}
	if err != nil {
		return "", "", err
	}
	out, complaints := bounded{limit: printedLimit}, bounded{limit: complainLimit}
	c := exec.CommandContext(ctx, program, argv[1:]...)
	c.Env = child.Environment(os.Environ(), "DOCKER_*", "SSH_AUTH_SOCK", "XDG_RUNTIME_DIR")
	c.Stdout, c.Stderr = &out, &complaints
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = time.Second // a grandchild may have kept the pipes
	if err = c.Run(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		err = fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return out.String(), complaints.String(), err
}

// bounded keeps the first bytes written to it.
type bounded struct {
	bytes.Buffer
	limit int
}

func (b *bounded) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), b.limit-b.Len())])
	return len(p), nil
}
