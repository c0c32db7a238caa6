// Package command is the probe that runs a program of the user's.
package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/probe"
	"github.com/backstep/backstep/internal/secret"
)

// outputLimit bounds what is kept of a program's output, in bytes.
const outputLimit = 64 << 10

// Kind is the command probe.
func Kind() probe.Kind {
	return probe.Kind{
		Name: "command",
		Help: "Runs a program, without a shell, that says on its standard output how the release is: {\"outcome\": \"pass\"}, or fail, with \"got\" for what it found. " +
			"Anything else, and any exit code but 0, is no data. The program finds the release at BACKSTEP_ADDRESS, or at $address in an argument. " +
			"Of the environment of the job it gets " + strings.Join(needed, ", ") + ", and nothing else: what it needs besides is given with env.",
		Every: time.Second,
		New: func() ([]input.Input, func() (probe.Probe, error)) {
			p := &question{}
			return []input.Input{
				input.List(&p.argv, "argv", "The program and its arguments.").Must(),
				input.Env(&p.env, "env", "What the program runs with. A secret is given as {env: NAME}, the variable to take it from."),
			}, func() (probe.Probe, error) { return p.open() }
		},
	}
}

// needed are the variables of the job that any program may need; one that ends in * stands for all that begin so. The
// others hold our own secrets: the password of the registry, the tokens of the CI system.
var needed = []string{"PATH", "HOME", "TMPDIR", "LANG", "LC_*", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"}

// environment is what of environ is needed.
func environment(environ []string) []string {
	var kept []string
	for _, v := range environ {
		name, _, _ := strings.Cut(v, "=")
		if slices.ContainsFunc(needed, func(n string) bool {
			prefix, all := strings.CutSuffix(n, "*")
			return n == name || all && strings.HasPrefix(name, prefix)
		}) {
			kept = append(kept, v)
		}
	}
	return kept
}

type question struct {
	argv []string
	env  map[string]secret.Value
}

func (p *question) open() (probe.Probe, error) {
	if len(p.argv) == 0 || p.argv[0] == "" {
		return nil, fault.Inputf("argv is empty: want a program")
	}
	if _, err := exec.LookPath(p.argv[0]); err != nil {
		return nil, fault.Inputf("argv: %w", err)
	}
	return p, nil
}

// Check runs the program once, and ends it and all it has started with ctx.
func (p *question) Check(ctx context.Context, address string) probe.Result {
	return probe.Checked(func() (probe.Outcome, string) {
		var argv []string
		for _, a := range p.argv {
			argv = append(argv, strings.ReplaceAll(a, "$address", address))
		}
		var out, complaints bounded
		c := exec.CommandContext(ctx, argv[0], argv[1:]...)
		c.Env = environment(os.Environ())
		for name, value := range p.env {
			c.Env = append(c.Env, name+"="+value.Reveal()) // the last one of a name counts
		}
		c.Env = append(c.Env, "BACKSTEP_ADDRESS="+address)
		c.Stdout, c.Stderr = &out, &complaints
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
		c.WaitDelay = time.Second // a grandchild may have kept the pipes
		if err := c.Run(); err != nil {
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return probe.NoData, "the program did not end in time"
			}
			return probe.NoData, probe.Line(fmt.Sprintf("%v: %s", err, complaints.Bytes()))
		}
		var said struct{ Outcome, Got string }
		if err := json.Unmarshal(out.Bytes(), &said); err != nil {
			return probe.NoData, probe.Line("the program wrote no JSON: " + out.String())
		}
		switch said.Outcome {
		case "pass":
			return probe.Pass, ""
		case "fail":
			return probe.Fail, probe.Line(said.Got)
		}
		return probe.NoData, probe.Line(fmt.Sprintf("outcome %q is neither pass nor fail: %s", said.Outcome, said.Got))
	})
}

// bounded keeps the first bytes written to it.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), outputLimit-b.Len())])
	return len(p), nil
}
