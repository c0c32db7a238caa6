package nginx

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/probe"
	"github.com/backstep/backstep/internal/probe/probetest"
)

const configuration = `daemon off;
pid %[1]s/pid;
error_log stderr;
events {}
http {
    %[2]s
    access_log %[1]s/access.log backstep;
    client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
    upstream shop { server %[3]s; }
    upstream retried { server %[4]s max_fails=0; server %[3]s backup; }
    server {
        listen %[5]s;
        location / { proxy_pass http://shop; }
        location /retried { proxy_pass http://retried; }
        location /status { access_log off; stub_status; }
    }
}
`

type server struct {
	address, log, one, nobody string
	stop                      func()
}

// start runs a real nginx in front of a shop that answers 500 to /bad and late to /slow.
func start(t *testing.T) server {
	t.Helper()
	probetest.Needs(t, "nginx")
	shop := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/bad":
			w.WriteHeader(http.StatusInternalServerError)
		case "/slow":
			time.Sleep(150 * time.Millisecond)
		}
	}))
	t.Cleanup(shop.Close)
	dir, err := os.MkdirTemp("", "nginx")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil { // its workers are not root
		t.Fatal(err)
	}
	s := server{address: probetest.Free(t), log: filepath.Join(dir, "access.log"), one: shop.Listener.Addr().String(), nobody: probetest.Free(t)}
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(fmt.Sprintf(configuration, dir, Format, s.one, s.nobody, s.address)), 0o644); err != nil {
		t.Fatal(err)
	}
	s.stop = probetest.Start(t, probetest.Listens(s.address), nil, "nginx", "-c", file, "-e", "stderr")
	return s
}

func (s server) get(t *testing.T, path string) {
	t.Helper()
	response, err := http.Get("http://" + s.address + path)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
}

func (s server) lines(t *testing.T) int {
	text, err := os.ReadFile(s.log)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "\n")
}

// send asks for all paths and waits for their lines: nginx writes one after it has answered.
func (s server) send(t *testing.T, paths ...string) {
	t.Helper()
	want := s.lines(t) + len(paths)
	for _, p := range paths {
		s.get(t, p)
	}
	for s.lines(t) < want {
		time.Sleep(time.Millisecond)
	}
}

func TestE2EConformance(t *testing.T) {
	s := start(t)
	probetest.RunMeter(t, probetest.OpenMeter(t, Kind(), map[string]string{"log": s.log, "status": "http://" + s.address + "/status", "bounds": "0.1\n0.5"}), probetest.Traffic{
		Subject: probe.Subject{Fronts: []string{s.one}},
		Send: func(t *testing.T, n, bad int) {
			var paths []string
			for i := range n {
				paths = append(paths, map[bool]string{true: "/bad", false: "/"}[i < bad])
			}
			s.send(t, paths...)
		},
		Stop: s.stop, // the status does not answer any more
	})
}

func TestE2ELog(t *testing.T) {
	s := start(t)
	inputs := map[string]string{"log": s.log, "bounds": "0.1\n0.5"}
	m := probetest.OpenMeter(t, Kind(), inputs)
	read := func(address string) probe.Totals {
		t.Helper()
		got, err := m.Read(t.Context(), []probe.Subject{{Fronts: []string{address}}})
		if err != nil || got[0] == nil {
			t.Fatalf("%v: %v", got, err)
		}
		return *got[0]
	}
	read(s.one)
	s.send(t, "/slow", "/", "/retried")
	if got := read(s.one); got.Requests != 3 || got.Errors != 0 || got.Slower[0] != 1 || got.Slower[1] != 0 {
		t.Errorf("one of three is slow: %+v", got)
	}
	if got := read(s.nobody); got.Requests != 1 || got.Errors != 1 {
		t.Errorf("the server that was tried first and refused: %+v", got)
	}
	// logrotate: the file moves, and nginx is told to open a new one; here it is truncated, which copytruncate does.
	if err := os.WriteFile(s.log, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	read(s.one)
	s.send(t, "/bad")
	if got := read(s.one); got.Requests != 4 || got.Errors != 1 {
		t.Errorf("after the log was truncated: %+v", got)
	}
	// A hostile line costs no more than any other.
	f, err := os.OpenFile(s.log, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f, "%s\n{\"upstream\":\"%s\"}\n", strings.Repeat("x", 1<<20), strings.Repeat("a, ", 5000))
	f.Close()
	s.send(t, "/")
	if got := read(s.one); got.Requests != 5 {
		t.Errorf("after a long line: %+v", got)
	}

	// The wrong log is found out by the status.
	elsewhere := filepath.Join(t.TempDir(), "other.log")
	if err := os.WriteFile(elsewhere, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	wrong := probetest.OpenMeter(t, Kind(), map[string]string{"log": elsewhere, "status": "http://" + s.address + "/status"})
	if _, err := wrong.Read(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for range silence {
		s.get(t, "/")
	}
	if _, err := wrong.Read(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "has none of them") {
		t.Errorf("the wrong log: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	shop := probetest.OpenMeter(t, Kind(), map[string]string{"log": s.log, "status": "http://" + s.one + "/"})
	if _, err := shop.Read(ctx, nil); err == nil || !strings.Contains(err.Error(), "is no stub_status") {
		t.Errorf("no stub_status: %v", err)
	}
	if got := probetest.Refused(t, Kind(), map[string]string{"log": s.log, "bounds": "2\n1"}); !strings.Contains(got, "want rising seconds") {
		t.Errorf("falling bounds: %q", got)
	}
}

// A bake that is over leaves no file open, and the next one counts from its own beginning.
func TestClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	write := func(lines int) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		for range lines {
			fmt.Fprintln(f, `{"upstream":"10.0.0.1:80","status":"500","seconds":"0.2"}`)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	opened := func() (n int) {
		t.Helper()
		files, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("needs /proc")
		}
		for _, f := range files {
			if to, err := os.Readlink("/proc/self/fd/" + f.Name()); err == nil && to == path {
				n++
			}
		}
		return n
	}
	write(1)
	m := probetest.OpenMeter(t, Kind(), map[string]string{"log": path, "bounds": "0.1"})
	read := func() probe.Totals {
		t.Helper()
		got, err := m.Read(t.Context(), []probe.Subject{{Fronts: []string{"10.0.0.1:80"}}})
		if err != nil {
			t.Fatal(err)
		}
		return *got[0]
	}
	for bake := range 3 {
		if got := read(); got.Requests != 0 {
			t.Errorf("bake %d begins with %+v", bake, got)
		}
		write(2)
		if got := read(); got.Requests != 2 || got.Errors != 2 || got.Slower[0] != 2 {
			t.Errorf("bake %d read %+v", bake, got)
		}
		if n := opened(); n != 1 {
			t.Errorf("bake %d has the log open %d times", bake, n)
		}
		write(1) // between two bakes
		closer, ok := m.(io.Closer)
		if !ok {
			t.Fatal("it cannot be closed")
		}
		if err := closer.Close(); err != nil {
			t.Error(err)
		}
		if n := opened(); n != 0 {
			t.Errorf("after bake %d the log is open %d times", bake, n)
		}
	}
}
