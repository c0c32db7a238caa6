package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/release"
)

// The annotations and labels that name a version and a revision, of the OCI image specification.
const (
	versionKey  = "org.opencontainers.image.version"
	revisionKey = "org.opencontainers.image.revision"
)

// document is what we read of an image manifest or an index.
type document struct {
	Config      v1.Descriptor     `json:"config"`
	Layers      []v1.Descriptor   `json:"layers"`
	Manifests   []v1.Descriptor   `json:"manifests"`
	Annotations map[string]string `json:"annotations"`
}

func (c *Client) document(ctx context.Context, repository string, name string) (Manifest, document, error) {
	m, err := c.Get(ctx, repository, name)
	if err != nil {
		return m, document{}, err
	}
	c.manifests.Store(repository+"@"+string(m.Digest), m)
	var d document
	if err := json.Unmarshal(m.Body, &d); err != nil {
		return m, d, fmt.Errorf("read %s: %w", display(repository, name), err)
	}
	return m, d, nil
}

// Resolve is the release behind ref, with version and revision from its OCI annotations or labels. A ref
// that has both a tag and a digest which disagree is an input fault.
func (c *Client) Resolve(ctx context.Context, ref Reference) (release.Release, error) {
	wanted := ref.Tag
	if ref.Digest != "" {
		wanted = string(ref.Digest)
	}
	m, d, err := c.document(ctx, ref.Repository, wanted)
	if err != nil {
		return release.Release{}, err
	}
	if ref.Tag != "" && ref.Digest != "" {
		tagged, err := c.Head(ctx, ref.Repository, ref.Tag)
		if err != nil {
			return release.Release{}, err
		}
		if tagged != ref.Digest {
			return release.Release{}, fault.Inputf("tag %s is %s, not %s", ref.Tag, tagged.Short(), ref.Digest.Short()).
				WithHint("give the tag or the digest, not both")
		}
	}
	labels := map[string]string{}
	if (versionOf(d.Annotations) == "" || commitOf(d.Annotations) == "") && d.Config.Digest.Hex != "" {
		labels, err = c.labels(ctx, ref.Repository, d.Config)
		if err != nil && !errors.Is(err, ErrNotFound) { // Complete names it together with whatever else is missing
			return release.Release{}, err
		}
	}
	return release.Release{Digest: m.Digest, Repository: ref.Repository,
		Version: cmp.Or(versionOf(d.Annotations), versionOf(labels), versionOf(map[string]string{versionKey: ref.Tag})),
		Commit:  cmp.Or(commitOf(d.Annotations), commitOf(labels))}, nil
}

// versionOf is the version that an image says it has, without v; "" when that is no SemVer, as that of a distribution it was made from.
func versionOf(said map[string]string) string {
	version := strings.TrimPrefix(said[versionKey], "v")
	if release.ParseVersion(version) != nil {
		return ""
	}
	return version
}

// revisionShape is what a version control system calls a revision.
var revisionShape = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._/-]{0,127}$`)

func commitOf(said map[string]string) string {
	if !revisionShape.MatchString(said[revisionKey]) {
		return ""
	}
	return said[revisionKey]
}

// labels are those of the configuration of an image, which is checked against its digest.
func (c *Client) labels(ctx context.Context, repository string, config v1.Descriptor) (map[string]string, error) {
	doing := fmt.Sprintf("read the configuration %s of %s", config.Digest, repository)
	r, repo, err := c.do(ctx, transport.PullScope, "GET", repository, "/blobs/"+config.Digest.String(), nil, nil, manifestLimit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	if r.status != 200 {
		return nil, r.unwanted(doing, repo)
	}
	if got := DigestOf(r.body); string(got) != config.Digest.String() {
		return nil, fmt.Errorf("%s: the registry sent %s instead", doing, got)
	}
	var file struct {
		Config struct{ Labels map[string]string }
	}
	if err := json.Unmarshal(r.body, &file); err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	return file.Config.Labels, nil
}

// OwnLabels begins the labels by which a target knows its containers again. An image must not bring any: its containers would have them.
const OwnLabels = "backstep."

// unlabelled reads the configuration of an image and refuses one that brings labels of ours.
func (c *Client) unlabelled(ctx context.Context, repository string, config v1.Descriptor) error {
	labels, err := c.labels(ctx, repository, config)
	if err != nil {
		return err
	}
	return RefuseLabels(repository, labels)
}

// RefuseLabels is a fault of the input when the labels of an image in repository are ours.
func RefuseLabels(repository string, labels map[string]string) error {
	for _, label := range slices.Sorted(maps.Keys(labels)) {
		if strings.HasPrefix(label, OwnLabels) {
			return fault.Inputf("an image of %s brings the label %q, and these are for backstep alone", repository, label).
				WithHint("take the labels that begin with %s out of its Dockerfile", OwnLabels)
		}
	}
	return nil
}

// Complete checks that the manifest and, for every platform, the configuration and every blob of r are there, and that its
// configurations bring no labels of ours. What is missing is named, all of it at once.
func (c *Client) Complete(ctx context.Context, r release.Release) error {
	_, d, err := c.document(ctx, r.Repository, string(r.Digest))
	if err != nil {
		return err
	}
	var faults []error
	blobs := map[string]v1.Descriptor{} // by digest
	add := func(of document) {
		for _, l := range append([]v1.Descriptor{of.Config}, of.Layers...) {
			if l.Digest.Hex != "" && len(l.URLs) == 0 {
				blobs[l.Digest.String()] = l
			}
		}
	}
	add(d)
	for _, child := range d.Manifests {
		_, of, err := c.document(ctx, r.Repository, child.Digest.String())
		if err != nil {
			faults = append(faults, fmt.Errorf("platform %s: %w", platformName(child.Platform), err))
			continue
		}
		add(of)
	}
	digests := slices.Sorted(maps.Keys(blobs))
	missing := make([]error, len(digests))
	var checks sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i, digest := range digests {
		checks.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if blob := blobs[digest]; blob.MediaType.IsConfig() {
				missing[i] = c.unlabelled(ctx, r.Repository, blob)
				return
			}
			missing[i] = c.hasBlob(ctx, r.Repository, release.Digest(digest))
		})
	}
	checks.Wait()
	return errors.Join(append(faults, missing...)...)
}

func platformName(p *v1.Platform) string {
	if p == nil {
		return "unknown"
	}
	return strings.Trim(p.OS+"-"+p.Architecture+"-"+p.Variant, "-")
}

// Platforms lists the digests of the platform manifests of an index, by "os-arch[-variant]"; empty for an image.
func (m Manifest) Platforms() (map[string]release.Digest, error) {
	var d document
	if err := json.Unmarshal(m.Body, &d); err != nil {
		return nil, fmt.Errorf("read the platforms of %s: %w", m.Digest.Short(), err)
	}
	all := map[string]release.Digest{}
	for _, child := range d.Manifests {
		key := platformName(child.Platform)
		if _, twice := all[key]; twice || child.Platform == nil { // attestations have no platform of their own
			key = child.Digest.Hex[:12]
		}
		all[key] = release.Digest(child.Digest.String())
	}
	return all, nil
}

// Image is what is needed to run a release on one platform.
type Image struct {
	Entrypoint []string // entrypoint and command, joined
	Env        []string // KEY=VALUE
	Dir        string   // working directory inside the image, "" or absolute
	Layers     []Layer  // in the order to unpack them
}

// Layer opens as an uncompressed tar, whose content is checked against the digest while it is read.
type Layer struct {
	Digest release.Digest
	Open   func() (io.ReadCloser, error)
}

// Image is the image of r for os and arch (as Go names them).
func (c *Client) Image(ctx context.Context, r release.Release, os, arch string) (Image, error) {
	options, err := c.options(ctx, r.Repository, transport.PullScope)
	if err != nil {
		return Image{}, err
	}
	m, d, err := c.document(ctx, r.Repository, string(r.Digest))
	if err != nil {
		return Image{}, err
	}
	digest := m.Digest
	if len(d.Manifests) > 0 {
		var has []string
		digest = ""
		for _, child := range d.Manifests {
			if child.Platform != nil && child.Platform.OS == os && child.Platform.Architecture == arch {
				digest = release.Digest(child.Digest.String())
				break
			}
			has = append(has, platformName(child.Platform))
		}
		if digest == "" {
			return Image{}, fault.Inputf("%s has no image for %s-%s", r, os, arch).WithHint("it has %s", strings.Join(has, ", "))
		}
	}
	ref, err := name.NewDigest(r.Repository + "@" + string(digest))
	if err != nil {
		return Image{}, err
	}
	img, err := remote.Image(ref, options...)
	if err != nil {
		return Image{}, c.told("read "+ref.String(), ref.Repository, err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		return Image{}, c.told("read the configuration of "+ref.String(), ref.Repository, err)
	}
	layers, err := img.Layers()
	if err != nil {
		return Image{}, c.told("read the layers of "+ref.String(), ref.Repository, err)
	}
	out := Image{Entrypoint: append(slices.Clone(file.Config.Entrypoint), file.Config.Cmd...),
		Env: file.Config.Env, Dir: file.Config.WorkingDir}
	for _, l := range layers {
		hash, err := l.Digest()
		if err != nil {
			return Image{}, err
		}
		out.Layers = append(out.Layers, Layer{Digest: release.Digest(hash.String()), Open: l.Uncompressed})
	}
	return out, nil
}

// options are those of the library, with our transport and no retries of its own.
func (c *Client) options(ctx context.Context, repository, action string) ([]remote.Option, error) {
	_, t, err := c.through(ctx, repository, action)
	if err != nil {
		return nil, err
	}
	return []remote.Option{remote.WithContext(ctx), remote.WithTransport(t), remote.WithJobs(4)}, nil
}

// Push uploads an image by its digest and then gives it the tags. Layers are streamed. It takes a type of
// the library because the builder that makes images out of layers is made of that library too.
func (c *Client) Push(ctx context.Context, repository string, img v1.Image, tags ...string) (release.Digest, error) {
	options, err := c.options(ctx, repository, transport.PushScope)
	if err != nil {
		return "", err
	}
	hash, err := img.Digest()
	if err != nil {
		return "", err
	}
	ref, err := name.NewDigest(repository + "@" + hash.String())
	if err != nil {
		return "", err
	}
	if err := remote.Write(ref, img, options...); err != nil {
		return "", c.told("push "+ref.String(), ref.Repository, err)
	}
	r := release.Release{Digest: release.Digest(hash.String()), Repository: repository}
	return r.Digest, c.Tag(ctx, r, tags...)
}

// Base is the image called ref for a platform, for a builder to put layers on; see Push for its type.
func (c *Client) Base(ctx context.Context, ref Reference, os, arch string) (v1.Image, error) {
	options, err := c.options(ctx, ref.Repository, transport.PullScope)
	if err != nil {
		return nil, err
	}
	r, err := c.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	digest, err := name.NewDigest(r.Reference())
	if err != nil {
		return nil, err
	}
	img, err := remote.Image(digest, append(options, remote.WithPlatform(v1.Platform{OS: os, Architecture: arch}))...)
	if err != nil {
		return nil, c.told("read "+r.Reference(), digest.Repository, err)
	}
	return img, nil
}

// OCIManifest is the media type of an OCI image manifest.
const OCIManifest = string(types.OCIManifestSchema1)
