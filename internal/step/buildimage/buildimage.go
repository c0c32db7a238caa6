// Package buildimage declares the step that makes an image and pushes it.
package buildimage

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backstep/backstep/internal/builder"
	"github.com/backstep/backstep/internal/builder/docker"
	"github.com/backstep/backstep/internal/builder/layers"
	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/gitrepo"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/step"
)

var (
	outImage    = input.Output{Name: "image", Help: "The image, as registry/name@sha256:…."}
	outDigest   = input.Output{Name: "digest", Help: "Its digest."}
	outTags     = input.Output{Name: "tags", Help: "The tags that the image was given, one a line."}
	outMetadata = input.Output{Name: "metadata", Help: "All of it as one JSON object, with the labels."}
)

// The builders, as the input names them.
const (
	auto       = "auto"
	withLayers = "layers"
	withDocker = "docker"
)

// options are the inputs that are not the builder's own.
type options struct {
	builder, platform, version string
	files                      []string
	env                        map[string]string
	login                      registry.Login
}

// Step declares build-image.
func Step() step.Step {
	var (
		o options
		r builder.Request
	)
	return step.Step{
		Name:    "build-image",
		Summary: "Make an image and push it by its digest",
		Doc: "Builder `layers` puts files on a base image, or on nothing, and needs neither a Dockerfile nor a daemon; the same " +
			"input gives the same digest. Builder `docker` gives a Dockerfile to the local engine, without `.git`, whose configuration holds credentials; `!.git` in .dockerignore gives it back. `auto` takes docker when " +
			"there is a Dockerfile. Everything in the image has one time: SOURCE_DATE_EPOCH, else that of the commit, else 0.",
		Inputs: append([]input.Input{
			input.String(&r.Repository, "repository", "The repository to push to, registry/name.").Must(),
			input.String(&r.Context, "context", step.ContextHelp).Or("."),
			input.String(&o.builder, "builder", "How to build.").OneOf(auto, withLayers, withDocker).Or(auto),
			input.String(&r.Dockerfile, "dockerfile", "docker: the Dockerfile, inside the context.").Or("Dockerfile"),
			input.Map(&r.Arguments, "build-args", "docker: the arguments of the build."),
			input.String(&r.Base, "base", "layers: the image to put the files on, with a tag or a digest; empty is scratch."),
			input.List(&o.files, "files", "layers: files and folders of the context, each FROM or FROM:TO."),
			input.List(&r.Entrypoint, "entrypoint", "layers: the program and its arguments, a word each."),
			input.List(&r.Command, "command", "layers: the default arguments, a word each."),
			input.Map(&o.env, "env", "layers: environment variables of the image."),
			input.List(&r.Ports, "ports", "layers: the ports that the image exposes, such as 8080 or 8080/udp.").
				Matching(regexp.MustCompile(`^[0-9]{1,5}(/(tcp|udp|sctp))?$`), "8080/tcp"),
			input.String(&r.User, "user", "layers: the user that the program runs as."),
			input.String(&r.Dir, "workdir", "layers: the working directory."),
			input.String(&o.platform, "platform", "The platform of the image.").Or("linux/amd64").
				Matching(regexp.MustCompile(`^[a-z0-9]+/[a-z0-9]+$`), "linux/arm64"),
			input.Map(&r.Labels, "labels", "Labels of the image, beside those that are set by themselves."),
			input.List(&r.Tags, "tags", "Tags to give the image.").
				Matching(regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`), "1.4.2"),
			input.String(&o.version, "version", step.VersionHelp).FromStep(),
		}, o.login.Inputs()...),
		Outputs: []input.Output{outImage, outDigest, outTags, outMetadata},
		Run:     func(ctx context.Context, rt *step.Runtime) error { return run(ctx, rt, r, o) },
	}
}

func run(ctx context.Context, rt *step.Runtime, r builder.Request, o options) error {
	r, err := complete(ctx, rt, r, o)
	if err != nil {
		return err
	}
	client, err := o.login.Client(rt.Host, rt.Secrets, r.Repository)
	if err != nil {
		return err
	}
	name, why := choose(o.builder, r)
	rt.Log.Info("building", "builder", name, "why", why)
	build := map[string]builder.Builder{withLayers: layers.New(client), withDocker: docker.New(client)}[name]
	digest, err := build.Build(ctx, r)
	if err != nil {
		return fmt.Errorf("build an image for %s: %w", r.Repository, err)
	}
	image := r.Repository + "@" + string(digest)
	rt.Log.Info("pushed", "digest", digest.Short(), "tags", strings.Join(r.Tags, " "))
	metadata, err := json.Marshal(map[string]any{"image": image, "digest": digest, "tags": r.Tags, "builder": name, "labels": r.Labels})
	if err != nil {
		return err
	}
	rt.Summary(step.Report{Title: "Built an image", Rows: [][2]string{{"image", image}, {"builder", name + ": " + why},
		{"tags", strings.Join(r.Tags, ", ")}}})
	return rt.Outputs(
		step.Value{Output: outImage, Value: image},
		step.Value{Output: outDigest, Value: string(digest)},
		step.Value{Output: outTags, Value: strings.Join(r.Tags, "\n")},
		step.Value{Output: outMetadata, Value: string(metadata)},
	)
}

// choose is the builder for r, and why that one.
func choose(wanted string, r builder.Request) (name, why string) {
	if wanted != auto {
		return wanted, "it was asked for"
	}
	if len(r.Files) > 0 || len(r.Entrypoint) > 0 {
		return withLayers, "files or an entrypoint are given"
	}
	path := filepath.Join(r.Context, r.Dockerfile)
	if _, err := os.Stat(path); err == nil {
		return withDocker, "there is " + path
	}
	return withLayers, "there is no " + path
}

// complete is r with what is derived from the other inputs, the run and the repository.
func complete(ctx context.Context, rt *step.Runtime, r builder.Request, o options) (builder.Request, error) {
	var faults []error
	if _, err := registry.ParseRepository(r.Repository); err != nil {
		faults = append(faults, err)
	}
	for _, tag := range r.Tags {
		if strings.HasPrefix(tag, "bs.") {
			faults = append(faults, fault.Inputf("tag %q: tags that begin with bs. are the ledger's", tag))
		}
	}
	if err := release.ParseVersion(o.version); o.version != "" && err != nil {
		faults = append(faults, err)
	}
	r.OS, r.Arch, _ = strings.Cut(o.platform, "/")
	for _, f := range o.files {
		from, to, renamed := strings.Cut(f, ":")
		if !renamed {
			to = "/" + from
		}
		if from == "" || to == "" {
			faults = append(faults, fault.Inputf("file %q: want FROM or FROM:TO", f))
			continue
		}
		r.Files = append(r.Files, builder.File{From: from, To: to})
	}
	for _, key := range slices.Sorted(maps.Keys(o.env)) {
		r.Env = append(r.Env, key+"="+o.env[key])
	}
	r.Ports = slices.Clone(r.Ports)
	for i, p := range r.Ports {
		if !strings.Contains(p, "/") {
			r.Ports[i] = p + "/tcp"
		}
	}
	head := gitrepo.Commit{Time: time.Unix(0, 0)}
	repo, err := gitrepo.Open(r.Context)
	if err == nil {
		var newest gitrepo.Commit
		if newest, err = repo.Head(ctx); err == nil {
			head = newest
		}
	}
	if err != nil {
		rt.Log.Debug("no commit is known", "error", err)
	}
	r.Created = head.Time.UTC()
	if epoch := rt.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			faults = append(faults, fault.Inputf("%q is no number of seconds", epoch).At("SOURCE_DATE_EPOCH"))
		}
		r.Created = time.Unix(seconds, 0).UTC()
	}
	run := rt.Host.Run()
	labels := map[string]string{"org.opencontainers.image.created": r.Created.Format(time.RFC3339)}
	for key, value := range map[string]string{"version": o.version, "revision": cmp.Or(run.Commit, head.Hash), "source": run.Repository} {
		if value != "" {
			labels["org.opencontainers.image."+key] = value
		}
	}
	maps.Copy(labels, r.Labels)
	r.Labels = labels
	return r, errors.Join(faults...)
}
