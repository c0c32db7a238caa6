package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/backstep/backstep/internal/plan"
)

const (
	stopping  = 5 * time.Second       // from SIGTERM to SIGKILL
	readiness = 10 * time.Millisecond // between two looks whether a release is ready
	busyFor   = 5 * time.Second       // the longest that a fresh program may be busy
	answering = 2 * time.Second       // the longest a look takes
	logLines  = 200                   // kept of each release
	lineLimit = 1 << 10               // bytes kept of a line
)

// instance is one release that runs, or ran.
type instance struct {
	started
	image   program
	root    string
	ready   string
	log     *slog.Logger
	address string // its own, chosen by prepare
	output  *tail

	cmd   *exec.Cmd     // once begun is closed
	begun chan struct{} // closed when the process was started, or could not be
	gone  chan struct{} // closed when the process has ended

	mu     sync.Mutex
	phase  plan.Phase
	reason string
}

// prepare gives a new instance an address. It is quick, and starts nothing.
func (in *instance) prepare() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // a free port, given to the release
	if err != nil {
		return err
	}
	in.address = listener.Addr().String()
	in.phase, in.begun, in.gone = plan.Starting, make(chan struct{}), make(chan struct{})
	return listener.Close()
}

// observe tells how the instance is.
func (in *instance) observe() plan.Instance {
	in.mu.Lock()
	defer in.mu.Unlock()
	return plan.Instance{Release: in.Release, Phase: in.phase, Address: in.address, Reason: in.reason, Ended: in.phase == plan.Failed}
}

// alive says whether the instance is one that need not be started again.
func (in *instance) alive() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.phase != plan.Failed
}

// start runs the entrypoint. That it cannot be run is a failed instance, not an error: the image is what it is.
func (in *instance) start() {
	defer close(in.begun)
	_, port, _ := net.SplitHostPort(in.address)
	program := filepath.Join(in.root, filepath.Clean("/"+in.image.Entrypoint[0]))
	env := append(slices.Clone(in.image.Env), "PORT="+port, "ADDR="+in.address,
		"BACKSTEP_RELEASE="+string(in.Release.Digest), "BACKSTEP_VERSION="+in.Release.Version)
	env = append(env, in.Variables...)
	var err error
	for end := time.Now().Add(busyFor); ; time.Sleep(readiness) {
		in.cmd = exec.Command(program, in.image.Entrypoint[1:]...)
		in.cmd.Dir = filepath.Join(in.root, filepath.Clean("/"+in.image.Dir))
		in.cmd.Env = env
		in.cmd.Stdout, in.cmd.Stderr = in.output, in.output
		in.cmd.SysProcAttr = child()
		err = in.cmd.Start()
		// A process that was forked while the program was unpacked holds it open until it runs its own.
		if !errors.Is(err, syscall.ETXTBSY) || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		in.mu.Lock()
		in.phase, in.reason = plan.Failed, fmt.Sprintf("run %s: %v; the process target takes static binaries for this machine only", in.image.Entrypoint[0], err)
		in.mu.Unlock()
		close(in.gone)
		return
	}
	go in.wait()
	go in.watch()
}

// wait notices the end of the process.
func (in *instance) wait() {
	err := in.cmd.Wait()
	in.mu.Lock()
	in.phase = plan.Failed
	in.reason = "it exited with code 0"
	if err != nil {
		in.reason = "it ended: " + err.Error()
	}
	in.mu.Unlock()
	close(in.gone)
}

// watch notices when the release is ready, and keeps what it was told last until then.
func (in *instance) watch() {
	client := &http.Client{Timeout: answering, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for {
		err := in.answers(client)
		in.mu.Lock()
		if in.phase == plan.Starting && err == nil {
			in.phase, in.reason = plan.Ready, ""
		} else if in.phase == plan.Starting {
			in.reason = err.Error()
		}
		in.mu.Unlock()
		if err == nil {
			return
		}
		select {
		case <-in.gone:
			return
		case <-time.After(readiness):
		}
	}
}

// answers says why the release is not ready, or nil when it is.
func (in *instance) answers(client *http.Client) error {
	if in.ready == "" {
		c, err := net.DialTimeout("tcp", in.address, answering)
		if err != nil {
			return in.told(err)
		}
		return c.Close()
	}
	response, err := client.Get("http://" + in.address + in.ready)
	if err != nil {
		return in.told(err)
	}
	response.Body.Close()
	if response.StatusCode/100 != 2 && response.StatusCode/100 != 3 {
		return fmt.Errorf("%s%s answers %d", in.address, in.ready, response.StatusCode)
	}
	return nil
}

// told is an error of the network in few words.
func (in *instance) told(err error) error {
	var number syscall.Errno
	var timed net.Error
	switch {
	case errors.As(err, &number):
		err = number
	case errors.As(err, &timed) && timed.Timeout():
		err = fmt.Errorf("no answer within %s", answering)
	}
	return fmt.Errorf("%s%s: %w", in.address, in.ready, err)
}

// end stops the process, kindly for as long as patience, and returns when it is gone.
func (in *instance) end(patience time.Duration) {
	<-in.begun
	if in.cmd.Process == nil {
		return
	}
	signal := func(s syscall.Signal) {
		// The whole group: what the release has started goes with it.
		if err := syscall.Kill(-in.cmd.Process.Pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			in.log.Warn("a release could not be signalled", "release", in.Release.Digest.Short(), "error", err)
		}
	}
	if patience > 0 {
		signal(syscall.SIGTERM)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		select {
		case <-in.gone:
		case <-ctx.Done():
		}
	}
	select {
	case <-in.gone:
	default:
		signal(syscall.SIGKILL)
		<-in.gone
	}
}

// tail keeps the last lines that are written to it.
type tail struct {
	mu   sync.Mutex
	kept []string
	open []byte // the line that is not over yet
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	rest := p
	for {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			break
		}
		t.grow(rest[:i])
		t.kept = append(t.kept, strings.ToValidUTF8(string(t.open), "?"))
		if len(t.kept) > logLines {
			t.kept = slices.Delete(t.kept, 0, len(t.kept)-logLines)
		}
		t.open, rest = t.open[:0], rest[i+1:]
	}
	t.grow(rest)
	return len(p), nil
}

func (t *tail) grow(p []byte) { t.open = append(t.open, p[:min(len(p), lineLimit-len(t.open))]...) }

// last is the last n lines; one that is not over yet counts.
func (t *tail) last(n int) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := slices.Clone(t.kept)
	if len(t.open) > 0 {
		lines = append(lines, strings.ToValidUTF8(string(t.open), "?"))
	}
	return lines[max(0, len(lines)-max(0, n)):]
}

// exists says whether there is something at path.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
