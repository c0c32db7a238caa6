// Package demo declares the command that shows a bad release being caught and taken back. It runs the steps
// as a pipeline would, as processes of their own; only the screen, the traffic and the shop are the demo's.
package demo

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	containerregistry "github.com/google/go-containerregistry/pkg/registry"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/outfile"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/step"
	"github.com/backstep/backstep/internal/target/process"
)

// Step declares demo.
func Step() step.Step {
	var (
		rate       int
		asJSON     bool
		serve      string
		failsAfter string
		picture    string
	)
	return step.Step{
		Name:     "demo",
		Summary:  "Watch a bad release being caught and taken back, on this machine, in some seconds",
		Operator: true,
		Doc: "Starts a registry and a supervisor in this process, builds two releases of a small shop, sends steady " +
			"traffic, deploys and verifies 1.0.0, then deploys 1.1.0, which begins to fail. Ends with exit code 0 only " +
			"when the traffic is really back on 1.0.0. Leaves nothing behind.",
		Inputs: []input.Input{
			input.Int(&rate, "rate", "Requests a second.", 1, 1000).Or("50"),
			input.Bool(&asJSON, "json", step.JSONHelp),
			input.String(&picture, "picture", "Write what was shown to this file, as an SVG."),
			input.String(&serve, "serve", "Be the shop itself, in this version; the demo uses it."),
			input.String(&failsAfter, "fails-after", "When the shop begins to fail; 0s is never.").Or("0s"),
		},
		Run: func(ctx context.Context, rt *step.Runtime) error {
			if serve != "" {
				after, err := time.ParseDuration(failsAfter)
				if err != nil {
					return fault.Inputf("%w", err).At("--fails-after")
				}
				return shop(ctx, rt.Getenv("ADDR"), serve, after)
			}
			return run(ctx, rt, rate, asJSON, picture)
		},
	}
}

// Result is what the demo prints with --json.
type Result struct {
	FirstBad         time.Time   `json:"first_bad"`
	LastBad          time.Time   `json:"last_bad"`
	RecoveredSeconds float64     `json:"recovered_seconds"` // from the first bad answer to the last
	Requests         int         `json:"requests"`
	RequestsFailed   int         `json:"requests_failed"`
	Verdict          string      `json:"verdict"`
	RolledBackTo     string      `json:"rolled_back_to"` // the version that serves again
	Ledger           LedgerState `json:"ledger"`
}

// LedgerState is what the ledger says at the end.
type LedgerState struct {
	Events      uint64   `json:"events"`
	Live        string   `json:"live"`
	LastGood    string   `json:"last_good"`
	Quarantined []string `json:"quarantined"`
	Frozen      string   `json:"frozen"`
}

// configuration is the backstep.yml of the demo.
const configuration = `service: shop
repository: %s
environments:
  production:
    target: {kind: process, socket: %q}
    drain: 1s
    settle: 500ms
    try: 5s
    verify:
      bake: 5s
      objective: 5%%
      negligible: 5%%
      probes: [{kind: http, path: /, rate: 50}]
`

// failsAfter is when 1.1.0 begins to fail: late enough to be live and under verification by then.
const failsAfter = 4 * time.Second

// interrupted is how long a step may take to end when the demo is cancelled.
const interrupted = 5 * time.Second

// afterwards is how much longer the traffic goes on, to see that the service is really back.
const afterwards = time.Second

// stage is the demo's surroundings: a registry, a supervisor, a folder, and the program itself.
type stage struct {
	dir, program, repository, address string
	screen                            *screen
}

func run(ctx context.Context, rt *step.Runtime, rate int, asJSON bool, picture string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dir, err := os.MkdirTemp("", "backstep-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program, err := os.Executable()
	if err != nil {
		return err
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: containerregistry.New(containerregistry.Logger(log.New(io.Discard, "", 0))), ReadHeaderTimeout: time.Minute}
	go server.Serve(listener)
	defer server.Close()

	socket := filepath.Join(dir, "s")
	supervisor, err := process.NewSupervisor(process.SupervisorOptions{Dir: filepath.Join(dir, "state"), Socket: socket,
		Listen: "127.0.0.1:0", Ready: readyPath, Registry: registry.New(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- supervisor.Run(ctx) }()
	defer func() { cancel(); <-ended }()

	repository := listener.Addr().String() + "/shop"
	file := filepath.Join(dir, "backstep.yml")
	if err := os.WriteFile(file, fmt.Appendf(nil, configuration, repository, socket), 0o600); err != nil {
		return err
	}

	var customers traffic
	s := stage{dir: dir, program: program, repository: repository, address: supervisor.Address(),
		screen: newScreen(rt, &customers, picture != "")}
	defer s.screen.close()

	if err := s.deployed(ctx, "1.0.0", 0, fault.Done); err != nil {
		return err
	}
	sending, stop := context.WithCancel(ctx)
	sent := make(chan struct{})
	go func() { customers.run(sending, "http://"+s.address+"/", rate); close(sent) }()
	defer func() { stop(); <-sent }()
	if _, err := s.step(ctx, "verify", fault.Done, "--environment", "production", "--on-fail", "rollback"); err != nil {
		return err
	}
	// What fails from the first on is caught before a customer sees it; what fails later, only customers find.
	if err := s.deployed(ctx, "1.0.1", time.Millisecond, fault.RolledBack); err != nil {
		return err
	}
	if lost := customers.since(time.Time{}).failed; lost > 0 {
		return fault.Errorf(fault.HalfWay, "the demo failed: customers lost %d requests to 1.0.1, which never got traffic", lost)
	}
	if err := s.deployed(ctx, "1.1.0", failsAfter, fault.Done); err != nil {
		return err
	}
	verified, err := s.step(ctx, "verify", fault.RolledBack, "--environment", "production", "--on-fail", "rollback")
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(afterwards):
	}
	stop()
	<-sent

	event, err := s.status(ctx)
	if err != nil {
		return err
	}
	sum := customers.since(time.Time{})
	r := result(sum, verified, event)
	s.screen.close()
	summarize(s.screen.out, r)
	if picture != "" {
		if err := outfile.Write(picture, drawing(s.screen.shown.String())); err != nil {
			return err
		}
	}
	if asJSON {
		if err := json.NewEncoder(rt.Stdout).Encode(r); err != nil {
			return err
		}
	}
	return recovered(r, sum)
}

// deployed builds, tags and deploys one version of the shop, and wants the deploy to end with this code.
func (s *stage) deployed(ctx context.Context, version string, failsAfter time.Duration, want fault.Code) error {
	built, err := s.step(ctx, "build-image", fault.Done,
		"--repository", s.repository, "--version", version, "--builder", "layers",
		"--platform", runtime.GOOS+"/"+runtime.GOARCH, "--context", filepath.Dir(s.program),
		"--files", filepath.Base(s.program)+":/shop",
		"--entrypoint", "/shop", "--entrypoint", "demo", "--entrypoint", "--serve", "--entrypoint", version,
		"--entrypoint", "--fails-after", "--entrypoint", failsAfter.String())
	if err != nil {
		return err
	}
	image := built["image"]
	if _, err := s.step(ctx, "semver-tag", fault.Done, "--image", image, "--version", version); err != nil {
		return err
	}
	_, err = s.step(ctx, "deploy", want, "--environment", "production", "--image", image)
	return err
}

// step runs one step as a pipeline would, wants it to end with this code, and returns its outputs.
func (s *stage) step(ctx context.Context, name string, want fault.Code, args ...string) (map[string]string, error) {
	s.screen.begin(name, args)
	output := filepath.Join(s.dir, "output.json")
	if err := os.RemoveAll(output); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, s.program, append([]string{name}, args...)...)
	cmd.Dir = s.dir
	// What a step that is killed leaves behind is in the folder that the demo removes.
	cmd.Env = append(withoutHost(os.Environ()), "BACKSTEP_HOST=plain", "BACKSTEP_OUTPUT="+output, "BACKSTEP_LOG_FORMAT=json", "TMPDIR="+s.dir)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = interrupted
	var said bytes.Buffer
	pipe, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, cmp.Or(context.Cause(ctx), fmt.Errorf("start %s: %w", name, err))
	}
	lines := bufio.NewScanner(pipe)
	for lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		s.screen.log(name, lines.Text())
	}
	err = cmd.Wait()
	code := fault.Code(cmd.ProcessState.ExitCode())
	s.screen.end(name, code)
	if ctx.Err() != nil { // also when the step had just ended well
		return nil, context.Cause(ctx)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if code != want {
		return nil, fmt.Errorf("%s ended with exit code %d, want %d:\n%s", name, code, want, said.String())
	}
	values := map[string]string{}
	data, err := os.ReadFile(output)
	if errors.Is(err, os.ErrNotExist) {
		return values, nil
	}
	if err != nil {
		return nil, err
	}
	return values, json.Unmarshal(data, &values)
}

// withoutHost is the environment without what would make the steps believe to be in a pipeline.
func withoutHost(environ []string) []string {
	var kept []string
	for _, v := range environ {
		if !strings.HasPrefix(v, "BACKSTEP_") && !strings.HasPrefix(v, "GITHUB_") && !strings.HasPrefix(v, "INPUT_") && !strings.HasPrefix(v, "CI_") {
			kept = append(kept, v)
		}
	}
	return kept
}

// status asks the ledger through the command that a person would use.
func (s *stage) status(ctx context.Context) (ledger.Event, error) {
	cmd := exec.CommandContext(ctx, s.program, "status", "--environment", "production", "--json")
	cmd.Dir = s.dir
	cmd.Env = append(withoutHost(os.Environ()), "BACKSTEP_HOST=plain")
	out, err := cmd.Output()
	var e ledger.Event
	if err != nil {
		return e, fmt.Errorf("status: %w", err)
	}
	return e, json.Unmarshal(out, &e)
}

func result(sum tally, verified map[string]string, e ledger.Event) Result {
	r := Result{FirstBad: sum.firstBad, LastBad: sum.lastBad, RecoveredSeconds: sum.lastBad.Sub(sum.firstBad).Seconds(),
		Requests: sum.requests, RequestsFailed: sum.failed, Verdict: verified["verdict"],
		Ledger: LedgerState{Events: e.Seq, Quarantined: []string{}}}
	if live := e.State.Live; live != nil {
		r.Ledger.Live = live.Release.Version
		if live.Restored && verified["rolled-back-to"] == live.Release.Reference() {
			r.RolledBackTo = live.Release.Version
		}
	}
	if good := e.State.LastGood; good != nil {
		r.Ledger.LastGood = good.Release.Version
	}
	for _, q := range e.State.Quarantined {
		r.Ledger.Quarantined = append(r.Ledger.Quarantined, q.Release.Version)
	}
	if f := e.State.FreezeBy(ledger.ByRollback); f != nil {
		r.Ledger.Frozen = f.Reason
	}
	return r
}

// recovered is nil when what happened is what the demo is there to show.
func recovered(r Result, sum tally) error {
	for _, check := range []struct {
		what string
		ok   bool
	}{
		{"some requests failed", r.RequestsFailed > 0},
		{"the verdict was fail", r.Verdict == "fail"},
		{"1.0.0 serves again", r.RolledBackTo == "1.0.0" && r.Ledger.Live == "1.0.0"},
		{"1.1.0 is in quarantine", strings.Join(r.Ledger.Quarantined, " ") == "1.1.0"},
		{"the environment is frozen", r.Ledger.Frozen != ""},
		{"customers were served well afterwards", sum.goodSince > 0},
	} {
		if !check.ok {
			return fault.Errorf(fault.HalfWay, "the demo did not recover: not true that %s", check.what)
		}
	}
	return nil
}

func summarize(w io.Writer, r Result) {
	fmt.Fprintf(w, "\n  first bad request to last   %.3f s\n", r.RecoveredSeconds)
	fmt.Fprintf(w, "  requests lost               %d of %d\n", r.RequestsFailed, r.Requests)
	fmt.Fprintf(w, "  verdict on 1.1.0            %s, rolled back to %s\n", r.Verdict, r.RolledBackTo)
	fmt.Fprintf(w, "  the ledger says             live %s, last good %s, in quarantine %s, frozen, %s events\n",
		r.Ledger.Live, r.Ledger.LastGood, strings.Join(r.Ledger.Quarantined, ", "), strconv.FormatUint(r.Ledger.Events, 10))
}
