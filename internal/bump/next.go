package bump

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/Masterminds/semver/v3"
)

// Tag is a git tag that names a version.
type Tag struct {
	Name    string
	Version *semver.Version
}

// Tags reads the tags that begin with prefix, highest version first. A tag that has the prefix and is no
// SemVer after it, such as v1 or vnext, is junk; a tag without the prefix belongs to something else.
func Tags(names []string, prefix string) (tags []Tag, junk []string) {
	for _, name := range names {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		v, err := semver.StrictNewVersion(rest)
		if err != nil || max(v.Major(), v.Minor(), v.Patch()) > math.MaxInt64 {
			junk = append(junk, name)
			continue
		}
		tags = append(tags, Tag{name, v})
	}
	slices.SortStableFunc(tags, func(a, b Tag) int { return b.Version.Compare(a.Version) })
	return tags, junk
}

// Applied is how far level moves a version after last: while the major version is 0, a breaking change that was
// found in the commits moves the minor one. A nil last is moved as asked.
func Applied(last *semver.Version, level Level) Level {
	if last != nil && last.Major() == 0 {
		return min(level, Minor)
	}
	return level
}

// History is what was released before.
type History struct {
	Stable      *semver.Version   // the last stable version in the history of HEAD; nil when there is none
	Prereleases []*semver.Version // the prereleases in the history of HEAD
	Known       []*semver.Version // every version there is, on any branch
}

// Next is the version after h, moved by level. Without a stable version it is initial. A prerelease in the
// history that is already further along keeps its place: 2.0.0-rc.1 is followed by 2.0.0. With a channel the
// answer is its next free prerelease: rc gives 1.3.0-rc.1, then 1.3.0-rc.2. Build metadata is dropped. It is nil when
// level is None.
func Next(h History, level Level, channel string, initial *semver.Version) *semver.Version {
	if level == None {
		return nil
	}
	core := initial
	if s := h.Stable; s != nil {
		switch level {
		case Major:
			core = semver.New(s.Major()+1, 0, 0, "", "")
		case Minor:
			core = semver.New(s.Major(), s.Minor()+1, 0, "", "")
		default:
			core = semver.New(s.Major(), s.Minor(), s.Patch()+1, "", "")
		}
	}
	for _, p := range h.Prereleases {
		if p.GreaterThan(core) {
			core = p
		}
	}
	if channel == "" {
		return semver.New(core.Major(), core.Minor(), core.Patch(), "", "")
	}
	number := uint64(0)
	for _, k := range slices.Concat(h.Known, h.Prereleases) {
		text, ok := strings.CutPrefix(k.Prerelease(), channel+".")
		if !ok || k.Major() != core.Major() || k.Minor() != core.Minor() || k.Patch() != core.Patch() {
			continue
		}
		if n, err := strconv.ParseUint(text, 10, 63); err == nil {
			number = max(number, n)
		}
	}
	return semver.New(core.Major(), core.Minor(), core.Patch(), channel+"."+strconv.FormatUint(number+1, 10), "")
}

// ImageTag is the name of v in a registry. Tags cannot have a +, so that build metadata follows _ , as Helm
// writes it.
func ImageTag(v *semver.Version) string { return strings.ReplaceAll(v.String(), "+", "_") }

// ImageVersions reads the tags of a registry that ImageTag could have written, and leaves the others out.
func ImageVersions(tags []string) []*semver.Version {
	var versions []*semver.Version
	for _, tag := range tags {
		if v, err := semver.StrictNewVersion(strings.Replace(tag, "_", "+", 1)); err == nil {
			versions = append(versions, v)
		}
	}
	return versions
}

// FloatingTags are the movable image tags that v takes among the existing versions: 1.4 and 1 unless a higher
// stable version of that line exists, and latest unless a higher stable version exists at all. A prerelease takes
// none. There is no tag 0, since 0.1 and 0.2 need not be compatible.
func FloatingTags(v *semver.Version, existing []*semver.Version) []string {
	if v.Prerelease() != "" {
		return nil
	}
	highestMinor, highestMajor, highest := true, v.Major() > 0, true
	for _, e := range existing {
		if e.Prerelease() != "" || !e.GreaterThan(v) {
			continue
		}
		highest = false
		if e.Major() == v.Major() {
			highestMajor = false
			highestMinor = highestMinor && e.Minor() != v.Minor()
		}
	}
	var tags []string
	major := strconv.FormatUint(v.Major(), 10)
	if highestMinor {
		tags = append(tags, major+"."+strconv.FormatUint(v.Minor(), 10))
	}
	if highestMajor {
		tags = append(tags, major)
	}
	if highest {
		tags = append(tags, "latest")
	}
	return tags
}
