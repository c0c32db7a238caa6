// Package builder is the contract of what makes an image and pushes it.
package builder

import (
	"context"
	"time"

	"github.com/backstep/backstep/internal/release"
)

// Request is the image that is wanted. What a builder cannot do is an input fault.
type Request struct {
	Repository string            // where to push, registry/name
	Tags       []string          // beside the digest
	Context    string            // the folder that files and the Dockerfile are in
	OS, Arch   string            // the platform, as Go names it
	Labels     map[string]string // also annotations of the manifest
	Created    time.Time         // the time of everything in the image

	Dockerfile string            // docker: inside the context
	Arguments  map[string]string // docker: of the build

	Base       string   // layers: an image; "" is an empty one
	Files      []File   // layers
	Entrypoint []string // layers
	Command    []string // layers
	Env        []string // layers: KEY=VALUE
	Ports      []string // layers: 8080/tcp
	User       string   // layers
	Dir        string   // layers: the working directory
}

// File is a file or a folder of the context, and its place in the image.
type File struct{ From, To string }

// Builder makes an image and pushes it by its digest.
type Builder interface {
	Build(ctx context.Context, r Request) (release.Digest, error)
}
