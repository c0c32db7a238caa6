// Package nginx is the router that moves traffic by a file that nginx includes, and a reload.
//
// The file holds the upstream with its servers, and a variable that says who they are. nginx serves that variable at an address, so
// that what it has loaded is never guessed: the exit code of a reload says nothing of it.
package nginx

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/router"
)

// First is the file as it is before the first release, for an upstream called shop that has no server yet.
const First = `upstream shop {
    zone shop 64k;
    server 127.0.0.1:9 down;
}
map "" $backstep_shop { default "shop 0 pid=$pid"; }
`

// Kind is the nginx router.
func Kind() router.Kind {
	return router.Kind{
		Name: "nginx",
		Help: "nginx, through a file that its configuration includes, and a reload. The file is written beside and renamed, nginx tests it, " +
			"and whether it was loaded is asked of nginx itself; when anything fails, the former file is back.",
		New: func() ([]input.Input, func() (router.Front, error)) {
			f := &front{spent: map[string]bool{}}
			return []input.Input{
				input.String(&f.file, "file", "The path of the file, which nginx includes at the level of http, and which holds the upstream and the line of its map: see the documentation for the first one. "+
					"Its folder has to be writable, since the file is replaced. Lines other than the servers and that map stay as they are.").Must().
					Matching(regexp.MustCompile(`^/.*[^/]$`), "/etc/nginx/backstep/shop.conf"),
				input.String(&f.upstream, "upstream", "The upstream that gets the releases.").Must().
					Matching(regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`), "shop"),
				input.String(&f.status, "status", "Where nginx says what it has loaded: return 200 $backstep_UPSTREAM, with _ for each - of the name.").Must().
					Matching(regexp.MustCompile(`^http://[^/]+(/.*)?$`), "http://127.0.0.1:8090/shop"),
				input.List(&f.test, "test", "The program, with its arguments, that tests the configuration; when it prints it too, as nginx -T does, the file is looked for in it. "+
					"nginx -T when it is left out.").Like("[sudo, -n, nginx, -T]"),
				input.List(&f.reload, "reload", "The program, with its arguments, that lets nginx load its configuration again. nginx -s reload when it is left out.").
					Like("[docker, exec, web, nginx, -s, reload]"),
				input.Duration(&f.timeout, "timeout", "How long each of these may take: the test, the reload, and nginx until the former workers take no more connections.").Or("10s"),
			}, func() (router.Front, error) { return f, nil }
		},
	}
}

type front struct {
	file, upstream, status string
	test, reload           []string
	timeout                time.Duration

	mu    sync.Mutex
	spent map[string]bool // addresses whose drain has run out: nobody waits for them again
}

var _ router.Front = (*front)(nil)

// pause is the time between two looks at something that changes within milliseconds.
const pause = 5 * time.Millisecond

// Weights are those that nginx has loaded, and those of the file as well when it was not loaded: who is in it would have traffic
// after a restart.
func (f *front) Weights(ctx context.Context) (map[string]int, error) {
	has, err := f.read()
	if err != nil {
		return nil, err
	}
	loaded, err := f.ask(ctx)
	if err != nil {
		return nil, err
	}
	weights := maps.Clone(loaded.weights)
	if !has.serves.same(loaded) {
		for at, w := range has.serves.weights {
			weights[at] += w
		}
	}
	return weights, nil
}

// Shift writes the file and lets nginx load it. It returns once nginx says that it has, and that no former worker takes connections.
func (f *front) Shift(ctx context.Context, holds router.Holds, weights map[string]int) error {
	wanted := map[string]int{}
	for at, w := range weights {
		if _, err := netip.ParseAddrPort(at); err != nil {
			return fmt.Errorf("address %q: %w", at, err)
		}
		if w > 0 {
			wanted[at] = w
		}
	}
	if len(wanted) == 0 {
		return errors.New("nginx: nobody would have traffic")
	}
	return f.change(ctx, holds, func(map[string]int) map[string]int { return wanted })
}

// change makes the servers of the file, which get traffic, what to makes of them, one change of the folder at a time.
func (f *front) change(ctx context.Context, holds router.Holds, to func(map[string]int) map[string]int) error {
	unlock, waited, err := f.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if waited {
		if err := holds(ctx); err != nil {
			return err
		}
	}
	was, err := f.read()
	if err != nil {
		return err
	}
	loaded, err := f.ask(ctx)
	if err != nil {
		return err
	}
	wanted := to(was.serves.weights)
	if maps.Equal(wanted, was.serves.weights) && was.serves.same(loaded) {
		return nil
	}
	next := serves{upstream: f.upstream, serial: max(was.serves.serial, loaded.serial) + 1, weights: wanted}
	held, err := f.hold(ctx)
	if err != nil {
		return err
	}
	defer held.close()
	if err := f.replace(was.text, was.with(next)); err != nil {
		return err
	}
	reloaded, err := f.load(ctx, next, held)
	if err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		for at := range wanted {
			delete(f.spent, at)
		}
		return nil
	}
	return f.back(context.WithoutCancel(ctx), was, next, reloaded, err)
}

// load tests the configuration with the file in it and lets nginx load it. Reloaded says whether nginx was told to.
func (f *front) load(ctx context.Context, next serves, held held) (reloaded bool, err error) {
	said, complaint, err := f.run(ctx, f.test, "nginx", "-T")
	if err != nil {
		return false, broken("nginx does not take its configuration", complaint, err)
	}
	if said != "" && !strings.Contains(said, next.text()) {
		return false, f.notIncluded()
	}
	if _, complaint, err := f.run(ctx, f.reload, "nginx", "-s", "reload"); err != nil {
		return true, broken("nginx was not reloaded", complaint, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, f.timeout, errNotLoaded)
	defer cancel()
	for {
		now, err := f.ask(ctx)
		if err == nil && now.same(next) && held.ended() {
			return true, nil
		}
		select {
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, errNotLoaded) {
				return true, cause
			}
			return true, fault.Errorf(fault.Failed, "nginx: the reload succeeded, but after %s %s does not say %q, or workers of before still take connections", f.timeout, f.status, next.text()).
				WithHint("its error log says why: a port that is taken, or a master process that is gone; is it this nginx that includes %s?", f.file)
		case <-time.After(pause):
		}
	}
}

// errNotLoaded ends the wait for nginx.
var errNotLoaded = errors.New("not loaded in time")

func (f *front) notIncluded() error {
	return fault.Inputf("nginx: its configuration does not include %s", f.file).
		WithHint("at the level of http: include %s/*.conf; and test has to print the configuration of the nginx that serves", filepath.Dir(f.file))
}

// back puts the former file back after why, and lets nginx load it again when it may have loaded the other one.
func (f *front) back(ctx context.Context, was include, next serves, reloaded bool, why error) error {
	if err := f.replace(was.with(next), was.text); err != nil {
		return errors.Join(why, fmt.Errorf("the former file is not back: %w", err))
	}
	if !reloaded {
		if _, complaint, err := f.run(ctx, f.test, "nginx", "-T"); err != nil {
			return broken("nothing was changed: nginx does not take its configuration, with the former file either", complaint, err)
		}
		return why
	}
	_, complaint, err := f.run(ctx, f.reload, "nginx", "-s", "reload")
	if now, asked := f.ask(ctx); asked == nil && !now.same(next) {
		return why
	} else if err == nil {
		return f.unloaded(ctx, next, why)
	}
	return errors.Join(why, broken("and the former file could not be loaded again", complaint, err))
}

// unloaded waits until nginx has loaded something else than next, and returns why.
func (f *front) unloaded(ctx context.Context, next serves, why error) error {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	for {
		if now, err := f.ask(ctx); err == nil && !now.same(next) {
			return why
		}
		select {
		case <-ctx.Done():
			return errors.Join(why, fmt.Errorf("nginx: the former file is back, but %s has not said so after %s", f.status, f.timeout))
		case <-time.After(pause):
		}
	}
}

// where is how nginx names a place: "nginx: [emerg] ... in /etc/nginx/nginx.conf:12", or with the time and its pid before and behind.
var where = regexp.MustCompile(`(?m)^.*\[emerg\] (?:\d+#\d+: )?(.*?)(?: in (/\S+:[0-9]+))?$`)

// broken is the fault of a program that has failed: what nginx said, at the place that it named.
func broken(what, complaint string, err error) error {
	said := strings.TrimSpace(complaint)
	m := where.FindStringSubmatch(complaint)
	if m != nil {
		said = m[1]
	}
	if said != "" {
		err = fmt.Errorf("%w: %s", err, said)
	}
	f := fault.Errorf(fault.Failed, "nginx: %s: %w", what, err) // another try may help: somebody may be at work on it
	switch {
	case strings.HasPrefix(said, "duplicate upstream"):
		f = f.WithHint("the upstream is backstep's: remove the other one, or give one of the two another name")
	case strings.Contains(said, "ermission denied"), strings.Contains(said, "not permitted"):
		f = f.WithHint("give test and reload as programs that may do it, for example [sudo, -n, nginx, -s, reload]")
	}
	if m != nil && m[2] != "" {
		f = f.At(m[2])
	}
	return f
}

// lock holds the folder of the file for one change: of this file, and of those of other services beside it, since they are tested
// and loaded together. Waited says whether somebody else held it.
func (f *front) lock(ctx context.Context) (unlock func(), waited bool, err error) {
	dir, err := os.Open(filepath.Dir(f.file))
	if err != nil {
		return nil, false, fault.Inputf("nginx: %w", err).At(f.file)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 4*f.timeout, errors.New("nginx: another run is changing "+filepath.Dir(f.file)))
	defer cancel()
	for {
		switch err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
		case err == nil:
			return func() { dir.Close() }, waited, nil
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return nil, false, errors.Join(fmt.Errorf("nginx: lock %s: %w", dir.Name(), err), dir.Close())
		}
		waited = true
		select {
		case <-ctx.Done():
			return nil, false, errors.Join(context.Cause(ctx), dir.Close())
		case <-time.After(pause):
		}
	}
}
