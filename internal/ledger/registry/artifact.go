package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/release"
)

const (
	eventType = "application/vnd.backstep.event.v1"
	beatType  = "application/vnd.backstep.beat.v1"
	flagType  = "application/vnd.backstep.flag.v1"

	eventKey     = "dev.backstep.event"     // annotation: an event as JSON
	skippedKey   = "dev.backstep.skipped"   // annotation: why a number carries no event, see seal and fill
	beforeKey    = "dev.backstep.before"    // annotation: the events before this one, newest first, see ancestors
	signatureKey = "dev.backstep.signature" // annotation: kept for a signature of the event as it is written, and not looked at yet
	beatKey      = "dev.backstep.beat"
	flagKey      = "dev.backstep.flag"

	eventLimit    = 64 << 10 // bytes of JSON
	evidenceLimit = 1 << 10  // bytes of evidence, when an event is over eventLimit
	reasonLimit   = 200      // bytes of the reason of a quarantine, likewise

	ancestors    = 16 // events before it that an event names
	ancestorName = 16 // digits of the digest of each
)

// The two ways in which a number is skipped.
const (
	sealed = "sealed" // by the one to whom the number belongs: it never carries an event
	filled = "filled" // by another: its owner was silent, and may still write an event that nobody will believe
)

// pack is the manifest of an artifact whose data are annotations, so that one PUT stores all of it. Its configuration and its
// one layer are the empty blob of the OCI specification, which a repository needs only once.
func pack(artifactType string, annotations map[string]string) []byte {
	body, err := json.Marshal(ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType,
		Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{ocispec.DescriptorEmptyJSON},
		Annotations: annotations})
	if err != nil {
		panic(err) // strings and numbers only
	}
	return body
}

// put stores a manifest under a tag. The empty blob is uploaded when the registry refuses a manifest for what may be
// the lack of it.
func (l *Ledger) put(ctx context.Context, tag string, body []byte) error {
	_, err := l.client.Put(ctx, l.repository, tag, registry.OCIManifest, body)
	if !errors.Is(err, registry.ErrRefused) && !missing(err) || l.hasEmpty.Load() {
		return err
	}
	if _, unstored := l.client.PutBlob(ctx, l.repository, ocispec.DescriptorEmptyJSON.Data); unstored != nil {
		return errors.Join(err, unstored)
	}
	l.hasEmpty.Store(true)
	_, err = l.client.Put(ctx, l.repository, tag, registry.OCIManifest, body)
	return err
}

// record is what is found under the name of an event. The zero record is a number that nobody has taken.
type record struct {
	there   bool
	event   ledger.Event // also of a skipped number
	skipped string       // sealed, filled, or "" for a true event
	garbage error        // not nil: it is not ours, and counts as skipped
	digest  release.Digest
	before  []string
	body    []byte
}

func (r record) isEvent() bool { return r.there && r.skipped == "" && r.garbage == nil }

// read is what a tag holds, the hint or an event; an error means that the registry could not say.
func (l *Ledger) read(ctx context.Context, tag string) (record, error) {
	m, err := l.client.Get(ctx, l.repository, tag)
	if missing(err) {
		return record{}, nil
	}
	if err != nil {
		return record{}, err
	}
	r := l.parse(m)
	if r.garbage == nil && tag != l.hint() && tag != l.name(r.event.Seq) || tag == l.hint() && r.skipped != "" {
		r.garbage = fmt.Errorf("it holds event %d of %q in %q", r.event.Seq, r.event.Service, r.event.Environment)
	}
	if r.garbage != nil {
		r.garbage = fmt.Errorf("read %s:%s: %w", l.repository, tag, r.garbage)
	}
	return r, nil
}

// named is the event with this digest, whatever tags it has; the zero record when there is none, or nothing of ours.
func (l *Ledger) named(ctx context.Context, d release.Digest) (record, error) {
	if _, err := release.ParseDigest(string(d)); err != nil {
		return record{}, nil
	}
	m, err := l.client.Get(ctx, l.repository, string(d))
	if missing(err) {
		return record{}, nil
	}
	if err != nil {
		return record{}, err
	}
	if r := l.parse(m); r.isEvent() {
		return r, nil
	}
	return record{}, nil
}

// parse reads a manifest and checks all that can be seen of it alone.
func (l *Ledger) parse(m registry.Manifest) record {
	r := record{there: true, digest: m.Digest, body: m.Body}
	annotations, err := unpack(m, eventType)
	if err == nil {
		err = json.Unmarshal([]byte(annotations[eventKey]), &r.event)
	}
	r.skipped, r.before = annotations[skippedKey], strings.Fields(annotations[beforeKey])
	if err == nil && (r.event.Service != l.service || r.event.Environment != l.env) {
		err = fmt.Errorf("it holds event %d of %q in %q", r.event.Seq, r.event.Service, r.event.Environment)
	}
	if err == nil && (r.event.Seq == 0 || r.event.Seq > lastSeq) {
		err = fmt.Errorf("it holds event %d", r.event.Seq)
	}
	if err == nil {
		err = r.event.Check()
	}
	r.garbage = err
	return r
}

// unpack is the annotations of an artifact of ours. What its descriptors hold themselves has to be what they name.
func unpack(m registry.Manifest, artifactType string) (map[string]string, error) {
	var parsed ocispec.Manifest
	if err := json.Unmarshal(m.Body, &parsed); err != nil {
		return nil, err
	}
	if parsed.ArtifactType != artifactType {
		return nil, fmt.Errorf("it is no %s", artifactType)
	}
	for _, d := range append(parsed.Layers, parsed.Config) {
		if d.Data != nil && string(registry.DigestOf(d.Data)) != string(d.Digest) {
			return nil, fmt.Errorf("what it holds is not %s, as it says", d.Digest)
		}
	}
	return parsed.Annotations, nil
}

// encode is the manifest of an event, which is made small enough if it can be, and the event as it will be read.
func (l *Ledger) encode(e ledger.Event, before []string) (*event, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	configurations, err := json.Marshal(e.State.Configurations)
	if err != nil {
		return nil, err
	}
	limit := eventLimit + len(configurations) // whoever writes them bounds them
	for shorten := range shortenings(&e) {
		if len(data) <= limit {
			break
		}
		shorten()
		if data, err = json.Marshal(e); err != nil {
			return nil, err
		}
	}
	if len(data) > limit && !onTheWayBack(e.Kind) {
		return nil, fault.Errorf(fault.Failed, "write %s: the event has %d bytes, and %d are the limit", l.doing(e.Seq), len(data), limit).
			WithHint("lift digests that need no quarantine any more")
	}
	encoded := &event{before: before}
	encoded.body = pack(eventType, map[string]string{eventKey: string(data), beforeKey: strings.Join(before, " ")})
	encoded.digest = registry.DigestOf(encoded.body)
	err = json.Unmarshal(data, &encoded.Event)
	encoded.Digest = encoded.digest
	return encoded, err
}

// onTheWayBack says whether going back may depend on this event: size is no reason to refuse it.
func onTheWayBack(k ledger.Kind) bool {
	return strings.HasPrefix(string(k), "rollback.") || strings.HasPrefix(string(k), "verify.") || k == ledger.Skipped
}

// shortenings are the steps by which an event gets smaller, in the order in which what is lost is missed. A release stays
// in quarantine; only why can be read in the events before.
func shortenings(e *ledger.Event) func(yield func(func()) bool) {
	return func(yield func(func()) bool) {
		if !yield(func() { e.Evidence = cut(e.Evidence, evidenceLimit) }) {
			return
		}
		e.State.Quarantined = append([]ledger.Quarantine(nil), e.State.Quarantined...)
		all := e.State.Quarantined
		if !yield(func() {
			for i := range all[:max(0, len(all)-1)] { // the newest is the last
				all[i].Reason = cut(all[i].Reason, reasonLimit)
			}
		}) {
			return
		}
		for i := range all {
			if !yield(func() { all[i].Reason = "" }) {
				return
			}
		}
	}
}

// cut is at most limit bytes of s, and says that something is missing.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit-len("…")], "") + "…"
}
