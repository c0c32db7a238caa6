// Package release has the words that everything else is said in: digest, release and environment.
package release

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/backstep/backstep/internal/fault"
)

// Digest is sha256:… of an image's manifest.
type Digest string

var digestShape = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// ParseDigest checks the shape of s.
func ParseDigest(s string) (Digest, error) {
	if !digestShape.MatchString(s) {
		return "", fmt.Errorf("digest %q: want sha256: and 64 lower-case hexadecimal digits", s)
	}
	return Digest(s), nil
}

// Short is the digest's first twelve hexadecimal digits, for people.
func (d Digest) Short() string {
	if len(d) < 19 {
		return string(d)
	}
	return string(d[7:19])
}

// ID names what runs: the digest of the image, and after a + the fingerprint of the configuration when there is one.
type ID string

var idShape = regexp.MustCompile(`^sha256:[0-9a-f]{64}(\+[0-9a-f]{16})?$`)

// ParseID checks the shape of s. A digest alone is an ID as well.
func ParseID(s string) (ID, error) {
	if !idShape.MatchString(s) {
		return "", fmt.Errorf("release %q: want sha256: and 64 lower-case hexadecimal digits, with + and 16 more when its configuration matters", s)
	}
	return ID(s), nil
}

// Digest is that of the image.
func (id ID) Digest() Digest {
	digest, _, _ := strings.Cut(string(id), "+")
	return Digest(digest)
}

// Config is the fingerprint of the configuration.
func (id ID) Config() Fingerprint {
	_, config, _ := strings.Cut(string(id), "+")
	return Fingerprint(config)
}

// Short is both parts cut for people.
func (id ID) Short() string {
	if config := id.Config(); config != "" {
		return id.Digest().Short() + "+" + config.Short()
	}
	return id.Digest().Short()
}

// Release is one image in one configuration, with what a person knows it by. Two releases are the same when their IDs are.
type Release struct {
	Digest     Digest      `json:"digest"`
	Config     Fingerprint `json:"config,omitempty"`     // of what it is started with
	Repository string      `json:"repository,omitempty"` // registry/name, without tag or digest
	Version    string      `json:"version,omitempty"`    // SemVer without v; "" when the image carries none
	Commit     string      `json:"commit,omitempty"`     // the source revision; "" when the image carries none
	// Before is set for what served before the first release: servers of somebody else, as host:port=weight with spaces between
	// them. It has no image, and its digest is that of this text.
	Before string `json:"before,omitempty"`
}

// wordShape is what a version or a revision may look like that was written down once: nothing that ends a string or a line. Which
// version is taken today is stricter.
var wordShape = regexp.MustCompile("^[^\"'`\\\\\\x00-\\x1f\\x7f-\\x{10ffff}]{0,128}$")

// Check says why r cannot be one, or nil: what is read of it has to have the shape of what is written. It says nothing about where it
// comes from.
func (r Release) Check() error {
	if _, err := ParseID(string(r.ID())); err != nil {
		return err
	}
	switch {
	case r.Before != "" && r.Digest != ServedBefore(r.Servers()).Digest:
		return fmt.Errorf("release %q: its digest is not that of its servers", r.ID().Short())
	case !wordShape.MatchString(r.Version):
		return fmt.Errorf("version %q of %s: want SemVer", r.Version, r.ID().Short())
	case !wordShape.MatchString(r.Commit):
		return fmt.Errorf("commit %q of %s: want a revision", r.Commit, r.ID().Short())
	}
	return nil
}

// ServedBefore is the release that stands for servers of somebody else, by their host:port, with their weights.
func ServedBefore(servers map[string]int) Release {
	var all []string
	for _, at := range slices.Sorted(maps.Keys(servers)) {
		all = append(all, fmt.Sprintf("%s=%d", at, servers[at]))
	}
	text := strings.Join(all, " ")
	return Release{Digest: Digest(fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text)))), Before: text}
}

// Servers are those of what served before the first release, with their weights; none for every other release.
func (r Release) Servers() map[string]int {
	servers := map[string]int{}
	for _, one := range strings.Fields(r.Before) {
		at, weight, _ := strings.Cut(one, "=")
		servers[at], _ = strconv.Atoi(weight)
	}
	return servers
}

// ID names the release.
func (r Release) ID() ID {
	if r.Config == "" {
		return ID(r.Digest)
	}
	return ID(string(r.Digest) + "+" + string(r.Config))
}

// Named says whether a person means the release by name: its version, its digest or its ID.
func (r Release) Named(name string) bool {
	return name != "" && (name == r.Version || name == string(r.Digest) || name == string(r.ID()))
}

// Reference is the name to pull the release by.
func (r Release) Reference() string {
	if r.Before != "" {
		return r.Before
	}
	return r.Repository + "@" + string(r.Digest)
}

// String is the version when there is one, and the short ID.
func (r Release) String() string {
	if r.Before != "" {
		return "what served before (" + strings.Join(slices.Sorted(maps.Keys(r.Servers())), ", ") + ")"
	}
	if r.Version == "" {
		return r.ID().Short()
	}
	return r.Version + " (" + r.ID().Short() + ")"
}

// ParseVersion is nil when s is SemVer without v. The error says what is wanted; its hint, where there is one, is s as it should be.
func ParseVersion(s string) error {
	if _, err := semver.StrictNewVersion(s); err == nil {
		return nil
	}
	e := fault.Inputf("version %q is no SemVer: want for example 1.4.2", s)
	if bare := strings.TrimPrefix(s, "v"); bare != s {
		e = e.WithHint("leave the v out: %s", bare)
	}
	return e
}

// Environment is the name of a place that releases go to. It is part of tag names in the registry.
type Environment string

var environmentShape = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?$`)

// ParseEnvironment checks the shape of s: up to 24 of a-z, 0-9 and -, which neither starts nor ends it.
func ParseEnvironment(s string) (Environment, error) {
	if !environmentShape.MatchString(s) {
		return "", fmt.Errorf("environment %q: want 1 to 24 of a-z, 0-9 and -, not starting or ending with -", s)
	}
	return Environment(s), nil
}

// Author is who did something: the person, and the CI run that acted for them.
type Author struct {
	Actor   string `json:"actor,omitempty"`
	Run     string `json:"run,omitempty"`
	Attempt string `json:"attempt,omitempty"`
	URL     string `json:"url,omitempty"`
	Machine string `json:"machine,omitempty"` // its name, and on Linux its boot and its numbering of processes
	Process int    `json:"process,omitempty"` // the number of the process on the machine
	Started string `json:"started,omitempty"` // when that process began, in clock ticks since the machine's boot; "" where that is not known
}

// String is the actor and where the run can be read.
func (a Author) String() string {
	switch {
	case a.Actor == "" && a.URL == "":
		return "somebody"
	case a.URL == "":
		return a.Actor
	case a.Actor == "":
		return a.URL
	}
	return a.Actor + " (" + a.URL + ")"
}
