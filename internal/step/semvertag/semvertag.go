// Package semvertag is the step semver-tag: it decides the next version from the commits since the last release
// and gives it to the image, and to the commit when asked.
package semvertag

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/backstep/backstep/internal/bump"
	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/gitrepo"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/step"
)

const doc = `Reads the commits since the last release as Conventional Commits: a breaking change moves the major version
(the minor one while it is 0), ` + "`feat`" + ` the minor, ` + "`fix`" + ` and ` + "`perf`" + ` the patch. Reverts, and what they take back, do not count.

A shallow clone is enough: what is missing is fetched, without files. Version tags are never moved, neither in git nor
in the registry; only ` + "`1.4`, `1` and `latest`" + ` float, and never backwards. A prerelease takes none of them.

Where several services of a monorepo have their images in one repository, each has its own tags there: with tag-prefix ` + "`api/v`" + `
they are ` + "`api-1.4.2`, `api-1.4`, `api-1` and `api-latest`" + `, unless the repository is that of api alone: its name ends with it.

A commit that has its git tag already keeps that version, so that a run can be repeated and a pipeline can be started by a tag.`

// auto is what image-tag-prefix is when it was not given.
const auto = "auto"

// imagePrefixShape is what a tag can begin with; those that begin with bs. are the ledger's.
var imagePrefixShape = regexp.MustCompile(`^([A-Za-z0-9_][A-Za-z0-9._-]{0,63})?$`)

var channelShape = regexp.MustCompile(`^[A-Za-z][0-9A-Za-z-]*$`)

type inputs struct {
	image, version, level, prefix, imagePrefix, channel, dir, fetch string
	initial                                                         *semver.Version
	floating, gitTag                                                bool
}

// run is one run of the step, with what it was told and what it is to write.
type run struct {
	rt *step.Runtime
	in inputs

	login registry.Login
	out   struct {
		version, previous, tag, bump, released, tags, image, digest, notes input.Output
	}
}

// Step declares semver-tag.
func Step() step.Step {
	r := &run{}
	in, out := &r.in, &r.out
	out.version = input.Output{Name: "version", Help: "The version, without v. Without anything new it is the last one."}
	out.previous = input.Output{Name: "previous-version", Help: "The version before, or empty."}
	out.tag = input.Output{Name: "tag", Help: "The name of the git tag of the version, made or not."}
	out.bump = input.Output{Name: "bump", Help: "How far the version moved: major, minor, patch or none."}
	out.released = input.Output{Name: "released", Help: "Whether there is a release to go on with: true or false."}
	out.tags = input.Output{Name: "tags", Help: "The tags that the image was given, one a line."}
	out.image = input.Output{Name: "image", Help: "The image by digest."}
	out.digest = input.Output{Name: "digest", Help: "The digest of the image."}
	out.notes = input.Output{Name: "notes", Help: "Release notes in Markdown.", Foreign: true}
	return step.Step{
		Name:    "semver-tag",
		Summary: "Decide the next version and tag the image with it",
		Doc:     doc,
		Shell:   true,
		Inputs: append([]input.Input{
			input.String(&in.image, "image", step.ImageHelp).FromStep(),
			input.String(&in.level, "bump", "How far to move the version; auto asks the commits.").
				OneOf("auto", "major", "minor", "patch", "none").Or("auto"),
			input.String(&in.version, "version", step.VersionHelp),
			input.String(&in.prefix, "tag-prefix", "What git tags have before the version; in a monorepo for example api/v. Empty is nothing.").Or("v").MayBeEmpty(),
			input.String(&in.imagePrefix, "image-tag-prefix", "What image tags have before the version, such as api-. auto takes the part of tag-prefix before its last /, "+
				"unless the repository is that service's own. Empty is nothing.").Or(auto).MayBeEmpty().Matching(imagePrefixShape, "api-"),
			input.String(&in.channel, "prerelease", "Release a prerelease of this channel, such as rc for 1.3.0-rc.1.").
				Matching(channelShape, "rc"),
			input.Bind(&in.initial, "initial-version", "The version of the first release.", plainVersion).Or("0.1.0"),
			input.Bool(&in.floating, "floating-tags", "Move 1.4, 1 and latest to the image as well.").Or("true"),
			input.Bool(&in.gitTag, "git-tag", "Make an annotated git tag on the commit and push it."),
			input.String(&in.dir, "context", step.ContextHelp).Or("."),
			input.String(&in.fetch, "fetch", "Ask origin for tags and for what a shallow clone lacks, or never.").
				OneOf("auto", "never").Or("auto"),
		}, r.login.Inputs()...),
		Outputs: []input.Output{out.version, out.previous, out.tag, out.bump, out.released, out.tags, out.image, out.digest, out.notes},
		Run: func(ctx context.Context, rt *step.Runtime) error {
			r.rt = rt
			return r.run(ctx)
		},
	}
}

func plainVersion(s string) (*semver.Version, error) {
	v, err := semver.StrictNewVersion(s)
	if err != nil || v.Prerelease() != "" || v.Metadata() != "" {
		return nil, fmt.Errorf("%q: want for example 0.1.0", s)
	}
	return v, nil
}

// decision is which version the commit gets, and why.
type decision struct {
	version  *semver.Version // the last one when nothing is new; nil when there is none at all
	previous *semver.Version
	level    bump.Level
	known    []*semver.Version // every version that has a git tag
	commit   string            // "" outside of a repository
	again    bool              // the commit has this version's git tag already
	messages []bump.Message
	why      string
}

func (r *run) run(ctx context.Context) error {
	explicit, err := r.check()
	if err != nil {
		return err
	}
	client, err := r.login.Client(r.rt.Host, r.rt.Secrets, r.in.image)
	if err != nil {
		return err
	}
	var rel release.Release
	if r.in.image != "" {
		ref, err := registry.ParseReference(r.in.image)
		if err != nil {
			return err
		}
		rel, err = client.Resolve(ctx, ref)
		if errors.Is(err, registry.ErrNotFound) {
			return fault.Inputf("image %s does not exist: %w", r.in.image, err).WithHint("build and push it first: backstep build-image")
		}
		if err != nil {
			return fmt.Errorf("resolve the image: %w", err)
		}
	}
	repo, err := gitrepo.Open(r.in.dir)
	var d decision
	switch {
	case err == nil:
		if d, err = r.decide(ctx, repo, explicit); err != nil {
			return err
		}
	case explicit != nil && !r.in.gitTag: // a version that is given needs no repository
		d = decision{version: explicit, level: bump.Patch, why: "the version was given"}
	default:
		return err
	}
	released := d.level != bump.None && !(d.again && rel.Digest == "")
	if released && rel.Digest != "" {
		other, err := r.taken(ctx, client, rel, d)
		if err != nil {
			return err
		}
		if other != "" {
			released, d.why = false, fmt.Sprintf("%s is released already, as %s", d.version, other.Short())
		}
	}
	if !released {
		d.level = bump.None
		r.rt.Log.Info("nothing to release", "version", text(d.version), "why", d.why)
		return r.write(d, rel, false, nil)
	}
	r.rt.Log.Info("version decided", "version", d.version.String(), "previous", text(d.previous), "bump", d.level.String(), "why", d.why)
	if r.in.gitTag {
		// The git tag comes first: of two runs that want one version, origin lets one have it.
		name := r.in.prefix + d.version.String()
		created, err := repo.CreateTag(ctx, name, d.commit, name)
		if err != nil {
			return err
		}
		if created {
			r.rt.Log.Info("git tag pushed", "tag", name, "commit", d.commit)
		}
	}
	var tags []string
	if rel.Digest != "" {
		if tags, err = r.tagImage(ctx, client, rel, d); err != nil {
			return err
		}
		r.rt.Log.Info("image tagged", "image", rel.Reference(), "tags", strings.Join(tags, " "))
	}
	return r.write(d, rel, true, tags)
}

// check is for what one input alone cannot tell; the explicit version is nil when none is given.
func (r *run) check() (*semver.Version, error) {
	var faults []error
	if strings.HasPrefix(r.in.imagePrefix, "bs.") {
		faults = append(faults, fault.Inputf("image-tag-prefix %q: tags that begin with bs. are the ledger's", r.in.imagePrefix).WithHint("choose another"))
	}
	if r.in.version == "" {
		return nil, errors.Join(faults...)
	}
	v, err := semver.StrictNewVersion(r.in.version)
	if err != nil {
		faults = append(faults, release.ParseVersion(r.in.version))
	}
	if r.in.level != "auto" {
		faults = append(faults, fault.Inputf("version and bump exclude each other").WithHint("leave one of them out"))
	}
	if r.in.channel != "" {
		faults = append(faults, fault.Inputf("version and prerelease exclude each other").
			WithHint("write the prerelease into the version: 1.3.0-rc.1"))
	}
	return v, errors.Join(faults...)
}

// tagged is a version with its git tag.
type tagged struct {
	gitrepo.Tag
	version *semver.Version
}

func (r *run) decide(ctx context.Context, repo *gitrepo.Repo, explicit *semver.Version) (decision, error) {
	var d decision
	head, err := repo.Head(ctx)
	if err != nil {
		return d, err
	}
	d.commit = head.Hash
	all, err := r.releases(ctx, repo)
	if err != nil {
		return d, err
	}
	for _, t := range all {
		d.known = append(d.known, t.version)
	}

	// What the commit is tagged with is left out of the history, so that a repeated run finds the same one.
	wanted, before := explicit, all
	if explicit == nil {
		if i := slices.IndexFunc(all, func(t tagged) bool { return t.Commit == head.Hash && r.takes(t.version) }); i >= 0 {
			wanted, d.again = all[i].version, true
		}
	}
	if wanted != nil {
		before = slices.DeleteFunc(slices.Clone(all), func(t tagged) bool { return !t.version.LessThan(wanted) })
	}
	h, err := r.history(ctx, repo, before)
	if d.again && fault.CodeOf(err) == fault.Input { // a version that is known needs no history
		r.rt.Log.Warn("the release before is not known", "why", err.Error())
		h, err = past{}, nil
	}
	if err != nil {
		return d, err
	}
	d.previous, d.messages = h.last(), messages(h.since)

	switch {
	case r.in.level == "none":
		d.version, d.why = d.previous, "bump is none"
		if d.again {
			d.version = wanted
		}
		return d, nil
	case explicit != nil:
		d.version, d.level, d.why = explicit, distance(h.versions.Stable, explicit), "the version was given"
	case d.again:
		d.version, d.level, d.why = wanted, distance(h.versions.Stable, wanted), "the commit has its git tag already"
		return d, nil
	default:
		d.level, d.why = r.level(h)
		if d.level == bump.None {
			d.version = d.previous
			return d, nil
		}
		h.versions.Known = d.known
		d.version = bump.Next(h.versions, d.level, r.in.channel, r.in.initial)
	}
	name := r.in.prefix + d.version.String()
	if i := slices.IndexFunc(all, func(t tagged) bool { return t.Name == name && t.Commit != head.Hash }); i >= 0 {
		return d, gitrepo.TakenFault(all[i].Tag, head.Hash)
	}
	return d, nil
}

// takes says that a commit with the tag v needs no other version.
func (r *run) takes(v *semver.Version) bool {
	return v.Prerelease() == "" || r.in.channel != "" && strings.HasPrefix(v.Prerelease(), r.in.channel+".")
}

// level is what the inputs or the commits ask for.
func (r *run) level(h past) (bump.Level, string) {
	stable := h.versions.Stable
	if r.in.level != "auto" {
		level, _ := bump.ParseLevel(r.in.level) // the declaration has closed the set
		return level, "bump is " + r.in.level
	}
	if stable == nil && (len(h.versions.Prereleases) == 0 || r.in.channel == "") {
		return max(bump.Applied(stable, bump.Of(messages(h.since))), bump.Patch), "the first release"
	}
	if bump.Of(messages(h.fresh)) == bump.None {
		return bump.None, fmt.Sprintf("none of the %d commits since %s asks for a release", len(h.fresh), h.last())
	}
	level := bump.Applied(stable, bump.Of(messages(h.since)))
	return level, fmt.Sprintf("%d commits since %s", len(h.since), h.last())
}

// releases lists the git tags that are versions, highest first. It is asked from origin, since clones in CI often have none.
func (r *run) releases(ctx context.Context, repo *gitrepo.Repo) ([]tagged, error) {
	shallow, err := repo.Shallow(ctx)
	if err != nil {
		return nil, err
	}
	local, err := repo.LocalTags(ctx, r.in.prefix)
	if err != nil {
		return nil, err
	}
	tags := local
	if r.in.fetch == "auto" {
		remote, err := repo.RemoteTags(ctx, r.in.prefix)
		switch {
		case err == nil:
			tags = remote
		case ctx.Err() != nil:
			return nil, err
		case errors.Is(err, gitrepo.ErrNoRemote) && !shallow:
		case len(local) > 0 && !shallow:
			r.rt.Log.Warn("origin cannot be asked; the tags in this clone are used", "why", err.Error())
		default:
			return nil, fault.Errorf(fault.Failed, "%w", err).
				WithHint("let the checkout keep its credentials, or clone everything with its tags: fetch-depth: 0, GIT_DEPTH: \"0\"")
		}
	} else if shallow && len(local) == 0 {
		return nil, gitrepo.ShallowFault()
	}
	commits := make(map[string]string, len(tags))
	names := make([]string, len(tags))
	for i, t := range tags {
		commits[t.Name], names[i] = t.Commit, t.Name
	}
	versions, junk := bump.Tags(names, r.in.prefix)
	if r.in.prefix != "" && len(junk) > 0 {
		r.rt.Log.Info("git tags that are no versions are ignored", "count", len(junk), "first", strings.Join(junk[:min(5, len(junk))], " "))
	}
	all := make([]tagged, len(versions))
	for i, t := range versions {
		all[i] = tagged{gitrepo.Tag{Name: t.Name, Commit: commits[t.Name]}, t.Version}
	}
	return all, nil
}

// past is what HEAD's history says.
type past struct {
	versions bump.History
	since    []gitrepo.Commit // since the last stable release
	fresh    []gitrepo.Commit // since the last release of the channel; without a channel the same
}

// last is the newest version in the history: the highest prerelease when it is above the stable one.
func (p past) last() *semver.Version {
	last := p.versions.Stable
	for _, v := range p.versions.Prereleases {
		if last == nil || v.GreaterThan(last) {
			last = v
		}
	}
	return last
}

func (r *run) history(ctx context.Context, repo *gitrepo.Repo, all []tagged) (past, error) {
	var p past
	isPrerelease := func(t tagged) bool { return t.version.Prerelease() != "" }
	stable := slices.DeleteFunc(slices.Clone(all), isPrerelease)
	prereleases := slices.DeleteFunc(slices.Clone(all), func(t tagged) bool { return !isPrerelease(t) })
	base, found, err := latest(ctx, repo, stable, r.in.fetch == "auto")
	if err != nil {
		return p, err
	}
	first := base // where the commits begin that have to be here
	if found {
		p.versions.Stable = base.version
	} else if first, found, err = latest(ctx, repo, prereleases, r.in.fetch == "auto"); err != nil {
		return p, err
	} else if found {
		p.versions.Prereleases = append(p.versions.Prereleases, first.version)
	}
	if p.since, err = repo.Since(ctx, first.Tag); err != nil {
		return p, err
	}
	p.fresh = p.since
	here := make(map[string]bool, len(p.since))
	for _, c := range p.since {
		here[c.Hash] = true
	}
	opened := false
	for _, t := range prereleases {
		if !here[t.Commit] || base.version != nil && !t.version.GreaterThan(base.version) {
			continue
		}
		p.versions.Prereleases = append(p.versions.Prereleases, t.version)
		if r.in.channel != "" && r.takes(t.version) && !opened {
			opened = true
			if p.fresh, err = repo.Since(ctx, t.Tag); err != nil {
				return p, err
			}
		}
	}
	return p, nil
}

func latest(ctx context.Context, repo *gitrepo.Repo, from []tagged, fetch bool) (tagged, bool, error) {
	tags := make([]gitrepo.Tag, len(from))
	for i, t := range from {
		tags[i] = t.Tag
	}
	tag, found, err := repo.Latest(ctx, tags, fetch)
	if err != nil || !found {
		return tagged{}, false, err
	}
	return from[slices.Index(tags, tag)], true, nil
}

func messages(commits []gitrepo.Commit) []bump.Message {
	all := make([]bump.Message, len(commits))
	for i, c := range commits {
		all[i] = bump.Parse(c.Hash, c.Message)
	}
	return all
}

// distance is the level between two versions. Something that is released has moved by a patch at least.
func distance(from, to *semver.Version) bump.Level {
	switch {
	case from == nil:
		return bump.Patch
	case from.Major() != to.Major():
		return bump.Major
	case from.Minor() != to.Minor():
		return bump.Minor
	}
	return bump.Patch
}

func text(v *semver.Version) string {
	if v == nil {
		return ""
	}
	return v.String()
}

// taken is the digest that has the version's tag when it is not rel. That is a fault unless the version is only taken
// over from the commit's git tag: then the image was built a second time and there is nothing new.
func (r *run) taken(ctx context.Context, client *registry.Client, rel release.Release, d decision) (release.Digest, error) {
	tag := r.imageTag(rel.Repository, d.version)
	existing, err := client.Head(ctx, rel.Repository, tag)
	switch {
	case errors.Is(err, registry.ErrNotFound):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("look for the tag %s: %w", tag, err)
	case existing == rel.Digest:
		return "", nil
	case d.again:
		return existing, nil
	}
	hint := "set git-tag: true, so that the next version counts from this one, or give another version"
	if r.in.gitTag {
		hint = "if another service has its images in this repository too: image-tag-prefix, or a repository of its own; else give another version"
	}
	return "", fault.Errorf(fault.Failed, "the tag %s:%s is on %s, this image is %s: a version is never moved",
		rel.Repository, tag, existing.Short(), rel.Digest.Short()).WithHint("%s", hint)
}

// unnamed are the characters of a git tag that an image tag is written without.
var unnamed = regexp.MustCompile(`[^a-z0-9_.-]+`)

// beforeVersion is what the tags of images in a repository have before the version.
func (r *run) beforeVersion(repository string) string {
	if r.in.imagePrefix != auto {
		return r.in.imagePrefix
	}
	part := r.in.prefix[:max(0, strings.LastIndex(r.in.prefix, "/"))]
	if whole, ok := strings.CutSuffix(r.in.prefix, "@"); ok { // as packages of npm are tagged, @acme/api@1.4.2
		part = whole
	}
	part = strings.ToLower(part)
	service := strings.Trim(unnamed.ReplaceAllString(part, "-"), "-._")
	name := part[strings.LastIndex(part, "/")+1:]
	if service == "" || strings.HasSuffix(repository, "/"+name) || strings.HasSuffix(repository, "-"+name) {
		return ""
	}
	return service + "-"
}

func (r *run) imageTag(repository string, v *semver.Version) string {
	return r.beforeVersion(repository) + bump.ImageTag(v)
}

func (r *run) tagImage(ctx context.Context, client *registry.Client, rel release.Release, d decision) ([]string, error) {
	before := r.beforeVersion(rel.Repository)
	tags := []string{before + bump.ImageTag(d.version)}
	if r.in.floating {
		names, err := client.Tags(ctx, rel.Repository)
		if err != nil && !errors.Is(err, registry.ErrNotFound) {
			return nil, err
		}
		var own []string // of this service
		for _, name := range names {
			if rest, ok := strings.CutPrefix(name, before); ok {
				own = append(own, rest)
			}
		}
		for _, floating := range bump.FloatingTags(d.version, append(bump.ImageVersions(own), d.known...)) {
			tags = append(tags, before+floating)
		}
	}
	if err := client.Tag(ctx, rel, tags...); err != nil {
		return nil, fmt.Errorf("tag the image: %w", err)
	}
	return tags, nil
}

func (r *run) write(d decision, rel release.Release, released bool, tags []string) error {
	var name, image, notes string
	if d.version != nil {
		name = r.in.prefix + d.version.String()
	}
	if rel.Digest != "" {
		image = rel.Reference()
	}
	if released {
		notes = bump.Notes(d.version.String(), d.messages)
		rows := [][2]string{{"version", d.version.String()}, {"before", text(d.previous)}, {"why", d.why}}
		if image != "" {
			rows = append(rows, [2]string{"image", image}, [2]string{"tags", strings.Join(tags, ", ")})
		}
		r.rt.Summary(step.Report{Title: "Version " + d.version.String(), Rows: rows, Notes: notes})
	}
	return r.rt.Outputs(
		step.Value{Output: r.out.version, Value: text(d.version)},
		step.Value{Output: r.out.previous, Value: text(d.previous)},
		step.Value{Output: r.out.tag, Value: name},
		step.Value{Output: r.out.bump, Value: d.level.String()},
		step.Value{Output: r.out.released, Value: strconv.FormatBool(released)},
		step.Value{Output: r.out.tags, Value: strings.Join(tags, "\n")},
		step.Value{Output: r.out.image, Value: image},
		step.Value{Output: r.out.digest, Value: string(rel.Digest)},
		step.Value{Output: r.out.notes, Value: notes},
	)
}
