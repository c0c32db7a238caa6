package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/probe/probetest"
	"github.com/backstep/backstep/internal/registry/registrytest"
	"github.com/backstep/backstep/internal/router/routertest"
)

// dockerHost is examples/docker-host at work: its own files, with a registry, a HAProxy and names of services of this test's.
type dockerHost struct {
	t               *testing.T
	dir             string
	shop, erp       string     // the names of the services
	start, stop     func()     // HAProxy
	orders, notices *customers // of the shop, and of the connector
}

func newDockerHost(t *testing.T) *dockerHost {
	t.Helper()
	probetest.Needs(t, "a Docker engine, HAProxy and socat")
	root, err := os.MkdirTemp("", "bs") // the path of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	for _, name := range []string{"docker-host", "shop"} {
		if err := os.CopyFS(filepath.Join(root, name), os.DirFS("../../examples/"+name)); err != nil {
			t.Fatal(err)
		}
	}
	registry, name, port := registrytest.Debian(t), service(), routertest.Port(t)
	h := &dockerHost{t: t, dir: filepath.Join(root, "docker-host"), shop: name, erp: name + "-erp"}
	// HAProxy tells the services apart by the name that is asked for: 127.0.0.1 is the shop, localhost the connector.
	h.orders, h.notices = &customers{url: fmt.Sprintf("http://127.0.0.1:%d", port)}, &customers{url: fmt.Sprintf("http://localhost:%d", port)}
	socket := filepath.Join(root, "admin.sock")
	tm := &team{t: t, dir: h.dir}
	tm.rewrite("service: shop", "service: "+h.shop, "service: erp", "service: "+h.erp, "registry.example.com", registry,
		"/run/haproxy/admin.sock", socket, "/var/lib/haproxy/state", filepath.Join(root, "state"),
		"bind :80", fmt.Sprintf("bind :::%d v4v6", port), "erp.example.com", "localhost",
		"bake: 30s", "bake: 12s\n      patience: 60s", "rate: 20", "rate: 100")
	if os.Geteuid() != 0 { // nobody else can be somebody else
		tm.rewrite("    user haproxy\n", "", "    group haproxy\n", "", " group haproxy", "")
	}
	t.Cleanup(func() {
		remove(h.shop, registry+"/acme/shop")
		remove(h.erp, registry+"/acme/erp")
	})
	h.start = func() { h.stop = routertest.Run(t, filepath.Join(h.dir, "haproxy.cfg"), socket) }
	h.start()
	t.Cleanup(func() { h.stop() })
	return h
}

// run runs a program in the folder of the example, wants this exit code, and returns what was said.
func (h *dockerHost) run(code int, env []string, args ...string) string {
	h.t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = h.dir
	cmd.Env = append(append(os.Environ(), "BACKSTEP_HOST=plain", "BACKSTEP_ACTOR=ada", "SHOP_DB_PASSWORD=of the shop", "ERP_TOKEN=of the erp"), env...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		h.t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		h.t.Fatalf("%v ended with exit code %d, want %d:\n%s", args, got, code, said.String())
	}
	return said.String()
}

// release builds a program that does this, and releases it.
func (h *dockerHost) release(code int, service, version, does string) string {
	h.t.Helper()
	h.run(0, []string{"DOES=" + does}, "./build.sh", service, version)
	return h.run(code, nil, "./release.sh", service, version)
}

// backstep runs a command on the production of a service.
func (h *dockerHost) backstep(code int, service, command string, args ...string) string {
	h.t.Helper()
	return h.run(code, nil, append([]string{"backstep", command, "--config", service + "/backstep.yml", "--environment", "production"}, args...)...)
}

// running lists what runs of a service, sorted, a container a line.
func (h *dockerHost) running(service, format string) []string {
	h.t.Helper()
	lines := strings.Split(strings.TrimRight(h.run(0, nil, "docker", "ps", "--filter", "label=backstep.service="+service,
		"--filter", "status=running", "--format", format), "\n"), "\n")
	slices.Sort(lines)
	return lines
}

// asks waits until a customer gets this.
func (h *dockerHost) asks(c *customers, want string) {
	h.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		text, err := asked(c.url)
		if err == nil && strings.Contains(text, want) {
			return
		}
		if time.Now().After(end) {
			h.t.Fatalf("a customer got %q, %v, want %s", text, err, want)
		}
	}
}

// equal compares lists, a line each.
func (h *dockerHost) equal(got []string, want ...string) {
	h.t.Helper()
	if !slices.Equal(got, want) {
		h.t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// lives lists the containers of a service that run: which, since when, and how often they were started again.
func (h *dockerHost) lives(service string) []string {
	h.t.Helper()
	var all []string
	for _, id := range h.running(service, "{{.ID}}") {
		all = append(all, h.run(0, nil, "docker", "inspect", "--format", "{{.Id}} {{.Name}} {{.State.StartedAt}} {{.RestartCount}}", id))
	}
	return all
}

// The example of a Docker host is real: both services are released by its own script, a bad release of one is taken back with its
// job, and the other one notices nothing.
func TestE2EDockerHost(t *testing.T) {
	h := newDockerHost(t)
	h.release(0, "shop", "1.0.0", "work")
	h.release(0, "erp", "1.0.0", "work")
	h.serves("1.0.0")
	h.equal(h.running(h.erp, parts), " 1.0.0", "sync 1.0.0")
	h.started()
	h.takesBack()

	// HAProxy is started again with what haproxy-save-state wrote: everybody serves.
	h.run(0, nil, "./haproxy-save-state")
	h.stop()
	h.start()
	h.asks(h.orders, "shop 1.0.0")
	h.asks(h.notices, "erp 1.0.0")

	// The mended release loses nothing; going back by hand does not either.
	h.release(7, "shop", "1.2.0", "work")
	h.backstep(0, "shop", "unfreeze", "--reason", "mended")
	h.orders.start()
	h.release(0, "shop", "1.2.0", "work")
	h.serves("1.2.0")
	h.backstep(0, "shop", "rollback", "--reason", "checkout is slow")
	h.orders.stop()
	if len(h.orders.lost) > 0 {
		t.Errorf("%d requests were lost: %q", len(h.orders.lost), h.orders.lost)
	}
	h.serves("1.0.0")
}

// parts are what the containers of a service are.
const parts = `{{.Label "backstep.role"}} {{.Label "backstep.version"}}`

// serves makes sure that all parts of the shop that run are of this version, and that customers get it.
func (h *dockerHost) serves(version string) {
	h.t.Helper()
	h.asks(h.orders, "shop "+version+" green")
	h.equal(h.running(h.shop, parts), " "+version, " "+version, "job "+version)
}

// started makes sure that the containers have what the files say.
func (h *dockerHost) started() {
	h.t.Helper()
	id := strings.TrimSpace(h.running(h.shop, `{{.Label "backstep.role"}} {{.ID}}`)[0])
	if got := h.run(0, nil, "docker", "cp", id+":/run/secrets/db-password", "-"); !strings.Contains(got, "of the shop") {
		h.t.Errorf("the secret is\n%s", got)
	}
	got := h.run(0, nil, "docker", "inspect", "--format", "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.ReadonlyRootfs}} "+
		"{{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} {{.HostConfig.LogConfig.Config}}", id)
	if want := "268435456 1000000000 true [ALL] [no-new-privileges] map[max-file:3 max-size:20m]\n"; got != want {
		h.t.Errorf("the container has %swant %s", got, want)
	}
	for _, id := range h.running(h.erp, "{{.ID}}") {
		if got := h.run(0, nil, "docker", "inspect", "--format", "{{.Config.Env}}", id); !strings.Contains(got, "ERP_TOKEN=of the erp") {
			h.t.Errorf("a container of the connector runs with %s", got)
		}
	}
}

// takesBack releases a bad shop. It is taken back, with its job; the connector keeps its containers, its ledger and its customers.
func (h *dockerHost) takesBack() {
	h.t.Helper()
	lives, events := h.lives(h.erp), h.backstep(0, "erp", "history")
	h.orders.start()
	h.notices.start()
	said := h.release(5, "shop", "1.1.0", "tired")
	h.orders.stop()
	h.notices.stop()
	if !regexp.MustCompile(`(?m)^rolled-back-to=.*/acme/shop@sha256:`).MatchString(said) {
		h.t.Errorf("release.sh said\n%s", said)
	}
	if !slices.ContainsFunc(h.orders.lost, func(l string) bool { return strings.Contains(l, "1.1.0: the orders are lost") }) {
		h.t.Error("no customer saw the bad release")
	}
	h.serves("1.0.0")
	job := h.run(0, nil, "docker", "ps", "-q", "--filter", "label=backstep.service="+h.shop, "--filter", "label=backstep.role=job")
	if got, want := h.run(0, nil, "docker", "logs", strings.TrimSpace(job)), "job 1.0.0 works\njob 1.0.0 ends\njob 1.0.0 works\n"; got != want {
		h.t.Errorf("the job said\n%swant\n%s", got, want)
	}
	if len(h.notices.lost) > 0 || len(h.notices.seen) != 1 {
		h.t.Errorf("the customers of the connector got %v, and lost %q", h.notices.seen, h.notices.lost)
	}
	h.equal(h.lives(h.erp), lives...)
	if now := h.backstep(0, "erp", "history"); now != events {
		h.t.Errorf("the ledger of the connector was\n%s\nand is\n%s", events, now)
	}
}
