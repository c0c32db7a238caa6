// Package wayback gives one release all the traffic, on every target at once. It is what fires after a fail verdict, and
// what every other way back uses: nothing that it imports can reach a registry, ask a probe or need a secret, and a
// test of the house proves it.
package wayback

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/router"
	"github.com/backstep/backstep/internal/target"
)

// Site is a target with the router in front of it.
type Site struct {
	Name   string
	Target target.Target
	Router router.Router
}

// Turn is a change of who serves.
type Turn struct {
	Claim plan.Claim // its Wanted gets all the traffic
	Note  *plan.Note // kept with the claim before anything is moved; nil when the ledger knows already
	Ready time.Duration
	// Patience bounds the tries on a target or a router that cannot be reached. Zero is one try.
	Patience time.Duration
	Log      *slog.Logger
	// Point is called at named points between two changes; tests end the process there.
	Point func(name string)
}

// Pending is a site on which a turn was not carried out, and why. The error wraps target.ErrFenced when another run
// has taken over.
type Pending struct {
	Site string
	Err  error
}

// Turned is how a turn ended.
type Turned struct {
	Served  int       // sites on which the release has all the traffic
	At      time.Time // when the last of them had it
	Pending []Pending
}

// Err is nil when the release serves on every site, and else says where it does not.
func (t Turned) Err() error {
	var all []error
	for _, p := range t.Pending {
		all = append(all, fmt.Errorf("%s: %w", p.Site, p.Err))
	}
	return errors.Join(all...)
}

// Carry carries the turn out on all sites side by side.
func (t Turn) Carry(ctx context.Context, sites []Site) Turned {
	var (
		mu  sync.Mutex
		out Turned
		all sync.WaitGroup
	)
	for _, s := range sites {
		all.Go(func() {
			at, err := t.on(ctx, s)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				out.Pending = append(out.Pending, Pending{s.Name, err})
				return
			}
			out.Served++
			if at.After(out.At) {
				out.At = at
			}
		})
	}
	all.Wait()
	return out
}

// on carries the turn out on one site: claim, start when cold, shift, and look whether the claim still stands.
func (t Turn) on(ctx context.Context, s Site) (at time.Time, err error) {
	t.point("before claim " + string(t.Claim.Aim))
	err = t.Persist(ctx, func() error { return s.Target.Claim(ctx, t.Claim, t.Note) })
	if err != nil {
		return at, err
	}
	t.point("claimed " + string(t.Claim.Aim))
	if err := t.Persist(ctx, func() error { return t.serve(ctx, s, t.Claim.Token, t.Claim.Wanted) }); err != nil {
		if errors.Is(err, target.ErrFenced) {
			err = errors.Join(err, t.yield(ctx, s))
		}
		return at, err
	}
	at = time.Now()
	t.point("shifted " + string(t.Claim.Aim))
	err = t.Persist(ctx, func() error { return target.Employ(ctx, s.Target, t.Claim.Token, t.Claim.Wanted.ID()) })
	return at, errors.Join(err, t.yield(ctx, s))
}

func (t Turn) point(name string) {
	if t.Point != nil {
		t.Point(name)
	}
}

// Persist repeats change until it succeeds, patience is over, or another try cannot help.
func (t Turn) Persist(ctx context.Context, change func() error) error {
	const firstPause, longestPause = 20 * time.Millisecond, time.Second
	end := time.Now().Add(t.Patience)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := change()
		if err == nil || errors.Is(err, target.ErrFenced) || fault.CodeOf(err) == fault.Input || fault.CodeOf(err) == fault.Refused ||
			time.Now().Add(pause).After(end) {
			return err
		}
		t.Log.Warn("the target does not take the change; trying again", "error", err)
		select {
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}

// serve gives r all the traffic. What is not there, or has ended, is started first. A target that has no room for two
// starts it when it gets the traffic: hence the second wait.
func (t Turn) serve(ctx context.Context, s Site, by plan.Token, r release.Release) error {
	in, err := s.Target.Find(ctx, r.ID())
	if err != nil {
		return err
	}
	if in == nil || in.Phase != plan.Ready {
		// Also when it is starting: somebody may have died between making and starting it.
		t.Log.Info("it is not ready: it is started first", "release", r.Digest.Short(), "version", r.Version)
		staging, cancel := context.WithTimeout(ctx, stageTimeout)
		defer cancel()
		if err := s.Target.Stage(staging, by, r); err != nil {
			return err
		}
		if err := Await(ctx, s.Target, r, t.Ready, 0); err != nil {
			return err
		}
		t.point("staged " + string(t.Claim.Aim))
	}
	if err := s.Router.Shift(ctx, by, map[release.ID]int{r.ID(): 100}); err != nil {
		return err
	}
	return Await(ctx, s.Target, r, t.Ready, 0)
}

// yield looks at the record once more. A router has no compare-and-swap: a newer claim may have been made, and carried
// out, between our look and our shift. Then what it wants is done once more; a deploy is left alone, since only its own run
// knows how far it is.
func (t Turn) yield(ctx context.Context, s Site) error {
	state, err := s.Target.Observe(ctx)
	if err != nil || state.Claim.Token == t.Claim.Token {
		return nil // the change is made; that nobody can be asked afterwards does not undo it
	}
	now := state.Claim
	fenced := fmt.Errorf("%w: claim %s", target.ErrFenced, now.Number)
	if now.Aim == plan.Do || now.Aim == plan.Done {
		return fenced
	}
	if in := state.Find(now.Wanted.ID()); in != nil && in.Phase == plan.Ready && in.Weight != 100 {
		return errors.Join(fenced, s.Router.Shift(ctx, now.Token, map[release.ID]int{now.Wanted.ID(): 100}))
	}
	return fenced
}

// stageTimeout bounds the start of a release that is cold, with the pull of its image.
const stageTimeout = 15 * time.Minute

// lastLines is how many lines of a release that does not become ready are shown.
const lastLines = 10

// Await waits until r has been ready for as long as settle, and ends at once when it has failed, is gone, or has ended and was
// started again. The error carries what was tried, and the last lines of the release.
func Await(ctx context.Context, from target.Inventory, r release.Release, timeout, settle time.Duration) error {
	const firstPause, longestPause, settlingPause = 10 * time.Millisecond, time.Second, 100 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, timeout+settle)
	defer cancel()
	tried := ""
	var since time.Time // that it is ready; zero when it is not
	restarts := -1
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		in, err := from.Find(ctx, r.ID())
		switch {
		case err != nil && ctx.Err() == nil:
			return err
		case err != nil:
		case in == nil:
			return fault.Errorf(fault.Failed, "it is gone from the target")
		case in.Phase == plan.Failed:
			return withLines(from, r.ID(), fault.Errorf(fault.Failed, "%s", in.Reason))
		case restarts >= 0 && in.Restarts > restarts:
			return withLines(from, r.ID(), fault.Errorf(fault.Failed, "it was ready, ended, and was started again"))
		case in.Phase == plan.Ready:
			if since.IsZero() {
				since, restarts = time.Now(), in.Restarts
			}
			if time.Since(since) >= settle {
				return nil
			}
			pause = min(pause, settlingPause/2)
		default:
			tried, since = in.Reason, time.Time{}
		}
		select {
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return context.Cause(ctx)
			}
			if tried != "" {
				tried = ": " + tried
			}
			return withLines(from, r.ID(), fault.Errorf(fault.Failed, "not ready after %s%s", timeout, tried))
		case <-time.After(pause):
		}
	}
}

func withLines(from target.Inventory, id release.ID, e *fault.Error) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	lines, err := from.Logs(ctx, id, lastLines)
	if err != nil || len(lines) == 0 {
		return e
	}
	return e.WithHint("its last lines were:\n  %s", strings.Join(lines, "\n  "))
}
