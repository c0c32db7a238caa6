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
	"strings"
	"syscall"
	"time"

	"github.com/backstep/backstep/internal/child"
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
			"Of the environment of the job it gets " + strings.Join(child.Needed(), ", ") + ", and nothing else: what it needs besides is given with env.",
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
		c.Env = child.Environment(os.Environ())
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
