package registry

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/release"
)

// ErrImmutable is wrapped by the error of Beat where tags are fixed: the tag of the beat has to be left out of that rule.
var ErrImmutable = errors.New("tags of this repository cannot be moved")

// beatSlots bounds the manifests that beats leave behind: runs share them by their number.
const beatSlots = 8

// looks is how often Beating looks within the time of silence.
const looks = 7

func (l *Ledger) beat() string { return l.hint() + ".b" }

// beatText is the manifest of one of the two beats, 0 and 1, between which a run goes to and fro.
func beatText(seq uint64, side int) []byte {
	return pack(beatType, map[string]string{beatKey: strconv.FormatUint(seq%beatSlots, 10) + "." + strconv.Itoa(side)})
}

// Beat overwrites the last beat.
func (l *Ledger) Beat(ctx context.Context, seq uint64) error {
	err := l.put(ctx, l.beat(), beatText(seq, int(l.beats.Add(1)%2)))
	if errors.Is(err, registry.ErrRefused) {
		return fmt.Errorf("%w: %w", ErrImmutable, err)
	}
	return err
}

// Beating looks at the last beat until it changes to one of seq. It asks for the digest only, which some registries do
// not count as a download.
func (l *Ledger) Beating(ctx context.Context, seq uint64) (bool, error) {
	ours := map[release.Digest]bool{registry.DigestOf(beatText(seq, 0)): true, registry.DigestOf(beatText(seq, 1)): true}
	var first release.Digest
	begin := time.Now()
	for look := 0; ; look++ {
		heard, err := l.client.Head(ctx, l.repository, l.beat())
		if err != nil && !missing(err) {
			return false, err
		}
		switch {
		case look == 0:
			first = heard
		case heard != first && ours[heard]:
			return true, nil
		}
		if time.Since(begin) > l.silence {
			return false, nil
		}
		if err := sleep(ctx, l.silence/looks); err != nil {
			return false, err
		}
	}
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
