package docker

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/backstep/backstep/internal/builder"
	"github.com/backstep/backstep/internal/builder/layers"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/registry/registrytest"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/router/haproxy"
	"github.com/backstep/backstep/internal/router/routertest"
	"github.com/backstep/backstep/internal/target"
	"github.com/backstep/backstep/internal/target/targettest"
)

// shop pushes an image of examples/shop.
func shop(t *testing.T, repository, version, does string) release.Release {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, "shop"),
		"-ldflags", "-X main.version="+version+" -X main.does="+does, "../../../examples/shop")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	client := registry.New()
	digest, err := layers.New(client).Build(t.Context(), builder.Request{Repository: repository, Context: dir,
		OS: runtime.GOOS, Arch: runtime.GOARCH, Files: []builder.File{{From: "shop", To: "/shop"}}, Entrypoint: []string{"/shop"},
		Labels: map[string]string{"org.opencontainers.image.version": version}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := client.Resolve(t.Context(), registry.Reference{Repository: repository, Digest: digest})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// engine opens a target whose containers are gone when the test ends.
func engine(t *testing.T, o options, env target.Environment) *docker {
	t.Helper()
	if os.Getenv("BACKSTEP_E2E") == "" {
		t.Skip("needs a Docker engine: run make e2e")
	}
	o.restart = "unless-stopped"
	env.EngineAuth = registry.New().EngineAuth
	d, err := open(o, env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background() // the test's own is over
		for _, c := range must(d.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: d.ours()})).Items {
			must(d.engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}))
		}
		for _, v := range must(d.engine.VolumeList(ctx, client.VolumeListOptions{Filters: d.ours()})).Items {
			must(d.engine.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{}))
		}
	})
	return d
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// unique is a service that no other test of this machine has.
func unique(t *testing.T) string {
	return strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name())) + "-" + time.Now().Format("150405000000")
}

func TestE2EBehindHAProxy(t *testing.T) {
	d := engine(t, options{port: 8080, ready: "/", memory: "64m", cpus: "0.5", readOnly: true}, target.Environment{
		Service: unique(t), Environment: "test", Routed: true})
	balancer := routertest.HAProxy(t)
	for _, socket := range []string{balancer.Socket, balancer.Remote} {
		inputs, open := haproxy.Kind().New()
		for _, in := range inputs {
			if err := in.Set([]string{map[string]string{"socket": socket, "backend": balancer.Backend}[in.Name]}); err != nil {
				t.Fatal(err)
			}
		}
		front := must(open())
		to, shift := target.Behind(d, front)
		if socket == balancer.Remote { // the second one only has to see what the first one did
			state := must(to.Observe(t.Context()))
			if len(state.Instances) != 1 || state.Instances[0].Weight != 100 {
				t.Errorf("through %s: %+v", socket, state)
			}
			continue
		}
		repository := registrytest.Debian(t) + "/shop"
		targettest.Run(t, targettest.Subject{Target: to, Router: shift, Address: "http://" + balancer.Address,
			Good: shop(t, repository, "1.0.0", "work"), Other: shop(t, repository, "1.1.0", "work"),
			Crashing: shop(t, repository, "1.2.0", "crash")})
		list := must(d.engine.ContainerList(t.Context(), client.ContainerListOptions{Filters: d.ours()}))
		one := must(d.engine.ContainerInspect(t.Context(), list.Items[0].ID, client.ContainerInspectOptions{})).Container
		if h := one.HostConfig; h.Memory != 64<<20 || h.NanoCPUs != 5e8 || !h.ReadonlyRootfs || h.RestartPolicy.Name != "unless-stopped" {
			t.Errorf("limits: memory %d, cpus %d, read-only %v, restart %s", h.Memory, h.NanoCPUs, h.ReadonlyRootfs, h.RestartPolicy.Name)
		}
	}
}

func TestE2ERecreate(t *testing.T) {
	d := engine(t, options{port: 8080, publish: "127.0.0.1:18480"}, target.Environment{Service: unique(t), Environment: "test"})
	repository := registrytest.Debian(t) + "/shop"
	old, fresh := shop(t, repository, "1.0.0", "work"), shop(t, repository, "1.1.0", "work")
	ctx := t.Context()
	for i, r := range []release.Release{old, fresh, old} {
		fence := uint64(i + 1)
		if err := d.Stage(ctx, fence, r); err != nil {
			t.Fatal(err)
		}
		if err := d.Shift(ctx, fence, map[release.Digest]int{r.Digest: 100}); err != nil {
			t.Fatal(err)
		}
		for in := must(d.Observe(ctx)).Serving(); in == nil || in.Phase != plan.Ready; in = must(d.Observe(ctx)).Serving() {
			if in != nil && in.Phase == plan.Failed {
				t.Fatalf("%+v", in)
			}
			time.Sleep(10 * time.Millisecond)
		}
		state := must(d.Observe(ctx))
		if in := state.Serving(); in.Release != r || in.Weight != 100 || in.Address != "127.0.0.1:18480" || state.Fence != fence {
			t.Errorf("after %s: %+v", r, state)
		}
	}
}

func TestPhase(t *testing.T) {
	running := &container.State{Status: container.StateRunning, Running: true}
	with := func(h container.Health) *container.State { s := *running; s.Health = &h; return &s }
	for name, c := range map[string]struct {
		state  *container.State
		phase  plan.Phase
		reason string
	}{
		"created":         {&container.State{Status: container.StateCreated}, plan.Starting, ""},
		"cannot start":    {&container.State{Status: container.StateCreated, Error: "exec: no such file"}, plan.Failed, "it could not be started: exec: no such file"},
		"running":         {running, plan.Ready, ""},
		"health starting": {with(container.Health{Status: container.Starting}), plan.Starting, ""},
		"healthy":         {with(container.Health{Status: container.Healthy}), plan.Ready, ""},
		"unhealthy": {with(container.Health{Status: container.Unhealthy, Log: []*container.HealthcheckResult{{Output: "503\n"}}}),
			plan.Failed, "its HEALTHCHECK fails: 503"},
		"restarting":  {&container.State{Status: container.StateRestarting, Running: true, ExitCode: 3}, plan.Failed, "it ended with exit code 3"},
		"exited":      {&container.State{Status: container.StateExited, ExitCode: 0}, plan.Failed, "it ended with exit code 0"},
		"ran out":     {&container.State{Status: container.StateExited, OOMKilled: true, ExitCode: 137}, plan.Failed, "it used more memory than it may, and was killed"},
		"oom earlier": {&container.State{Status: container.StateRunning, Running: true, OOMKilled: true}, plan.Ready, ""},
	} {
		if phase, reason := phase(container.InspectResponse{State: c.state}); phase != c.phase || reason != c.reason {
			t.Errorf("%s: %s, %q", name, phase, reason)
		}
	}
}

func TestPublish(t *testing.T) {
	for _, c := range []struct {
		publish string
		routed  bool
		fault   string
	}{
		{"", true, ""},
		{"127.0.0.1", true, ""},
		{"0.0.0.0:80", false, ""},
		{"[::1]:80", false, ""},
		{"", false, `target docker: publish is "": without a router it has to say where customers ask`},
		{"10.0.0.1", false, `target docker: publish is "10.0.0.1": without a router it has to say where customers ask`},
		{"10.0.0.1:80", true, "target docker: publish 10.0.0.1:80: two releases cannot share one port"},
		{"shop:80", true, `target docker: publish "shop:80": want for example 0.0.0.0:80`},
	} {
		d := &docker{options: options{publish: c.publish}, env: target.Environment{Routed: c.routed}}
		err := d.published()
		if got := ""; err != nil && err.Error() != c.fault || err == nil && c.fault != got {
			t.Errorf("%q, routed %v: %v, want %q", c.publish, c.routed, err, c.fault)
		}
	}
	d := &docker{options: options{publish: "10.0.0.1:80"}}
	if err := d.published(); err != nil || d.publish.HostIP != netip.MustParseAddr("10.0.0.1") || d.publish.HostPort != "80" {
		t.Errorf("%+v, %v", d.publish, err)
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]int64{"": 0, "7": 7, "512k": 512 << 10, "64m": 64 << 20, "2g": 2 << 30} {
		if got := size(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}
