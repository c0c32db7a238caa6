package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/builder"
	"github.com/backstep/backstep/internal/builder/layers"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/registry/registrytest"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/target"
	"github.com/backstep/backstep/internal/target/targettest"
)

// TestMain is also the program of the releases: an image holds this very test.
func TestMain(m *testing.M) {
	switch os.Getenv("RELEASE_DOES") {
	case "answer":
		started := make(chan struct{})
		http.HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) {
			close(started)
			time.Sleep(300 * time.Millisecond)
			io.WriteString(w, "done")
		})
		http.HandleFunc("/slow-started", func(http.ResponseWriter, *http.Request) { <-started })
		http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(w, os.Getenv("BACKSTEP_VERSION"), os.Getenv("SHOP_COLOUR"))
		})
		fmt.Println(http.ListenAndServe(os.Getenv("ADDR"), nil))
	case "crash":
		fmt.Println("no such table: orders")
		os.Exit(3)
	}
	os.Exit(m.Run())
}

// built pushes an image of this program.
func built(t *testing.T, repository, version, does string) release.Release {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	client := registry.New()
	digest, err := layers.New(client).Build(t.Context(), builder.Request{Repository: repository, Context: filepath.Dir(program),
		OS: runtime.GOOS, Arch: runtime.GOARCH, Files: []builder.File{{From: filepath.Base(program), To: "/app"}}, Entrypoint: []string{"/app"},
		Env: []string{"RELEASE_DOES=" + does}, Labels: map[string]string{"org.opencontainers.image.version": version}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := client.Resolve(t.Context(), registry.Reference{Repository: repository, Digest: digest})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// supervised is a supervisor that runs until stop is called, and a client of it.
func supervised(t *testing.T, dir string) (s *Supervisor, c *client, stop func()) {
	t.Helper()
	s, err := NewSupervisor(SupervisorOptions{Dir: dir, Socket: filepath.Join(dir, "s"), Listen: "127.0.0.1:0", Ready: "/",
		Registry: registry.New(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			stopped = true
		}
	}
	t.Cleanup(stop)
	return s, newClient(filepath.Join(dir, "s"), map[string]string{"SHOP_COLOUR": "red"}), stop
}

// short is a folder whose name leaves room for a socket.
func short(t *testing.T) string {
	dir, err := os.MkdirTemp("", "bs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestConformance(t *testing.T) {
	repository := registrytest.InProcess(t) + "/shop"
	s, c, _ := supervised(t, short(t))
	targettest.Run(t, targettest.Subject{Target: c, Router: c, Address: "http://" + s.Address(),
		Good: built(t, repository, "1.0.0", "answer"), Other: built(t, repository, "1.1.0", "answer"),
		Crashing: built(t, repository, "1.2.0", "crash")})
}

func ready(t *testing.T, c *client, r release.Release) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		s, err := c.Observe(t.Context())
		if in := s.Find(r.Digest); err == nil && in != nil && in.Phase == "ready" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s is not ready: %+v, %v", r, s, err)
		}
	}
}

func get(t *testing.T, address string) string {
	t.Helper()
	answer, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(body))
}

// A supervisor that starts again runs what it ran, with its traffic and its fence.
func TestRestart(t *testing.T) {
	dir := short(t)
	r := built(t, registrytest.InProcess(t)+"/shop", "1.0.0", "answer")
	_, c, stop := supervised(t, dir)
	if err := c.Stage(t.Context(), 7, r); err != nil {
		t.Fatal(err)
	}
	ready(t, c, r)
	if err := c.Shift(t.Context(), 7, map[release.Digest]int{r.Digest: 100}); err != nil {
		t.Fatal(err)
	}
	stop()
	s, c, _ := supervised(t, dir)
	ready(t, c, r)
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		state, err := c.Observe(t.Context())
		if err == nil && state.Serving() != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the traffic did not come back: %+v, %v", state, err)
		}
	}
	if got := get(t, "http://"+s.Address()); got != "1.0.0 red" {
		t.Errorf("customers get %q, want 1.0.0 with its variables", got)
	}
	if err := c.Stage(t.Context(), 6, r); !errors.Is(err, target.ErrFenced) {
		t.Errorf("a number lower than before the restart: %v, want ErrFenced", err)
	}
}

// A request that is under way when its release is retired is answered.
func TestDrain(t *testing.T) {
	repository := registrytest.InProcess(t) + "/shop"
	s, c, _ := supervised(t, short(t))
	old, next := built(t, repository, "1.0.0", "answer"), built(t, repository, "1.1.0", "answer")
	for _, r := range []release.Release{old, next} {
		if err := c.Stage(t.Context(), 1, r); err != nil {
			t.Fatal(err)
		}
		ready(t, c, r)
	}
	if err := c.Shift(t.Context(), 1, map[release.Digest]int{old.Digest: 100}); err != nil {
		t.Fatal(err)
	}
	state, err := c.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	answer := make(chan string, 1)
	go func() { answer <- get(t, "http://"+s.Address()+"/slow") }()
	get(t, "http://"+state.Find(old.Digest).Address+"/slow-started")
	if err := c.Shift(t.Context(), 2, map[release.Digest]int{next.Digest: 100}); err != nil {
		t.Fatal(err)
	}
	if err := c.Retire(t.Context(), 2, old.Digest, time.Minute); err != nil {
		t.Fatal(err)
	}
	if got := <-answer; got != "done" {
		t.Errorf("the request under way got %q", got)
	}
}

func TestSockets(t *testing.T) {
	dir := short(t)
	supervised(t, dir)
	_, err := NewSupervisor(SupervisorOptions{Dir: dir, Socket: filepath.Join(dir, "s"), Listen: "127.0.0.1:0"})
	if want := "socket " + filepath.Join(dir, "s") + " belongs to a supervisor that runs"; err == nil || err.Error() != want {
		t.Errorf("a second supervisor: %v, want %s", err, want)
	}
	nobody := newClient(filepath.Join(dir, "nobody"), nil)
	if _, err := nobody.Observe(t.Context()); !errors.Is(err, target.ErrUnreachable) {
		t.Errorf("nobody listens: %v, want ErrUnreachable", err)
	}
}
