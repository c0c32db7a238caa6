package registry_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/host"
	"github.com/backstep/backstep/internal/host/github"
	"github.com/backstep/backstep/internal/host/gitlab"
	"github.com/backstep/backstep/internal/host/plain"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/registry/registrytest"
	"github.com/backstep/backstep/internal/secret"
)

// issuer is a host that gives OIDC tokens.
type issuer struct {
	host.Host
	token  string
	masked []string
}

func (i *issuer) Token(_ context.Context, audience string) (string, error) {
	if i.token == "" {
		return "", errors.New("no id-token permission")
	}
	return i.token + "-for-" + audience, nil
}

func (i *issuer) Mask(s string) { i.masked = append(i.masked, s) }

func login(t *testing.T, h host.Host, repository string, given map[string]string) (*registry.Client, error) {
	t.Helper()
	var l registry.Login
	if err := input.Read(l.Inputs(), func(in input.Input) (string, string) { return given["registry-"+in.Name[len("registry-"):]], "" }); err != nil {
		t.Fatal(err)
	}
	var tell func(string)
	if m, ok := h.(host.Masker); ok {
		tell = m.Mask
	}
	return l.Client(h, secret.NewKnown(tell), repository)
}

func TestLogin(t *testing.T) {
	shell := plain.Kind().New(host.Environment{Getenv: func(string) string { return "" }})
	hub := &issuer{Host: shell, token: "jwt"}
	at := registrytest.Private(t, registrytest.InProcess(t), "ada", "pass")
	oidc := registrytest.Private(t, registrytest.InProcess(t), "ada", "jwt-for-shops")
	ctx := t.Context()
	for name, c := range map[string]struct {
		at    string
		given map[string]string
		code  fault.Code
	}{
		"nobody":          {at, nil, fault.Input},
		"a password":      {at, map[string]string{"registry-username": "ada", "registry-password": "pass"}, fault.Done},
		"a wrong one":     {at, map[string]string{"registry-username": "ada", "registry-password": "guess"}, fault.Input},
		"a token":         {oidc, map[string]string{"registry-username": "ada", "registry-audience": "shops"}, fault.Done},
		"another's token": {oidc, map[string]string{"registry-username": "ada", "registry-audience": "others"}, fault.Input},
	} {
		client, err := login(t, hub, c.at+"/shop", c.given)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = client.PutBlob(ctx, c.at+"/shop", []byte("x")); fault.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want exit code %d", name, err, c.code)
		}
	}
	if len(hub.masked) == 0 || hub.masked[0][:3] != "jwt" {
		t.Errorf("masked %q", hub.masked)
	}

	client, err := login(t, shell, at+"/shop", map[string]string{"registry-username": "ada", "registry-password": "pass"})
	if err != nil {
		t.Fatal(err)
	}
	for repository, want := range map[string]string{at + "/shop": "pass", "registry.example.com/shop": ""} {
		text, err := client.EngineAuth(ctx, repository)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := base64.URLEncoding.DecodeString(text)
		var auth struct{ Username, Password string }
		if err != nil || json.Unmarshal(raw, &auth) != nil || auth.Password != want || client.Knows(repository) != (want != "") {
			t.Errorf("%s: %s, %v", repository, raw, err)
		}
	}
}

// Where nobody has logged in, the host's own login is taken for the host's own registry, and goes to no other.
func TestTheHostsOwnLogin(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	const hub = "https://github.com"
	for _, c := range []struct {
		what, repository string
		env              map[string]string
		want             string // of the login, in words
	}{
		{"ghcr.io", "ghcr.io/acme/shop", map[string]string{"GITHUB_ACTIONS": "true", "GITHUB_SERVER_URL": hub, "GITHUB_ACTOR": "ada", "GITHUB_TOKEN": "job"}, "ada:job"},
		{"the token of an action", "ghcr.io/acme/shop", map[string]string{"GITHUB_ACTIONS": "true", "GITHUB_SERVER_URL": hub, "GITHUB_ACTOR": "ada", "INPUT_TOKEN": "job"}, "ada:job"},
		{"another registry", "registry.example.com/acme/shop", map[string]string{"GITHUB_ACTIONS": "true", "GITHUB_SERVER_URL": hub, "GITHUB_ACTOR": "ada", "GITHUB_TOKEN": "job"}, ""},
		{"one that looks like it", "ghcr.io.example.com/acme/shop", map[string]string{"GITHUB_ACTIONS": "true", "GITHUB_SERVER_URL": hub, "GITHUB_ACTOR": "ada", "GITHUB_TOKEN": "job"}, ""},
		{"GitHub Enterprise Server", "containers.ghe.example.com/acme/shop", map[string]string{"GITHUB_ACTIONS": "true", "GITHUB_SERVER_URL": "https://ghe.example.com", "GITHUB_ACTOR": "ada", "GITHUB_TOKEN": "job"}, "ada:job"},
		{"ghcr.io from there", "ghcr.io/acme/shop", map[string]string{"GITHUB_ACTIONS": "true", "GITHUB_SERVER_URL": "https://ghe.example.com", "GITHUB_ACTOR": "ada", "GITHUB_TOKEN": "job"}, ""},
		{"no token", "ghcr.io/acme/shop", map[string]string{"GITHUB_ACTIONS": "true", "GITHUB_SERVER_URL": hub, "GITHUB_ACTOR": "ada"}, ""},
		{"GitLab", "registry.lab.example.com:5050/acme/shop", map[string]string{"GITLAB_CI": "true", "CI_REGISTRY": "registry.lab.example.com:5050", "CI_REGISTRY_USER": "gitlab-ci-token", "CI_REGISTRY_PASSWORD": "job"}, "gitlab-ci-token:job"},
		{"another than GitLab's", "ghcr.io/acme/shop", map[string]string{"GITLAB_CI": "true", "CI_REGISTRY": "registry.lab.example.com", "CI_REGISTRY_USER": "gitlab-ci-token", "CI_REGISTRY_PASSWORD": "job"}, ""},
		{"a shell", "ghcr.io/acme/shop", map[string]string{"GITHUB_TOKEN": "job", "GITHUB_ACTOR": "ada"}, ""},
	} {
		kinds := []host.Kind{github.Kind(), gitlab.Kind(), plain.Kind()}
		get := func(name string) string { return c.env[name] }
		kind := kinds[slices.IndexFunc(kinds, func(k host.Kind) bool { return k.Detect(get) })]
		for given, want := range map[string]string{"": c.want, "pass": "eve:pass"} {
			values := map[string]string{}
			if given != "" {
				values = map[string]string{"registry-username": "eve", "registry-password": given}
			}
			client, err := login(t, kind.New(host.Environment{Getenv: get, Stdout: func(string) {}, Command: func(string) {}}), c.repository, values)
			if err != nil {
				t.Fatal(err)
			}
			text, err := client.EngineAuth(t.Context(), c.repository)
			if err != nil {
				t.Fatal(err)
			}
			raw, _ := base64.URLEncoding.DecodeString(text)
			var auth struct{ Username, Password string }
			if err := json.Unmarshal(raw, &auth); err != nil {
				t.Fatal(err)
			}
			if got := strings.Trim(auth.Username+":"+auth.Password, ":"); got != want {
				t.Errorf("%s, given %q: %s, want %s", c.what, given, got, want)
			}
		}
	}
}

func TestLoginFaults(t *testing.T) {
	shell := plain.Kind().New(host.Environment{Getenv: func(string) string { return "" }})
	for _, c := range []struct {
		given map[string]string
		want  string
	}{
		{map[string]string{"registry-username": "ada"}, "registry-username is given, and no password"},
		{map[string]string{"registry-password": "x"}, "a password of the registry is given, and no registry-username"},
		{map[string]string{"registry-username": "ada", "registry-password": "x", "registry-audience": "y"},
			"registry-password and registry-audience are both given: want one of them"},
		{map[string]string{"registry-username": "ada", "registry-audience": "y"}, "registry-audience: host plain issues no OIDC tokens by itself"},
	} {
		if _, err := login(t, shell, "r.example.com/shop", c.given); err == nil || err.Error() != c.want || fault.CodeOf(err) != fault.Input {
			t.Errorf("%v: %v, want %s", c.given, err, c.want)
		}
	}
}
