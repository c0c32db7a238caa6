package docker

import (
	"context"
	"io"
	"net/http"
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
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/registry/registrytest"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/router/haproxy"
	"github.com/backstep/backstep/internal/router/routertest"
	"github.com/backstep/backstep/internal/target"
	"github.com/backstep/backstep/internal/target/targettest"
)

// program builds examples/shop into dir.
func program(t *testing.T, dir, version, does string) {
	t.Helper()
	build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, "shop"),
		"-ldflags", "-X main.version="+version+" -X main.does="+does, "../../../examples/shop")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// shop pushes an image of examples/shop.
func shop(t *testing.T, repository, version, does string) release.Release {
	t.Helper()
	dir := t.TempDir()
	program(t, dir, version, does)
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
			_, _ = d.engine.ImageRemove(ctx, c.ImageID, client.ImageRemoveOptions{Force: true}) // another one may still need it
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
	balancer := routertest.HAProxy(t, haproxy.Slots)
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

// Networks, volumes, variables and a private registry, as the engine has them; and the HEALTHCHECK of an image.
func TestE2EOptions(t *testing.T) {
	name := unique(t)
	private := registrytest.Private(t, registrytest.Debian(t), "ada", "pass")
	d := engine(t, options{port: 8080, networks: []string{name + "-front", name + "-back"}, volumes: []string{name + "-uploads:/var/uploads"}, user: "4711:4711"},
		target.Environment{Service: name, Environment: "test", Routed: true, Variables: map[string]string{"SHOP_COLOUR": "red; $HOME"}})
	ctx := t.Context()
	network := func(end string) {
		if out, err := exec.Command("docker", "network", "create", name+end).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		t.Cleanup(func() { _ = exec.Command("docker", "network", "rm", name+end).Run() })
	}
	network("-back") // of two that are missing, the engine names either
	r := shop(t, registrytest.Debian(t)+"/other", "1.0.0", "work")
	if err := d.Stage(ctx, 1, r); err == nil || !strings.Contains(err.Error(), "network "+name+"-front not found") {
		t.Errorf("a network that does not exist: %v", err)
	}
	if err := d.Retire(ctx, 1, r.Digest, 0); err != nil {
		t.Error(err)
	}
	network("-front")
	t.Cleanup(func() {
		_ = exec.Command("sh", "-c", "docker rm -fv $(docker ps -aq --filter label=backstep.service="+name+"); docker volume rm "+name+"-uploads").Run()
	})

	var login registry.Login
	err := input.Read(login.Inputs(), func(in input.Input) (string, string) {
		return map[string]string{"registry-username": "ada", "registry-password": "pass"}[in.Name], ""
	})
	if err != nil {
		t.Fatal(err)
	}
	pushes := must(login.Client(nil, private+"/shop"))
	made := t.TempDir()
	for file, text := range map[string]string{"Dockerfile": "FROM scratch\nCOPY shop /shop\nHEALTHCHECK --interval=1s --retries=1 CMD [\"/shop\", \"healthy\"]\nENTRYPOINT [\"/shop\"]\n"} {
		if err := os.WriteFile(filepath.Join(made, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	pushed := func(version, does string) release.Release {
		program(t, made, version, does)
		tag := private + "/shop:" + version
		for _, args := range [][]string{{"build", "-q", "-t", tag, made}, {"--config", made, "login", "-u", "ada", "-p", "pass", private}, {"--config", made, "push", "-q", tag},
			{"image", "rm", tag}} {
			if out, err := exec.Command("docker", args...).CombinedOutput(); err != nil {
				t.Fatalf("docker %v: %v: %s", args, err, out)
			}
		}
		return must(pushes.Resolve(ctx, must(registry.ParseReference(tag))))
	}
	good, sick := pushed("1.0.0", "work"), pushed("1.1.0", "sick")
	if err := d.Stage(ctx, 2, good); err == nil || !strings.Contains(err.Error(), "pull "+good.Reference()) {
		t.Errorf("without a login: %v", err)
	}
	d.env.EngineAuth = pushes.EngineAuth
	for _, r := range []release.Release{good, sick} {
		if err := d.Stage(ctx, 3, r); err != nil {
			t.Fatal(err)
		}
	}
	settled := func(r release.Release) plan.Instance {
		for {
			if in := must(d.Observe(ctx)).Find(r.Digest); in.Phase != plan.Starting {
				return *in
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	if in := settled(good); in.Phase != plan.Ready {
		t.Errorf("healthy: %+v", in)
	} else if answer, err := http.Get("http://" + in.Address); err != nil {
		t.Error(err)
	} else {
		defer answer.Body.Close()
		if text, _ := io.ReadAll(answer.Body); string(text) != "shop 1.0.0 red; $HOME\n" {
			t.Errorf("a variable is not what was configured: %q", text)
		}
	}
	if in := settled(sick); in.Phase != plan.Failed || in.Reason != "its HEALTHCHECK fails: no connection to the orders" {
		t.Errorf("unhealthy: %+v", in)
	}
	c := must(d.containers(ctx))[good.Digest]
	if len(c.NetworkSettings.Networks) != 2 || len(c.Mounts) != 1 || c.Mounts[0].Destination != "/var/uploads" || c.Config.User != "4711:4711" {
		t.Errorf("networks %v, mounts %v, user %s", c.NetworkSettings.Networks, c.Mounts, c.Config.User)
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
