package registry

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/release"
)

// ErrImmutable is wrapped by the error of the first beat of a run where tags cannot be moved. Its beats are heard all the same.
var ErrImmutable = errors.New("tags of this repository cannot be moved: each beat leaves a tag, six a minute; leave bs.* out of that rule, if it can be")

// beatSlots bounds the manifests that beats leave behind: runs share them by their number.
const beatSlots = 8

// looks is how often Beating looks within the time of silence.
const looks = 7

// Where tags cannot be moved, as in an ACR Enterprise or ECR repository with immutable tags, each beat is a tag of its own, and
// comes more rarely by this factor.
const fixedFactor = 5

func (l *Ledger) beat() string { return l.hint() + ".b" }

// fixedBeat is the tag of the beat numbered n, from 1, where tags cannot be moved.
func (l *Ledger) fixedBeat(seq uint64, n int) string {
	return fmt.Sprintf("%s.%08d.%d", l.beat(), seq, n)
}

// beatText is the manifest of one of the two beats, 0 and 1, between which a run goes to and fro.
func beatText(seq uint64, side int) []byte {
	return pack(beatType, map[string]string{beatKey: strconv.FormatUint(seq%beatSlots, 10) + "." + strconv.Itoa(side)})
}

// pulse is what a handle remembers of its beats.
type pulse struct {
	mu    sync.Mutex
	moved int       // beats by the tag that moves
	fixed int       // beats by tags of their own
	last  time.Time // of the last of those
}

// Beat overwrites the last beat, or, where that is refused, adds one.
func (l *Ledger) Beat(ctx context.Context, seq uint64) error {
	l.pulse.mu.Lock()
	defer l.pulse.mu.Unlock()
	// A beat that is late says nothing any more: the next one is sent instead.
	ctx, cancel := context.WithTimeout(ctx, ledger.BeatEvery)
	defer cancel()
	if l.pulse.fixed == 0 {
		l.pulse.moved++
		err := l.put(ctx, l.beat(), beatText(seq, l.pulse.moved%2))
		if !errors.Is(err, registry.ErrRefused) {
			return err
		}
	} else if time.Since(l.pulse.last) < l.fixedPace {
		return nil
	}
	err := l.put(ctx, l.fixedBeat(seq, l.pulse.fixed+1), beatText(seq, 0))
	if err != nil {
		return err
	}
	l.pulse.fixed++
	l.pulse.last = time.Now()
	if l.pulse.fixed == 1 {
		return fmt.Errorf("event %d: %w", seq, ErrImmutable)
	}
	return nil
}

// Beating looks at the last beat until it changes to one of seq, or one more is there. It asks for digests only, which some
// registries do not count as downloads.
func (l *Ledger) Beating(ctx context.Context, seq uint64) (bool, error) {
	ours := map[release.Digest]bool{registry.DigestOf(beatText(seq, 0)): true, registry.DigestOf(beatText(seq, 1)): true}
	begin, silence := time.Now(), l.silence
	known, err := l.fixedBeats(ctx, seq)
	if err != nil {
		return false, err
	}
	if known > 0 {
		silence *= fixedFactor
	}
	var first release.Digest
	for look := 0; ; look++ {
		heard, err := l.client.Head(ctx, l.repository, l.beat())
		if err != nil && !missing(err) {
			return false, err
		}
		if look == 0 {
			first = heard
		} else if heard != first && ours[heard] {
			return true, nil
		}
		if more, err := l.has(ctx, l.fixedBeat(seq, known+1)); err != nil || more {
			return more, err
		}
		if time.Since(begin) > silence {
			return false, nil
		}
		if err := sleep(ctx, l.silence/looks); err != nil {
			return false, err
		}
	}
}

// fixedBeats is how many beats of seq have tags of their own: they are numbered without a gap.
func (l *Ledger) fixedBeats(ctx context.Context, seq uint64) (int, error) {
	low, high := 0, 1 // low is there, or zero; high is perhaps not
	for {
		there, err := l.has(ctx, l.fixedBeat(seq, high))
		if err != nil {
			return 0, err
		}
		if !there {
			break
		}
		low, high = high, 2*high
	}
	for high-low > 1 {
		middle := (low + high) / 2
		there, err := l.has(ctx, l.fixedBeat(seq, middle))
		if err != nil {
			return 0, err
		}
		if there {
			low = middle
		} else {
			high = middle
		}
	}
	return low, nil
}

// Pin gives r, and each of its platforms, a tag of its own, in the repository where it is.
func (l *Ledger) Pin(ctx context.Context, seq uint64, r release.Release) error {
	whole, err := l.client.Get(ctx, r.Repository, string(r.Digest))
	if err != nil {
		return fmt.Errorf("pin %s: %w", r, err)
	}
	platforms, err := whole.Platforms()
	if err != nil {
		return fmt.Errorf("pin %s: %w", r, err)
	}
	var mu sync.Mutex
	var failed []error
	var all sync.WaitGroup
	pin := func(what string, tag string, put func(tag string) error) {
		all.Go(func() {
			if err := put(tag); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = append(failed, fmt.Errorf("pin %s: %w", what, err))
			}
		})
	}
	for name, digest := range platforms {
		child := release.Release{Repository: r.Repository, Digest: digest}
		pin(r.String()+" for "+name, l.pin(seq)+"."+name, func(tag string) error { return l.client.Tag(ctx, child, tag) })
	}
	all.Wait()
	// The whole comes last: Debian's registry looks at the parts of an index while it stores it, and shows nothing under a
	// name that is being written.
	pin(r.String(), l.pin(seq), func(tag string) error {
		_, err := l.client.Put(ctx, r.Repository, tag, whole.MediaType, whole.Body)
		return err
	})
	all.Wait()
	return errors.Join(failed...)
}
