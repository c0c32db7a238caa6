package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/registry/registrytest"
	"github.com/backstep/backstep/internal/target/process"
)

// world is an environment with two releases of the shop in its registry.
type world struct {
	t                             *testing.T
	dir, program, proxy, registry string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	w.program = filepath.Join(w.dir, "backstep")
	if out, err := exec.Command("go", "build", "-tags", "faults", "-o", w.program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	state, err := os.MkdirTemp("", "bs") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(state) })
	supervisor, err := process.NewSupervisor(process.SupervisorOptions{Dir: filepath.Join(state, "d"), Socket: filepath.Join(state, "s"),
		Listen: "127.0.0.1:0", Ready: "/ready", Registry: registry.New(), Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- supervisor.Run(t.Context()) }()
	t.Cleanup(func() { <-ended })
	w.proxy, w.registry = "http://"+supervisor.Address(), registrytest.InProcess(t)+"/acme/shop"
	config := fmt.Sprintf("service: shop\nrepository: %s\nenvironments:\n  production:\n    target: {kind: process, socket: %s}\n    drain: 1s\n"+
		"    verify: {bake: 200ms, patience: 30s, probes: [{kind: http, rate: 500}]}\n", w.registry, filepath.Join(state, "s"))
	if err := os.WriteFile(filepath.Join(w.dir, "backstep.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"1.0.0", "2.0.0"} {
		w.want(0, 0, "build-image", "--repository", w.registry, "--version", version, "--tags", version, "--context", w.dir,
			"--files", "backstep:/backstep", "--entrypoint", "/backstep", "--entrypoint", "demo", "--entrypoint", "--serve", "--entrypoint", version)
	}
	return w
}

// run runs backstep, to be killed at the boundary numbered kill unless that is 0, and returns its exit code: -1 when
// it was killed.
func (w *world) run(kill int, args ...string) (int, string) {
	w.t.Helper()
	cmd := exec.Command(w.program, args...)
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(), "BACKSTEP_HOST=plain", "BACKSTEP_ENVIRONMENT=production", "BACKSTEP_KILL="+strconv.Itoa(kill))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

func (w *world) want(code, kill int, args ...string) {
	w.t.Helper()
	if got, out := w.run(kill, args...); got != code {
		w.t.Fatalf("backstep %s: exit code %d, want %d\n%s", strings.Join(args, " "), got, code, out)
	}
}

// state is what the ledger says, which has to be what customers see.
func (w *world) state() ledger.Snapshot {
	w.t.Helper()
	_, out := w.run(0, "status", "--json")
	var e ledger.Event
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
	answer, err := http.Get(w.proxy)
	if err != nil {
		w.t.Fatal(err)
	}
	answer.Body.Close()
	if serves := answer.Header.Get("X-Backstep-Release"); e.State.Live == nil || serves != e.State.Live.Release.Digest.Short() {
		w.t.Fatalf("customers get %q, but the ledger says %+v", serves, e.State.Live)
	}
	if good := e.State.LastGood; good == nil || !good.Good {
		w.t.Fatalf("the last good release is %+v", good)
	}
	return e.State
}

// A deploy is killed at each of its boundaries in turn. The next run is never refused, and ends what is left.
func TestDeployKilledAtEveryBoundary(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want(0, 0, "deploy", "--image", w.registry+":2.0.0")
	w.want(0, 0, "verify")
	for kill, version := 1, "1.0.0"; ; kill++ {
		code, out := w.run(kill, "deploy", "--allow-older", "--image", w.registry+":"+version)
		if code == 0 {
			if kill < 6 {
				t.Fatalf("only %d boundaries were crossed", kill-1)
			}
			return
		}
		if code != -1 {
			t.Fatalf("boundary %d: exit code %d\n%s", kill, code, out)
		}
		w.want(0, 0, "deploy", "--allow-older", "--image", w.registry+":"+version)
		if live := w.state().Live.Release.Version; live != version {
			t.Fatalf("boundary %d: %s is live, want %s", kill, live, version)
		}
		w.want(0, 0, "verify")
		version = map[string]string{"1.0.0": "2.0.0", "2.0.0": "1.0.0"}[version]
	}
}

// A rollback is killed at each of its boundaries in turn. It is resumed, never taken back.
func TestRollbackKilledAtEveryBoundary(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, version := range []string{"1.0.0", "2.0.0"} {
		w.want(0, 0, "deploy", "--image", w.registry+":"+version)
		w.want(0, 0, "verify")
	}
	for kill := 1; ; kill++ {
		from := w.state().Live.Release
		code, out := w.run(kill, "rollback", "--reason", "drill")
		if code != -1 && code != 0 {
			t.Fatalf("boundary %d: exit code %d\n%s", kill, code, out)
		}
		if code == 0 && kill < 6 {
			t.Fatalf("only %d boundaries were crossed", kill-1)
		}
		w.want(0, 0, "verify") // whatever the next run is, it ends the rollback first
		s := w.state()
		if started := kill > 1; started {
			if s.Live.Release.Digest == from.Digest || s.QuarantineOf(from.Digest) == nil || s.Freeze == nil || s.Intent != nil {
				t.Fatalf("boundary %d: after the next run %s is live, quarantined %v, frozen %v, intent %v",
					kill, s.Live.Release, s.Quarantined, s.Freeze, s.Intent)
			}
			w.want(0, 0, "unfreeze", "--reason", "drill")
			w.want(0, 0, "lift", "--reason", "drill", "--digest", string(from.Digest))
		} else if s.Live.Release.Digest != from.Digest {
			t.Fatalf("nothing was written, and %s is live", s.Live.Release)
		}
		if code == 0 {
			return
		}
	}
}
