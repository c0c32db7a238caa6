package registry_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/registry/registrytest"
	"github.com/backstep/backstep/internal/release"
)

func TestParseReference(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	for text, want := range map[string]string{
		"r.example/acme/shop:1.4.2":                  "{r.example/acme/shop 1.4.2 }",
		"127.0.0.1:5000/shop@" + digest:              "{127.0.0.1:5000/shop  " + digest + "}",
		"r.example/shop:1@" + digest:                 "{r.example/shop 1 " + digest + "}",
		"r.example/shop":                             `image "r.example/shop" has neither a tag nor a digest`,
		"127.0.0.1:5000/shop":                        `image "127.0.0.1:5000/shop" has neither a tag nor a digest`,
		"r.example/shop@sha256:abc":                  `image "r.example/shop@sha256:abc": digest "sha256:abc": want sha256: and 64 lower-case hexadecimal digits`,
		"r.example/Shop:1":                           `repository "r.example/Shop": want registry/name in lower case, for example registry.example.com/acme/shop`,
		"r.example/shop:" + strings.Repeat("x", 129): `image "r.example/shop:` + strings.Repeat("x", 129) + `": "` + strings.Repeat("x", 129) + `" is no tag`,
	} {
		ref, err := registry.ParseReference(text)
		got := fmt.Sprint(ref)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", text, got, want)
		}
	}
}

// Every blob and platform that is missing is named, all at once.
func TestCompleteNamesWhatIsMissing(t *testing.T) {
	repository, client := registrytest.InProcess(t)+"/shop", registry.New()
	here, err := client.PutBlob(t.Context(), repository, []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	gone, lost := "sha256:"+strings.Repeat("1", 64), "sha256:"+strings.Repeat("2", 64)
	body := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":2},
		"layers":[{"mediaType":"x","digest":%q,"size":1},{"mediaType":"x","digest":%q,"size":1}]}`, registry.OCIManifest, here, gone, lost)
	digest, err := client.Put(t.Context(), repository, "1.0.0", registry.OCIManifest, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	err = client.Complete(t.Context(), release.Release{Repository: repository, Digest: digest})
	want := fmt.Sprintf("look up blob %s in %s: not found\nlook up blob %s in %s: not found", gone, repository, lost, repository)
	if err == nil || err.Error() != want || !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestDenied(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/" {
			http.Error(w, `{"errors":[{"code":"DENIED","message":"no access to shop"}]}`, http.StatusForbidden)
		}
	}))
	defer server.Close()
	host := server.Listener.Addr().String()
	_, err := registry.New().Get(t.Context(), host+"/shop", "1.0.0")
	want := fmt.Sprintf("read %s/shop:1.0.0: access denied: the registry answered 403 DENIED no access to shop", host)
	if err == nil || err.Error() != want || !errors.Is(err, registry.ErrDenied) || fault.HintOf(err) != "log in first: docker login "+host || fault.CodeOf(err) != fault.Input {
		t.Errorf("got %v, hint %q", err, fault.HintOf(err))
	}
}

// A registry that is busy for a moment is asked again.
func TestRetries(t *testing.T) {
	var n atomic.Int64
	upstream := registrytest.InProcess(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1)%2 == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		http.Redirect(w, r, "http://"+upstream+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	_, err := registry.New().Get(t.Context(), server.Listener.Addr().String()+"/shop", "1.0.0")
	if !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("got %v, want the answer after the retries: not found", err)
	}
}

// A registry that says for how long it will not answer is believed: nobody waits in vain.
func TestThrottled(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/" {
			w.Header().Set("Retry-After", "3600")
			http.Error(w, `{"errors":[{"code":"TOOMANYREQUESTS","message":"2000 a minute"}]}`, http.StatusTooManyRequests)
		}
	}))
	defer server.Close()
	repository := server.Listener.Addr().String() + "/shop"
	_, err := registry.New().Tags(t.Context(), repository)
	want := fmt.Sprintf("list the tags of %s: throttled: the registry answered 429 TOOMANYREQUESTS 2000 a minute", repository)
	if err == nil || err.Error() != want || !errors.Is(err, registry.ErrThrottled) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// image stores an image whose configuration is the text, and returns its digest.
func image(t *testing.T, repository, config, tag string) release.Digest {
	t.Helper()
	client := registry.New()
	blob, err := client.PutBlob(t.Context(), repository, []byte(config))
	if err != nil {
		t.Fatal(err)
	}
	body := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[]}`,
		registry.OCIManifest, blob, len(config))
	digest, err := client.Put(t.Context(), repository, tag, registry.OCIManifest, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

// A configuration that is not what its manifest names is refused, also when a redirect leads to it.
func TestAConfigurationFromElsewhereIsRefused(t *testing.T) {
	upstream := registrytest.InProcess(t)
	digest := image(t, upstream+"/shop", `{"config":{"Labels":{"org.opencontainers.image.version":"1.0.0"}}}`, "latest")
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"config":{"Labels":{"org.opencontainers.image.version":"6.6.6"}}}`)
	}))
	defer elsewhere.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to := "http://" + upstream
		if strings.Contains(r.URL.Path, "/blobs/") {
			to = elsewhere.URL
		}
		http.Redirect(w, r, to+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	repository := server.Listener.Addr().String() + "/shop"
	r, err := registry.New().Resolve(t.Context(), registry.Reference{Repository: repository, Tag: "latest"})
	if err == nil || !strings.Contains(err.Error(), "the registry sent sha256:") {
		t.Errorf("resolve: version %q, %v; want a refusal", r.Version, err)
	}
	err = registry.New().Complete(t.Context(), release.Release{Repository: repository, Digest: digest})
	if err == nil || !strings.Contains(err.Error(), "the registry sent sha256:") {
		t.Errorf("complete: %v; want a refusal", err)
	}
}

// A version is SemVer wherever it comes from, and a revision is a word; what else an image says is not believed.
func TestWhatAnImageSaysOfItself(t *testing.T) {
	repository := registrytest.InProcess(t) + "/shop"
	for _, c := range []struct{ version, revision, tag, want, commit string }{
		{"1.4.2", "abc123", "x", "1.4.2", "abc123"},
		{"v1.4.2", "", "x", "1.4.2", ""},
		{"22.04", "", "x", "", ""},
		{"22.04", "", "1.5.0", "1.5.0", ""},
		{"", "", "v1.5.1", "1.5.1", ""},
		{`1.0.0"} * 0) #`, "a b", "x", "", ""},
		{"1.0.0\r::set-output name=x::y", "abc\n", "x", "", ""},
	} {
		digest := image(t, repository, fmt.Sprintf(`{"config":{"Labels":{"org.opencontainers.image.version":%q,"org.opencontainers.image.revision":%q}}}`, c.version, c.revision), c.tag)
		r, err := registry.New().Resolve(t.Context(), registry.Reference{Repository: repository, Tag: c.tag})
		if err != nil || r.Version != c.want || r.Commit != c.commit || r.Digest != digest {
			t.Errorf("label %q, revision %q, tag %s: version %q, commit %q, %v; want %q, %q", c.version, c.revision, c.tag, r.Version, r.Commit, err, c.want, c.commit)
		}
	}
}

// An image that brings the labels by which containers are known again is refused.
func TestAnImageWithOurLabelsIsRefused(t *testing.T) {
	repository := registrytest.InProcess(t) + "/shop"
	digest := image(t, repository, `{"config":{"Labels":{"team":"shop","backstep.digest":"sha256:1"}}}`, "1.0.0")
	err := registry.New().Complete(t.Context(), release.Release{Repository: repository, Digest: digest})
	want := fmt.Sprintf(`an image of %s brings the label "backstep.digest", and these are for backstep alone`, repository)
	if err == nil || err.Error() != want || fault.CodeOf(err) != fault.Input || fault.HintOf(err) != "take the labels that begin with backstep. out of its Dockerfile" {
		t.Errorf("got  %v, hint %q\nwant %s", err, fault.HintOf(err), want)
	}
}
