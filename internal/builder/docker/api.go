package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/go-archive"
	"github.com/moby/moby/client"
	"github.com/moby/patternmatcher/ignorefile"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/backstep/backstep/internal/builder"
	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/registry"
)

// api is the engine behind its API. It knows no BuildKit.
type api struct {
	*client.Client
	registry *registry.Client
}

func newAPI(r *registry.Client) (api, error) {
	c, err := client.New(client.FromEnv)
	if err != nil {
		return api{}, fault.Inputf("docker: %w", err)
	}
	return api{c, r}, nil
}

func (a api) tag(ctx context.Context, id, name string) error {
	_, err := a.ImageTag(ctx, client.ImageTagOptions{Source: id, Target: name})
	return err
}

func (a api) push(ctx context.Context, repository, name string) error {
	auth, err := a.registry.EngineAuth(ctx, repository)
	if err != nil {
		return err
	}
	pushing, err := a.ImagePush(ctx, name, client.ImagePushOptions{RegistryAuth: auth})
	if err == nil {
		err = errors.Join(pushing.Wait(ctx), pushing.Close())
	}
	if err != nil {
		return told("push", errors.New("it failed"), err.Error())
	}
	return nil
}

// excluded are the patterns of what is not packed: .git, whose configuration holds credentials, unless they are given back by
// !.git, and those of the Dockerfile's own .dockerignore, else of the context's. What the engine itself needs is never one of
// them.
func excluded(r builder.Request) ([]string, error) {
	patterns := []string{"**/.git"}
	for _, name := range []string{r.Dockerfile + ".dockerignore", ".dockerignore"} {
		f, err := os.Open(filepath.Join(r.Context, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		defer f.Close()
		given, err := ignorefile.ReadAll(f)
		return append(append(patterns, given...), "!"+r.Dockerfile), err
	}
	return patterns, nil
}

// packed is the context as a tar archive, which the caller closes.
func packed(r builder.Request) (io.ReadCloser, error) {
	without, err := excluded(r)
	if err != nil {
		return nil, fault.Inputf("read .dockerignore: %w", err)
	}
	files, err := archive.TarWithOptions(r.Context, &archive.TarOptions{ExcludePatterns: without})
	if err != nil {
		return nil, fmt.Errorf("pack the context %s: %w", r.Context, err)
	}
	return files, nil
}

func (a api) build(ctx context.Context, r builder.Request) (string, error) {
	files, err := packed(r)
	if err != nil {
		return "", err
	}
	defer files.Close()
	arguments := map[string]*string{}
	for key, value := range r.Arguments {
		arguments[key] = &value
	}
	done, err := a.ImageBuild(ctx, files, client.ImageBuildOptions{Dockerfile: filepath.ToSlash(r.Dockerfile), BuildArgs: arguments,
		Labels: r.Labels, Remove: true, ForceRemove: true, Platforms: []v1.Platform{{OS: r.OS, Architecture: r.Arch}}})
	if err != nil {
		return "", told("build", errors.New("it failed"), err.Error())
	}
	defer done.Body.Close()
	return result(done.Body)
}

// line is one of the JSON lines that the engine tells of a build.
type line struct {
	Stream string `json:"stream"`
	Error  string `json:"error"`
	Aux    struct {
		ID string
	} `json:"aux"`
}

// saidLimit bounds what is kept of a build's output, in bytes.
const saidLimit = 64 << 10

// result reads the lines of a build until its end: the identity of the image, or why there is none.
func result(lines io.Reader) (string, error) {
	var said strings.Builder
	var id string
	for decoder := json.NewDecoder(lines); ; {
		var l line
		if err := decoder.Decode(&l); errors.Is(err, io.EOF) {
			if id == "" {
				return "", told("build", errors.New("it told no image"), said.String())
			}
			return id, nil
		} else if err != nil {
			return "", fmt.Errorf("read the output of the build: %w", err)
		}
		if said.Len() < saidLimit {
			said.WriteString(l.Stream)
		}
		if l.Aux.ID != "" {
			id = l.Aux.ID
		}
		if l.Error != "" {
			return "", told("build", errors.New("it failed"), said.String()+"\n"+l.Error)
		}
	}
}
