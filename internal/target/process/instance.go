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
	"github.com/backstep/backstep/internal/registry"
)

const (
	stopping  = 5 * time.Second       // from SIGTERM to SIGKILL
	readiness = 10 * time.Millisecond // between two looks whether a release is ready
	busyFor   = 5 * time.Second       // the longest that a fresh program may be busy
	answering = 2 * time.Second       // the longest a look takes
	logLines  = 50                    // kept of each release
	lineLimit = 1 << 10               // bytes kept of a line
)

// instance is one release that runs, or ran.
type instance struct {
	call  stageCall
	image registry.Image
	root  string
	ready string
	log   *slog.Logger

	address string
	output  tail
	cmd     *exec.Cmd
	gone    chan struct{} // closed when the process has ended

	mu     sync.Mutex
	phase  plan.Phase
	reason string
}

// observe tells how the instance is.
func (in *instance) observe() plan.Instance {
	in.mu.Lock()
	defer in.mu.Unlock()
	return plan.Instance{Release: in.call.Release, Phase: in.phase, Address: in.address, Reason: in.reason, Log: in.output.lines()}
}

// start runs the entrypoint. That it cannot be run is a failed instance, not an error: the image is what it is.
func (in *instance) start() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // a free port, given to the release
	if err != nil {
		return err
	}
	in.address = listener.Addr().String()
	listener.Close()
	_, port, err := net.SplitHostPort(in.address)
	if err != nil {
		return err
	}
	program := filepath.Join(in.root, filepath.Clean("/"+in.image.Entrypoint[0]))
	env := append(slices.Clone(in.image.Env), "PORT="+port, "ADDR="+in.address,
		"BACKSTEP_RELEASE="+string(in.call.Release.Digest), "BACKSTEP_VERSION="+in.call.Release.Version)
	for key, value := range in.call.Variables {
		env = append(env, key+"="+value)
	}
	in.phase, in.gone = plan.Starting, make(chan struct{})
	for end := time.Now().Add(busyFor); ; time.Sleep(readiness) {
		in.cmd = exec.Command(program, in.image.Entrypoint[1:]...)
		in.cmd.Dir = filepath.Join(in.root, filepath.Clean("/"+in.image.Dir))
		in.cmd.Env = env
		in.cmd.Stdout, in.cmd.Stderr = &in.output, &in.output
		in.cmd.SysProcAttr = child()
		err = in.cmd.Start()
		// A process that was forked while the program was unpacked holds it open until it runs its own.
		if !errors.Is(err, syscall.ETXTBSY) || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		in.phase, in.reason = plan.Failed, fmt.Sprintf("run %s: %v; the process target takes static binaries for this machine only", in.image.Entrypoint[0], err)
		close(in.gone)
		return nil
	}
	go in.wait()
	go in.watch()
	return nil
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

// watch notices when the release is ready.
func (in *instance) watch() {
	client := &http.Client{Timeout: answering, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for !in.answers(client) {
		select {
		case <-in.gone:
			return
		case <-time.After(readiness):
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.phase == plan.Starting {
		in.phase = plan.Ready
	}
}

func (in *instance) answers(client *http.Client) bool {
	if in.ready == "" {
		c, err := net.DialTimeout("tcp", in.address, answering)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	response, err := client.Get("http://" + in.address + in.ready)
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode/100 == 2 || response.StatusCode/100 == 3
}

// end stops the process, kindly for as long as patience, and returns when it is gone.
func (in *instance) end(patience time.Duration) {
	if in.cmd.Process == nil {
		return
	}
	signal := func(s syscall.Signal) {
		// The whole group: what the release has started goes with it.
		if err := syscall.Kill(-in.cmd.Process.Pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			in.log.Warn("a release could not be signalled", "release", in.call.Release.Digest.Short(), "error", err)
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

func (t *tail) lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.kept)
}

// exists says whether there is something at path.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
