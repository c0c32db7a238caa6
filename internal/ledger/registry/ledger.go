// Package registry keeps a ledger in an OCI registry, as tags beside the image.
//
//	bs.<service>.<env>.<seq8>             one event; a manifest that is PUT once
//	bs.<service>.<env>                    a hint to the newest event
//	bs.<service>.<env>.l.<seq8>.x and .y  the splitter of a number: who may write the event
//	bs.<service>.<env>.b                  the last beat of the run that changes the environment
//	bs.<service>.<env>.b.<seq8>.<n>       one beat, where tags cannot be moved
//	bs.<service>.<env>.k.<seq8>[.<arch>]  a pin: an image that a rollback may need
//
// # How an event is written
//
// No registry tried offers compare-and-swap, and lists of tags are long, paged and sometimes late. What is needed is that
// GET and HEAD of a tag show what was PUT there before, and nothing else.
//
// Each number n has a splitter (L. Lamport, A Fast Mutual Exclusion Algorithm, 1987; M. Moir, J. Anderson, 1995):
// PUT x = a nonce; y there: lost; PUT y; x not our nonce: lost. At most one writer gets through, its owner, and only the
// owner writes event n, always with the same bytes. All the rest lose, perhaps all, and wait for event n.
//
// When event n does not appear within graceForWriter, its owner is dead or slow, and which of them nobody can know. So
// number n is skipped in a way that a slow owner notices (Dekker's handshake: each side writes first and looks then):
//
//   - The owner writes n, then reads n+1. Only while nobody has taken n+1 is its event acknowledged.
//   - Whoever skips n wins the splitter of n+1 and gives that number up for it: it PUTs "sealed" there, and then reads n.
//     Event n there: it stands, and is what comes next is based on. Nothing there: it PUTs "filled", so that readers who
//     walk from number to number get across. Several silent owners are skipped in one go: downwards, so that each
//     number is read when the one after it is taken already.
//
// At least one side sees the other. What follows is that an event which was seen with nothing after it is final: whoever
// skips later finds it. An event that was written, and found n+1 taken, is neither acknowledged nor lost yet: its writer
// reads on, and the events that were acknowledged later decide, because Previous is the digest of the last event, skipped
// numbers not counted. An event that the next one does not name is void, even if its PUT is applied only now.
// commit_model_test.go tries every order of the requests of two and three writers.
//
// What is read is believed when it descends from what is known, see chain.go.
//
// Together with x, event n is looked for: x and y are removed when their event is there, and an empty splitter could be won
// again by a writer that comes late.
package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/release"
)

const (
	lastSeq = 99_999_999 // eight digits

	graceForWriter = 2 * time.Second        // how long an owner may be silent before its number is skipped
	firstLook      = 50 * time.Millisecond  // the first pause while waiting for its event
	longestLook    = 500 * time.Millisecond // the longest

	deadNumbers = 8  // how often one commit waits for owners that stay silent
	longestGap  = 64 // numbers without an event that are searched for the last event before them

	silenceAfter = 7 * time.Second // from a run that is silent for this long, more than three beats, nothing more will come

	strides = 3 // how many numbers past the hint are read one by one

	tidyTimeout = 10 * time.Second // for moving the hint and removing x and y after a commit
)

// Ledger is the ledger of one environment in one repository. It can be used by several goroutines at once.
type Ledger struct {
	// Report is told once of each thing in the repository that has the name of an event and is none, or no longer the one that
	// it was. It is not called when it is nil.
	Report func(error)

	client     *registry.Client
	repository string
	service    string
	env        release.Environment
	grace      time.Duration
	silence    time.Duration

	hasEmpty  atomic.Bool // the empty blob was uploaded by this handle
	keepsTags atomic.Bool // the registry has refused to delete a tag
	fixedHint atomic.Bool // the registry has refused to move the hint

	pulse     pulse
	fixedPace time.Duration // between two beats where tags cannot be moved

	tidying sync.WaitGroup
	tidy    sync.Mutex // one at a time moves the hint
	hinted  uint64     // the newest number that the hint was moved to

	mu       sync.Mutex
	known    *position       // where the last Newest, After or Commit of this handle ended
	reported map[string]bool // what Report was told
}

var _ ledger.Ledger = (*Ledger)(nil)

// New is the ledger of a service in env, in a repository, registry/name.
func New(client *registry.Client, repository, service string, env release.Environment) *Ledger {
	return &Ledger{client: client, repository: repository, service: service, env: env, grace: graceForWriter, silence: silenceAfter,
		fixedPace: fixedFactor * ledger.BeatEvery, reported: map[string]bool{}}
}

// Wait returns when nothing of this handle is under way in the background: the hint is moved and old splitters
// are removed after Commit has returned. A process that ends earlier leaves tags behind, and loses nothing.
func (l *Ledger) Wait() { l.tidying.Wait() }

// scope is what the tags of the ledger begin with: a service and an environment, neither of which has a dot in its name.
func (l *Ledger) scope() string { return "bs." + l.service + "." + string(l.env) }

func (l *Ledger) hint() string           { return l.scope() }
func (l *Ledger) name(seq uint64) string { return fmt.Sprintf("%s.%08d", l.scope(), seq) }
func (l *Ledger) x(seq uint64) string    { return fmt.Sprintf("%s.l.%08d.x", l.scope(), seq) }
func (l *Ledger) y(seq uint64) string    { return fmt.Sprintf("%s.l.%08d.y", l.scope(), seq) }
func (l *Ledger) pin(seq uint64) string  { return fmt.Sprintf("%s.k.%08d", l.scope(), seq) }
func (l *Ledger) doing(n uint64) string  { return l.repository + ":" + l.name(n) }
func missing(err error) bool             { return errors.Is(err, registry.ErrNotFound) }

// Moved asks for the digest of the next event only.
func (l *Ledger) Moved(ctx context.Context, seq uint64) (bool, error) {
	return l.has(ctx, l.name(seq+1))
}

// At is the event numbered seq; one that is skipped has that kind.
func (l *Ledger) At(ctx context.Context, seq uint64) (ledger.Event, error) {
	r, err := l.read(ctx, l.name(seq))
	switch {
	case err != nil:
		return ledger.Event{}, err
	case !r.there:
		return ledger.Event{}, fmt.Errorf("read %s: %w", l.doing(seq), ledger.ErrNoEvent)
	case r.garbage != nil:
		return ledger.Event{}, r.garbage
	}
	r.event.Digest = r.digest
	return r.event, nil
}

// Void says whether the event numbered seq came too late: the next one does not name it as the one before.
func (l *Ledger) Void(ctx context.Context, seq uint64) (bool, error) {
	r, err := l.read(ctx, l.name(seq))
	if err != nil || !r.isEvent() {
		return false, err
	}
	for n := seq + 1; ; n++ {
		next, err := l.read(ctx, l.name(n))
		if err != nil || !next.there {
			return false, err
		}
		if next.isEvent() {
			return next.event.Previous != r.digest, nil
		}
	}
}

// Newest is the newest event: two requests, whatever the history, as long as the hint is right. After numbers that were
// skipped it is a skipped event with the snapshot that still holds. Once After has said where this handle is, the hint is not asked.
func (l *Ledger) Newest(ctx context.Context) (ledger.Event, error) {
	var p position
	var err error
	if known := l.recall(); known != nil && known.proven {
		p, err = l.look(ctx, *known)
	} else {
		p, err = l.position(ctx)
	}
	if err != nil {
		return ledger.Event{}, err
	}
	l.remember(p)
	return p.newest(), nil
}

// position is where a ledger ends. The zero position is that of an empty one.
type position struct {
	event  ledger.Event // the last event
	digest release.Digest
	before []string       // names of the events before it
	top    uint64         // the last number that is taken: that of the event, or of numbers after it that were skipped
	sealed bool           // those were skipped for good: the next number may be written
	proven bool           // the event descends from one that a target has seen to count, or from another one at least
	lost   release.Digest // an event that counts and whose tag holds something else; "" is none
}

func (p position) newest() ledger.Event {
	if p.top == p.event.Seq {
		e := p.event
		e.Digest = p.digest
		return e
	}
	return ledger.Event{Seq: p.top, Service: p.event.Service, Environment: p.event.Environment, Kind: ledger.Skipped, At: p.event.At,
		Previous: p.digest, State: p.event.State}
}

// final says that nothing can make the last event void any more.
func (p position) final() bool { return p.top == p.event.Seq }

func (l *Ledger) recall() *position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known
}

func (l *Ledger) remember(p position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil || l.known.top <= p.top {
		l.known = &p
	}
}

// position finds the end of the ledger by the hint, or without it.
func (l *Ledger) position(ctx context.Context) (position, error) {
	r, err := l.read(ctx, l.hint())
	switch {
	case err != nil:
		return position{}, err
	case r.isEvent():
		return l.look(ctx, position{event: r.event, digest: r.digest, before: r.before, top: r.event.Seq})
	}
	// Lost, torn or not ours: the hint is only a hint.
	if r.garbage != nil {
		l.report(r.garbage)
	}
	p, err := l.listed(ctx)
	if err == nil && p.top == 0 && r.garbage != nil {
		return p, fmt.Errorf("%w; and the registry shows no event", r.garbage)
	}
	return p, err
}

// look goes on from p to the end of the ledger. Events that do not descend from that of p are reported and count as skipped.
func (l *Ledger) look(ctx context.Context, p position) (position, error) {
	t := l.trail(p)
	top, last, holds := p.top, record{}, false
	for stride := 1; ; stride++ {
		r, err := l.read(ctx, l.name(top+1))
		if err != nil {
			return p, err
		}
		if !r.there {
			break
		}
		top, last = top+1, r
		if stride == strides {
			if top, err = l.gallop(ctx, top); err == nil {
				last, err = l.read(ctx, l.name(top))
			}
			if err != nil {
				return p, err
			}
			t.blind = t.blind || top > p.top+strides
		}
		if holds, err = t.follow(ctx, last); err != nil {
			return p, err
		}
	}
	if !last.there {
		return p, nil
	}
	if holds {
		return t.end(top), nil
	}
	return l.below(ctx, p, top, last)
}

// errNoEvents says that too many numbers in a row hold no event that counts.
var errNoEvents = fmt.Errorf("neither it nor the %d before it hold an event", longestGap)

// below is where a ledger ends whose last number, top, holds no event that counts: downwards, and read again, because an owner may have
// written while we came up. Each number is read when the one after it is taken; see the package comment.
func (l *Ledger) below(ctx context.Context, p position, top uint64, last record) (position, error) {
	lower := []record{last} // from the top down
	for n := top - 1; n > p.event.Seq; n-- {
		r, err := l.read(ctx, l.name(n))
		if err != nil {
			return p, err
		}
		lower = append(lower, r)
		if !r.isEvent() && top-n > longestGap {
			return p, fmt.Errorf("read %s: %w", l.doing(top), errNoEvents)
		}
		t := l.trail(p)
		t.blind = t.blind || top-p.event.Seq > longestGap
		if !r.isEvent() || !t.blind && r.event.Previous != p.digest {
			continue // others may lie between
		}
		if holds, err := t.follow(ctx, r); err != nil {
			return p, err
		} else if holds {
			break
		}
	}
	t := l.trail(p)
	t.blind = t.blind || top-p.event.Seq > longestGap
	for _, r := range slices.Backward(lower) {
		if _, err := t.follow(ctx, r); err != nil {
			return p, err
		}
	}
	end := t.end(top)
	end.sealed = last.skipped == sealed
	for i, r := range lower {
		end.sealed = end.sealed && (r.there || top-uint64(i) <= end.event.Seq)
	}
	return end, nil
}

// gallop is the last of the numbers from seq on, which is taken, for a hint that is far behind: where tags cannot be moved it
// stays at the first event. From the hint on no number is missing.
func (l *Ledger) gallop(ctx context.Context, seq uint64) (uint64, error) {
	low, step := seq, uint64(1) // low is there, low+step is perhaps not
	for ; ; step *= 2 {
		if ok, err := l.has(ctx, l.name(low+step)); err != nil {
			return 0, err
		} else if !ok {
			break
		}
		low += step
	}
	high := low + step
	for high-low > 1 {
		middle := low + (high-low)/2
		if ok, err := l.has(ctx, l.name(middle)); err != nil {
			return 0, err
		} else if ok {
			low = middle
		} else {
			high = middle
		}
	}
	return low, nil
}

// has says whether a tag is there.
func (l *Ledger) has(ctx context.Context, tag string) (bool, error) {
	_, err := l.client.Head(ctx, l.repository, tag)
	if missing(err) {
		return false, nil
	}
	return err == nil, err
}
