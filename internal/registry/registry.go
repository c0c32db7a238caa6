// Package registry talks to OCI registries. It is the one place that does: types of its library do not leave,
// except for the image that a builder hands to Push.
package registry

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/singleflight"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/release"
)

// ErrNotFound is wrapped by the error of a repository, tag, manifest or blob that is not there.
var ErrNotFound = errors.New("not found")

// ErrDenied is wrapped by the error of a registry that refuses the credentials or asks for some.
var ErrDenied = errors.New("access denied")

// ErrThrottled is wrapped by the error of a registry that went on saying "too many requests".
var ErrThrottled = errors.New("throttled")

// ErrRefused is wrapped by the error of a request that the registry understood and turned down, and not for lack of
// access: a tag that is fixed, a manifest whose blobs are missing, a repository that is only read.
var ErrRefused = errors.New("refused")

// manifestLimit is the largest manifest that is read, in bytes; registries themselves take 4 MiB.
const manifestLimit = 4 << 20

// The bounds of a list of tags, all its pages together.
const (
	listLimit = 64 << 20 // bytes
	listPages = 5000
	listTime  = time.Minute
)

// Client talks to registries with the credentials of a Login or of the Docker configuration. It can be used by several
// goroutines at once.
type Client struct {
	base  http.RoundTripper
	host  string // the registry that login, plain and realm are for
	login *login // nil when there is none
	plain bool   // it is asked without encryption
	realm string // the host of its token service, when that is one of another domain
	own   *login // the host's own, when nobody has logged in; nil when there is none

	tryTimeout time.Duration // for one try of a small request
	listTime   time.Duration // for a list of tags

	reaching   singleflight.Group           // one handshake at a time for each repository and scope
	greeting   *greeting                    // base, which answers GET /v2/ by itself once it knows
	manifests  sync.Map                     // Manifest by repository and digest: what a digest names never changes
	mu         sync.Mutex                   // of transports only: nothing is sent under it
	transports map[string]http.RoundTripper // by repository and scope, with the token they share
}

// Option changes a client.
type Option func(*Client)

// WithTransport makes the client send its requests through t.
func WithTransport(t http.RoundTripper) Option {
	return func(c *Client) { c.base = retrying{next: t} }
}

// New is a client.
func New(options ...Option) *Client {
	c := &Client{base: retrying{next: network()}, tryTimeout: tryTimeout, listTime: listTime, transports: map[string]http.RoundTripper{}}
	for _, o := range options {
		o(c)
	}
	c.greeting = newGreeting(c.base)
	return c
}

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

// The shapes of names, of the OCI distribution specification; that of a host is of RFC 1123, with the addresses of IPv6.
var (
	hostShape = regexp.MustCompile(`^([a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?$`)
	pathShape = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagShape  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

// ParseReference parses registry/name:tag, registry/name@sha256:… or both. A name without tag and digest
// is a fault: nothing is ever taken from "latest" unsaid.
func ParseReference(s string) (Reference, error) {
	var ref Reference
	rest, digest, hasDigest := strings.Cut(s, "@")
	if hasDigest {
		d, err := release.ParseDigest(digest)
		if err != nil {
			return ref, fault.Inputf("image %q: %w", s, err)
		}
		ref.Digest = d
	}
	tagged := false
	if i := strings.LastIndex(rest, ":"); i > strings.LastIndex(rest, "/") {
		rest, ref.Tag, tagged = rest[:i], rest[i+1:], true
	}
	repository, err := ParseRepository(rest)
	if err != nil {
		return Reference{}, err
	}
	if tagged && !tagShape.MatchString(ref.Tag) {
		return Reference{}, fault.Inputf("image %q: %q is no tag", s, ref.Tag)
	}
	ref.Repository = repository
	if ref.Tag == "" && ref.Digest == "" {
		return ref, fault.Inputf("image %q has neither a tag nor a digest", s).
			WithHint("give a digest, %s@sha256:…, or a tag, %s:1.4.2", rest, rest)
	}
	return ref, nil
}

// ParseRepository checks the name of a repository, registry/name.
func ParseRepository(s string) (string, error) {
	host, path, _ := strings.Cut(s, "/")
	r, err := name.NewRepository(s, name.StrictValidation)
	if err != nil || !hostShape.MatchString(host) || !pathShape.MatchString(path) {
		return "", fault.Inputf("repository %q: want registry/name in lower case, for example registry.example.com/acme/shop", s)
	}
	return r.Name(), nil
}

// repository is the name as the library has it, which says too whether http may be tried.
func (c *Client) repository(s string) (name.Repository, error) {
	options := []name.Option{name.StrictValidation}
	if host, _, _ := strings.Cut(s, "/"); c.plain && host == c.host {
		options = append(options, name.Insecure)
	}
	repo, err := name.NewRepository(s, options...)
	if err != nil {
		return repo, fault.Inputf("repository %q: %w", s, err)
	}
	return repo, nil
}

// through is the transport for a repository: base with the credentials and tokens that the registry wants. A registry
// that is stuck holds up only those who wait for it.
func (c *Client) through(ctx context.Context, repository, action string) (name.Repository, http.RoundTripper, error) {
	repo, err := c.repository(repository)
	if err != nil {
		return repo, nil, err
	}
	key := repository + " " + action
	c.mu.Lock()
	t, ok := c.transports[key]
	c.mu.Unlock()
	if ok {
		return repo, t, nil
	}
	reached := c.reaching.DoChan(key, func() (any, error) {
		// Others may join: the handshake does not end with the caller that happened to begin it, and it may be
		// repeated whatever is sent afterwards.
		ctx := context.WithValue(small(context.WithoutCancel(ctx), c.tryTimeout), onceKey{}, false)
		t, err := c.reach(ctx, repo, action)
		if err == nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.transports[key] = t
		}
		return t, err
	})
	select {
	case <-ctx.Done():
		return repo, nil, fmt.Errorf("reach registry %s: %w", repo.RegistryStr(), context.Cause(ctx))
	case r := <-reached:
		if r.Err != nil {
			return repo, nil, r.Err
		}
		return repo, r.Val.(http.RoundTripper), nil
	}
}

// reach asks the registry how it wants to be talked to, and for a token if it gives some.
func (c *Client) reach(ctx context.Context, repo name.Repository, action string) (http.RoundTripper, error) {
	auth, err := c.authenticator(ctx, repo)
	if err != nil {
		return nil, fmt.Errorf("credentials for %s: %w", repo.RegistryStr(), err)
	}
	guarded := guard{next: c.greeting, registry: repo.RegistryStr()}
	if repo.RegistryStr() == c.host {
		guarded.plain, guarded.realm = c.plain, c.realm
	}
	t, err := transport.NewWithContext(ctx, repo.Registry, auth, guarded, []string{repo.Scope(action)})
	if err != nil {
		return nil, c.told(fmt.Sprintf("reach registry %s", repo.RegistryStr()), repo, err)
	}
	return t, nil
}

// EngineAuth is the credentials for a repository as the engine API takes them in X-Registry-Auth: a JSON
// object in base64 for URLs. Without credentials the object is empty.
func (c *Client) EngineAuth(ctx context.Context, repository string) (string, error) {
	repo, err := c.repository(repository)
	if err != nil {
		return "", err
	}
	found, err := c.authenticator(ctx, repo)
	if err != nil {
		return "", fmt.Errorf("credentials for %s: %w", repo.RegistryStr(), err)
	}
	auth, err := authn.Authorization(ctx, found)
	if err != nil {
		return "", fmt.Errorf("credentials for %s: %w", repo.RegistryStr(), err)
	}
	text, err := json.Marshal(auth)
	return base64.URLEncoding.EncodeToString(text), err
}

// told puts an error of the library into our words.
func (c *Client) told(doing string, repo name.Repository, err error) error {
	var refused *transport.Error
	answers := errors.As(err, &refused)
	// A registry on this machine was asked over https first: only when that was right does it matter how it went.
	if named := unreachable(doing, repo, err); named != nil && (!answers || strings.Contains(refused.Error(), speaksTLS)) {
		return named
	}
	if answers {
		return answered{doing, repo.RegistryStr(), refused.StatusCode, firstDiagnostic(refused), c.refusedLogin(repo), ""}.fault()
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// midway is the error of a request that got no answer, after the registry had let us in: a token is asked for anew when it has ended.
func (c *Client) midway(repo name.Repository, err error) error {
	var asked *url.Error
	var refused *transport.Error
	doing := "reach registry " + repo.RegistryStr()
	if !errors.As(err, &asked) {
		return err
	}
	if errors.As(asked.Err, &refused) {
		return c.told(doing, repo, asked.Err)
	}
	if named := unreachable(doing, repo, asked.Err); named != nil {
		return named
	}
	return err
}

func firstDiagnostic(e *transport.Error) string {
	if len(e.Errors) > 0 {
		return e.Errors[0].Message
	}
	return ""
}

// answered is a status that was not wanted.
type answered struct {
	doing, registry string
	status          int
	detail          string // what the registry says
	login           string // what is to be said of the login that was given; "" when none was
	served          string // when it serves again; "" when it does not say
}

func (a answered) fault() error {
	text := fmt.Sprintf("the registry answered %d", a.status)
	if a.detail != "" {
		text += " " + a.detail
	}
	switch a.status {
	case http.StatusNotFound:
		return fmt.Errorf("%s: %w", a.doing, ErrNotFound)
	case http.StatusUnauthorized, http.StatusForbidden:
		return fault.Errorf(fault.Input, "%s: %w: %s", a.doing, ErrDenied, text).
			WithHint("%s", cmp.Or(a.login, "log in first: docker login "+a.registry))
	case http.StatusTooManyRequests:
		return fault.Errorf(fault.Failed, "%s: %w: %s", a.doing, ErrThrottled, text).
			WithHint("%s, or ask the registry for a higher limit", cmp.Or(a.served, "try again later"))
	}
	return fmt.Errorf("%s: %w", a.doing, refusal{text, a.status})
}

// refusal is an answer that says no, or not now.
type refusal struct {
	text   string
	status int
}

func (r refusal) Error() string { return r.text }

func (r refusal) Is(target error) bool {
	return target == ErrRefused && r.status/100 == 4 && !busy(r.status)
}

// Transient says whether what failed may well succeed a moment later: the registry was busy or silent, or the connection
// broke. Whether it was done then is unknown.
func Transient(err error) bool {
	var r refusal
	return errors.Is(err, ErrThrottled) || errors.Is(err, errCut) || errors.As(err, &r) && busy(r.status) || cutOff(err)
}

// reply is an answer with its whole body.
type reply struct {
	status int
	header http.Header
	body   []byte
	login  string // what is to be said of the login that was given; "" when none was
}

// errCut is wrapped by the error of an answer whose body ended early.
var errCut = errors.New("the answer was cut short")

// do sends one request about a repository and reads at most limit bytes of the answer. Each try has its own deadline. What
// is only read is asked for again when the answer is cut short, which the transport below cannot see.
func (c *Client) do(ctx context.Context, action, method, repository, path string, header http.Header, body []byte, limit int64) (reply, name.Repository, error) {
	ctx = small(ctx, c.tryTimeout)
	end := time.Now().Add(budget)
	for pause := firstPause; ; pause *= 2 {
		r, repo, err := c.once(ctx, action, method, repository, path, header, body, limit)
		if !errors.Is(err, errCut) || method != http.MethodGet || isOnce(ctx) || pause > time.Second || time.Now().Add(pause).After(end) {
			return r, repo, err
		}
		if err := sleep(ctx, pause); err != nil {
			return r, repo, err
		}
	}
}

func (c *Client) once(ctx context.Context, action, method, repository, path string, header http.Header, body []byte, limit int64) (reply, name.Repository, error) {
	repo, t, err := c.through(ctx, repository, action)
	if err != nil {
		return reply{}, repo, err
	}
	at := path
	if !strings.Contains(path, "://") {
		at = (&url.URL{Scheme: repo.Scheme(), Host: repo.RegistryStr()}).String() + "/v2/" + repo.RepositoryStr() + path
	}
	request, err := http.NewRequestWithContext(ctx, method, at, bytes.NewReader(body))
	if err != nil {
		return reply{}, repo, err
	}
	if len(body) == 0 {
		request.Body, request.GetBody = http.NoBody, nil
	}
	maps.Copy(request.Header, header)
	response, err := (&http.Client{Transport: t}).Do(request)
	if err != nil {
		return reply{}, repo, c.midway(repo, err)
	}
	defer response.Body.Close()
	read, err := io.ReadAll(io.LimitReader(response.Body, limit+1))
	if err != nil {
		return reply{}, repo, fmt.Errorf("%w: %w", errCut, err)
	}
	if int64(len(read)) > limit {
		return reply{}, repo, fmt.Errorf("the answer is longer than %d bytes", limit)
	}
	return reply{response.StatusCode, response.Header, read, c.refusedLogin(repo)}, repo, nil
}

// unwanted is the error of an answer that was not the one wanted.
func (r reply) unwanted(doing string, repo name.Repository) error {
	var body struct {
		Errors []struct{ Code, Message string }
	}
	detail := ""
	if json.Unmarshal(r.body, &body) == nil && len(body.Errors) > 0 {
		detail = body.Errors[0].Code + " " + body.Errors[0].Message
	}
	return answered{doing, repo.RegistryStr(), r.status, strings.TrimSpace(detail), r.login, throttled(r.header, time.Now())}.fault()
}

// accepted are the manifests that we can read.
var accepted = []string{string(types.OCIManifestSchema1), string(types.OCIImageIndex),
	string(types.DockerManifestSchema2), string(types.DockerManifestList)}

// display is the reference of a manifest as people write it.
func display(repository, name string) string {
	if strings.HasPrefix(name, "sha256:") {
		return repository + "@" + name
	}
	return repository + ":" + name
}

// Get is the manifest called name: a tag or a digest. The digest is computed from what was read.
func (c *Client) Get(ctx context.Context, repository, name string) (Manifest, error) {
	doing := "read " + display(repository, name)
	if known, ok := c.manifests.Load(repository + "@" + name); ok {
		return known.(Manifest), nil
	}
	r, repo, err := c.do(ctx, transport.PullScope, http.MethodGet, repository, "/manifests/"+name,
		http.Header{"Accept": accepted}, nil, manifestLimit)
	if err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", doing, err)
	}
	if r.status != http.StatusOK {
		return Manifest{}, r.unwanted(doing, repo)
	}
	m := Manifest{Digest: DigestOf(r.body), MediaType: r.header.Get("Content-Type"), Body: r.body}
	if strings.HasPrefix(name, "sha256:") && string(m.Digest) != name {
		return Manifest{}, fmt.Errorf("%s: the registry sent %s instead", doing, m.Digest)
	}
	if said, err := release.ParseDigest(r.header.Get("Docker-Content-Digest")); err == nil && said != m.Digest {
		return Manifest{}, fmt.Errorf("%s: the registry sent %s and calls it %s", doing, m.Digest, said)
	}
	return m, nil
}

// DigestOf is the digest that a manifest with this body has.
func DigestOf(body []byte) release.Digest {
	return release.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(body)))
}

// Head is the digest of the manifest called name.
func (c *Client) Head(ctx context.Context, repository, name string) (release.Digest, error) {
	doing := "look up " + display(repository, name)
	r, repo, err := c.do(ctx, transport.PullScope, http.MethodHead, repository, "/manifests/"+name,
		http.Header{"Accept": accepted}, nil, manifestLimit)
	if err != nil {
		return "", fmt.Errorf("%s: %w", doing, err)
	}
	if r.status != http.StatusOK {
		return "", r.unwanted(doing, repo)
	}
	if d, err := release.ParseDigest(r.header.Get("Docker-Content-Digest")); err == nil {
		return d, nil
	}
	m, err := c.Get(ctx, repository, name) // a registry that does not say
	return m.Digest, err
}

// Put stores a manifest under name and returns its digest.
func (c *Client) Put(ctx context.Context, repository, name, mediaType string, body []byte) (release.Digest, error) {
	doing := "write " + display(repository, name)
	r, repo, err := c.do(ctx, transport.PushScope, http.MethodPut, repository, "/manifests/"+name,
		http.Header{"Content-Type": {mediaType}}, body, manifestLimit)
	if err != nil {
		return "", fmt.Errorf("%s: %w", doing, err)
	}
	if r.status/100 != 2 {
		return "", r.unwanted(doing, repo)
	}
	return DigestOf(body), nil
}

// Delete removes a tag or a digest; what is gone already counts as removed. It reports whether the registry
// does that at all.
func (c *Client) Delete(ctx context.Context, repository, name string) (supported bool, err error) {
	doing := "delete " + display(repository, name)
	r, repo, err := c.do(ctx, transport.DeleteScope, http.MethodDelete, repository, "/manifests/"+name, nil, nil, manifestLimit)
	if err != nil {
		return false, fmt.Errorf("%s: %w", doing, err)
	}
	switch r.status {
	case http.StatusAccepted, http.StatusOK, http.StatusNoContent, http.StatusNotFound:
		return true, nil
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusUnauthorized, http.StatusForbidden:
		return false, nil
	}
	return false, r.unwanted(doing, repo)
}

// PutBlob stores a small blob unless it is there. It is repeated under Once too: a blob is named by its content.
func (c *Client) PutBlob(ctx context.Context, repository string, body []byte) (release.Digest, error) {
	ctx = context.WithValue(ctx, onceKey{}, false)
	digest := DigestOf(body)
	doing := fmt.Sprintf("write blob %s to %s", digest.Short(), repository)
	if err := c.hasBlob(ctx, repository, digest); err == nil {
		return digest, nil
	} else if !errors.Is(err, ErrNotFound) {
		return "", err
	}
	r, repo, err := c.do(ctx, transport.PushScope, http.MethodPost, repository, "/blobs/uploads/", nil, nil, manifestLimit)
	if err != nil {
		return "", fmt.Errorf("%s: %w", doing, err)
	}
	if r.status != http.StatusAccepted {
		return "", r.unwanted(doing, repo)
	}
	origin := &url.URL{Scheme: repo.Scheme(), Host: repo.RegistryStr(), Path: "/"}
	at, err := origin.Parse(r.header.Get("Location"))
	if err != nil || at.Host != origin.Host {
		return "", fmt.Errorf("%s: the registry sends the upload to %q", doing, r.header.Get("Location"))
	}
	query := at.Query()
	query.Set("digest", string(digest))
	at.RawQuery = query.Encode()
	r, _, err = c.do(ctx, transport.PushScope, http.MethodPut, repository, at.String(),
		http.Header{"Content-Type": {"application/octet-stream"}}, body, manifestLimit)
	if err != nil || r.status != http.StatusCreated {
		// An upload whose answer was lost cannot be repeated, but it may have arrived.
		if c.hasBlob(ctx, repository, digest) == nil {
			return digest, nil
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", doing, err)
		}
		return "", r.unwanted(doing, repo)
	}
	return digest, nil
}

func (c *Client) hasBlob(ctx context.Context, repository string, d release.Digest) error {
	doing := fmt.Sprintf("look up blob %s in %s", d, repository)
	r, repo, err := c.do(ctx, transport.PullScope, http.MethodHead, repository, "/blobs/"+string(d), nil, nil, manifestLimit)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if r.status != http.StatusOK {
		return r.unwanted(doing, repo)
	}
	return nil
}

// Tags lists every tag of a repository, in no order. An empty repository is ErrNotFound or an empty list. A list without an end
// is an error.
func (c *Client) Tags(ctx context.Context, repository string) ([]string, error) {
	doing := "list the tags of " + repository
	ctx, cancel := context.WithTimeoutCause(ctx, c.listTime, fmt.Errorf("the list did not end within %s", c.listTime))
	defer cancel()
	seen, left := map[string]bool{}, int64(listLimit)
	for path, page := "/tags/list", 1; path != ""; page++ {
		if page > listPages {
			return nil, fmt.Errorf("%s: the list did not end after %d pages", doing, listPages)
		}
		r, repo, err := c.do(ctx, transport.PullScope, http.MethodGet, repository, path, nil, nil, left)
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", doing, err)
		}
		if r.status != http.StatusOK {
			return nil, r.unwanted(doing, repo)
		}
		var tags struct{ Tags []string }
		if err := json.Unmarshal(r.body, &tags); err != nil {
			return nil, fmt.Errorf("%s: %w", doing, err)
		}
		left -= int64(len(r.body))
		before := len(seen)
		for _, t := range tags.Tags {
			seen[t] = true
		}
		path, err = nextPage(r.header.Get("Link"), repo)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", doing, err)
		}
		if path != "" && len(seen) == before {
			return nil, fmt.Errorf("%s: a page that brings nothing new links to another", doing)
		}
	}
	return slices.Collect(maps.Keys(seen)), nil
}

// nextPage is the address in a Link header of RFC 8288 with rel="next", which has to be on the same host.
func nextPage(link string, repo name.Repository) (string, error) {
	target, rel, ok := strings.Cut(link, ">")
	if !ok || !strings.HasPrefix(target, "<") || !strings.Contains(rel, "next") {
		return "", nil
	}
	origin := &url.URL{Scheme: repo.Scheme(), Host: repo.RegistryStr(), Path: "/"}
	at, err := origin.Parse(target[1:])
	if err != nil || at.Host != origin.Host {
		return "", fmt.Errorf("the next page is at %q", target[1:])
	}
	return at.String(), nil
}

// Tag gives r the tags without uploading anything again.
func (c *Client) Tag(ctx context.Context, r release.Release, tags ...string) error {
	m, err := c.Get(ctx, r.Repository, string(r.Digest))
	if err != nil {
		return err
	}
	for _, tag := range tags {
		if _, err := c.Put(ctx, r.Repository, tag, m.MediaType, m.Body); err != nil {
			return err
		}
	}
	return nil
}
