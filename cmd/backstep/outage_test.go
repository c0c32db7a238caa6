package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/backstep/backstep/internal/registry/registrytest"
)

// modes are how a registry can be gone, by the words of the scripts.
var modes = map[string]registrytest.Mode{"stopped": registrytest.Stopped, "silent": registrytest.Silent, "unauthorized": registrytest.Unauthorized,
	"forbidden": registrytest.Forbidden, "read-only": registrytest.ReadOnly, "throttled": registrytest.Throttled, "broken": registrytest.Broken,
	"disk-full": registrytest.DiskFull, "healthy": registrytest.Healthy}

// outage MODE deploys 1.1.0, which begins to fail while it is verified, and takes the registry away once the way back is armed.
// The traffic goes back, and the next run, with a registry again, writes it down. Then the same by hand.
func outage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: outage MODE")
	}
	mode, ok := modes[args[0]]
	if !ok {
		ts.Fatalf("no mode %s", args[0])
	}
	gone := ts.Value("registry").(*registrytest.Switch)
	defer gone.Set(registrytest.Healthy)
	run := func(code string, args ...string) { exits(ts, false, append([]string{code}, args...)) }
	place := []string{"--environment", "production"}

	run("0", append([]string{"deploy", "--image", ts.Getenv("REG") + ":1.1.0"}, place...)...)
	armed := make(chan struct{})
	go func() {
		defer close(armed)
		waitFor(ts, "under way +verify of 1.1.0")
		gone.Set(mode)
	}()
	run("5", append([]string{"verify", "--on-fail", "rollback", "--config", "watch.yml"}, place...)...)
	<-armed
	if out := ts.ReadFile("stdout"); !strings.Contains(out, "verdict=fail") || !strings.Contains(out, "rolled-back-to=") {
		ts.Fatalf("outputs are missing:\n%s", out)
	}
	serving(ts, "1.0.0")
	gone.Set(registrytest.Healthy)
	run("7", append([]string{"deploy", "--image", ts.Getenv("REG") + ":1.1.0"}, place...)...)
	if said := ts.ReadFile("stderr"); !strings.Contains(said, "frozen") {
		ts.Fatalf("the note was not honoured:\n%s", said)
	}
	status(ts, "live +1.0.0 .*by a rollback", "quarantined +1.1.0", "frozen +since .*verdict fail")
	lift(ts, run, place)

	run("0", append([]string{"deploy", "--image", ts.Getenv("REG") + ":1.1.0"}, place...)...)
	gone.Set(mode)
	run("0", append([]string{"rollback", "--reason", "by hand"}, place...)...)
	serving(ts, "1.0.0")
	run("0", append([]string{"rollback", "--reason", "pressed again"}, place...)...)
	serving(ts, "1.0.0")
	gone.Set(registrytest.Healthy)
	run("0", append([]string{"verify"}, place...)...)
	status(ts, "live +1.0.0", "quarantined +1.1.0 .*by hand")
	lift(ts, run, place)
}

func lift(ts *testscript.TestScript, run func(string, ...string), place []string) {
	run("0", append([]string{"unfreeze", "--reason", "drill"}, place...)...)
	run("0", append([]string{"lift", "--reason", "drill", "--digest", digest(ts)}, place...)...)
}

// digest is that of 1.1.0.
func digest(ts *testscript.TestScript) string {
	exits(ts, false, []string{"0", "status", "--environment", "production", "--json"})
	found := regexp.MustCompile(`"quarantined":\[\{"release":\{"digest":"(sha256:[0-9a-f]{64})"`).FindStringSubmatch(ts.ReadFile("stdout"))
	if found == nil {
		ts.Fatalf("nothing is in quarantine: %s", ts.ReadFile("stdout"))
	}
	return found[1]
}

func status(ts *testscript.TestScript, want ...string) {
	exits(ts, false, []string{"0", "status", "--environment", "production"})
	for _, w := range want {
		if !regexp.MustCompile(w).MatchString(ts.ReadFile("stdout")) {
			ts.Fatalf("status does not show %s:\n%s", w, ts.ReadFile("stdout"))
		}
	}
}

// serving makes sure that customers get version.
func serving(ts *testscript.TestScript, version string) {
	if got, err := asked(ts.Getenv("PROXY")); err != nil || !strings.Contains(got, version) {
		ts.Fatalf("customers get %q, %v; want %s", got, err, version)
	}
}

// waitFor waits until backstep status shows a line that matches. It runs beside another step.
func waitFor(ts *testscript.TestScript, pattern string) {
	wanted := regexp.MustCompile(pattern)
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		cmd := exec.Command(filepath.Join(ts.Getenv("BIN"), "backstep"), "status", "--environment", "production")
		cmd.Dir = ts.Getenv("WORK")
		cmd.Env = []string{"BACKSTEP_HOST=plain", "HOME=/nonexistent", "PATH=" + ts.Getenv("PATH")}
		if out, _ := cmd.Output(); wanted.Match(out) {
			return
		}
	}
}
