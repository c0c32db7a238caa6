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
defaults
    mode http
    timeout connect 1s
    timeout client 10s
    timeout server 10s
frontend customers
    bind 127.0.0.1:%[2]d
    default_backend shop
backend shop
    server-template release 1-4 127.0.0.1:9 disabled
`

// Balancer is a HAProxy that runs.
type Balancer struct {
	Socket  string // of its runtime API, a path
	Remote  string // the same as host:port
	Backend string // the backend with free slots
	Address string // where customers ask, host:port
}

// HAProxy starts one with nobody behind it.
func HAProxy(t testing.TB) Balancer {
	t.Helper()
	if os.Getenv("BACKSTEP_E2E") == "" {
		t.Skip("needs HAProxy: run make e2e")
	}
	dir, err := os.MkdirTemp("", "bs") // short: the name of a socket is limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	customers, remote := free(t), free(t)
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, fmt.Appendf(nil, configuration, dir, customers, remote), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("haproxy", "-db", "-f", file)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
	})
	b := Balancer{Socket: filepath.Join(dir, "admin.sock"), Remote: fmt.Sprintf("127.0.0.1:%d", remote), Backend: "shop",
		Address: fmt.Sprintf("127.0.0.1:%d", customers)}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("unix", b.Socket); err == nil {
			conn.Close()
			return b
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("haproxy ended: %v\n%s", err, said.String())
		default:
		}
		if time.Now().After(end) {
			t.Fatal("haproxy does not answer")
		}
	}
}

// free is a port that nobody listens on.
func free(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
