package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/target/process"
)

// shop is a release of the demo's shop.
type shop struct {
	version string
	bad     bool // it is ready, and fails every customer
}

// shops are all releases there are.
var shops = []shop{{"1.0.0", false}, {"1.1.0", false}, {"1.2.0", false}, {"1.3.0", false}, {"2.0.0", true}, {"2.1.0", true}}

// shopOf is the release with this version.
func shopOf(version string) shop {
	i := slices.IndexFunc(shops, func(s shop) bool { return s.version == version })
	if i < 0 {
		return shop{version: version}
	}
	return shops[i]
}

// image is the repository of all worlds, under the host of a registry.
const image = "/acme/shop"

// world is one environment with its own target, and its own weather in front of a registry that all worlds share.
type world struct {
	service                  string
	env                      release.Environment
	dir, program, repository string
	random                   *rand.Rand
	weather                  *weather
	customers                *customers
	past                     *past
	limit                    *limit
	verbose                  bool

	runs   int
	colour string // what releases are configured with now
	secret string // likewise
	looked int    // how many events there were at the last look

	turn     *sync.RWMutex   // who does something to all that is in one house has it alone
	haste    int             // how much longer than a moment things take
	patience time.Duration   // when a run counts as one that does not end
	house    *house          // where it is on a Docker engine with others, or nil
	gates    []*gate         // to the engine: its own, and its rival's
	shaken   bool            // something was done to containers or their engine since the last look
	blamed   map[string]bool // what may be in quarantine although it is healthy
	points   *points         // shared by all worlds
	promises []promise
	last     []string // what the last steps were, and how they ended
	tally    tally
	owing    int // kills since the last run that came to an end
}

// configuration of a world; the strategy is added to it.
const configuration = `service: shop
repository: %s
environments:
  %s:
    target: {kind: process, socket: %s}
    env: {SHOP_COLOUR: %s, SHOP_TOKEN: {env: SHOP_SECRET}}
    drain: 1s
    settle: 0s
    try: 0s
    verify: {bake: 200ms, patience: 30s, negligible: 20%%, intolerable: 20%%, probes: [{kind: http, rate: 500}]}
`

// newWorld makes the world numbered n below dir; what it returns besides ends it.
func newWorld(ctx context.Context, dir, program, upstream string, seed uint64, n int) (*world, func(), error) {
	w := &world{env: release.Environment(fmt.Sprintf("world%d", n)), dir: filepath.Join(dir, fmt.Sprint(n)), program: program,
		service: "shop", colour: colours[0], secret: "first", turn: new(sync.RWMutex), blamed: map[string]bool{}, haste: 1, patience: 40 * time.Second,
		random: rand.New(rand.NewPCG(seed, uint64(n)))}
	if err := os.Mkdir(w.dir, 0o700); err != nil {
		return nil, nil, err
	}
	sky, err := newWeather(upstream, rand.New(rand.NewPCG(seed, uint64(1000+n))))
	if err != nil {
		return nil, nil, err
	}
	w.weather, w.repository = sky, sky.host()+image
	w.past = newPast(upstream+image, w.service, w.env)
	socket := filepath.Join(dir, fmt.Sprint("s", n)) // a socket's path has to be short
	supervisor, err := process.NewSupervisor(process.SupervisorOptions{Dir: filepath.Join(w.dir, "target"), Socket: socket,
		Listen: "127.0.0.1:0", Ready: "/ready", Registry: registry.New(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		sky.close()
		return nil, nil, err
	}
	w.customers = &customers{url: "http://" + supervisor.Address()}
	err = w.configure(func(colour string) string { return fmt.Sprintf(configuration, w.repository, w.env, socket, colour) })
	running, stop := context.WithCancel(ctx)
	var parts sync.WaitGroup
	parts.Go(func() {
		if err := supervisor.Run(running); err != nil {
			fmt.Fprintln(os.Stderr, "the supervisor ended:", err)
		}
	})
	return w, func() {
		stop()
		parts.Wait()
		sky.close()
	}, err
}

// canary is the end of the name of a configuration with that strategy.
const canary = "-canary.yml"

// configure writes the world's configurations, one of each colour, and the same as a canary.
func (w *world) configure(text func(colour string) string) error {
	var faults []error
	for _, colour := range w.colours() {
		plain := text(colour)
		weighted := strings.ReplaceAll(plain, "    drain: 1s\n", "    drain: 1s\n    strategy: canary\n    weights: [20]\n")
		faults = append(faults, os.WriteFile(filepath.Join(w.dir, colour+".yml"), []byte(plain), 0o600),
			os.WriteFile(filepath.Join(w.dir, colour+canary), []byte(weighted), 0o600))
	}
	return errors.Join(faults...)
}

// buildProgram builds backstep with the points at which it can be killed.
func buildProgram(ctx context.Context, dir string) (string, error) {
	program := filepath.Join(dir, "backstep")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "faults", "-ldflags", "-s -w", "-o", program, "github.com/backstep/backstep/cmd/backstep")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // images hold nothing else
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build backstep: %w: %s", err, out)
	}
	return program, nil
}

// pushShops pushes an image of each shop to the repository.
func pushShops(ctx context.Context, program, repository string, shops []shop) error {
	for _, s := range shops {
		fails := "0s"
		if s.bad {
			fails = "1ms"
		}
		args := []string{"build-image", "--repository", repository, "--version", s.version, "--tags", s.version, "--builder", "layers",
			"--context", filepath.Dir(program), "--files", filepath.Base(program) + ":/shop"}
		for _, word := range []string{"/shop", "demo", "--serve", s.version, "--fails-after", fails} {
			args = append(args, "--entrypoint", word)
		}
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Dir = filepath.Dir(program)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + cmd.Dir, "BACKSTEP_HOST=plain"}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("push the shop %s: %w: %s", s.version, err, out)
		}
	}
	return nil
}
