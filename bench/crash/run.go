package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/backstep/backstep/internal/fault"
)

// run is one process of backstep, and how it is to die.
type run struct {
	id        string // of the run, as the ledger's authors have it
	step      string // deploy, verify, rollback, freeze, unfreeze or lift
	args      []string
	about     shop          // deploy: what is deployed; verify: what is judged
	point     string        // where it is killed: the name of a point, or which one by number; "" is not
	after     time.Duration // when it is killed; 0 is not
	elsewhere bool          // on what it takes for another machine
	secret    string        // what it configures releases with
	rival     bool          // of another project that has the same names
}

// scene is what the points depend on which the run passes.
func (r run) scene() string {
	if r.about.bad {
		return r.step + " of a bad release"
	}
	return r.step
}

// outcome is how a run ended.
type outcome struct {
	run
	code   int // -1: it was killed
	stuck  bool
	begun  time.Time
	took   time.Duration
	values map[string]string // its outputs
	said   string            // all it wrote
	points []string          // which it passed
}

// clock is how times are printed.
const clock = "15:04:05.000"

// start runs a process of backstep to its end.
func (w *world) start(ctx context.Context, r run) (outcome, error) {
	o := outcome{run: r, begun: time.Now(), values: map[string]string{}}
	ctx, cancel := context.WithTimeout(ctx, w.patience)
	defer cancel()
	points := filepath.Join(w.dir, "points-"+r.id)
	defer os.Remove(points)
	cmd := exec.CommandContext(ctx, w.program, append([]string{r.step}, r.args...)...)
	cmd.Dir = w.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir, "BACKSTEP_HOST=plain", "BACKSTEP_ACTOR=crash", "BACKSTEP_RUN=" + r.id,
		"BACKSTEP_ENVIRONMENT=" + string(w.env), "BACKSTEP_POINTS=" + points, "SHOP_SECRET=" + r.secret, "BACKSTEP_KILL=" + strings.ReplaceAll(r.point, " ", "-")}
	if w.house != nil {
		cmd.Env = append(cmd.Env, "DOCKER_API_VERSION="+w.house.engine.version)
	}
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if r.elsewhere {
		moveElsewhere(cmd)
	}
	if err := cmd.Start(); err != nil {
		return o, fmt.Errorf("start %s: %w", r.step, err)
	}
	if r.after > 0 {
		timer := time.AfterFunc(r.after, func() { cmd.Process.Kill() })
		defer timer.Stop()
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && ctx.Err() == nil {
		return o, fmt.Errorf("%s: %w", r.step, err)
	}
	o.code, o.took, o.said = cmd.ProcessState.ExitCode(), time.Since(o.begun), out.String()+said.String()
	o.stuck = errors.Is(ctx.Err(), context.DeadlineExceeded)
	for line := range strings.Lines(out.String()) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			o.values[name] = value
		}
	}
	passed, err := os.ReadFile(points)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return o, err
	}
	o.points = strings.FieldsFunc(string(passed), func(r rune) bool { return r == '\n' })
	return o, nil
}

// together runs all of them side by side.
func (w *world) together(ctx context.Context, runs []run) ([]outcome, error) {
	outcomes, faults := make([]outcome, len(runs)), make([]error, len(runs))
	var all sync.WaitGroup
	for i, r := range runs {
		all.Go(func() { outcomes[i], faults[i] = w.start(ctx, r) })
	}
	all.Wait()
	return outcomes, errors.Join(append(faults, ctx.Err())...)
}

// says is whether the run wrote this text.
func (o outcome) says(text string) bool { return strings.Contains(o.said, text) }

// String is the run as a person would type it, and how it ended.
func (o outcome) String() string {
	death := ""
	switch {
	case o.point != "":
		death = ", to be killed at " + o.point
	case o.after > 0:
		death = ", to be killed after " + o.after.Round(time.Millisecond).String()
	}
	if o.elsewhere {
		death += ", elsewhere"
	}
	return fmt.Sprintf("%s %s: %s %s%s: exit code %d after %.3f s", o.begun.Format(clock), o.id, o.step, strings.Join(o.args, " "), death, o.code, o.took.Seconds())
}

// complaint is what the run says is wrong, on lines of its own, unless it is only refused.
func (o outcome) complaint() string {
	text := ""
	for line := range strings.Lines(o.said) {
		if strings.HasPrefix(line, "backstep: error: ") && o.code != int(fault.Refused) {
			text += "\n    " + strings.TrimSpace(line)
		}
	}
	return text
}
