// Package semvertag declares the step that finds the next version and names the image after it.
package semvertag

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/backstep/backstep/internal/bump"
	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/gitrepo"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/step"
)

var (
	outVersion  = input.Output{Name: "version", Help: "The version, SemVer without v; empty when there is nothing to release."}
	outPrevious = input.Output{Name: "previous-version", Help: "The last stable version before it; empty when there was none."}
	outTag      = input.Output{Name: "tag", Help: "The name of the git tag."}
	outBump     = input.Output{Name: "bump", Help: "How far the version moved: major, minor, patch or none."}
	outReleased = input.Output{Name: "released", Help: "true, or false when there is nothing to release."}
	outTags     = input.Output{Name: "tags", Help: "The tags that the image was given, one a line."}
	outImage    = input.Output{Name: "image", Help: "The image, as registry/name@sha256:…; empty when none was given."}
	outDigest   = input.Output{Name: "digest", Help: "Its digest."}
	outNotes    = input.Output{Name: "notes", Help: "Release notes in Markdown."}
)

// options are the inputs.
type options struct {
	image, bump, version, prefix, prerelease, initial, fetch, context string
	floating, gitTag                                                  bool
}

// found is what the history says.
type found struct {
	version, previous *semver.Version // nil when there is none
	level             bump.Level
	messages          []bump.Message
}

// Step declares semver-tag.
func Step() step.Step {
	var o options
	return step.Step{
		Name:    "semver-tag",
		Summary: "Find the next version from the commits, and tag the image and the commit with it",
		Doc: "Reads the Conventional Commits since the last release tag. A shallow clone is deepened by just the commits that " +
			"are needed. The image gets 1.4.2, and 1.4, 1 and latest unless a higher version has them, without being " +
			"uploaded again. No version tag is ever moved.",
		Inputs: []input.Input{
			input.String(&o.image, "image", step.ImageHelp),
			input.String(&o.version, "version", step.VersionHelp),
			input.String(&o.bump, "bump", "How far to move the version; auto asks the commits.").
				OneOf("auto", "major", "minor", "patch", "none").Or("auto"),
			input.String(&o.prefix, "tag-prefix", "What comes before the version in git tags.").Or("v"),
			input.String(&o.prerelease, "prerelease", "The channel of a prerelease, such as rc; empty is a stable release."),
			input.String(&o.initial, "initial-version", "The version of the first release.").Or("0.1.0"),
			input.Bool(&o.floating, "floating-tags", "Also give the image 1.4, 1 and latest where it is the highest.").Or("true"),
			input.Bool(&o.gitTag, "git-tag", "Make an annotated git tag and push it."),
			input.String(&o.fetch, "fetch", "Whether missing history may be fetched.").OneOf("auto", "never").Or("auto"),
			input.String(&o.context, "context", step.ContextHelp).Or("."),
		},
		Outputs: []input.Output{outVersion, outPrevious, outTag, outBump, outReleased, outTags, outImage, outDigest, outNotes},
		Run:     func(ctx context.Context, rt *step.Runtime) error { return run(ctx, rt, o) },
	}
}

func run(ctx context.Context, rt *step.Runtime, o options) error {
	repo := gitrepo.Open(o.context)
	var f found
	var err error
	if o.version != "" {
		if f.version, err = semver.StrictNewVersion(o.version); err != nil {
			return fault.Inputf("version %q is no SemVer: want for example 1.4.2 or 1.5.0-rc.1, without v", o.version).At("version")
		}
	} else if f, err = next(ctx, rt, repo, o); err != nil {
		return err
	}
	values := []step.Value{
		{Output: outBump, Value: f.level.String()},
		{Output: outReleased, Value: strconv.FormatBool(f.version != nil)},
	}
	if f.previous != nil {
		values = append(values, step.Value{Output: outPrevious, Value: f.previous.String()})
	}
	if f.version == nil {
		rt.Log.Info("nothing to release: no commit since the last release asks for one")
		return rt.Outputs(values...)
	}
	version, tag := f.version.String(), o.prefix+f.version.String()
	rt.Log.Info("version", "version", version, "bump", f.level.String())
	values = append(values, step.Value{Output: outVersion, Value: version}, step.Value{Output: outTag, Value: tag},
		step.Value{Output: outNotes, Value: bump.Notes(version, f.messages)})
	rows := [][2]string{{"version", version}, {"bump", f.level.String()}}
	if o.image != "" {
		image, digest, tags, err := tagImage(ctx, o, f.version)
		if err != nil {
			return err
		}
		rt.Log.Info("tagged", "image", image, "tags", strings.Join(tags, " "))
		rows = append(rows, [2]string{"image", image}, [2]string{"tags", strings.Join(tags, ", ")})
		values = append(values, step.Value{Output: outImage, Value: image}, step.Value{Output: outDigest, Value: digest},
			step.Value{Output: outTags, Value: strings.Join(tags, "\n")})
	}
	if o.gitTag {
		made, err := repo.Tag(ctx, tag, "Release "+version)
		if err != nil {
			return err
		}
		rt.Log.Info("git tag", "tag", tag, "made", made)
		rows = append(rows, [2]string{"git tag", tag})
	}
	rt.Summary(step.Report{Title: "Version " + version, Rows: rows}.Markdown())
	return rt.Outputs(values...)
}

// tagImage gives the image its version, and the floating tags that are its to take.
func tagImage(ctx context.Context, o options, v *semver.Version) (image, digest string, tags []string, err error) {
	client := registry.New()
	ref, err := registry.ParseReference(o.image)
	if err != nil {
		return "", "", nil, err
	}
	r, err := client.Resolve(ctx, ref)
	if errors.Is(err, registry.ErrNotFound) {
		return "", "", nil, fault.Inputf("image %s does not exist: %w", o.image, err).WithHint("build and push it first: backstep build-image")
	}
	if err != nil {
		return "", "", nil, err
	}
	exact := bump.ImageTag(v)
	switch on, err := client.Head(ctx, r.Repository, exact); {
	case errors.Is(err, registry.ErrNotFound):
	case err != nil:
		return "", "", nil, err
	case on != r.Digest:
		return "", "", nil, fault.Inputf("tag %s of %s is %s already, not %s", exact, r.Repository, on.Short(), r.Digest.Short()).
			WithHint("a version is never moved: choose another one")
	}
	tags = []string{exact}
	if o.floating {
		existing, err := client.Tags(ctx, r.Repository)
		if err != nil && !errors.Is(err, registry.ErrNotFound) {
			return "", "", nil, err
		}
		tags = append(tags, bump.FloatingTags(v, bump.ImageVersions(existing))...)
	}
	return r.Reference(), string(r.Digest), tags, client.Tag(ctx, r, tags...)
}

// next is the next version by the history of the repository.
func next(ctx context.Context, rt *step.Runtime, repo gitrepo.Repo, o options) (found, error) {
	var f found
	initial, err := semver.StrictNewVersion(o.initial)
	if err != nil {
		return f, fault.Inputf("%q is no SemVer: want for example 0.1.0", o.initial).At("initial-version")
	}
	if _, err := repo.Head(ctx); err != nil {
		return f, err
	}
	all, err := repo.Tags(ctx, o.prefix)
	if err != nil {
		return f, err
	}
	every, junk := bump.Tags(slices.Collect(maps.Keys(all)), o.prefix)
	for _, name := range junk {
		rt.Log.Debug("not a version", "tag", name)
	}
	merged := every
	shallow, err := repo.Shallow(ctx)
	if err != nil {
		return f, err
	}
	if shallow {
		if o.fetch == "never" {
			return f, fault.Inputf("the clone is shallow: the commits since the last release are not in it").
				WithHint("let it fetch them with --fetch auto, or clone it whole: fetch-depth: 0 on GitHub, GIT_DEPTH: 0 on GitLab")
		}
		last := ""
		if i := slices.IndexFunc(every, func(t bump.Tag) bool { return t.Version.Prerelease() == "" }); i >= 0 {
			last = every[i].Name
		}
		if err := repo.Deepen(ctx, o.prefix, last); err != nil {
			return f, err
		}
	} else {
		names, err := repo.Merged(ctx, o.prefix)
		if err != nil {
			return f, err
		}
		merged, _ = bump.Tags(names, o.prefix)
	}
	history := bump.History{}
	for _, t := range every {
		history.Known = append(history.Known, t.Version)
	}
	last := ""
	for _, t := range merged {
		switch {
		case t.Version.Prerelease() != "":
			history.Prereleases = append(history.Prereleases, t.Version)
		case history.Stable == nil:
			history.Stable, last = t.Version, t.Name
		}
	}
	f.previous = history.Stable
	if last != "" && all[last] != "" {
		if head, err := repo.Head(ctx); err != nil {
			return f, err
		} else if head.Commit == all[last] && o.bump == "auto" {
			return f, nil // the release itself is checked out
		}
	}
	commits, err := repo.Since(ctx, last)
	if err != nil {
		return f, err
	}
	for _, c := range commits {
		f.messages = append(f.messages, bump.Parse(c.Commit, c.Message))
	}
	f.level = bump.Applied(history.Stable, bump.Of(f.messages))
	if history.Stable == nil && f.level == bump.None && len(commits) > 0 {
		f.level = bump.Patch // the first release needs no reason
	}
	if o.bump != "auto" {
		if f.level, err = bump.ParseLevel(o.bump); err != nil {
			return f, fmt.Errorf("bump: %w", err)
		}
	}
	f.version = bump.Next(history, f.level, o.prerelease, initial)
	return f, nil
}
