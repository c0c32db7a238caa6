package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/router/haproxy"
)

// house is what worlds share that are on one Docker engine: the engine, the load balancer before it, and the registry's weather.
type house struct {
	number   int
	dir      string
	upstream string
	engine   *engine
	restart  string // the policy of containers
	weather  *weather
	worlds   []*world
	strays   []stray
	turn     sync.RWMutex // who does something to all of them has it alone
	restarts int          // of the engine

	mu        sync.Mutex
	wrong     error // the first answer of an address that is not that of its release
	addresses map[string]string
	asked     int
}

// stray is a container or a volume that no run may touch.
type stray struct{ kind, id, name string }

// residents are the services of one house: they have one repository, and environments of one name.
var residents = []string{"shop", "stall"}

const rivalImage = "/acme/rival"

// balancing is the configuration of a HAProxy; each service adds its own part.
const balancing = `global
    stats socket %s mode 600 level admin
defaults
    mode http
    timeout connect 1s
    timeout client 10s
    timeout server 10s
    retries 0
`

const balanced = `frontend to-%[1]s
    bind %[2]s
    default_backend %[1]s
backend %[1]s
    %[3]s
`

// docked is the configuration of a world on a Docker engine.
const docked = `service: %[1]s
repository: %[2]s
environments:
  %[3]s:
    target: {kind: docker, engine: "unix://%[4]s", port: 8080, ready: /ready, stop-timeout: 1s, restart: %[7]s}
    router: {kind: haproxy, socket: %[5]s, backend: %[1]s}
    env: {ADDR: ":8080", SHOP_COLOUR: %[6]s, SHOP_TOKEN: {env: SHOP_SECRET}}
    drain: 1s
    settle: 0s
    verify: {bake: 200ms, patience: 30s, negligible: 20%%, intolerable: 20%%, probes: [{kind: http, rate: 200}]}
`

// newHouse makes the house numbered n, and its worlds; what it returns besides ends it.
func newHouse(ctx context.Context, dir, program, upstream string, o options, n int) (h *house, end func(), err error) {
	h = &house{number: n, dir: filepath.Join(dir, fmt.Sprint("h", n)), upstream: upstream, addresses: map[string]string{}, restart: "unless-stopped"}
	if !o.restores(n) {
		// An engine that was killed stops what it finds running when it comes back, and takes that for a stop by hand.
		h.restart = "always"
	}
	var ends []func()
	end = func() {
		for i := len(ends) - 1; i >= 0; i-- {
			ends[i]()
		}
	}
	defer func() {
		if err != nil {
			end()
		}
	}()
	if err := os.Mkdir(h.dir, 0o700); err != nil {
		return nil, nil, err
	}
	if h.weather, err = newWeather(upstream, rand.New(rand.NewPCG(o.seed, uint64(1000+n)))); err != nil {
		return nil, nil, err
	}
	ends = append(ends, h.weather.close)
	if h.engine, err = newEngine(ctx, h.dir, n, o.restores(n)); err != nil {
		return nil, nil, err
	}
	ends = append(ends, func() { h.engine.end(syscall.SIGTERM) })
	for i, service := range residents {
		w, err := h.newWorld(program, service, o.seed, n*len(residents)+i)
		if err != nil {
			return nil, nil, err
		}
		h.worlds = append(h.worlds, w)
	}
	stop, err := h.balance(ctx)
	if err != nil {
		return nil, nil, err
	}
	ends = append(ends, stop)
	if err := h.settle(ctx); err != nil {
		return nil, nil, err
	}
	watching, unwatch := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { h.watch(watching) })
	ends = append(ends, func() { unwatch(); watch.Wait() })
	return h, end, nil
}

// newWorld is one service of the house.
func (h *house) newWorld(program, service string, seed uint64, n int) (*world, error) {
	w := &world{service: service, env: release.Environment(fmt.Sprint("world", h.number)), dir: filepath.Join(h.dir, service), program: program,
		colour: service + "-" + colours[0], secret: "first", random: rand.New(rand.NewPCG(seed, uint64(n))), weather: h.weather,
		repository: h.weather.host() + image, house: h, turn: &h.turn, blamed: map[string]bool{}, haste: 2, patience: 2 * time.Minute}
	w.past = newPast(h.upstream+image, service, w.env)
	if err := os.Mkdir(w.dir, 0o700); err != nil {
		return nil, err
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w.customers = &customers{url: "http://" + free.Addr().String()}
	free.Close()
	file := func(repository, gate, colour string) string {
		return fmt.Sprintf(docked, service, repository, w.env, gate, h.socket(), colour, h.restart)
	}
	rivals := h.weather.host() + rivalImage
	for i, repository := range []string{w.repository, rivals} {
		g, err := newGate(h.engine, filepath.Join(w.dir, fmt.Sprint("gate", i)), fmt.Sprint(repository, " ", service, " ", w.env), i == 1)
		if err != nil {
			return nil, err
		}
		w.gates = append(w.gates, g)
	}
	return w, errors.Join(w.configure(func(colour string) string { return file(w.repository, filepath.Join(w.dir, "gate0"), colour) }),
		os.WriteFile(filepath.Join(w.dir, "rival.yml"), []byte(file(rivals, filepath.Join(w.dir, "gate1"), "rival")), 0o600))
}

// count adds up what was done on the engine.
func (w *world) count() {
	e := &w.tally.engines
	for _, g := range w.gates {
		e.changes += g.changes
	}
	e.failed = w.customers.failed
	if h := w.house; h != nil && h.worlds[0] == w {
		e.restarts, e.addresses = h.restarts, h.asked
	}
}

// socket is that of the load balancer's runtime API.
func (h *house) socket() string { return filepath.Join(h.dir, "haproxy.sock") }

// balance starts HAProxy, and returns what ends it.
func (h *house) balance(ctx context.Context) (func(), error) {
	text := fmt.Sprintf(balancing, h.socket())
	for _, w := range h.worlds {
		text += fmt.Sprintf(balanced, w.service, strings.TrimPrefix(w.customers.url, "http://"), haproxy.Slots)
	}
	file := filepath.Join(h.dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command("haproxy", "-db", "-f", file)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start haproxy: %w", err)
	}
	stop := func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("unix", h.socket())
		if err == nil {
			conn.Close()
			return stop, nil
		}
		if ctx.Err() != nil || time.Now().After(end) {
			stop()
			return nil, fmt.Errorf("haproxy does not answer: %w", err)
		}
	}
}

// settle puts into the house what no run may touch: for each service a container with its very labels that belongs to another ledger,
// and a neighbour without any.
func (h *house) settle(ctx context.Context) error {
	e, reference := h.engine, h.upstream+image+":"+shops[0].version
	if err := e.call(ctx, http.MethodPost, "/images/create?fromImage="+h.upstream+image+"&tag="+shops[0].version, nil, nil); err != nil && !strings.Contains(err.Error(), "invalid character") {
		return fmt.Errorf("pull %s: %w", reference, err)
	}
	var image struct{ RepoDigests []string }
	if err := e.call(ctx, http.MethodGet, "/images/"+reference+"/json", nil, &image); err != nil {
		return err
	}
	_, digest, _ := strings.Cut(image.RepoDigests[0], "@")
	make := func(name string, labels map[string]string) error {
		var made struct {
			ID string `json:"Id"`
		}
		what := map[string]any{"Image": reference, "Env": []string{"ADDR=:8080", "SHOP_COLOUR=foreign"}, "Labels": labels,
			"HostConfig": map[string]any{"RestartPolicy": map[string]any{"Name": "always"}}}
		if err := e.call(ctx, http.MethodPost, "/containers/create?name="+name, what, &made); err != nil {
			return err
		}
		h.strays = append(h.strays, stray{"containers", made.ID, "/" + name})
		return e.call(ctx, http.MethodPost, "/containers/"+made.ID+"/start", nil, nil)
	}
	for _, w := range h.worlds {
		err := make(w.service+"-foreign", map[string]string{"backstep.service": w.service, "backstep.environment": string(w.env), "backstep.digest": digest,
			"backstep.repository": "elsewhere/acme/shop", "backstep.version": shops[0].version, "backstep.ledger": "elsewhere/acme/shop " + w.service})
		if err != nil {
			return err
		}
	}
	h.strays = append(h.strays, stray{"volumes", "precious", "precious"})
	return errors.Join(make("neighbour", nil), e.call(ctx, http.MethodPost, "/volumes/create", map[string]any{"Name": "precious"}, nil))
}

// unharmed: what no run may touch is as it was.
func (h *house) unharmed(ctx context.Context) error {
	for _, w := range h.worlds {
		for _, g := range w.gates {
			if err := g.fault(); err != nil {
				return err
			}
		}
	}
	for _, s := range h.strays {
		path := "/" + s.kind + "/" + s.id
		if s.kind == "containers" {
			path += "/json"
		}
		var is struct{ Name string }
		if err := h.engine.call(ctx, http.MethodGet, path, nil, &is); err != nil {
			return fmt.Errorf("%s is foreign, and gone: %w", s.name, err)
		}
		if is.Name != s.name {
			return fmt.Errorf("%s is foreign, and has the name %s now", s.name, is.Name)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.wrong
}

// watching is the time between two looks at all addresses.
const watching = 300 * time.Millisecond

// watch asks all addresses of all containers, until ctx is done. Nobody but the container that an address was made for may answer there,
// also when the engine is away, or when it has just come back.
func (h *house) watch(ctx context.Context) {
	pace := time.NewTicker(watching)
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
		if all, err := h.engine.boxes(ctx); err == nil {
			h.addresses = map[string]string{}
			for _, b := range all {
				if b.front() != "" {
					h.addresses[b.front()] = b.shows()
				}
			}
		}
		for at, owner := range h.addresses {
			_, serves, err := ask(ctx, "http://"+at)
			h.mu.Lock()
			h.asked++
			if err == nil && serves != "" && serves != owner && h.wrong == nil {
				h.wrong = fmt.Errorf("%s: address %s belongs to a container of %q, and %q answers there", time.Now().Format(clock), at, owner, serves)
			}
			h.mu.Unlock()
		}
	}
}
