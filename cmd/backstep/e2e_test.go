package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/backstep/backstep/internal/haproxysocket"
	"github.com/backstep/backstep/internal/probe/probetest"
	"github.com/backstep/backstep/internal/registry/registrytest"
	"github.com/backstep/backstep/internal/router/haproxy"
	"github.com/backstep/backstep/internal/router/routertest"
)

// service is the name of this run's containers: no other run on the same engine has it.
func service() string { return fmt.Sprintf("shop-%d-%d", os.Getpid(), time.Now().UnixNano()%1e9) }

// remove takes away the containers and volumes of a service, and the images of a repository.
func remove(service, repository string) {
	for _, kind := range [][3]string{{"ps -aq", "rm -f -v", "label=backstep.service=" + service},
		{"volume ls -q", "volume rm", "label=backstep.service=" + service}, {"image ls -q", "image rm -f", "reference=" + repository}} {
		list := append(strings.Fields(kind[0]), "--filter", kind[2])
		ids, err := exec.Command("docker", list...).Output()
		if err == nil && len(ids) > 0 {
			_ = exec.Command("docker", append(strings.Fields(kind[1]), strings.Fields(string(ids))...)...).Run()
		}
	}
}

// docked is a backstep.yml for a Docker engine: production behind a load balancer, whose counts counted goes by. Router and meter are their
// inputs, as they stand between braces.
func docked(service, repository, router, meter, strategy string) string {
	return fmt.Sprintf(`service: %s
repository: %s
environments:
  production:
    target: {kind: docker, port: 8080}
    router: {%s}
    strategy: %s
    drain: 2s
    settle: 100ms
    try: 0s
    verify: {bake: 2s, patience: 20s, negligible: 20%%, intolerable: 20%%, probes: [{kind: http, rate: 100}]}
  counted:
    target: {kind: docker, port: 8080}
    router: {%[3]s}
    strategy: %[4]s
    drain: 2s
    settle: 100ms
    try: 0s
    verify: {bake: 3s, patience: 60s, negligible: 20%%, intolerable: 20%%, probes: [{%[5]s}]}
`, service, repository, router, strategy, meter)
}

// behindHAProxy is docked with a HAProxy, which counts as well.
func behindHAProxy(service, repository string, balancer routertest.Balancer, strategy string) string {
	both := fmt.Sprintf("kind: haproxy, socket: %s, backend: %s", balancer.Socket, balancer.Backend)
	return docked(service, repository, both, both, strategy)
}

// solo is an environment without a router, at a port of its own.
func solo(port int) string {
	return fmt.Sprintf(`  solo:
    target: {kind: docker, port: 8080, publish: "127.0.0.1:%d"}
    verify: {bake: 1s, patience: 20s, negligible: 20%%, intolerable: 20%%, probes: [{kind: http, rate: 200}]}
`, port)
}

// pipeline sets what a script of these tests finds in its environment.
func pipeline(env *testscript.Env, service, repository string) error {
	program, err := exec.LookPath("backstep")
	if err != nil {
		return err
	}
	env.Defer(func() { remove(service, repository) })
	for name, value := range map[string]string{"BIN": filepath.Dir(program), "REG": repository, "SERVICE": service, "BACKSTEP_HOST": "plain",
		"BACKSTEP_ACTOR": "ada", "DOCKER_API_VERSION": os.Getenv("DOCKER_API_VERSION")} {
		env.Setenv(name, value)
	}
	return nil
}

// oldShop is the server that serves at an address before the first release.
func oldShop(address string) (stop func(), err error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "the old shop") })}
	go func() { _ = server.Serve(listener) }()
	return func() { server.Close() }, nil
}

// TestE2EScripts runs testdata/e2e on the real program with a real registry, engine and load balancer.
func TestE2EScripts(t *testing.T) {
	probetest.Needs(t, "a Docker engine and HAProxy") // before its scripts run beside one another
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/e2e",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			before := fmt.Sprintf("127.0.0.1:%d", routertest.Port(t))
			balancer := routertest.HAProxy(t, haproxy.Slots+"\n    server legacy "+before+" disabled")
			env.Values["before"] = before
			env.Values["customers"], env.Values["balancer"] = &customers{url: "http://" + balancer.Address}, balancer
			name := service()
			between := registrytest.NewSwitch(t, registrytest.Debian(t))
			env.Values["registry"] = between
			repository := between.Host() + "/acme/shop"
			if err := pipeline(env, name, repository); err != nil {
				return err
			}
			env.Setenv("PROXY", "http://"+balancer.Address)
			alone := solo(routertest.Port(t))
			// One share of a canary: half a minute of 50 requests a second tells more of it.
			for file, strategy := range map[string]string{"backstep.yml": "blue-green", "canary.yml": "canary\n    weights: [50]", "hasty.yml": "blue-green", "watch.yml": "blue-green"} {
				text := behindHAProxy(name, repository, balancer, strategy) + alone
				if file == "watch.yml" {
					text = strings.ReplaceAll(text, "bake: 2s", "bake: 15s")
				}
				if file == "hasty.yml" {
					text = strings.ReplaceAll(text, "patience: 60s", "patience: 1s")
				}
				if err := os.WriteFile(filepath.Join(env.WorkDir, file), []byte(text), 0o644); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "shop": example,
			"customers": func(ts *testscript.TestScript, neg bool, args []string) {
				ts.Value("customers").(*customers).command(ts, neg, args)
			},
			"outage": outage, "waits": waits, "legacy": legacy,
			"stop-haproxy": func(ts *testscript.TestScript, _ bool, _ []string) { ts.Value("balancer").(routertest.Balancer).Stop() },
			"restart-haproxy": func(ts *testscript.TestScript, _ bool, _ []string) {
				ts.Value("balancer").(routertest.Balancer).Restart()
			}},
	})
}

// legacy starts the server that serves before the first release, and lets it into the load balancer.
func legacy(ts *testscript.TestScript, _ bool, _ []string) {
	stop, err := oldShop(ts.Value("before").(string))
	ts.Check(err)
	ts.Defer(stop)
	balancer := ts.Value("balancer").(routertest.Balancer)
	_, err = haproxysocket.Ask(context.Background(), balancer.Socket, "set server "+balancer.Backend+"/legacy state ready")
	ts.Check(err)
}

var building sync.Mutex // the programs of examples/shop, kept by their flags

// example VERSION DOES builds examples/shop and pushes an image of it, tagged with its version.
func example(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: shop VERSION work|fail|late|limp|crash|die")
	}
	dir := ts.MkAbs("image")
	ts.Check(built(dir, args[0], args[1]))
	ts.Check(ts.Exec("backstep", "build-image", "--repository", ts.Getenv("REG"), "--version", args[0], "--tags", args[0],
		"--context", dir, "--files", "shop:/shop", "--entrypoint", "/shop"))
}

func built(dir, version, does string) error {
	building.Lock()
	defer building.Unlock()
	build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, "shop"),
		"-ldflags", "-X main.version="+version+" -X main.does="+does, "../../examples/shop")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// customers ask 50 times a second, each time over a new connection unless they keep theirs, and count what they get.
type customers struct {
	url   string
	stop  func()
	keep  bool // they keep their connections
	mu    sync.Mutex
	seen  map[string]int // by the first word after shop, or the first word
	lost  []string
	first time.Time // of a bad answer
	last  time.Time
}

func (c *customers) command(ts *testscript.TestScript, neg bool, args []string) {
	switch {
	case neg || len(args) == 0:
		ts.Fatalf("usage: customers start [kept] | stop | lost N | saw TEXT | ask TEXT")
	case args[0] == "start":
		c.keep = len(args) > 1 && args[1] == "kept"
		c.start()
	case args[0] == "stop":
		c.stop()
		ts.Logf("%d kinds of answers: %v; %d bad ones within %.3f s", len(c.seen), c.seen, len(c.lost), c.last.Sub(c.first).Seconds())
	case args[0] == "lost":
		if n, err := strconv.Atoi(args[1]); err != nil || len(c.lost) != n {
			ts.Fatalf("%d requests were lost: %q", len(c.lost), c.lost)
		}
	case args[0] == "saw":
		for text := range c.seen {
			if strings.Contains(text, args[1]) {
				return
			}
		}
		ts.Fatalf("nobody saw %s, but %v", args[1], c.seen)
	case args[0] == "ask":
		if text, err := asked(c.url); err != nil || !strings.Contains(text, args[1]) {
			ts.Fatalf("a customer got %q, %v", text, err)
		}
	}
}

func asked(url string) (string, error) {
	return askedOver(&http.Transport{DisableKeepAlives: true}, url)
}

func askedOver(transport *http.Transport, url string) (string, error) {
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	answer, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", answer.StatusCode)
	}
	return strings.TrimSpace(string(body)), err
}

func (c *customers) start() {
	ctx, cancel := context.WithCancel(context.Background())
	c.seen, c.lost, c.first, c.last = map[string]int{}, nil, time.Time{}, time.Time{}
	transport := &http.Transport{DisableKeepAlives: !c.keep}
	var all sync.WaitGroup
	all.Go(func() {
		pace := time.NewTicker(20 * time.Millisecond)
		defer pace.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-pace.C:
				all.Go(func() {
					begin := time.Now()
					text, err := askedOver(transport, c.url)
					c.mu.Lock()
					defer c.mu.Unlock()
					c.seen[text]++
					if err != nil {
						c.lost = append(c.lost, fmt.Sprint(text, err))
						if c.first.IsZero() {
							c.first = begin
						}
						c.last = begin
					}
				})
			}
		}
	})
	c.stop = func() { cancel(); all.Wait(); transport.CloseIdleConnections() }
}
