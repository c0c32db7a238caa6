package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// engine is a Docker engine of our own, with a bridge and data of its own.
type engine struct {
	dir, socket string
	args        []string
	version     string // of its API
	http        *http.Client
	cmd         *exec.Cmd
	ended       chan struct{}
}

// engineTime is how long an engine may take to come up: it ends first what the one before it has left.
const engineTime = time.Minute

// newEngine starts the engine numbered n; what it keeps is below dir.
func newEngine(ctx context.Context, dir string, n int, liveRestore bool) (*engine, error) {
	e := &engine{dir: dir, socket: filepath.Join(dir, "docker.sock")}
	bridge := fmt.Sprint("bs", n)
	for _, line := range []string{"link add name " + bridge + " type bridge", fmt.Sprintf("addr add 172.29.%d.1/24 dev %s", n, bridge), "link set " + bridge + " up"} {
		if out, err := exec.CommandContext(ctx, "ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("ip %s: %w: %s", line, err, out)
		}
	}
	settings := filepath.Join(dir, "daemon.json") // the machine's own is not for us
	if err := os.WriteFile(settings, []byte("{}"), 0o600); err != nil {
		return nil, err
	}
	e.args = []string{"--config-file", settings, "--data-root", filepath.Join(dir, "d"), "--exec-root", filepath.Join(dir, "x"),
		"--host", "unix://" + e.socket, "--pidfile", filepath.Join(dir, "pid"), "--bridge", bridge, "--cgroup-parent", os.Getenv(parentVariable),
		"--iptables=false", "--ip6tables=false", "--ip-masq=false", "--shutdown-timeout", "5"} // releases are asked from this machine only
	if liveRestore {
		e.args = append(e.args, "--live-restore")
	}
	e.http = &http.Client{Transport: &http.Transport{DialContext: e.dial, DisableKeepAlives: true}, Timeout: engineTime}
	return e, e.start(ctx)
}

func (e *engine) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", e.socket)
}

// start starts the engine and waits until it answers.
func (e *engine) start(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(e.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("dockerd", e.args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start dockerd: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	e.cmd, e.ended = cmd, ended
	for end := time.Now().Add(engineTime); ; time.Sleep(20 * time.Millisecond) {
		var version struct{ APIVersion string }
		err := e.call(ctx, http.MethodGet, "/version", nil, &version)
		if err == nil {
			e.version = version.APIVersion
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("dockerd ended: %s", e.said())
		default:
		}
		if ctx.Err() != nil || time.Now().After(end) {
			return fmt.Errorf("dockerd does not answer: %w: %s", err, e.said())
		}
	}
}

// end stops the engine, or kills it.
func (e *engine) end(by syscall.Signal) {
	e.cmd.Process.Signal(by)
	select {
	case <-e.ended:
	case <-time.After(engineTime):
		e.cmd.Process.Kill()
		<-e.ended
	}
}

// said is the end of its log.
func (e *engine) said() string {
	text, _ := os.ReadFile(filepath.Join(e.dir, "log"))
	return string(text[max(0, len(text)-2000):])
}

// call asks the engine's API; in and out are JSON, or nil.
func (e *engine) call(ctx context.Context, method, path string, in, out any) error {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://engine"+path, &body)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := e.http.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	switch {
	case err != nil:
		return err
	case answer.StatusCode >= http.StatusBadRequest:
		return fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, bytes.TrimSpace(said))
	case out == nil:
		return nil
	}
	return json.Unmarshal(said, out)
}

// box is a container as the engine describes it.
type box struct {
	ID    string `json:"Id"`
	Name  string
	State struct {
		Status                string
		Running               bool
		Pid                   int
		ExitCode              int
		StartedAt, FinishedAt string
	}
	Config struct {
		Labels map[string]string
		Env    []string
	}
	HostConfig struct {
		PortBindings  map[string][]struct{ HostPort string }
		RestartPolicy struct{ Name string }
	}
}

func (b box) parked() bool { return strings.HasSuffix(b.Name, "-parked") }

// front is where a load balancer sends traffic for it, or "".
func (b box) front() string {
	for _, ports := range b.HostConfig.PortBindings {
		return "127.0.0.1:" + ports[0].HostPort
	}
	return ""
}

// shows is what its customers see.
func (b box) shows() string {
	for _, v := range b.Config.Env {
		if colour, ok := strings.CutPrefix(v, "SHOP_COLOUR="); ok {
			return b.Config.Labels["backstep.version"] + " " + colour
		}
	}
	return ""
}

// boxes are all containers of the engine.
func (e *engine) boxes(ctx context.Context) ([]box, error) {
	var ids []struct {
		ID string `json:"Id"`
	}
	if err := e.call(ctx, http.MethodGet, "/containers/json?all=1", nil, &ids); err != nil {
		return nil, err
	}
	var list []box
	for _, id := range ids {
		if b, err := e.box(ctx, id.ID); err == nil { // else it was removed in the meantime
			list = append(list, b)
		}
	}
	return list, nil
}

// box is one container.
func (e *engine) box(ctx context.Context, id string) (box, error) {
	var b box
	err := e.call(ctx, http.MethodGet, "/containers/"+id+"/json", nil, &b)
	return b, err
}

// text is all containers as a table.
func (e *engine) text(ctx context.Context) string {
	all, err := e.boxes(ctx)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, c := range all {
		kept, _ := os.ReadFile(filepath.Join(e.dir, "d", "containers", c.ID, "config.v2.json"))
		byHand := ""
		if bytes.Contains(kept, []byte(`"HasBeenManuallyStopped":true`)) {
			byHand = "stopped by hand"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\texit code %d\trestart %s\t%s\tfrom %s\tto %s\t%s\n", c.Name, c.shows(), c.State.Status, c.State.ExitCode, c.HostConfig.RestartPolicy.Name,
			c.front(), c.State.StartedAt, c.State.FinishedAt, byHand)
	}
	w.Flush()
	return b.String()
}
