package main

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/registry/registrytest"
	"github.com/backstep/backstep/internal/target/process"
)

// TestE2ESecureRegistries runs testdata/secure, the whole chain, on Debian's docker-registry behind TLS with a certificate of a private
// authority: by a password, and by tokens through a proxy that alone knows where the registry is.
func TestE2ESecureRegistries(t *testing.T) {
	if os.Getenv("BACKSTEP_E2E") == "" {
		t.Skip("takes half a minute: run make e2e")
	}
	a := registrytest.NewAuthority(t)
	tokens := registrytest.NewTokens(t, a, "auth.registry.test", "harbor-registry")
	proxy := &registrytest.Proxy{To: func(address string) string { return "127.0.0.1" + address[lastColon(address):] }}
	proxy.Start(t)
	dir := filepath.Dir(a.File)
	for _, c := range []struct {
		what, name string
		ledger     string // what its repository has after that of the images
		behind     registrytest.Behind
		env        map[string]string // of every command
	}{
		{"password", "localhost", "", registrytest.Behind{}, map[string]string{"SSL_CERT_FILE": a.File, "KIND": "whatever removes tags there"}},
		{"tokens", "hub.registry.test", "/backstep", registrytest.Behind{Names: []string{"hub.registry.test"}, Tokens: tokens},
			map[string]string{"SSL_CERT_FILE": "", "SSL_CERT_DIR": dir, "HTTPS_PROXY": "http://" + proxy.Address, "KIND": "on Harbor, a tag retention rule"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			address := c.behind.Start(t, a)
			host := c.name + address[lastColon(address):]
			// The supervisor of the test has logged in as docker login does it, and goes the same way.
			config := t.TempDir()
			login := base64.StdEncoding.EncodeToString([]byte(registrytest.User + ":" + registrytest.Password))
			if err := os.WriteFile(filepath.Join(config, "config.json"), fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, host, login), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("DOCKER_CONFIG", config)
			way := http.DefaultTransport.(*http.Transport).Clone()
			way.TLSClientConfig = &tls.Config{RootCAs: a.Roots()}
			if c.env["HTTPS_PROXY"] != "" {
				way.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: proxy.Address})
			}
			t.Cleanup(way.CloseIdleConnections)
			client := registry.New(registry.WithTransport(way))
			testscript.Run(t, testscript.Params{
				Dir:                 "testdata/secure",
				RequireExplicitExec: true,
				Setup: func(env *testscript.Env) error {
					for name, value := range c.env {
						env.Setenv(name, value)
					}
					env.Setenv("REG", host+"/acme/shop")
					env.Setenv("BOOK", host+"/acme/shop"+c.ledger)
					env.Setenv("BACKSTEP_REGISTRY_USERNAME", registrytest.User)
					env.Setenv("BACKSTEP_REGISTRY_PASSWORD", registrytest.Password)
					if err := supervised(env, client); err != nil || c.ledger == "" {
						return err
					}
					file := filepath.Join(env.WorkDir, "backstep.yml")
					text, err := os.ReadFile(file)
					if err != nil {
						return err
					}
					return os.WriteFile(file, append([]byte("ledger: "+env.Getenv("BOOK")+"\n"), text...), 0o600)
				},
				Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "shop": shop, "removed": func(ts *testscript.TestScript, neg bool, args []string) {
					// removed REPOSITORY TAG, as a clean-up does it: by its digest, with every tag of it
					digest, err := client.Head(context.Background(), args[0], args[1])
					ts.Check(err)
					_, err = client.Delete(context.Background(), args[0], string(digest))
					ts.Check(err)
				}, "kept": func(ts *testscript.TestScript, neg bool, args []string) {
					// kept: the tags of the ledger are all in its own repository, but for the pins of images
					tags, err := client.Tags(context.Background(), ts.Getenv("REG"))
					ts.Check(err)
					for _, tag := range tags {
						if c.ledger != "" && strings.HasPrefix(tag, "bs.") && !strings.HasPrefix(tag, "bs.shop.production.k.") {
							ts.Fatalf("%s has the tag %s", ts.Getenv("REG"), tag)
						}
					}
				}},
			})
		})
	}
	if tokens.Asked.Load() == 0 || proxy.Through.Load() == 0 {
		t.Error("no token was given, or nothing went through the proxy")
	}
}

func lastColon(address string) int {
	_, port, _ := net.SplitHostPort(address)
	return len(address) - len(port) - 1
}

// supervised starts a supervisor for a script and writes its backstep.yml.
func supervised(env *testscript.Env, client *registry.Client) error {
	dir, err := os.MkdirTemp("", "bs") // a socket's path has to be short
	if err != nil {
		return err
	}
	socket := filepath.Join(dir, "s")
	supervisor, err := process.NewSupervisor(process.SupervisorOptions{Dir: filepath.Join(dir, "state"), Socket: socket,
		Listen: "127.0.0.1:0", Ready: "/ready", Registry: client, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- supervisor.Run(running) }()
	env.Defer(func() { stop(); <-ended; os.RemoveAll(dir) })
	program, err := exec.LookPath("backstep")
	if err != nil {
		return err
	}
	env.Setenv("SOCKET", socket)
	env.Setenv("PROXY", "http://"+supervisor.Address())
	env.Setenv("BIN", filepath.Dir(program))
	env.Setenv("BACKSTEP_HOST", "plain")
	env.Setenv("BACKSTEP_ACTOR", "ada")
	return os.WriteFile(filepath.Join(env.WorkDir, "backstep.yml"), []byte("service: shop\nrepository: "+env.Getenv("REG")+
		"\nenvironments:\n  production:\n    target: {kind: process, socket: "+socket+"}\n    drain: 1s\n    settle: 0s\n    try: 0s\n    ready-timeout: 20s\n"+
		"    verify: {bake: 1s, patience: 20s, negligible: 20%, intolerable: 20%, probes: [{kind: http, rate: 200}]}\n"), 0o644)
}

// What NO_PROXY names is asked without the proxy, and a proxy that is away names itself.
func TestE2ENoProxy(t *testing.T) {
	own := ""
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range addresses { // this machine's own are never asked through a proxy
		if ip, ok := address.(*net.IPNet); ok && ip.IP.IsGlobalUnicast() && ip.IP.To4() != nil {
			own = ip.IP.String()
		}
	}
	if own == "" {
		t.Skip("needs a network")
	}
	a := registrytest.NewAuthority(t)
	at := registrytest.Behind{On: own, Names: []string{own}}.Start(t, a)
	file := filepath.Join(t.TempDir(), "backstep.yml")
	if err := os.WriteFile(file, []byte("service: shop\nrepository: "+at+"/acme/shop\nenvironments:\n  production:\n    target: {kind: process, socket: nowhere}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ proxy, except, want, hint string }{
		{"http://127.0.0.1:1", "", "backstep: error: read " + at + "/acme/shop:bs.shop.production: reach registry " + at + ": the proxy does not answer: dial tcp 127.0.0.1:1: connect: connection refused", "NO_PROXY"},
		{"http://127.0.0.1:1", own, "", ""},
		{"", "", "", ""},
	} {
		cmd := exec.Command("backstep", "history", "--environment", "production", "--config", file)
		cmd.Env = append(os.Environ(), "BACKSTEP_HOST=plain", "SSL_CERT_FILE="+a.File, "HTTPS_PROXY="+c.proxy, "NO_PROXY="+c.except,
			"BACKSTEP_REGISTRY_USERNAME="+registrytest.User, "BACKSTEP_REGISTRY_PASSWORD="+registrytest.Password)
		out, err := cmd.CombinedOutput()
		if (err != nil) != (c.want != "") || !strings.Contains(string(out), c.want) || !strings.Contains(string(out), c.hint) {
			t.Errorf("proxy %q, except %q: %v\n%s", c.proxy, c.except, err, out)
		}
	}
}
