// Package registry keeps a ledger in an OCI registry, as tags beside the image.
//
//	bs.<env>.<seq8>             one event; the PUT of this name is the commit
//	bs.<env>                    a hint to the newest event
//	bs.<env>.l.<seq8>.<nonce>   a flag: somebody is about to write that event
//	bs.<env>.b                  the last beat of the run that changes the environment
//	bs.<env>.k.<seq8>[.<arch>]  a pin: an image that a rollback may need
//
// No registry tried offers compare-and-swap, so writers raise a flag, look whether they are alone, and only
// then write. That is safe because the later one of two writers sees the flag of the earlier one; it needs a
// registry that shows what was just written, by GET and in the list of tags, and nothing else. A flag names
// the event that it is for: once that event is there, the flag is stale by its name alone, so no clocks are
// compared, and a registry that cannot delete tags costs nothing more.
package registry

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/release"
)

const (
	eventType = "application/vnd.backstep.event.v1+json"
	beatType  = "application/vnd.backstep.beat.v1+json"
	flagType  = "application/vnd.backstep.flag.v1+json"
	emptyType = "application/vnd.oci.empty.v1+json"

	eventLimit = 64 << 10   // bytes of JSON
	lastSeq    = 99_999_999 // eight digits

	holding = 5 * time.Second  // the longest that a writer may take from its flag to its event
	dead    = 10 * time.Second // a flag that stands longer than this belongs to nobody

	silence = 7 * time.Second // from a run that is silent for this long, more than three beats, nothing more will come

	strides = 3 // how many events past the hint are read one by one
)

// Ledger is the ledger of one environment in one repository.
type Ledger struct {
	client     *registry.Client
	repository string
	env        release.Environment
	dead       time.Duration
	holding    time.Duration
	silence    time.Duration
}

var _ ledger.Ledger = (*Ledger)(nil)

// New is the ledger of env in a repository, registry/name.
func New(client *registry.Client, repository string, env release.Environment) *Ledger {
	return &Ledger{client: client, repository: repository, env: env, dead: dead, holding: holding, silence: silence}
}

func (l *Ledger) hint() string            { return "bs." + string(l.env) }
func (l *Ledger) event(seq uint64) string { return fmt.Sprintf("bs.%s.%08d", l.env, seq) }
func (l *Ledger) flags(seq uint64) string { return fmt.Sprintf("bs.%s.l.%08d.", l.env, seq) }
func (l *Ledger) pin(seq uint64) string   { return fmt.Sprintf("bs.%s.k.%08d", l.env, seq) }
func (l *Ledger) doing(seq uint64) string { return l.repository + ":" + l.event(seq) }
func missing(err error) bool              { return errors.Is(err, registry.ErrNotFound) }

// manifest is the OCI manifest around an event or a flag: an empty configuration and one layer, whose data
// are inside, so that one GET reads all.
type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	ArtifactType  string       `json:"artifactType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

type descriptor struct {
	MediaType string         `json:"mediaType"`
	Digest    release.Digest `json:"digest"`
	Size      int            `json:"size"`
	Data      []byte         `json:"data,omitempty"`
}

// prepare stores what an artifact needs, and returns its manifest, which is not stored yet.
func (l *Ledger) prepare(ctx context.Context, artifactType string, data []byte) ([]byte, error) {
	empty := []byte("{}")
	config, err := l.client.PutBlob(ctx, l.repository, empty)
	if err != nil {
		return nil, err
	}
	layer, err := l.client.PutBlob(ctx, l.repository, data)
	if err != nil {
		return nil, err
	}
	return json.Marshal(manifest{SchemaVersion: 2, MediaType: registry.OCIManifest, ArtifactType: artifactType,
		Config: descriptor{MediaType: emptyType, Digest: config, Size: len(empty), Data: empty},
		Layers: []descriptor{{MediaType: artifactType, Digest: layer, Size: len(data), Data: data}}})
}

// put stores data under a tag as an artifact and returns its digest.
func (l *Ledger) put(ctx context.Context, tag, artifactType string, data []byte) (release.Digest, error) {
	body, err := l.prepare(ctx, artifactType, data)
	if err != nil {
		return "", err
	}
	return l.client.Put(ctx, l.repository, tag, registry.OCIManifest, body)
}

// read is the event under a tag, and the digest of its manifest.
func (l *Ledger) read(ctx context.Context, tag string) (ledger.Event, release.Digest, error) {
	m, err := l.client.Get(ctx, l.repository, tag)
	if err != nil {
		return ledger.Event{}, "", err
	}
	var e ledger.Event
	data, err := payload(m, eventType)
	if err == nil {
		err = json.Unmarshal(data, &e)
	}
	switch {
	case err != nil:
		return e, "", fmt.Errorf("read %s:%s: %w", l.repository, tag, err)
	case e.Environment != l.env || tag != l.hint() && tag != l.event(e.Seq):
		return e, "", fmt.Errorf("read %s:%s: it holds event %d of %q", l.repository, tag, e.Seq, e.Environment)
	}
	return e, m.Digest, nil
}

// payload is the data of an artifact of ours.
func payload(m registry.Manifest, artifactType string) ([]byte, error) {
	var parsed manifest
	if err := json.Unmarshal(m.Body, &parsed); err != nil {
		return nil, err
	}
	if parsed.ArtifactType != artifactType || len(parsed.Layers) != 1 || len(parsed.Layers[0].Data) == 0 {
		return nil, fmt.Errorf("it is no %s", artifactType)
	}
	return parsed.Layers[0].Data, nil
}

// At is the event numbered seq.
func (l *Ledger) At(ctx context.Context, seq uint64) (ledger.Event, error) {
	e, _, err := l.read(ctx, l.event(seq))
	if missing(err) {
		return e, fmt.Errorf("read %s: %w", l.doing(seq), ledger.ErrNoEvent)
	}
	return e, err
}

// Newest is the newest event: two requests, whatever the history, as long as the hint is right.
func (l *Ledger) Newest(ctx context.Context) (ledger.Event, error) {
	e, _, err := l.newest(ctx)
	return e, err
}

func (l *Ledger) newest(ctx context.Context) (ledger.Event, release.Digest, error) {
	e, digest, err := l.read(ctx, l.hint())
	if err != nil {
		if errors.Is(err, registry.ErrDenied) || errors.Is(err, registry.ErrThrottled) || ctx.Err() != nil {
			return e, "", err
		}
		// Lost, torn or not ours: the hint is only a hint.
		hint := err
		if e, digest, err = l.search(ctx); err != nil {
			return e, "", err
		}
		if e.Seq == 0 && !missing(hint) {
			return e, "", fmt.Errorf("%w; and the registry shows no event", hint)
		}
		if e.Seq == 0 {
			return e, "", nil
		}
	}
	for stride := 1; ; stride++ {
		next, d, err := l.read(ctx, l.event(e.Seq+1))
		if missing(err) {
			return e, digest, nil
		}
		if err == nil && stride == strides {
			next, d, err = l.gallop(ctx, next.Seq)
		}
		if err != nil {
			return e, "", err
		}
		e, digest = next, d
	}
}

// gallop is the newest of the events from seq on, which is there, for a hint that is far behind: where tags
// cannot be moved it stays at the first event. From the hint on no number is missing.
func (l *Ledger) gallop(ctx context.Context, seq uint64) (ledger.Event, release.Digest, error) {
	there := func(seq uint64) (bool, error) {
		_, err := l.client.Head(ctx, l.repository, l.event(seq))
		if missing(err) {
			return false, nil
		}
		return err == nil, err
	}
	low, step := seq, uint64(1) // low is there, low+step is perhaps not
	for ; ; step *= 2 {
		if ok, err := there(low + step); err != nil {
			return ledger.Event{}, "", err
		} else if !ok {
			break
		}
		low += step
	}
	high := low + step
	for high-low > 1 {
		middle := low + (high-low)/2
		if ok, err := there(middle); err != nil {
			return ledger.Event{}, "", err
		} else if ok {
			low = middle
		} else {
			high = middle
		}
	}
	return l.read(ctx, l.event(low))
}

// search finds the newest event without the hint: by the list of tags, whose order and paging mean nothing.
// That there is none is believed only when the list could be read.
func (l *Ledger) search(ctx context.Context) (ledger.Event, release.Digest, error) {
	tags, err := l.client.Tags(ctx, l.repository)
	if err != nil && !missing(err) {
		return ledger.Event{}, "", err
	}
	var highest uint64
	for _, tag := range tags {
		if digits, ok := strings.CutPrefix(tag, l.hint()+"."); ok && len(digits) == 8 {
			if seq, err := strconv.ParseUint(digits, 10, 64); err == nil {
				highest = max(highest, seq)
			}
		}
	}
	if highest > 0 {
		return l.read(ctx, l.event(highest))
	}
	if e, digest, err := l.read(ctx, l.event(1)); !missing(err) {
		return e, digest, err // there is one that the list does not show
	}
	return ledger.Event{}, "", nil
}

// errAgain says that another writer was there first.
var errAgain = errors.New("another writer was faster")

// Commit writes the event that change makes of the newest one.
func (l *Ledger) Commit(ctx context.Context, change func(ledger.Event) (ledger.Event, error)) (ledger.Event, error) {
	standing := map[string]time.Time{} // foreign flags, and since when we see them
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		e, err := l.try(ctx, change, standing)
		if !errors.Is(err, errAgain) {
			return e, err
		}
		select {
		case <-ctx.Done():
			return ledger.Event{}, fmt.Errorf("write an event of %s: %w: %w", l.env, context.Cause(ctx), err)
		case <-time.After(pause/2 + mathrand.N(pause)):
		}
	}
}

func (l *Ledger) try(ctx context.Context, change func(ledger.Event) (ledger.Event, error), standing map[string]time.Time) (ledger.Event, error) {
	newest, previous, err := l.newest(ctx)
	if err != nil {
		return ledger.Event{}, err
	}
	e, err := change(newest)
	if err != nil {
		return ledger.Event{}, err
	}
	e.Seq, e.Environment, e.Previous = newest.Seq+1, l.env, previous
	if e.Seq > lastSeq {
		return ledger.Event{}, fmt.Errorf("write %s: the ledger is full", l.doing(e.Seq))
	}
	data, err := json.Marshal(e)
	if err != nil {
		return ledger.Event{}, err
	}
	if len(data) > eventLimit {
		return ledger.Event{}, fault.Errorf(fault.Failed, "write %s: the event has %d bytes, and %d are the limit", l.doing(e.Seq), len(data), eventLimit).
			WithHint("lift digests that need no quarantine any more")
	}

	flag := l.flags(e.Seq) + strings.ToLower(rand.Text())
	signal, err := l.prepare(ctx, flagType, []byte(strconv.Quote(flag)))
	if err != nil {
		return ledger.Event{}, err
	}
	body, err := l.prepare(ctx, eventType, data)
	if err != nil {
		return ledger.Event{}, err
	}
	// From here on a slow registry must not hold us up: the event is written before anybody can take our
	// flag for a dead writer's, or not at all.
	holding, cancel := context.WithTimeout(ctx, l.holding)
	defer cancel()
	own, err := l.client.Put(ctx, l.repository, flag, registry.OCIManifest, signal)
	// Whatever happens now, also the end of ctx, the flag comes down.
	defer func() {
		lowering, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		l.lower(lowering, flag, own)
		standing[flag] = time.Time{} // where it cannot be deleted, we at least do not wait for ourselves
	}()
	if err != nil {
		return ledger.Event{}, err
	}
	if err := l.write(holding, e.Seq, flag, body, standing); err != nil {
		// What failed may have been done: an answer was lost, or a repetition was refused.
		stored, digest, unread := l.read(ctx, l.event(e.Seq))
		switch {
		case errors.Is(err, errAgain), unread == nil && digest != digestOf(body):
			return ledger.Event{}, errAgain
		case unread == nil:
			l.move(ctx, data)
			return stored, nil
		case missing(unread) && holding.Err() != nil && ctx.Err() == nil:
			return ledger.Event{}, fmt.Errorf("the registry is slow: %w", errAgain)
		}
		return ledger.Event{}, err
	}
	stored, digest, err := l.read(ctx, l.event(e.Seq))
	if err != nil {
		return ledger.Event{}, fmt.Errorf("written, but not read back: %w", err)
	}
	if digest != digestOf(body) {
		return ledger.Event{}, errAgain
	}
	l.move(ctx, data)
	return stored, nil
}

// write stores an event if its flag is the only one and nobody has written that event.
func (l *Ledger) write(ctx context.Context, seq uint64, flag string, body []byte, standing map[string]time.Time) error {
	if err := l.alone(ctx, seq, flag, standing); err != nil {
		return err
	}
	if _, err := l.client.Head(ctx, l.repository, l.event(seq)); err == nil {
		return errAgain
	} else if !missing(err) {
		return err
	}
	_, err := l.client.Put(ctx, l.repository, l.event(seq), registry.OCIManifest, body)
	return err
}

func digestOf(body []byte) release.Digest {
	return release.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(body)))
}

// move points the hint to the event with these data. The hint is only a hint: when it cannot be moved, the
// next reader needs more requests and nothing is lost.
func (l *Ledger) move(ctx context.Context, data []byte) {
	_, _ = l.put(ctx, l.hint(), eventType, data)
}

// alone makes sure that no other writer has a flag for the event numbered seq.
func (l *Ledger) alone(ctx context.Context, seq uint64, own string, standing map[string]time.Time) error {
	tags, err := l.client.Tags(ctx, l.repository)
	if err != nil && !missing(err) {
		return err
	}
	shown := false
	for _, tag := range tags {
		switch {
		case tag == own:
			shown = true
		case strings.HasPrefix(tag, l.flags(seq)):
			if up, err := l.up(ctx, tag, standing); err != nil {
				return err
			} else if up {
				return errAgain
			}
		}
	}
	if !shown {
		return fault.Errorf(fault.Failed, "list the tags of %s: the registry does not show what was just written", l.repository).
			WithHint("a ledger needs a registry without a cache in front of it")
	}
	return nil
}

// up says whether a foreign flag still stands. One that has stood for too long, by our own clock, belongs to
// a writer that died: we lower it.
func (l *Ledger) up(ctx context.Context, tag string, standing map[string]time.Time) (bool, error) {
	m, err := l.client.Get(ctx, l.repository, tag)
	if missing(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	data, err := payload(m, flagType)
	if err != nil || string(data) == lowered {
		return false, err
	}
	since, seen := standing[tag]
	if !seen {
		standing[tag] = time.Now()
		return true, nil
	}
	if time.Since(since) < l.dead {
		return true, nil
	}
	l.lower(ctx, tag, m.Digest) // where that is not possible, the writer is dead all the same
	return false, nil
}

// lowered is what a flag holds that is down but cannot be deleted.
const lowered = `"lowered"`

// lower takes a flag down as well as it can. Registries differ in what they delete: the tag, only
// the digest (some keep the tag even then), or nothing; what remains is overwritten.
func (l *Ledger) lower(ctx context.Context, tag string, digest release.Digest) {
	for _, name := range []string{tag, string(digest)} {
		if name == "" {
			continue
		}
		if supported, err := l.client.Delete(ctx, l.repository, name); err != nil || !supported {
			continue
		}
		if _, err := l.client.Head(ctx, l.repository, tag); missing(err) {
			return
		}
	}
	_, _ = l.put(ctx, tag, flagType, []byte(lowered))
}

// beat is what a run leaves at each beat: its intent, and a text that is new each time.
type beat struct {
	Seq  uint64 `json:"seq"`
	Text string `json:"text"`
}

func (l *Ledger) beat() string { return l.hint() + ".b" }

// Beat overwrites the last beat.
func (l *Ledger) Beat(ctx context.Context, seq uint64) error {
	data, err := json.Marshal(beat{seq, rand.Text()})
	if err == nil {
		_, err = l.put(ctx, l.beat(), beatType, data)
	}
	return err
}

// Beating looks at the last beat until it changes.
func (l *Ledger) Beating(ctx context.Context, seq uint64) (bool, error) {
	var first beat
	for begin := time.Now(); ; {
		heard, err := l.heard(ctx)
		if err != nil {
			return false, err
		}
		switch {
		case heard.Seq > seq:
			return false, nil // another run has taken over
		case heard.Seq == seq && first.Text != "" && heard.Text != first.Text:
			return true, nil
		case time.Since(begin) > l.silence:
			return false, nil
		case heard.Seq == seq && first.Text == "":
			first = heard
		}
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-time.After(l.silence / 20):
		}
	}
}

// heard is the last beat, or the zero one.
func (l *Ledger) heard(ctx context.Context) (beat, error) {
	m, err := l.client.Get(ctx, l.repository, l.beat())
	if missing(err) {
		return beat{}, nil
	}
	if err != nil {
		return beat{}, err
	}
	var b beat
	data, err := payload(m, beatType)
	if err == nil {
		err = json.Unmarshal(data, &b)
	}
	if err != nil {
		return beat{}, fmt.Errorf("read %s:%s: %w", l.repository, l.beat(), err)
	}
	return b, nil
}

// Pin gives r, and each of its platforms, a tag of its own, in the repository where it is.
func (l *Ledger) Pin(ctx context.Context, seq uint64, r release.Release) error {
	if err := l.client.Tag(ctx, r, l.pin(seq)); err != nil {
		return fmt.Errorf("pin %s: %w", r, err)
	}
	platforms, err := l.client.Platforms(ctx, r)
	if err != nil {
		return fmt.Errorf("pin %s: %w", r, err)
	}
	for name, digest := range platforms {
		child := release.Release{Repository: r.Repository, Digest: digest}
		if err := l.client.Tag(ctx, child, l.pin(seq)+"."+name); err != nil {
			return fmt.Errorf("pin %s for %s: %w", r, name, err)
		}
	}
	return nil
}
