package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/backstep/backstep/internal/probe/probetest"
	"github.com/backstep/backstep/internal/registry/registrytest"
	"github.com/backstep/backstep/internal/router/nginx"
	"github.com/backstep/backstep/internal/router/routertest"
)

// behindNginx is docked with an nginx that is reloaded by this program. Counted reads its log.
func behindNginx(service, repository string, server routertest.WebServer, reload []string, strategy string) string {
	return docked(service, repository, fmt.Sprintf(`kind: nginx, file: %s, upstream: shop, status: "%s", test: [%s], reload: [%s]`, server.File, server.Status,
		strings.Join(server.Test, ", "), strings.Join(reload, ", ")), "kind: nginx, log: "+server.Log, strategy)
}

// TestE2ENginxScripts runs testdata/e2e-nginx on the real program with a real registry, engine and nginx.
func TestE2ENginxScripts(t *testing.T) {
	probetest.Needs(t, "a Docker engine and nginx") // before its scripts run beside one another
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/e2e-nginx",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			before := fmt.Sprintf("127.0.0.1:%d", routertest.Port(t))
			first := strings.NewReplacer("127.0.0.1:9 down", before, "shop 0 ", "shop 0 "+before+"=1 ").Replace(nginx.First)
			server := routertest.Nginx(t, first)
			env.Values["server"], env.Values["customers"] = server, &customers{url: "http://" + server.Address}
			stop, err := oldShop(before)
			if err != nil {
				return err
			}
			env.Defer(stop)
			name, repository := service(), registrytest.Debian(t)+"/acme/shop"
			if err := pipeline(env, name, repository); err != nil {
				return err
			}
			env.Setenv("FILE", server.File)
			// A reload that is armed kills who asks for it instead: the file is written then, and not loaded.
			reload := filepath.Join(env.WorkDir, "reload")
			script := fmt.Sprintf("#!/bin/sh\nrm %s/armed 2>/dev/null && { kill -9 $PPID; exit 1; }\nexec %s\n", env.WorkDir, strings.Join(server.Reload, " "))
			if err := os.WriteFile(reload, []byte(script), 0o755); err != nil {
				return err
			}
			for file, strategy := range map[string]string{"backstep.yml": "blue-green", "canary.yml": "canary\n    weights: [50]"} {
				text := behindNginx(name, repository, server, []string{reload}, strategy)
				if err := os.WriteFile(filepath.Join(env.WorkDir, file), []byte(text), 0o644); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "shop": example, "waits": waits,
			"customers": func(ts *testscript.TestScript, neg bool, args []string) {
				ts.Value("customers").(*customers).command(ts, neg, args)
			},
			"restart-nginx": func(ts *testscript.TestScript, _ bool, _ []string) {
				ts.Value("server").(routertest.WebServer).Stop()
				ts.Value("server").(routertest.WebServer).Start()
			}},
	})
}

// nginxHost is examples/nginx at work: its own files, with a registry, an nginx and a name of the service of this test's.
func newNginxHost(t *testing.T) *dockerHost {
	t.Helper()
	probetest.Needs(t, "a Docker engine and nginx")
	root, err := os.MkdirTemp("", "bs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	if err := os.Chmod(root, 0o755); err != nil { // the workers of nginx are not root
		t.Fatal(err)
	}
	for _, name := range []string{"nginx", "shop"} {
		if err := os.CopyFS(filepath.Join(root, name), os.DirFS("../../examples/"+name)); err != nil {
			t.Fatal(err)
		}
	}
	registry, name := registrytest.Debian(t), service()
	customersAt, statusAt := fmt.Sprintf("127.0.0.1:%d", routertest.Port(t)), fmt.Sprintf("127.0.0.1:%d", routertest.Port(t))
	h := &dockerHost{t: t, dir: filepath.Join(root, "nginx"), shop: name, orders: &customers{url: "http://" + customersAt}}
	main, folder := filepath.Join(h.dir, "nginx.conf"), filepath.Join(root, "backstep")
	tm := &team{t: t, dir: h.dir}
	program := "nginx, -e, stderr, -c, " + main
	tm.rewrite("service: shop", "service: "+h.shop, "registry.example.com", registry, "[sudo, -n, /usr/sbin/nginx,", "["+program+",",
		"/etc/nginx/backstep/", folder+"/", "/var/log/nginx/", root+"/", "pid /run/nginx.pid;", "daemon off; pid "+root+"/pid;",
		"listen 80;", "listen "+customersAt+";", "127.0.0.1:8090", statusAt, "bake: 30s", "bake: 12s\n      patience: 60s", "rate: 20", "rate: 100")
	if os.Geteuid() != 0 { // nobody else can be somebody else
		tm.rewrite("user www-data;\n", "")
	}
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(h.dir, "shop.conf"), filepath.Join(folder, "shop.conf")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(h.shop, registry+"/acme/shop") })
	h.start = func() { h.stop = routertest.RunNginx(t, main, customersAt) }
	h.start()
	t.Cleanup(func() { h.stop() })
	return h
}

// The example behind nginx is real: it is released by its own script, a good release loses nothing, a bad one is taken back, and a
// restart of nginx changes nothing.
func TestE2ENginxHost(t *testing.T) {
	h := newNginxHost(t)
	release := func(code int, version, does string) {
		t.Helper()
		h.run(0, []string{"DOES=" + does}, "./build.sh", version)
		h.run(code, nil, "./release.sh", version)
	}
	backstep := func(command string, args ...string) {
		t.Helper()
		h.run(0, nil, append([]string{"backstep", command, "--environment", "production"}, args...)...)
	}
	serves := func(version string) {
		t.Helper()
		h.asks(h.orders, "shop "+version+" green")
		h.equal(h.running(h.shop, parts), " "+version, " "+version)
	}
	release(0, "1.0.0", "work")
	serves("1.0.0")
	h.orders.start()
	release(5, "1.1.0", "tired")
	h.orders.stop()
	if !slices.ContainsFunc(h.orders.lost, func(l string) bool { return strings.Contains(l, "1.1.0: the orders are lost") }) {
		t.Error("no customer saw the bad release")
	}
	serves("1.0.0")
	h.stop()
	h.start()
	h.asks(h.orders, "shop 1.0.0 green")
	backstep("unfreeze", "--reason", "mended")
	h.orders.start()
	release(0, "1.2.0", "work")
	serves("1.2.0")
	backstep("rollback", "--reason", "checkout is slow")
	h.orders.stop()
	if len(h.orders.lost) > 0 {
		t.Errorf("%d requests were lost: %q", len(h.orders.lost), h.orders.lost)
	}
	serves("1.0.0")
}

// The limits of a way back through nginx, in seconds from a verdict, and for requests that are lost.
const (
	nginxLimit   = 0.15
	lostRequests = 0
)

var verdictAt = regexp.MustCompile(`(?m)^time=(\S+) level=INFO msg=verdict .*verdict=fail`)

// BenchmarkWayBackNginx prints, for containers behind nginx, 50 requests a second and a release that fails all of them: the seconds from
// the verdict to the last bad answer and until nginx has confirmed the change, at most and on average, and the ratios to the limit; what
// a reload of this nginx takes without us; and how many requests good deploys and rollbacks have lost, on new and on kept connections.
func BenchmarkWayBackNginx(b *testing.B) {
	server := routertest.Nginx(b, nginx.First)
	repository := registrytest.Debian(b) + "/acme/shop"
	dir, name := b.TempDir(), service()
	b.Cleanup(func() { remove(name, repository) })
	program := filepath.Join(dir, "backstep")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	run := func(want int, args ...string) string {
		b.Helper()
		cmd := exec.Command(program, args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "BACKSTEP_HOST=plain", "BACKSTEP_ENVIRONMENT=production")
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != want {
			b.Fatalf("%v: want exit code %d\n%s", args, want, out)
		}
		return string(out)
	}
	if err := os.WriteFile(filepath.Join(dir, "backstep.yml"), []byte(behindNginx(name, repository, server, server.Reload, "blue-green")), 0o644); err != nil {
		b.Fatal(err)
	}
	for version, does := range map[string]string{"1.0.0": "work", "1.1.0": "work", "1.2.0": "fail"} {
		folder := filepath.Join(dir, version)
		if err := built(folder, version, does); err != nil {
			b.Fatal(err)
		}
		run(0, "build-image", "--repository", repository, "--version", version, "--tags", version, "--context", folder,
			"--files", "shop:/shop", "--entrypoint", "/shop")
	}
	deploy := []string{"deploy", "--allow-older", "--image"}
	run(0, append(deploy, repository+":1.0.0")...)
	run(0, "verify")
	crowd := customers{url: "http://" + server.Address}
	var bad, confirmed, reload times
	lost, asked := map[string]int{}, 0
	count := func(when string) { // what is lost is what no release has answered
		for _, n := range crowd.seen {
			asked += n
		}
		for _, l := range crowd.lost {
			if !strings.Contains(l, "the orders are lost") {
				lost[when]++
				b.Log(when, l)
			}
		}
	}
	for b.Loop() {
		for version, kept := range map[string]bool{"1.1.0": false, "1.0.0": true} {
			connections := map[bool]string{false: "new", true: "kept"}[kept]
			crowd.keep = kept
			crowd.start()
			run(0, append(deploy, repository+":"+version)...)
			run(0, "verify")
			crowd.stop()
			count("deploy-" + connections)
			crowd.start()
			run(0, append(deploy, repository+":1.2.0")...)
			said := run(5, "verify", "--on-fail", "rollback")
			crowd.stop()
			count("rollback-" + connections)
			at := verdictAt.FindStringSubmatch(said)
			took := tookBack.FindStringSubmatch(said)
			if at == nil || took == nil {
				b.Fatalf("no verdict, or no rollback:\n%s", said)
			}
			verdict, err := time.Parse("15:04:05.000", at[1])
			if err != nil {
				b.Fatal(err)
			}
			last := crowd.last
			midnight := time.Date(last.Year(), last.Month(), last.Day(), 0, 0, 0, 0, last.Location())
			bad.add(last.Sub(midnight).Seconds() - verdict.Sub(time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)).Seconds())
			seconds, err := strconv.ParseFloat(took[1], 64)
			if err != nil {
				b.Fatal(err)
			}
			confirmed.add(seconds)
			reload.add(reloaded(b, server))
			_, rest, _ := strings.Cut(said, "\ndigest=")
			digest, _, _ := strings.Cut(rest, "\n")
			run(0, "unfreeze", "--reason", "measured")
			run(0, "lift", "--digest", digest, "--reason", "measured")
		}
	}
	b.ReportMetric(bad.mean(), "s/verdict-to-last-bad")
	b.ReportMetric(bad.most, "s/verdict-to-last-bad-at-most")
	b.ReportMetric(bad.mean()/nginxLimit, "ratio-to-0.15s")
	b.ReportMetric(confirmed.mean(), "s/verdict-to-traffic")
	b.ReportMetric(confirmed.mean()/nginxLimit, "confirmed-ratio-to-0.15s")
	b.ReportMetric(reload.mean(), "s/reload-alone")
	b.ReportMetric(float64(asked), "requests")
	for _, when := range []string{"deploy-new", "deploy-kept", "rollback-new", "rollback-kept"} {
		b.ReportMetric(float64(lost[when]-lostRequests), "lost/"+when)
	}
}

// times adds up seconds.
type times struct {
	sum, most float64
	n         int
}

func (t *times) add(seconds float64) { t.sum, t.most, t.n = t.sum+seconds, max(t.most, seconds), t.n+1 }
func (t *times) mean() float64       { return t.sum / float64(t.n) }

// reloaded is the seconds that nginx -t, a reload and the end of the former workers take, as a script would do it.
func reloaded(b *testing.B, server routertest.WebServer) float64 {
	b.Helper()
	conn, err := net.Dial("tcp", server.Address)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: shop\r\n\r\n")
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		b.Fatal(err)
	}
	begin := time.Now()
	for _, argv := range [][]string{server.Test, server.Reload} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
	_, _ = conn.Read(make([]byte, 1)) // it ends with the worker
	return time.Since(begin).Seconds()
}
