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
