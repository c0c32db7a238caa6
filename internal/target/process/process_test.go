package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/builder"
	"github.com/backstep/backstep/internal/builder/layers"
	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/registry/registrytest"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/secret"
	"github.com/backstep/backstep/internal/target"
	"github.com/backstep/backstep/internal/target/targettest"
)

// TestMain is also the program of the releases: an image holds this very test.
func TestMain(m *testing.M) {
	switch os.Getenv("RELEASE_DOES") {
	case "answer":
		fmt.Println("version", os.Getenv("BACKSTEP_VERSION"))
		held, free := make(chan struct{}), make(chan struct{})
		http.HandleFunc("/hold", func(w http.ResponseWriter, _ *http.Request) {
			close(held)
			<-free
			io.WriteString(w, "done")
		})
		http.HandleFunc("/held", func(http.ResponseWriter, *http.Request) { <-held })
		http.HandleFunc("/free", func(http.ResponseWriter, *http.Request) { close(free) })
		http.HandleFunc("/pid", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, os.Getpid()) })
		http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(w, os.Getenv("BACKSTEP_VERSION"), os.Getenv("SHOP_COLOUR"))
		})
		fmt.Println(http.ListenAndServe(os.Getenv("ADDR"), nil))
	case "crash":
		fmt.Print("no such table: orders")
		os.Exit(3)
	case "mute":
		fmt.Println("waiting for the orders")
		time.Sleep(time.Hour)
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
	return supervisedWith(t, dir, registry.New())
}

func supervisedWith(t *testing.T, dir string, from *registry.Client) (s *Supervisor, c *client, stop func()) {
	t.Helper()
	s, err := NewSupervisor(SupervisorOptions{Dir: dir, Socket: filepath.Join(dir, "s"), Listen: "127.0.0.1:0", Ready: "/",
		Registry: from, Log: slog.New(slog.DiscardHandler)})
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
	return s, newClient(filepath.Join(dir, "s"), red), stop
}

// red is what all releases of these tests are started with.
func red(release.Release) (target.Started, error) {
	return target.Started{Values: map[string][]secret.Value{"env": {secret.New("SHOP_COLOUR=red")}}}, nil
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

// number asks a release for its process.
func number(t *testing.T, c *client, id release.ID) int {
	t.Helper()
	in, err := c.Find(t.Context(), id)
	if err != nil || in == nil {
		t.Fatal(in, err)
	}
	pid, err := strconv.Atoi(get(t, "http://"+in.Address+"/pid"))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// hold begins a request of a customer that does not end before done is called, which returns what it got.
func hold(t *testing.T, s *Supervisor, c *client, id release.ID) (done func() bool) {
	t.Helper()
	in, err := c.Find(t.Context(), id)
	if err != nil || in == nil {
		t.Fatal(in, err)
	}
	answered := make(chan bool, 1)
	go func() {
		answer, err := http.Get("http://" + s.Address() + "/hold")
		if err == nil {
			answer.Body.Close()
		}
		answered <- err == nil && answer.StatusCode == http.StatusOK
	}()
	get(t, "http://"+in.Address+"/held")
	return sync.OnceValue(func() bool {
		if answer, err := http.Get("http://" + in.Address + "/free"); err == nil { // it may have gone
			answer.Body.Close()
		}
		return <-answered
	})
}

func TestConformance(t *testing.T) {
	repository := registrytest.InProcess(t) + "/shop"
	s, c, _ := supervised(t, short(t))
	targettest.Run(t, targettest.Subject{Target: c, Router: c, Address: "http://" + s.Address(),
		Good: built(t, repository, "1.0.0", "answer"), Other: built(t, repository, "1.1.0", "answer"),
		Crashing: built(t, repository, "1.2.0", "crash"), Mute: built(t, repository, "1.3.0", "mute"),
		Kill: func(id release.ID) {
			if err := syscall.Kill(number(t, c, id), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		},
		Busy: func(id release.ID) func() bool { return hold(t, s, c, id) }})
}

// claim takes the target under a number.
func claim(t *testing.T, c *client, seq uint64) plan.Token {
	t.Helper()
	token := plan.Token{Number: plan.Number{Seq: seq}, Holder: "test"}
	if err := c.Claim(t.Context(), plan.Claim{Token: token, Aim: plan.Do}, nil); err != nil {
		t.Fatal(err)
	}
	return token
}

func ready(t *testing.T, c *client, r release.Release) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		s, err := c.Observe(t.Context())
		if in := s.Find(r.ID()); err == nil && in != nil && in.Phase == "ready" {
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

// A supervisor that starts again runs what it ran, with its traffic, its claim and its notes, also when the registry is gone.
func TestRestart(t *testing.T) {
	dir := short(t)
	r := built(t, registrytest.InProcess(t)+"/shop", "1.0.0", "answer")
	_, c, stop := supervised(t, dir)
	by := plan.Token{Number: plan.Number{Seq: 7, Sub: 1}, Holder: "test"}
	if err := c.Claim(t.Context(), plan.Claim{Token: by, Aim: plan.Fire, Wanted: r}, &plan.Note{ID: "note", To: r}); err != nil {
		t.Fatal(err)
	}
	if err := c.Stage(t.Context(), by, r); err != nil {
		t.Fatal(err)
	}
	ready(t, c, r)
	if err := c.Shift(t.Context(), by, map[release.ID]int{r.ID(): 100}); err != nil {
		t.Fatal(err)
	}
	before, err := c.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stop()
	s, c, _ := supervisedWith(t, dir, registry.New(registry.WithTransport(gone{})))
	ready(t, c, r)
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		state, err := c.Observe(t.Context())
		if err == nil && state.Serving() != nil {
			if !reflect.DeepEqual(state.Claim, before.Claim) || !reflect.DeepEqual(state.Notes, before.Notes) || len(state.Notes) != 1 {
				t.Errorf("the record is %+v, the notes %+v, before it was %+v", state.Claim, state.Notes, before)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the traffic did not come back: %+v, %v", state, err)
		}
	}
	if got := get(t, "http://"+s.Address()); got != "1.0.0 red" {
		t.Errorf("customers get %q, want 1.0.0 with its variables", got)
	}
	by.Number.Sub = 0
	if err := c.Stage(t.Context(), by, r); !errors.Is(err, target.ErrFenced) {
		t.Errorf("a number lower than before the restart: %v, want ErrFenced", err)
	}
}

// gone is the way to a registry that is away.
type gone struct{}

func (gone) RoundTrip(*http.Request) (*http.Response, error) { return nil, errors.New("no registry") }

// A request that is under way when its release is retired is answered.
func TestDrain(t *testing.T) {
	repository := registrytest.InProcess(t) + "/shop"
	s, c, _ := supervised(t, short(t))
	old, next := built(t, repository, "1.0.0", "answer"), built(t, repository, "1.1.0", "answer")
	by := claim(t, c, 1)
	for _, r := range []release.Release{old, next} {
		if err := c.Stage(t.Context(), by, r); err != nil {
			t.Fatal(err)
		}
		ready(t, c, r)
	}
	if err := c.Shift(t.Context(), by, map[release.ID]int{old.ID(): 100}); err != nil {
		t.Fatal(err)
	}
	done := hold(t, s, c, old.ID())
	if err := c.Shift(t.Context(), by, map[release.ID]int{next.ID(): 100}); err != nil {
		t.Fatal(err)
	}
	retired := make(chan error, 1)
	go func() { retired <- c.Retire(t.Context(), by, old.ID(), time.Minute) }()
	for {
		if in, err := c.Find(t.Context(), old.ID()); err != nil {
			t.Fatal(err)
		} else if in == nil {
			break
		}
	}
	// It is started anew beside the one that drains, whose image stays.
	if err := c.Stage(t.Context(), by, old); err != nil {
		t.Fatal(err)
	}
	ready(t, c, old)
	if !done() {
		t.Error("the request under way got no answer")
	}
	if err := <-retired; err != nil {
		t.Error(err)
	}
	if has, err := c.Has(t.Context(), old); !has || err != nil {
		t.Errorf("has the image of what runs: %v, %v", has, err)
	}
	if err := c.Retire(t.Context(), by, old.ID(), 0); err != nil {
		t.Error(err)
	}
	if has, err := c.Has(t.Context(), old); has || err != nil {
		t.Errorf("has the image of what is gone: %v, %v", has, err)
	}
}

// A registry that does not answer holds up nobody but the stage that waits for it, which is refused when a newer run
// has claimed the target in the meantime.
func TestDownload(t *testing.T) {
	away := make(waiting)
	_, c, _ := supervisedWith(t, short(t), registry.New(registry.WithTransport(away)))
	r := built(t, registrytest.InProcess(t)+"/shop", "1.0.0", "answer")
	by := claim(t, c, 1)
	staged := make(chan error, 1)
	go func() { staged <- c.Stage(t.Context(), by, r) }()
	away <- struct{}{} // it asks
	claim(t, c, 2)
	if _, err := c.Observe(t.Context()); err != nil {
		t.Error(err)
	}
	close(away)
	if err := <-staged; !errors.Is(err, target.ErrFenced) {
		t.Errorf("an older run whose download took long: %v, want ErrFenced", err)
	}
	if state, err := c.Observe(t.Context()); err != nil || len(state.Instances) > 0 {
		t.Errorf("%+v, %v", state, err)
	}
}

// waiting is the way to a registry that takes its time: the first request waits until the channel is closed.
type waiting chan struct{}

func (w waiting) RoundTrip(r *http.Request) (*http.Response, error) {
	<-w
	<-w
	return http.DefaultTransport.RoundTrip(r)
}

// A secret that is missing stops only what has to be started.
func TestVariables(t *testing.T) {
	dir := short(t)
	_, c, _ := supervised(t, dir)
	r := built(t, registrytest.InProcess(t)+"/shop", "1.0.0", "answer")
	by, missing := claim(t, c, 1), errors.New("env.TOKEN is not set")
	bare := newClient(filepath.Join(dir, "s"), func(release.Release) (target.Started, error) { return target.Started{}, missing })
	if err := bare.Stage(t.Context(), by, r); !errors.Is(err, missing) {
		t.Errorf("what has to be started: %v", err)
	}
	if err := c.Stage(t.Context(), by, r); err != nil {
		t.Fatal(err)
	}
	if err := bare.Stage(t.Context(), by, r); err != nil {
		t.Errorf("what runs: %v", err)
	}
}

func TestSockets(t *testing.T) {
	dir := short(t)
	supervised(t, dir)
	_, err := NewSupervisor(SupervisorOptions{Dir: dir, Socket: filepath.Join(dir, "s"), Listen: "127.0.0.1:0"})
	if want := "socket " + filepath.Join(dir, "s") + " belongs to a supervisor that runs"; err == nil || err.Error() != want {
		t.Errorf("a second supervisor: %v, want %s", err, want)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("somebody's"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = NewSupervisor(SupervisorOptions{Dir: dir, Socket: file, Listen: "127.0.0.1:0"})
	if want := "--socket: " + file + " is no socket, and not removed"; err == nil || err.Error() != want || !exists(file) {
		t.Errorf("a file in the place of the socket: %v, want %s", err, want)
	}
	path := filepath.Join(dir, "nobody")
	nobody := newClient(path, nil)
	unreachable := func(want string) {
		t.Helper()
		_, err := nobody.Observe(t.Context())
		if want = "socket " + path + ": the target cannot be reached: " + want; !errors.Is(err, target.ErrUnreachable) || fault.CodeOf(err) != fault.Failed || err.Error() != want {
			t.Errorf("%v with code %d, want %s", err, fault.CodeOf(err), want)
		}
	}
	unreachable("dial unix " + path + ": connect: no such file or directory")
	// One that takes connections and says nothing.
	silent, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	nobody.limit = 50 * time.Millisecond
	unreachable("the supervisor did not answer in time")
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	cancel(stopped)
	if _, err := nobody.Observe(ctx); err != stopped {
		t.Errorf("a caller that gave up: %v", err)
	}
}
