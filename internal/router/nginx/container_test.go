package nginx

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/router/routertest"
)

// contained is the whole configuration of an nginx in a container.
const contained = `daemon off;
pid /tmp/pid;
error_log stderr;
user root root;
events {}
http {
    access_log off;
    client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
    include /etc/nginx/backstep/*.conf;
    server { listen 80; location / { proxy_pass http://shop; proxy_next_upstream off; } }
    server { listen 81; location = /shop { return 200 $backstep_shop; } }
}
`

// program runs one, and returns what it has written.
func program(t *testing.T, input []byte, argv ...string) string {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin = bytes.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
	return strings.TrimSpace(string(out))
}

// image makes one of this machine's nginx and its libraries, without a registry.
func image(t *testing.T) string {
	t.Helper()
	nginx, err := exec.LookPath("nginx")
	must(t, err)
	files := []string{nginx, "/etc/passwd", "/etc/group"}
	for _, word := range strings.Fields(program(t, nil, "ldd", nginx)) {
		if strings.HasPrefix(word, "/") {
			files = append(files, word)
		}
	}
	tar := exec.Command("tar", append([]string{"-chP", "--transform", "s,^/,,", "-f", "-"}, files...)...)
	packed, err := tar.Output()
	must(t, err)
	id := program(t, packed, "docker", "import", "-")
	t.Cleanup(func() { _ = exec.Command("docker", "image", "rm", "-f", id).Run() })
	return id
}

// An nginx in a container is tested and reloaded by docker exec; the folder of the file is mounted into it. Its connections cannot be
// counted from here, and so the whole drain passes.
func TestE2EContainer(t *testing.T) {
	s := routertest.Nginx(t, First) // whose folders are used, and whose ports are free once it is stopped
	s.Stop()
	s.Start, s.Stop = nil, nil
	put(t, s.Main, contained)
	public, status := fmt.Sprintf("127.0.0.1:%d", routertest.Port(t)), fmt.Sprintf("127.0.0.1:%d", routertest.Port(t))
	tmp := filepath.Join(filepath.Dir(s.Main), "tmp")
	must(t, os.Mkdir(tmp, 0o777))
	id := program(t, nil, "docker", "run", "-d", "-p", public+":80", "-p", status+":81", "-v", s.Main+":/etc/nginx/nginx.conf:ro", "-v", tmp+":/tmp",
		"-v", filepath.Dir(s.File)+":/etc/nginx/backstep:ro", image(t), "nginx", "-e", "stderr", "-c", "/etc/nginx/nginx.conf")
	t.Cleanup(func() { _ = exec.Command("docker", "rm", "-f", "-v", id).Run() })
	s.Status = "http://" + status + "/shop"
	in := []string{"docker", "exec", id, "nginx", "-e", "stderr", "-c", "/etc/nginx/nginx.conf"}
	s.Test, s.Reload = append(in[:len(in):len(in)], "-T"), append(in[:len(in):len(in)], "-s", "reload")
	f := opened(t, s)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := f.Weights(t.Context()); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatalf("%v\n%s", err, program(t, nil, "docker", "logs", id))
		}
	}
	bridge := program(t, nil, "docker", "inspect", "--format", "{{.NetworkSettings.Gateway}}", id)
	for _, name := range []string{"a", "b", "a"} {
		at := releaseAt(t, bridge, name)
		must(t, f.Shift(t.Context(), standing, map[string]int{at: 100}))
		for range 20 {
			if got := get("http://" + public); got != name {
				t.Fatalf("after a shift to %s a customer got %s", name, got)
			}
		}
	}
	program(t, nil, "docker", "restart", "-t", "0", id)
	for end := time.Now().Add(20 * time.Second); get("http://"+public) != "a"; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after a restart of the container a customer got %s", get("http://"+public))
		}
	}
	begun := time.Now()
	must(t, f.Drain(t.Context(), standing, bridge+":1", 200*time.Millisecond))
	if took := time.Since(begun); took < 200*time.Millisecond {
		t.Errorf("what cannot be counted was drained for %s", took)
	}
}
