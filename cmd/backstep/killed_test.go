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
	"slices"
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
	t                             testing.TB
	dir, program, proxy, registry string
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldAt(t, registrytest.InProcess(t))
}

// newWorldAt is a world with the registry at this host:port.
func newWorldAt(t testing.TB, registryHost string) *world {
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
	w.proxy, w.registry = "http://"+supervisor.Address(), registryHost+"/acme/shop"
	config := fmt.Sprintf("service: shop\nrepository: %s\nenvironments:\n  production:\n    target: {kind: process, socket: %s}\n    drain: 1s\n    settle: 0s\n    try: 0s\n"+
		"    verify: {bake: 200ms, patience: 30s, negligible: 20%%, intolerable: 20%%, probes: [{kind: http, rate: 500}]}\n", w.registry, filepath.Join(state, "s"))
	if err := os.WriteFile(filepath.Join(w.dir, "backstep.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	canary := strings.ReplaceAll(config, "    drain: 1s\n", "    drain: 1s\n    strategy: canary\n    weights: [20]\n")
	watched := strings.ReplaceAll(config, "bake: 200ms", "bake: 15s")
	for name, text := range map[string]string{"canary.yml": canary, "watch.yml": watched} {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for version, failsAfter := range map[string]string{"1.0.0": "0s", "2.0.0": "0s", "3.0.0": "1ms", "4.0.0": "2s"} {
		w.want(0, 0, "build-image", "--repository", w.registry, "--version", version, "--tags", version, "--context", w.dir,
			"--files", "backstep:/backstep", "--entrypoint", "/backstep", "--entrypoint", "demo", "--entrypoint", "--serve", "--entrypoint", version,
			"--entrypoint", "--fails-after", "--entrypoint", failsAfter)
	}
	return w
}

// run runs backstep, to be killed at the boundary numbered kill unless that is 0, and returns its exit code: -1 when
// it was killed.
func (w *world) run(kill int, args ...string) (int, string) {
	w.t.Helper()
	cmd := exec.Command(w.program, args...)
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(), "BACKSTEP_HOST=plain", "BACKSTEP_ENVIRONMENT=production", "BACKSTEP_KILL="+strconv.Itoa(kill), "BACKSTEP_POINTS="+filepath.Join(w.dir, "points"))
	if err := os.RemoveAll(filepath.Join(w.dir, "points")); err != nil {
		w.t.Fatal(err)
	}
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

// passed says whether the last run came to the point called name, and how many it came to.
func (w *world) passed(name string) (bool, int) {
	w.t.Helper()
	data, err := os.ReadFile(filepath.Join(w.dir, "points"))
	if err != nil {
		w.t.Fatal(err)
	}
	points := strings.Split(strings.TrimSpace(string(data)), "\n")
	return slices.Contains(points, name), len(points)
}

// each runs victim again and again, killed at one point after the other until it comes to its end with code. After each
// kill, before the next, check looks at what the next run makes of it.
func (w *world) each(code, least int, victim []string, check func(kill int)) {
	w.t.Helper()
	for kill := 1; ; kill++ {
		got, out := w.run(kill, victim...)
		if got != -1 && got != code {
			w.t.Fatalf("point %d: exit code %d\n%s", kill, got, out)
		}
		if got == code && kill < least {
			w.t.Fatalf("only %d points were passed", kill-1)
		}
		check(kill)
		if got == code {
			return
		}
	}
}

// served makes sure that version is live, for the ledger and for customers, and that nothing is under way.
func (w *world) served(kill int, version string) ledger.Snapshot {
	w.t.Helper()
	s := w.state()
	if s.Live.Release.Version != version || s.Intent != nil {
		w.t.Fatalf("point %d: %s is live, want %s; intent %+v", kill, s.Live.Release, version, s.Intent)
	}
	return s
}

// A deploy is killed at each of its points in turn, all at once and by weights. The next run is a verify, which must not be
// refused: the new release is live only when the deploy had moved all the traffic.
func TestDeployKilledAtEveryPoint(t *testing.T) {
	for _, config := range []string{"backstep.yml", "canary.yml"} {
		t.Run(config, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.want(0, 0, "deploy", "--image", w.registry+":1.0.0")
			w.want(0, 0, "verify")
			w.each(0, 10, []string{"deploy", "--config", config, "--image", w.registry + ":2.0.0"}, func(kill int) {
				moved, _ := w.passed("claimed done")
				w.want(0, 0, "verify")
				if !moved {
					w.served(kill, "1.0.0")
					return
				}
				w.served(kill, "2.0.0")
				w.want(0, 0, "deploy", "--allow-older", "--image", w.registry+":1.0.0")
				w.want(0, 0, "verify")
			})
		})
	}
}

// A canary that fails is killed while it is taken back: it never stays.
func TestTakingBackKilledAtEveryPoint(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want(0, 0, "deploy", "--image", w.registry+":1.0.0")
	w.want(0, 0, "verify")
	w.each(5, 12, []string{"deploy", "--config", "canary.yml", "--image", w.registry + ":3.0.0"}, func(kill int) {
		w.want(0, 0, "verify")
		w.served(kill, "1.0.0")
	})
}

// A verify of a bad release is killed at each of its points. When it had fired, the next run says so; else it begins anew.
func TestVerifyKilledAtEveryPoint(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want(0, 0, "deploy", "--image", w.registry+":1.0.0")
	w.want(0, 0, "verify")
	w.want(0, 0, "deploy", "--image", w.registry+":3.0.0")
	w.each(5, 10, []string{"verify", "--on-fail", "rollback"}, func(kill int) {
		if fired, _ := w.passed("claimed fire"); fired {
			w.want(0, 0, "verify")
		} else {
			w.want(5, 0, "verify", "--on-fail", "rollback")
		}
		s := w.served(kill, "1.0.0")
		if len(s.Quarantined) != 1 || s.Quarantined[0].Release.Version != "3.0.0" || s.FreezeBy(ledger.ByRollback) == nil {
			t.Fatalf("point %d: quarantined %v, frozen %v", kill, s.Quarantined, s.Freezes)
		}
		w.want(0, 0, "unfreeze", "--reason", "drill")
		w.want(0, 0, "lift", "--reason", "drill", "--digest", string(s.Quarantined[0].Release.Digest))
		w.want(0, 0, "deploy", "--image", w.registry+":3.0.0")
	})
}

// A rollback is killed at each of its points. Once its intent is written it is carried to its end, never taken back.
func TestRollbackKilledAtEveryPoint(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, version := range []string{"1.0.0", "2.0.0"} {
		w.want(0, 0, "deploy", "--image", w.registry+":"+version)
		w.want(0, 0, "verify")
	}
	w.each(0, 6, []string{"rollback", "--reason", "drill"}, func(kill int) {
		started, _ := w.passed("event rollback.started")
		w.want(0, 0, "verify") // whatever the next run is, it ends the rollback first
		if !started {
			w.served(kill, "2.0.0")
			return
		}
		s := w.served(kill, "1.0.0")
		if len(s.Quarantined) != 1 || s.Quarantined[0].Release.Version != "2.0.0" || s.FreezeBy(ledger.ByRollback) == nil {
			t.Fatalf("point %d: quarantined %v, frozen %v", kill, s.Quarantined, s.Freezes)
		}
		w.want(0, 0, "unfreeze", "--reason", "drill")
		w.want(0, 0, "lift", "--reason", "drill", "--digest", string(s.Quarantined[0].Release.Digest))
		w.want(0, 0, "deploy", "--image", w.registry+":2.0.0")
		w.want(0, 0, "verify")
	})
}
