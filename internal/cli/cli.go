// Package cli runs steps from a command line: it finds the host, reads the inputs, and is the only one that
// prints errors.
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/host"
	"github.com/backstep/backstep/internal/host/github"
	"github.com/backstep/backstep/internal/host/gitlab"
	"github.com/backstep/backstep/internal/host/plain"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/secret"
	"github.com/backstep/backstep/internal/step"
)

// Version is set by the linker in a release build.
var Version = ""

// hosts are asked in this order whether they are at work; plain always is.
func hosts() []host.Kind { return []host.Kind{github.Kind(), gitlab.Kind(), plain.Kind()} }

// process is what a command line runs in.
type process struct {
	args           []string // without the program's name
	stdout, stderr io.Writer
	terminal       io.Writer // stderr when it is a terminal, else nil
	getenv         func(string) string
	environ        []string // NAME=value
	now            func() time.Time
}

// printed is p with printers before its outputs, which know its secrets. What a host is told on purpose goes to raw.
func (p process) printed(secrets *secret.Known) (printing process, flush func(), raw io.Writer) {
	out, complaints := host.NewPrinter(p.stdout, secrets.Redact), host.NewPrinter(p.stderr, secrets.Redact)
	raw, p.stdout, p.stderr = p.stdout, out, complaints
	return p, func() {
		out.Flush()
		complaints.Flush()
	}, raw
}

// Main runs the step that the command line names and returns the exit code. A program of one step needs no
// name of it.
func Main(steps ...step.Step) int {
	if err := passThrough(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "backstep: error: %v\n", err)
		return int(fault.Failed)
	}
	p := process{args: os.Args[1:], stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv, environ: os.Environ(), now: time.Now}
	if term.IsTerminal(int(os.Stderr.Fd())) {
		p.terminal = os.Stderr
	}
	signalled, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithCancelCause(context.Background())
	context.AfterFunc(signalled, func() {
		stop() // a second signal ends the process at once
		cancel(fmt.Errorf("cancelled: %w", context.Cause(signalled)))
	})
	return p.main(ctx, steps)
}

func (p process) main(ctx context.Context, steps []step.Step) int {
	var kind host.Kind
	var h host.Host
	secrets := secret.NewKnown(func(text string) {
		if m, ok := h.(host.Masker); ok {
			m.Mask(text)
		}
	})
	p, flush, raw := p.printed(secrets)
	defer flush()
	kind, h, err := p.host(raw)
	if err == nil {
		for _, name := range h.Secrets() {
			secrets.Learn(p.getenv(name))
		}
		err = p.dispatch(ctx, reading{process: p, kind: kind, host: h, secrets: secrets, steps: steps})
	}
	if err == nil {
		return int(fault.Done)
	}
	p.report(h, secrets, err)
	return int(fault.CodeOf(err))
}

func (p process) host(raw io.Writer) (host.Kind, host.Host, error) {
	env := host.Environment{Getenv: p.getenv, Stdout: func(line string) { fmt.Fprintln(p.stdout, line) },
		Command: func(line string) { fmt.Fprintln(raw, line) }}
	wanted := p.getenv("BACKSTEP_HOST")
	var names []string
	for _, k := range hosts() {
		if wanted == k.Name || wanted == "" && k.Detect(p.getenv) {
			return k, k.New(env), nil
		}
		names = append(names, k.Name)
	}
	return host.Kind{}, nil, fault.Inputf("host %q is not one of %s", wanted, strings.Join(names, ", ")).At("BACKSTEP_HOST")
}

func (p process) dispatch(ctx context.Context, r reading) error {
	args, steps := p.args, r.steps
	if len(args) > 0 && (args[0] == "--version" || args[0] == "-version" || args[0] == "version") {
		fmt.Fprintln(p.stdout, version())
		return nil
	}
	if len(steps) == 1 {
		return r.run(ctx, steps[0], args)
	}
	if told := p.getenv(r.kind.Prefix + "STEP"); len(args) == 0 && told != "" {
		args = []string{told}
	}
	if len(args) == 0 && r.told() {
		return fault.Inputf("nothing says which step is to run").At(r.kind.Prefix+"STEP").WithHint("set step to one of %s", strings.Join(stepNames(steps), ", "))
	}
	if len(args) == 0 || isHelp(args[0]) {
		return p.help(steps, args[min(len(args), 1):])
	}
	if args[0] == "completion" {
		script, err := completion(args[1:], steps)
		fmt.Fprint(p.stdout, script)
		return err
	}
	s, err := find(steps, args[0])
	if err != nil {
		return err
	}
	return r.run(ctx, s, args[1:])
}

// help prints the help of the step that args name, or what there is.
func (p process) help(steps []step.Step, args []string) error {
	if len(args) == 0 {
		fmt.Fprint(p.stdout, overview(steps, p.columns()))
		return nil
	}
	s, err := find(steps, args[0])
	if err != nil {
		return err
	}
	fmt.Fprint(p.stdout, Help(s, p.columns()))
	return nil
}

// run reads the inputs of s and runs it.
func (r reading) run(ctx context.Context, s step.Step, args []string) error {
	logs := logging{}
	inputs := append(slices.Clone(s.Inputs), logs.inputs()...)
	given, err := parse(s.Name, s.Words, inputs, args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(r.stdout, Help(s, r.columns()))
		return nil
	}
	if err != nil {
		return err
	}
	r.step, r.flags = s, given
	if err := r.read(inputs); err != nil {
		return err
	}
	if h, ok := r.host.(host.Starter); ok && !s.Operator {
		if err := h.Start(); err != nil {
			return err
		}
	}
	return s.Run(ctx, &step.Runtime{Host: r.host, Log: logs.logger(r.stderr), Stdout: r.stdout, Stderr: r.stderr,
		Terminal: r.terminal, Secrets: r.secrets, Getenv: r.getenv, Now: r.now})
}

// parse reads flags. A flag can be repeated for an input that takes several values.
func parse(name string, words []string, inputs []input.Input, args []string) (map[string]string, error) {
	given := map[string]string{}
	for len(words) > 0 && len(args) > 0 && (args[0] == "-" || !strings.HasPrefix(args[0], "-")) {
		given[words[0]], words, args = args[0], words[1:], args[1:]
	}
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	for _, in := range inputs {
		set := func(value string) error {
			switch old, again := given[in.Name]; {
			case again && in.Multiple():
				given[in.Name] = old + "\n" + value
			case again:
				return errors.New("it is there twice")
			default:
				given[in.Name] = value
			}
			return nil
		}
		if in.Type == input.Boolean {
			flags.BoolFunc(in.Name, in.Help, set)
		} else {
			flags.Func(in.Name, in.Help, set)
		}
	}
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil, err
	case err != nil:
		return nil, fault.Inputf("%w", err).WithHint("%s", taken(name, names(inputs), err))
	case flags.NArg() > 0:
		return nil, fault.Inputf("%q is neither a flag nor the value of one", flags.Arg(0)).
			WithHint("inputs are given as --name value")
	}
	return given, nil
}

// taken is the hint to a flag that was refused: the one that was meant, or all of them.
func taken(step string, known []string, err error) string {
	if wrong, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); ok {
		if near := input.Nearest(strings.TrimPrefix(wrong, "-"), known); near != "" {
			return "did you mean --" + near + "?"
		}
	}
	return step + " takes --" + strings.Join(known, ", --")
}

// report prints err, each of its members with its hint, and marks the run with it.
func (p process) report(h host.Host, secrets *secret.Known, err error) {
	for _, e := range fault.Each(err) {
		p.print("error", e.Error())
		hint := fault.HintOf(e)
		if hint != "" {
			p.print("hint", hint)
		}
		if a, ok := h.(host.Annotator); ok {
			message, place := e.Error(), ""
			var f *fault.Error
			if errors.As(e, &f) && f.Place != "" {
				message, place = strings.TrimPrefix(message, f.Place+": "), f.Place
			}
			if hint != "" {
				message += "\n" + hint
			}
			safe := func(text string) string { return host.Escape(secrets.Redact(text)) }
			a.Annotate(host.Error, safe(place), safe(message))
		}
	}
}

// print writes text so that each of its lines begins with our name: no line can pass for a command to a host.
func (p process) print(label, text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(p.stderr, "backstep: %s: %s\n", label, strings.TrimRight(line, "\r\n"))
	}
}

// logging holds the inputs that every step has beside its own.
type logging struct{ format, level string }

func (l *logging) inputs() []input.Input {
	return []input.Input{
		input.String(&l.format, "log-format", "How log lines look: text for people, json for collectors.").OneOf("text", "json").Or("text"),
		input.String(&l.level, "log-level", "The least that is logged.").OneOf("debug", "info", "warn", "error").Or("info"),
	}
}

func (l *logging) logger(w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(l.level)) // one of the options above
	if l.format == "json" {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey && len(groups) == 0 {
				return slog.String(slog.TimeKey, a.Value.Time().Format("15:04:05.000"))
			}
			return a
		}}))
}

// find is the step called name, or the fault that there is none.
func find(steps []step.Step, name string) (step.Step, error) {
	if i := slices.IndexFunc(steps, func(s step.Step) bool { return s.Name == name }); i >= 0 {
		return steps[i], nil
	}
	none := fault.Inputf("%q is not a step or a command", name)
	if near := input.Nearest(name, stepNames(steps)); near != "" {
		return step.Step{}, none.WithHint("did you mean %s?", near)
	}
	return step.Step{}, none.WithHint("they are %s", strings.Join(stepNames(steps), ", "))
}

func stepNames(steps []step.Step) []string {
	var all []string
	for _, s := range steps {
		all = append(all, s.Name)
	}
	return all
}

func isHelp(arg string) bool { return slices.Contains([]string{"help", "-h", "-help", "--help"}, arg) }

func version() string {
	if Version != "" {
		return Version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
