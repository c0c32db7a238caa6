// Package registry talks to OCI registries. It is the one place that does: types of its library do not leave.
package registry

import (
	"context"
	"errors"
	"io"

	"github.com/backstep/backstep/internal/release"
)

// ErrNotFound is wrapped by the error of a repository, tag, manifest or blob that is not there.
var ErrNotFound = errors.New("not found")

// ErrDenied is wrapped by the error of a registry that refuses the credentials or asks for some.
var ErrDenied = errors.New("access denied")

// ErrThrottled is wrapped by the error of a registry that went on saying "too many requests".
var ErrThrottled = errors.New("throttled")

// Client talks to registries with the credentials of the Docker configuration.
type Client struct{}

// New is a client.
func New(options ...Option) *Client { panic("not written yet") }

// Option changes a client.
type Option func(*Client)

// Manifest is a manifest as it is stored, to the byte.
type Manifest struct {
	Digest    release.Digest
	MediaType string
	Body      []byte
}

// Reference is a parsed image name. Tag and Digest can each be empty, but not both.
type Reference struct {
	Repository string // registry/name
	Tag        string
	Digest     release.Digest
}

// ParseReference parses registry/name:tag, registry/name@sha256:… or both. A name without tag and digest
// is a fault: nothing is ever taken from "latest" unsaid.
func ParseReference(s string) (Reference, error) { panic("not written yet") }

// ParseRepository checks the name of a repository, registry/name.
func ParseRepository(s string) (string, error) { panic("not written yet") }

// Resolve is the release behind ref, with version and revision from its OCI annotations or labels
// (org.opencontainers.image.version and .revision). A ref that has both a tag and a digest which disagree
// is an input fault.
func (c *Client) Resolve(ctx context.Context, ref Reference) (release.Release, error) {
	panic("not written yet")
}

// Complete checks that the manifest and, for every platform, the configuration and every blob of r are there.
// What is missing is named, all of it at once.
func (c *Client) Complete(ctx context.Context, r release.Release) error { panic("not written yet") }

// Platforms lists the digests of the platform manifests of an index, by "os-arch[-variant]"; empty for an image.
func (c *Client) Platforms(ctx context.Context, r release.Release) (map[string]release.Digest, error) {
	panic("not written yet")
}

// Tag gives r the tags without uploading anything again.
func (c *Client) Tag(ctx context.Context, r release.Release, tags ...string) error {
	panic("not written yet")
}

// Tags lists every tag of a repository, in no order. An empty repository is ErrNotFound or an empty list.
func (c *Client) Tags(ctx context.Context, repository string) ([]string, error) {
	panic("not written yet")
}

// Get is the manifest called name: a tag or a digest.
func (c *Client) Get(ctx context.Context, repository, name string) (Manifest, error) {
	panic("not written yet")
}

// Head is the digest of the manifest called name.
func (c *Client) Head(ctx context.Context, repository, name string) (release.Digest, error) {
	panic("not written yet")
}

// Put stores a manifest under name and returns its digest.
func (c *Client) Put(ctx context.Context, repository, name, mediaType string, body []byte) (release.Digest, error) {
	panic("not written yet")
}

// Delete removes a tag or a digest. It reports whether the registry does that at all.
func (c *Client) Delete(ctx context.Context, repository, name string) (supported bool, err error) {
	panic("not written yet")
}

// PutBlob stores a small blob unless it is there.
func (c *Client) PutBlob(ctx context.Context, repository string, body []byte) (release.Digest, error) {
	panic("not written yet")
}

// Image is what is needed to run a release on one platform.
type Image struct {
	Entrypoint []string // entrypoint and command, joined
	Env        []string // KEY=VALUE
	Dir        string   // working directory inside the image, "" or absolute
	Layers     []Layer  // in the order to unpack them
}

// Layer opens as an uncompressed tar.
type Layer struct {
	Digest release.Digest
	Open   func() (io.ReadCloser, error)
}

// Image is the image of r for os and arch (as Go names them).
func (c *Client) Image(ctx context.Context, r release.Release, os, arch string) (Image, error) {
	panic("not written yet")
}
