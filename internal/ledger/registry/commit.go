package registry

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/release"
)

const (
	flagBudget      = 15 * time.Second // for all tries of writing x, while the registry is busy
	firstFlagPause  = 20 * time.Millisecond
	longestFlagWait = 2 * time.Second
)

// commit is one call of Commit.
type commit struct {
	*Ledger
	change  func(ledger.Event) (ledger.Event, error)
	fresh   bool   // the position was read by this commit, and not remembered
	unclear *event // ours, and we do not know whether it counts
	skips   int    // silent owners so far
}

// event is an event with the bytes that stand for it.
type event struct {
	ledger.Event
	body   []byte
	digest release.Digest
	before []string
}

// Commit writes the event that change makes of the newest one. It goes on from where this handle saw the ledger last: when
// that is not the end any more, the splitter is lost, or its event is seen.
func (l *Ledger) Commit(ctx context.Context, change func(ledger.Event) (ledger.Event, error)) (ledger.Event, error) {
	known := l.recall()
	c := &commit{Ledger: l, change: change, fresh: known == nil}
	var p position
	var err error
	if known != nil {
		p = *known
	} else if p, err = l.position(ctx); err != nil {
		return ledger.Event{}, err
	}
	if p, err = l.proved(ctx, p); err != nil {
		return ledger.Event{}, err
	}
	for lost := p.lost; ; lost = cmp.Or(p.lost, lost) {
		var done *event
		if done, p, err = c.step(ctx, p); err != nil {
			return ledger.Event{}, err
		}
		if done != nil {
			l.remember(p)
			l.tidyUp(ctx, done, lost)
			return done.Event, nil
		}
	}
}

// step tries to write an event after p. It returns our event once that counts, and in any case where the ledger ends now.
func (c *commit) step(ctx context.Context, p position) (*event, position, error) {
	if ctx.Err() != nil {
		return nil, p, fmt.Errorf("write an event of %s: %w", c.env, context.Cause(ctx))
	}
	if !p.final() && !p.sealed {
		p, err := c.seal(ctx, p)
		return nil, p, err
	}
	if c.unclear != nil && !p.final() {
		return c.write(ctx, p, p.newest()) // what became of ours is decided by the next event, whatever it says
	}
	if c.unclear != nil {
		if counts, err := c.believed(p); err != nil || counts {
			return c.unclear, p, err
		}
		c.unclear = nil
	}
	e, err := c.change(p.newest())
	if err == nil {
		return c.write(ctx, p, e)
	}
	p, err = c.refused(ctx, p, err)
	return nil, p, err
}

// refused handles the error of change. It is an answer only to the end of the ledger as it is now; no error means that
// this is another one.
func (c *commit) refused(ctx context.Context, p position, err error) (position, error) {
	if c.fresh {
		return p, err
	}
	now, unread := c.look(ctx, p)
	if unread != nil {
		return p, errors.Join(err, unread)
	}
	c.fresh = true
	if now.top == p.top {
		return p, err
	}
	return now, nil
}

// write competes for the number after p and writes e there.
func (c *commit) write(ctx context.Context, p position, e ledger.Event) (*event, position, error) {
	n := p.top + 1
	if n > lastSeq {
		return nil, p, fmt.Errorf("write %s: the ledger is full", c.doing(n))
	}
	e.Seq, e.Service, e.Environment, e.Previous = n, c.service, c.env, p.digest
	own, err := c.encode(e, p.lineage())
	if err != nil {
		return nil, p, err
	}
	won, since, err := c.split(ctx, n)
	if err != nil {
		return nil, p, err
	}
	if !won {
		c.fresh = true
		p, err = c.follow(ctx, p, n)
		return nil, p, err
	}
	written := c.put(ctx, c.name(n), own.body)
	// Nobody can have begun to skip n before graceForWriter has passed since they lost its splitter, and they lost after
	// since: whoever loses has seen y set, or set it. Had that been before we wrote x, we would have seen it too when we
	// looked at y, and lost. Half of that time leaves room for clocks that run at different speeds.
	if written == nil && elapsed(since) < c.grace/2 {
		return c.count(own)
	}
	stands, found, err := c.stands(ctx, own, written == nil)
	switch {
	case err != nil:
		return nil, p, errors.Join(written, err)
	case stands:
		return c.count(own)
	case !found && (errors.Is(written, registry.ErrRefused) || errors.Is(written, registry.ErrDenied)):
		// Nobody shall wait for it. What is refused may be its size, and this is small.
		return nil, p, errors.Join(written, c.skip(ctx, p, n, sealed))
	case !found && written == nil:
		return nil, p, c.unseen(n)
	}
	if c.fresh = true; c.unclear == nil {
		c.unclear = own
	}
	p, err = c.follow(ctx, p, n)
	return nil, p, err
}

// count makes own the end of the ledger. It is what Commit returns, unless it was only written to learn what became of
// another one.
func (c *commit) count(own *event) (*event, position, error) {
	end := position{event: own.Event, digest: own.digest, before: own.before, top: own.Seq, proven: true}
	if c.unclear != nil {
		return nil, end, nil
	}
	return own, end, nil
}

// elapsed is the time since then: the longer of what passed while the machine was awake and what the clock on the wall says.
func elapsed(since time.Time) time.Duration {
	now := time.Now()
	return max(now.Sub(since), now.Round(0).Sub(since.Round(0)))
}

// stands says whether an event of ours is there and has nothing after it, and whether anything is there at all. What comes after
// it may be read side by side with it only when its PUT was answered: one that is applied in between, late, would be
// there, and the number after it might have been taken just before.
func (c *commit) stands(ctx context.Context, own *event, answered bool) (stands, found bool, err error) {
	var r record
	var next bool
	var unread, unseen error
	readNext := func() { next, unseen = c.has(ctx, c.name(own.Seq+1)) }
	var both sync.WaitGroup
	if answered {
		both.Go(readNext)
	}
	r, unread = c.read(ctx, c.name(own.Seq))
	both.Wait()
	if !answered && unread == nil {
		readNext()
	}
	if err := errors.Join(unread, unseen); err != nil {
		return false, false, fmt.Errorf("%s may be written, and was not read back: %w", c.doing(own.Seq), err)
	}
	return r.there && r.digest == own.digest && !next, r.there, nil
}

func (l *Ledger) unseen(n uint64) error {
	return fault.Errorf(fault.Failed, "write %s: the registry does not show what was just written", l.doing(n)).
		WithHint("a ledger needs a registry without a cache in front of it")
}

// believed says whether our unclear event leads to the last event of p. An event names those before it, because the tag of one
// that was believed may have been filled by a writer that looked just before it came.
func (c *commit) believed(p position) (bool, error) {
	if p.digest == c.unclear.digest || slices.Contains(p.before, ancestor(c.unclear.digest)) {
		return true, nil
	}
	if len(p.before) == ancestors && p.event.Seq > c.unclear.Seq+ancestors {
		return false, fmt.Errorf("write %s: it is not known whether it counts: %d events came after it", c.doing(c.unclear.Seq), ancestors)
	}
	return false, nil
}

// ancestor is how an event names one before it.
func ancestor(d release.Digest) string {
	return strings.TrimPrefix(string(d), "sha256:")[:ancestorName]
}

// lineage is how the event after p names those before it.
func (p position) lineage() []string {
	if p.digest == "" {
		return nil
	}
	all := append([]string{ancestor(p.digest)}, p.before...)
	return all[:min(len(all), ancestors)]
}

// split competes for the number n: at most one ever wins. Since is when that began.
func (l *Ledger) split(ctx context.Context, n uint64) (won bool, since time.Time, err error) {
	nonce, since, err := l.raise(ctx, n)
	if err != nil {
		return false, since, err
	}
	if lost, err := l.has(ctx, l.y(n)); err != nil || lost {
		return false, since, err
	}
	// Even if x is not ours: whoever loses makes sure that y is set, see write.
	// y holds its own name: where deleting a tag deletes its manifest, no other tag goes with it.
	if err := l.put(ctx, l.y(n), pack(flagType, map[string]string{flagKey: l.y(n)})); err != nil {
		if set, unread := l.has(ctx, l.y(n)); unread != nil || !set {
			return false, since, errors.Join(err, unread)
		}
	}
	if nonce == "" {
		return false, since, nil
	}
	var mine, taken bool
	var unread, unseen error
	var both sync.WaitGroup
	both.Go(func() { mine, unread = l.holds(ctx, l.x(n), nonce) })
	both.Go(func() { taken, unseen = l.has(ctx, l.name(n)) })
	both.Wait()
	if missing(unread) && unseen == nil && !taken {
		// Removed by an owner whose event appeared in between, or not shown.
		if taken, unseen = l.has(ctx, l.name(n)); unseen == nil && !taken {
			return false, since, l.unseen(n)
		}
	}
	if taken {
		l.removeFlags(ctx, n)
		return false, since, nil
	}
	return mine, since, errors.Join(unread, unseen)
}

// raise writes a nonce to x, and returns its digest, or "" where x is fixed by another. Each nonce is sent once: a
// duplicate that arrives late would look like a writer that has just begun, and a new nonce then only makes us lose.
func (l *Ledger) raise(ctx context.Context, n uint64) (release.Digest, time.Time, error) {
	end := time.Now().Add(flagBudget)
	for pause := firstFlagPause; ; pause = min(2*pause, longestFlagWait) {
		body := pack(flagType, map[string]string{flagKey: l.x(n) + " " + rand.Text()})
		since := time.Now()
		err := l.put(registry.Once(ctx), l.x(n), body)
		switch {
		case err == nil:
			return registry.DigestOf(body), since, nil
		case errors.Is(err, registry.ErrRefused), errors.Is(err, registry.ErrDenied):
			if set, unread := l.has(ctx, l.x(n)); unread != nil || !set {
				return "", since, errors.Join(err, unread)
			}
			return "", since, nil
		case !registry.Transient(err), time.Now().Add(pause).After(end):
			return "", since, err
		}
		if err := sleep(ctx, pause/2+mathrand.N(pause)); err != nil { // #nosec G404 -- writers only have to differ
			return "", since, fmt.Errorf("write %s: %w", l.doing(n), err)
		}
	}
}

// holds says whether a tag is a manifest with this digest. It reads the manifest: this is also the proof, in every commit, that the
// registry shows what was just written.
func (l *Ledger) holds(ctx context.Context, tag string, d release.Digest) (bool, error) {
	m, err := l.client.Get(ctx, l.repository, tag)
	return err == nil && m.Digest == d, err
}

// follow waits for another's number n, which was lost, and returns where the ledger ends then. Owners that are silent
// are skipped.
func (c *commit) follow(ctx context.Context, p position, n uint64) (position, error) {
	for {
		// Numbers that are lost as well are waited for together: dead writers in a row cost the grace once.
		last := n
		for last < n+longestGap {
			lost, err := c.has(ctx, c.y(last+1))
			if err != nil {
				return p, err
			}
			if !lost {
				break
			}
			last++
		}
		there, err := c.await(ctx, n, last)
		if err != nil {
			return p, err
		}
		if there != 0 {
			return c.across(ctx, p, there)
		}
		if c.skips++; c.skips > deadNumbers {
			return p, fmt.Errorf("write %s: the writers before it were silent, %d times", c.doing(n), deadNumbers)
		}
		n = last + 1
		won, _, err := c.split(ctx, n)
		if err != nil {
			return p, err
		}
		if won {
			return c.giveUp(ctx, p, n)
		}
	}
}

// await waits for graceForWriter for one of the numbers from first to last to be taken. It is 0 when none is.
func (c *commit) await(ctx context.Context, first, last uint64) (uint64, error) {
	end := time.Now().Add(c.grace)
	for pause := firstLook; ; pause = min(2*pause, longestLook) {
		over := time.Now().After(end)
		for n := last; n >= first; n-- {
			if n != first && n != last && !over {
				continue // looked at once, in the end
			}
			if there, err := c.has(ctx, c.name(n)); err != nil || there {
				return n, err
			}
		}
		if over {
			return 0, nil
		}
		if err := sleep(ctx, pause/2+mathrand.N(pause)); err != nil { // #nosec G404 -- writers only have to differ
			return 0, fmt.Errorf("wait for %s: %w", c.doing(first), err)
		}
	}
}

// seal makes sure that the skipped numbers at the end of p are skipped for good.
func (c *commit) seal(ctx context.Context, p position) (position, error) {
	n := p.top + 1
	won, _, err := c.split(ctx, n)
	if err != nil {
		return p, err
	}
	if !won {
		return c.follow(ctx, p, n)
	}
	return c.giveUp(ctx, p, n)
}

// giveUp takes the number n, which is ours, without an event, so that the owners of the numbers before it see it.
func (c *commit) giveUp(ctx context.Context, p position, n uint64) (position, error) {
	if err := c.skip(ctx, p, n, sealed); err != nil {
		return p, err
	}
	return c.across(ctx, p, n)
}

// across fills the numbers between p and n, which is taken, from the top down.
func (c *commit) across(ctx context.Context, p position, n uint64) (position, error) {
	lowest := p.event.Seq + 1
	if p.sealed {
		lowest = p.top + 1
	}
	for k := n - 1; k >= lowest; k-- {
		r, err := c.read(ctx, c.name(k))
		if err != nil {
			return p, err
		}
		if r.there { // what it is, look decides
			continue
		}
		if err := c.skip(ctx, p, k, filled); err != nil {
			return p, err
		}
	}
	return c.look(ctx, p)
}

// skip writes an event that says nothing new as the number n.
func (c *commit) skip(ctx context.Context, p position, n uint64, how string) error {
	last := p.newest()
	data, err := json.Marshal(ledger.Event{Seq: n, Service: c.service, Environment: c.env, Kind: ledger.Skipped, At: last.At, Previous: p.digest, State: last.State})
	if err != nil {
		return err
	}
	body := pack(eventType, map[string]string{eventKey: string(data), skippedKey: how})
	if err := c.put(ctx, c.name(n), body); err != nil {
		if taken, unread := c.has(ctx, c.name(n)); unread != nil || !taken {
			return errors.Join(err, unread)
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// tidyUp moves the hint to an event and removes its splitter, as well as that goes, while the caller goes on. The hint
// is only a hint: when it cannot be moved, the next reader needs more requests and nothing is lost.
// It stays behind an intent, whose end follows soon. What has lost its tag, "" is nothing, gets it again.
func (l *Ledger) tidyUp(ctx context.Context, e *event, lost release.Digest) {
	l.removeFlags(ctx, e.Seq)
	if lost != "" {
		l.tidying.Go(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTimeout)
			defer cancel()
			l.restore(ctx, lost)
		})
	}
	if l.fixedHint.Load() || e.State.Intent != nil && e.Seq > 1 {
		return
	}
	l.tidying.Go(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTimeout)
		defer cancel()
		l.tidy.Lock()
		defer l.tidy.Unlock()
		if l.hinted >= e.Seq {
			return
		}
		switch err := l.put(ctx, l.hint(), e.body); {
		case err == nil:
			l.hinted = e.Seq
		case errors.Is(err, registry.ErrRefused):
			l.fixedHint.Store(true)
		}
	})
}

// removeFlags removes x and y of the number n, which is taken. Only by their tags: a digest may have neighbours.
func (l *Ledger) removeFlags(ctx context.Context, n uint64) {
	for _, tag := range []string{l.x(n), l.y(n)} {
		if l.keepsTags.Load() {
			return
		}
		l.tidying.Go(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTimeout)
			defer cancel()
			if supported, err := l.client.Delete(ctx, l.repository, tag); err == nil && !supported {
				l.keepsTags.Store(true)
			}
		})
	}
}
