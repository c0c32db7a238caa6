// Package routertest starts real load balancers for tests that make e2e runs.
package routertest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

const configuration = `global
    stats socket %[1]s/admin.sock mode 660 level admin
    stats socket 127.0.0.1:%[3]d level admin
    server-state-file %[1]s/state
defaults
    mode http
    timeout connect 1s
    timeout client 10s
    timeout server 10s
frontend customers
    bind 127.0.0.1:%[2]d
    default_backend shop
backend shop
    load-server-state-from-file global
    %[4]s
`

// Balancer is a HAProxy that runs.
type Balancer struct {
	Socket  string // of its runtime API, a path
	Remote  string // the same as host:port
	Backend string // the backend with free slots
	Address string // where customers ask, host:port
	State   string // the file that it reads the state of its servers from when it starts
	Restart func() // ends it and starts it again
	Stop    func()
}

// HAProxy starts one whose backend has this line, which makes slots, and nobody in them.
func HAProxy(t testing.TB, slots string) Balancer {
	t.Helper()
	if os.Getenv("BACKSTEP_E2E") == "" {
		t.Skip("needs HAProxy: run make e2e")
	}
	dir, err := os.MkdirTemp("", "bs") // short: the name of a socket is limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	customers, remote := Port(t), Port(t)
	file := filepath.Join(dir, "haproxy.cfg")
	b := Balancer{Socket: filepath.Join(dir, "admin.sock"), Remote: fmt.Sprintf("127.0.0.1:%d", remote), Backend: "shop",
		Address: fmt.Sprintf("127.0.0.1:%d", customers), State: filepath.Join(dir, "state")}
	for name, text := range map[string]string{file: fmt.Sprintf(configuration, dir, customers, remote, slots), b.State: ""} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	stop := Run(t, file, b.Socket)
	t.Cleanup(func() { stop() })
	b.Stop = func() { stop() }
	b.Restart = func() {
		stop()
		stop = Run(t, file, b.Socket)
	}
	return b
}

// Run starts a HAProxy with a configuration of the caller's, and waits until it takes commands at the socket. Stop ends it at once.
func Run(t testing.TB, file, socket string) (stop func()) {
	t.Helper()
	cmd := exec.Command("haproxy", "-db", "-f", file)
	return started(t, cmd, "unix", socket, func() { _ = cmd.Process.Kill() })
}

// started starts a server that stays in the foreground, and waits until it listens at the address. Stop kills it and waits for its end.
func started(t testing.TB, cmd *exec.Cmd, network, address string, kill func()) (stop func()) {
	t.Helper()
	name := filepath.Base(cmd.Path)
	said, err := os.CreateTemp("", name) // no pipe: what it has started may live on
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { said.Close(); os.Remove(said.Name()) })
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	stop = func() {
		kill()
		<-ended
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial(network, address); err == nil {
			conn.Close()
			return stop
		}
		select {
		case <-ended:
			text, _ := os.ReadFile(said.Name())
			t.Fatalf("%s ended:\n%s", name, bytes.TrimSpace(text))
		default:
		}
		if time.Now().After(end) {
			stop()
			t.Fatalf("%s does not answer", name)
		}
	}
}

// Port is a port of loopback that nobody listens on.
func Port(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
