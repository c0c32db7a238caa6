package routertest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The format and the level are those of the meter that reads the log.
const nginxConfiguration = `daemon off;
pid %[1]s/pid;
error_log %[1]s/error.log notice;
worker_processes 2;
worker_shutdown_timeout 20s;
events {}
http {
    client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
    log_format backstep escape=json '{"upstream":"$upstream_addr","status":"$upstream_status","seconds":"$upstream_response_time"}';
    access_log %[1]s/access.log backstep;
    include %[1]s/include/*.conf;
    map $http_upgrade $backstep_connection { default upgrade; "" ""; }
    server {
        listen 127.0.0.1:%[2]d;
        location / {
            proxy_pass http://shop;
            proxy_next_upstream off;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $backstep_connection;
        }
    }
    server {
        listen 127.0.0.1:%[3]d;
        access_log off;
        location = /shop { return 200 $backstep_shop; }
        location = /status { stub_status; }
    }
}
`

// WebServer is an nginx that runs.
type WebServer struct {
	Main    string   // its configuration, a path
	File    string   // what it includes, with the upstream shop, a path
	Status  string   // the address that says who serves
	Log     string   // its access log, as the meter reads it
	Address string   // where customers ask, host:port
	Test    []string // the program that tests and prints the configuration
	Reload  []string // the program that reloads it
	Start   func()
	Stop    func() // at once, as a crash would
}

// Nginx starts one that includes a file with this text.
func Nginx(t testing.TB, text string) WebServer {
	t.Helper()
	if os.Getenv("BACKSTEP_E2E") == "" {
		t.Skip("needs nginx: run make e2e")
	}
	dir, err := os.MkdirTemp("", "bs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil { // its workers are not root
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "include"), 0o755); err != nil {
		t.Fatal(err)
	}
	customers, status := Port(t), Port(t)
	s := WebServer{Main: filepath.Join(dir, "nginx.conf"), File: filepath.Join(dir, "include", "shop.conf"), Log: filepath.Join(dir, "access.log"),
		Status: fmt.Sprintf("http://127.0.0.1:%d/shop", status), Address: fmt.Sprintf("127.0.0.1:%d", customers)}
	s.Test = []string{"nginx", "-e", "stderr", "-c", s.Main, "-T"}
	s.Reload = []string{"nginx", "-e", "stderr", "-c", s.Main, "-s", "reload"}
	for name, text := range map[string]string{s.Main: fmt.Sprintf(nginxConfiguration, dir, customers, status), s.File: text} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	stop := func() {}
	s.Stop = func() { stop() }
	s.Start = func() { stop = RunNginx(t, s.Main, s.Address) }
	s.Start()
	t.Cleanup(func() { stop() })
	return s
}

// RunNginx starts an nginx with a configuration of the caller's, which keeps it in the foreground, and waits until it listens at the
// address. Stop ends it and its workers at once.
func RunNginx(t testing.TB, file, address string) (stop func()) {
	t.Helper()
	cmd := exec.Command("nginx", "-e", "stderr", "-c", file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its workers are ended with it
	kill := started(t, cmd, "tcp", address, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	return func() {
		kill()
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) { // its workers are nobody's children
			if syscall.Kill(-cmd.Process.Pid, 0) != nil {
				return
			}
		}
	}
}

// Inputs are those of the nginx router for it, as the lines of each.
func (s WebServer) Inputs() map[string]string {
	return map[string]string{"file": s.File, "upstream": "shop", "status": s.Status,
		"test": strings.Join(s.Test, "\n"), "reload": strings.Join(s.Reload, "\n")}
}
