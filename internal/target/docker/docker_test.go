package docker

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
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
	"github.com/backstep/backstep/internal/router"
	"github.com/backstep/backstep/internal/router/haproxy"
	"github.com/backstep/backstep/internal/router/nginx"
	"github.com/backstep/backstep/internal/router/routertest"
	"github.com/backstep/backstep/internal/secret"
	"github.com/backstep/backstep/internal/target"
	"github.com/backstep/backstep/internal/target/targettest"
)

// program builds one into dir.
func program(t *testing.T, dir, source, version, does string) {
	t.Helper()
	build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, "shop"),
		"-ldflags", "-X main.version="+version+" -X main.does="+does, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// shop pushes an image of examples/shop.
func shop(t *testing.T, repository, version, does string) release.Release {
	t.Helper()
	dir := t.TempDir()
	program(t, dir, "../../../examples/shop", version, does)
	return pushed(t, dir, repository, version)
}

// tested pushes an image of testdata/release.
func tested(t *testing.T, repository, version, does string) release.Release {
	t.Helper()
	dir := t.TempDir()
	program(t, dir, "./testdata/release", version, does)
	return pushed(t, dir, repository, version)
}

// hold begins a request of a customer that does not end before done is called, which says whether it was answered.
func hold(t *testing.T, d *docker, customers string, id release.ID) (done func() bool) {
	t.Helper()
	in := must(d.Find(t.Context(), id))
	patient, hasty := &http.Client{}, &http.Client{Timeout: time.Second}
	get := func(c *http.Client, address string) bool {
		answer, err := c.Get(address)
		if err != nil {
			return false
		}
		answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	}
	answered := make(chan bool, 1)
	go func() { answered <- get(patient, customers+"/hold") }()
	if !get(patient, "http://"+in.Address+"/held") {
		t.Error("the request of a customer did not arrive")
	}
	return sync.OnceValue(func() bool {
		get(hasty, "http://"+in.Address+"/free") // it may have gone
		return <-answered
	})
}

// pushed pushes the program in dir.
func pushed(t *testing.T, dir, repository, version string) release.Release {
	t.Helper()
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
	o.restart, o.replicas = "unless-stopped", max(1, o.replicas)
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
	d := engine(t, options{spec: spec{port: 8080, ready: "/", memory: "64m", cpus: "0.5", readOnly: true}}, target.Environment{
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
		targettest.Run(t, subject(t, d, to, shift, "http://"+balancer.Address))
		list := must(d.engine.ContainerList(t.Context(), client.ContainerListOptions{Filters: d.ours()}))
		one := must(d.engine.ContainerInspect(t.Context(), list.Items[0].ID, client.ContainerInspectOptions{})).Container
		if h := one.HostConfig; h.Memory != 64<<20 || h.NanoCPUs != 5e8 || !h.ReadonlyRootfs || h.RestartPolicy.Name != "unless-stopped" {
			t.Errorf("limits: memory %d, cpus %d, read-only %v, restart %s", h.Memory, h.NanoCPUs, h.ReadonlyRootfs, h.RestartPolicy.Name)
		}
	}
}

func TestE2EBehindNginx(t *testing.T) {
	d := engine(t, options{spec: spec{port: 8080, ready: "/", memory: "64m", cpus: "0.5"}}, target.Environment{
		Service: unique(t), Environment: "test", Routed: true})
	server := routertest.Nginx(t, nginx.First)
	inputs, open := nginx.Kind().New()
	given := map[string][]secret.Value{}
	for name, lines := range server.Inputs() {
		for _, line := range input.Lines(lines) {
			given[name] = append(given[name], secret.New(line))
		}
	}
	if err := input.Assign(inputs, given); err != nil {
		t.Fatal(err)
	}
	to, shift := target.Behind(d, must(open()))
	targettest.Run(t, subject(t, d, to, shift, "http://"+server.Address))
}

// subject is the target behind a load balancer that customers ask at an address.
func subject(t *testing.T, d *docker, to target.Target, shift router.Router, address string) targettest.Subject {
	repository := registrytest.Debian(t) + "/shop"
	return targettest.Subject{Target: to, Router: shift, Address: address,
		Good: tested(t, repository, "1.0.0", "work"), Other: tested(t, repository, "1.1.0", "work"),
		Crashing: tested(t, repository, "1.2.0", "crash"), Mute: tested(t, repository, "1.3.0", "mute"),
		Kill: func(id release.ID) {
			c := must(d.replicas(t.Context(), id))[0]
			must(d.engine.ContainerKill(t.Context(), c.ID, client.ContainerKillOptions{Signal: "KILL"}))
		},
		Busy: func(id release.ID) func() bool { return hold(t, d, address, id) }}
}

// claim takes the target under a number.
func claim(t *testing.T, d *docker, seq uint64) plan.Token {
	t.Helper()
	token := plan.Token{Number: plan.Number{Seq: seq}, Holder: "test"}
	if err := d.Claim(t.Context(), plan.Claim{Token: token, Aim: plan.Do}, nil); err != nil {
		t.Fatal(err)
	}
	return token
}

// settled waits until a release is no longer starting.
func settled(t *testing.T, d *docker, r release.Release) plan.Instance {
	t.Helper()
	for t.Context().Err() == nil {
		if in := must(d.Find(t.Context(), r.ID())); in != nil && in.Phase != plan.Starting {
			return *in
		}
		time.Sleep(10 * time.Millisecond)
	}
	return plan.Instance{}
}

func TestE2ERecreate(t *testing.T) {
	d := engine(t, options{spec: spec{port: 8080, publish: "127.0.0.1:18480"}}, target.Environment{Service: unique(t), Environment: "test"})
	repository := registrytest.Debian(t) + "/shop"
	old, fresh := shop(t, repository, "1.0.0", "work"), shop(t, repository, "1.1.0", "work")
	ctx := t.Context()
	for i, r := range []release.Release{old, fresh, old} {
		by := claim(t, d, uint64(i+1))
		if err := d.Stage(ctx, by, r); err != nil {
			t.Fatal(err)
		}
		if err := d.Shift(ctx, by, map[release.ID]int{r.ID(): 100}); err != nil {
			t.Fatal(err)
		}
		if in := settled(t, d, r); in.Phase != plan.Ready {
			t.Fatalf("%+v", in)
		}
		state := must(d.Observe(ctx))
		if in := state.Serving(); in.Release != r || in.Weight != 100 || in.Address != "127.0.0.1:18480" || state.Claim.Token != by {
			t.Errorf("after %s: %+v", r, state)
		}
		for id, all := range must(d.releases(ctx, "")) { // two that start with the engine would want one port
			if policy := all[0].HostConfig.RestartPolicy.Name; (policy == "no") == (id == r.ID()) {
				t.Errorf("%s serves, and %s has the restart policy %s", r, id.Short(), policy)
			}
		}
	}
}

// A published port stays the same when the container is restarted, and one that is taken is not insisted on.
func TestE2EPublished(t *testing.T) {
	d := engine(t, options{spec: spec{port: 8080, publish: "127.0.0.1", ready: "/"}}, target.Environment{Service: unique(t), Environment: "test", Routed: true})
	r, ctx := shop(t, registrytest.Debian(t)+"/shop", "1.0.0", "work"), t.Context()
	by := claim(t, d, 1)
	if err := d.Stage(ctx, by, r); err != nil {
		t.Fatal(err)
	}
	first := settled(t, d, r)
	if first.Phase != plan.Ready {
		t.Fatalf("%+v", first)
	}
	c := must(d.replicas(ctx, r.ID()))[0]
	must(d.engine.ContainerRestart(ctx, c.ID, client.ContainerRestartOptions{}))
	if in := settled(t, d, r); !reflect.DeepEqual(in, first) {
		t.Errorf("after a restart %+v, want %+v", in, first)
	}
	// Somebody takes the port while the container is stopped.
	must(d.engine.ContainerKill(ctx, c.ID, client.ContainerKillOptions{Signal: "KILL"}))
	for must(d.Find(ctx, r.ID())).Phase != plan.Failed {
		time.Sleep(10 * time.Millisecond)
	}
	other := must(net.Listen("tcp", first.Address))
	defer other.Close()
	if err := d.Stage(ctx, by, r); err != nil {
		t.Fatal(err)
	}
	if in := settled(t, d, r); in.Phase != plan.Ready || in.Address == first.Address {
		t.Errorf("beside one that has its port: %+v", in)
	}
}

// A release that hangs costs a second, and not a second each; and it delays nothing that is said of others.
func TestE2EHanging(t *testing.T) {
	d := engine(t, options{spec: spec{port: 8080, ready: "/"}}, target.Environment{Service: unique(t), Environment: "test", Routed: true})
	repository, ctx := registrytest.Debian(t)+"/shop", t.Context()
	good := tested(t, repository, "1.0.0", "work")
	by := claim(t, d, 1)
	hanging := []release.Release{tested(t, repository, "1.1.0", "hang"), tested(t, repository, "1.2.0", "hang"), tested(t, repository, "1.3.0", "hang")}
	for _, r := range append(hanging, good) {
		if err := d.Stage(ctx, by, r); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range hanging {
		for want := "no answer within 1s"; !strings.HasSuffix(must(d.Find(ctx, r.ID())).Reason, want); {
			time.Sleep(10 * time.Millisecond)
		}
	}
	settled(t, d, good)
	begun := time.Now()
	state := must(d.Observe(ctx))
	if took := time.Since(begun); took > 2*askTimeout || len(state.Instances) != 4 || state.Find(good.ID()).Phase != plan.Ready {
		t.Errorf("after %s: %+v", took, state)
	}
	begun = time.Now()
	if in := must(d.Find(ctx, good.ID())); in.Phase != plan.Ready || time.Since(begun) > askTimeout {
		t.Errorf("found after %s: %+v", time.Since(begun), in)
	}
}

// What is written on a volume by somebody else is told of, and never taken for a claim.
func TestE2EHostileLabels(t *testing.T) {
	d := engine(t, options{spec: spec{port: 8080}}, target.Environment{Service: unique(t), Environment: "test", Routed: true})
	ctx := t.Context()
	claim(t, d, 3)
	for name, c := range map[string]struct{ volume, claim, note, want string }{
		"torn":         {"-claim-4-0", `{"number":{"seq":4}`, "", "label backstep.claim: unexpected end of JSON input"},
		"no holder":    {"-claim-4-0", `{"number":{"seq":4}}`, "", `label backstep.claim: it has claim 4 of ""`},
		"another name": {"-claim-4-0", `{"number":{"seq":5},"holder":"x"}`, "", `label backstep.claim: it has claim 5 of "x"`},
		"a torn note":  {"-claim-4-0", `{"number":{"seq":4},"holder":"x"}`, "{", "label backstep.note: unexpected end of JSON input"},
		"another note": {"-claim-4-0", `{"number":{"seq":4},"holder":"x"}`, `{"id":"a","number":{"seq":2}}`, "label backstep.note: it is not a note of claim 4"},
		"no note":      {"-claim-4-0", `{"number":{"seq":4},"holder":"x"}`, `null`, "label backstep.note: it is not a note of claim 4"},
	} {
		labels := d.labels()
		labels[labelClaim] = c.claim
		if c.note != "" {
			labels[labelNote] = c.note
		}
		volume := d.env.Service + ".test" + c.volume
		must(d.engine.VolumeCreate(ctx, client.VolumeCreateOptions{Name: volume, Labels: labels}))
		want := "docker: volume " + volume + ": " + c.want
		_, observe := d.Observe(ctx)
		for what, err := range map[string]error{"observe": observe, "holds": d.Holds(ctx, plan.Token{}), "claim": d.Claim(ctx, plan.Claim{Token: plan.Token{Number: plan.Number{Seq: 6}, Holder: "x"}}, nil)} {
			if err == nil || err.Error() != want {
				t.Errorf("%s: %s: %v, want %s", name, what, err, want)
			}
		}
		must(d.engine.VolumeRemove(ctx, volume, client.VolumeRemoveOptions{}))
	}
}

// An engine that takes connections and says nothing counts as away.
func TestSilentEngine(t *testing.T) {
	t.Setenv("DOCKER_API_VERSION", "1.41")
	silent := must(net.Listen("tcp", "127.0.0.1:0"))
	defer silent.Close()
	d, err := open(options{engine: "tcp://" + silent.Addr().String(), spec: spec{port: 8080}}, target.Environment{Service: "shop", Environment: "test", Routed: true})
	if err != nil {
		t.Fatal(err)
	}
	d.limit = 50 * time.Millisecond
	want := "docker: the target cannot be reached: the engine did not answer in time"
	if _, err := d.Observe(t.Context()); !errors.Is(err, target.ErrUnreachable) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	cancel(stopped)
	if _, err := d.Observe(ctx); err != stopped {
		t.Errorf("a caller that gave up: %v", err)
	}
}

// Networks, volumes, variables and a private registry, as the engine has them; and the HEALTHCHECK of an image.
func TestE2EOptions(t *testing.T) {
	name := unique(t)
	var missing error
	private := registrytest.Private(t, registrytest.Debian(t), "ada", "pass")
	d := engine(t, options{spec: spec{port: 8080, networks: []string{name + "-front", name + "-back"}, volumes: []string{name + "-uploads:/var/uploads"}, user: "4711:4711"}},
		target.Environment{Service: name, Environment: "test", Routed: true, Start: func(release.Release) (target.Started, error) {
			return target.Started{Values: map[string][]secret.Value{"port": {secret.New("8080")}, "networks": {secret.New(name + "-front"), secret.New(name + "-back")},
				"volumes": {secret.New(name + "-uploads:/var/uploads")}, "user": {secret.New("4711:4711")}, "env": {secret.New("SHOP_COLOUR=red; $HOME")}}}, missing
		}})
	ctx := t.Context()
	network := func(end string) {
		if out, err := exec.Command("docker", "network", "create", name+end).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		t.Cleanup(func() { _ = exec.Command("docker", "network", "rm", name+end).Run() })
	}
	network("-back") // of two that are missing, the engine names either
	r := shop(t, registrytest.Debian(t)+"/other", "1.0.0", "work")
	by := claim(t, d, 1)
	missing = errors.New("env.SHOP_COLOUR is not set")
	if err := d.Stage(ctx, by, r); !errors.Is(err, missing) {
		t.Errorf("a variable that is missing: %v", err)
	}
	missing = nil
	if err := d.Stage(ctx, by, r); err == nil || !strings.Contains(err.Error(), "network "+name+"-front not found") {
		t.Errorf("a network that does not exist: %v", err)
	}
	if err := d.Retire(ctx, by, r.ID(), 0); err != nil {
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
	pushes := must(login.Client(nil, nil, private+"/shop"))
	made := t.TempDir()
	for file, text := range map[string]string{"Dockerfile": "FROM scratch\nCOPY shop /shop\nHEALTHCHECK --interval=1s --retries=1 CMD [\"/shop\", \"healthy\"]\nENTRYPOINT [\"/shop\"]\n"} {
		if err := os.WriteFile(filepath.Join(made, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	pushed := func(version, does string) release.Release {
		program(t, made, "../../../examples/shop", version, does)
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
	if err := d.Stage(ctx, by, good); err == nil || !strings.Contains(err.Error(), "pull "+good.Reference()) {
		t.Errorf("without a login: %v", err)
	}
	d.env.EngineAuth = pushes.EngineAuth
	for _, r := range []release.Release{good, sick} {
		if err := d.Stage(ctx, by, r); err != nil {
			t.Fatal(err)
		}
	}
	missing = errors.New("env.SHOP_COLOUR is not set")
	if err := d.Stage(ctx, by, good); err != nil {
		t.Errorf("a variable that is missing for what runs: %v", err)
	}
	if in := settled(t, d, good); in.Phase != plan.Ready {
		t.Errorf("healthy: %+v", in)
	} else if answer, err := http.Get("http://" + in.Address); err != nil {
		t.Error(err)
	} else {
		defer answer.Body.Close()
		if text, _ := io.ReadAll(answer.Body); string(text) != "shop 1.0.0 red; $HOME\n" {
			t.Errorf("a variable is not what was configured: %q", text)
		}
	}
	if in := settled(t, d, sick); in.Phase != plan.Failed || in.Reason != "its HEALTHCHECK fails: no connection to the orders" {
		t.Errorf("unhealthy: %+v", in)
	}
	c := must(d.replicas(ctx, good.ID()))[0]
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
		"created":         {&container.State{Status: container.StateCreated}, plan.Starting, "it was not started yet"},
		"cannot start":    {&container.State{Status: container.StateCreated, Error: "exec: no such file"}, plan.Failed, "it could not be started: exec: no such file"},
		"running":         {running, plan.Ready, ""},
		"health starting": {with(container.Health{Status: container.Starting}), plan.Starting, "its HEALTHCHECK has not said healthy"},
		"health said": {with(container.Health{Status: container.Starting, Log: []*container.HealthcheckResult{{Output: "migrating"}}}),
			plan.Starting, "its HEALTHCHECK has not said healthy: migrating"},
		"healthy": {with(container.Health{Status: container.Healthy}), plan.Ready, ""},
		"unhealthy": {with(container.Health{Status: container.Unhealthy, Log: []*container.HealthcheckResult{{Output: "503\n"}}}),
			plan.Failed, "its HEALTHCHECK fails: 503"},
		"restarting":  {&container.State{Status: container.StateRestarting, Running: true, ExitCode: 3}, plan.Failed, "it keeps ending: exit code 3, restarted 4 times"},
		"dead":        {&container.State{Status: container.StateDead, Dead: true, ExitCode: 137}, plan.Failed, "the engine has given it up: exit code 137, restarted 4 times"},
		"exited":      {&container.State{Status: container.StateExited, ExitCode: 0}, plan.Failed, "it ended with exit code 0"},
		"ran out":     {&container.State{Status: container.StateExited, OOMKilled: true, ExitCode: 137}, plan.Failed, "it used more memory than it may, and was killed"},
		"oom earlier": {&container.State{Status: container.StateRunning, Running: true, OOMKilled: true}, plan.Ready, ""},
	} {
		if phase, reason := phase(container.InspectResponse{State: c.state, RestartCount: 4}); phase != c.phase || reason != c.reason {
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
		s := spec{publish: c.publish, reach: published}
		_, err := s.publication(c.routed)
		if got := ""; err != nil && err.Error() != c.fault || err == nil && c.fault != got {
			t.Errorf("%q, routed %v: %v, want %q", c.publish, c.routed, err, c.fault)
		}
	}
	s := spec{publish: "10.0.0.1:80"}
	if at, err := s.publication(false); err != nil || at.HostIP != netip.MustParseAddr("10.0.0.1") || at.HostPort != "80" {
		t.Errorf("%+v, %v", at, err)
	}
	s = spec{reach: published}
	if at, err := s.publication(true); err != nil || at.HostIP != netip.MustParseAddr("127.0.0.1") || at.HostPort != "" {
		t.Errorf("behind a router %+v, %v", at, err)
	}
	s = spec{reach: byNetwork}
	if at, err := s.publication(true); err != nil || at.HostIP.IsValid() {
		t.Errorf("by the network %+v, %v", at, err)
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]int64{"": 0, "7": 7, "512k": 512 << 10, "64m": 64 << 20, "2g": 2 << 30} {
		if got := size(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}
