// Package docker is the builder that gives a Dockerfile to a Docker engine.
package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/moby/client"

	"github.com/backstep/backstep/internal/builder"
	"github.com/backstep/backstep/internal/child"
	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/release"
)

// New is the builder; client resolves what the engine has pushed.
func New(client *registry.Client) builder.Builder { return docker{client} }

type docker struct{ client *registry.Client }

// engine builds, names and pushes: the docker command where there is one, since it brings BuildKit along, else
// the API of the engine, as in a container that has its socket.
type engine interface {
	build(ctx context.Context, r builder.Request) (id string, err error)
	tag(ctx context.Context, id, name string) error
	push(ctx context.Context, repository, name string) error
}

// Build builds and pushes each tag. Without a tag the image is pushed under one that is made of its own
// identity, since the engine pushes tags only.
func (b docker) Build(ctx context.Context, r builder.Request) (release.Digest, error) {
	if err := check(r); err != nil {
		return "", err
	}
	var e engine = command(b)
	if _, err := exec.LookPath("docker"); err != nil {
		if e, err = newAPI(b.client); err != nil {
			return "", err
		}
	}
	return b.by(ctx, e, r)
}

func (b docker) by(ctx context.Context, e engine, r builder.Request) (release.Digest, error) {
	id, err := e.build(ctx, r)
	if err != nil {
		return "", err
	}
	tags := r.Tags
	if len(tags) == 0 {
		tags = []string{"build-" + strings.TrimPrefix(id, "sha256:")[:12]}
	}
	for _, tag := range tags {
		name := r.Repository + ":" + tag
		if err := e.tag(ctx, id, name); err != nil {
			return "", err
		}
		if err := e.push(ctx, r.Repository, name); err != nil {
			return "", err
		}
	}
	return b.client.Head(ctx, r.Repository, tags[0])
}

// command is the engine behind the docker command.
type command struct{ client *registry.Client }

func (command) tag(ctx context.Context, id, name string) error { return run(ctx, "tag", id, name) }

// push is the API's when there is a login, which the command does not know.
func (c command) push(ctx context.Context, repository, name string) error {
	if c.client.Knows(repository) {
		a, err := newAPI(c.client)
		if err != nil {
			return err
		}
		return a.push(ctx, repository, name)
	}
	return run(ctx, "push", "--quiet", name)
}

func (command) build(ctx context.Context, r builder.Request) (string, error) {
	folder, err := os.MkdirTemp("", "backstep-docker-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(folder)
	files, err := packed(r)
	if err != nil {
		return "", err
	}
	defer files.Close()
	identity := filepath.Join(folder, "id")
	args := []string{"build", "--iidfile", identity, "--file", filepath.ToSlash(r.Dockerfile), "--platform", r.OS + "/" + r.Arch}
	for _, key := range slices.Sorted(maps.Keys(r.Labels)) {
		args = append(args, "--label", key+"="+r.Labels[key])
	}
	// The values go through the environment: everybody on the machine can read a command line.
	var values []string
	for _, key := range slices.Sorted(maps.Keys(r.Arguments)) {
		args, values = append(args, "--build-arg", key), append(values, key+"="+r.Arguments[key])
	}
	if err := start(ctx, files, values, append(args, "-")...); err != nil {
		return "", err
	}
	id, err := os.ReadFile(identity)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(id)), nil
}

// needed are the variables of the docker command.
var needed = []string{"DOCKER_*", "BUILDKIT_*", "BUILDX_*", "XDG_*", "SSH_AUTH_SOCK"}

// check refuses what belongs into the Dockerfile: leaving it out would build another image.
func check(r builder.Request) error {
	var faults []error
	for _, key := range slices.Sorted(maps.Keys(r.Arguments)) {
		if key == "PATH" || key == "HOME" || strings.HasPrefix(key, "DOCKER_") || strings.ContainsAny(key, "=\x00") {
			faults = append(faults, fault.Inputf("build argument %q would change the docker command itself", key).
				WithHint("give it another name in %s", r.Dockerfile))
		}
	}
	for _, in := range []struct {
		name  string
		given bool
	}{
		{"base", r.Base != ""}, {"files", len(r.Files) > 0}, {"entrypoint", len(r.Entrypoint) > 0},
		{"command", len(r.Command) > 0}, {"env", len(r.Env) > 0}, {"ports", len(r.Ports) > 0},
		{"user", r.User != ""}, {"workdir", r.Dir != ""},
	} {
		if in.given {
			faults = append(faults, fault.Inputf("input %s is for builder layers", in.name).
				WithHint("write it into %s, or choose --builder layers", r.Dockerfile))
		}
	}
	if !filepath.IsLocal(r.Dockerfile) {
		faults = append(faults, fault.Inputf("dockerfile %s leaves the context %s", r.Dockerfile, r.Context))
	} else if info, err := os.Stat(filepath.Join(r.Context, r.Dockerfile)); err != nil || !info.Mode().IsRegular() {
		faults = append(faults, fault.Inputf("there is no file %s in %s", r.Dockerfile, r.Context).
			WithHint("name it with --dockerfile, or choose --builder layers"))
	}
	return errors.Join(faults...)
}

// run runs docker with these arguments. What it says is part of the error.
func run(ctx context.Context, args ...string) error { return start(ctx, nil, nil, args...) }

// start is run with an input and more variables, as NAME=VALUE.
func start(ctx context.Context, input io.Reader, variables []string, args ...string) error {
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Stdin, cmd.Env = input, append(child.Environment(os.Environ(), needed...), variables...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return fault.Inputf("builder docker needs the docker command").WithHint("install it, or choose --builder layers")
	}
	if err != nil {
		return told(args[0], err, said.String())
	}
	return nil
}

// told is the error of an engine that said this while it was doing what.
func told(what string, err error, said string) error {
	lines := strings.Split(strings.TrimSpace(said), "\n")
	last := lines[len(lines)-1]
	code := fault.Failed
	if strings.Contains(last, "denied") || strings.Contains(last, "unauthorized") || strings.Contains(last, "no basic auth") {
		code = fault.Input
	}
	return fault.Errorf(code, "docker %s: %w: %s", what, err, last).
		WithHint("it said:\n%s", strings.Join(lines[max(0, len(lines)-15):], "\n"))
}

// Engine says why no engine can be used, or nil.
func Engine(ctx context.Context) error {
	var err error
	if _, missing := exec.LookPath("docker"); missing == nil {
		err = run(ctx, "version", "--format", "{{.Server.Version}}")
	} else if a, open := newAPI(nil); open != nil {
		err = open
	} else {
		_, err = a.Ping(ctx, client.PingOptions{})
	}
	if err != nil {
		return fmt.Errorf("no Docker engine answers: %w", err)
	}
	return nil
}
