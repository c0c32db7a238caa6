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

	eventKey   = "dev.backstep.event"   // annotation: an event as JSON
	skippedKey = "dev.backstep.skipped" // annotation: why a number carries no event, see seal and fill
	beforeKey  = "dev.backstep.before"  // annotation: the events before this one, newest first, see ancestors
	beatKey    = "dev.backstep.beat"
	flagKey    = "dev.backstep.flag"

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
	r := record{there: true, digest: m.Digest}
	annotations, err := unpack(m, eventType)
	if err == nil {
		err = json.Unmarshal([]byte(annotations[eventKey]), &r.event)
	}
	r.skipped, r.before = annotations[skippedKey], strings.Fields(annotations[beforeKey])
	if err == nil && (r.event.Service != l.service || r.event.Environment != l.env || tag != l.hint() && tag != l.name(r.event.Seq) || tag == l.hint() && r.skipped != "") {
		err = fmt.Errorf("it holds event %d of %q in %q", r.event.Seq, r.event.Service, r.event.Environment)
	}
	if err != nil {
		r.garbage = fmt.Errorf("read %s:%s: %w", l.repository, tag, err)
	}
	return r, nil
}

// unpack is the annotations of an artifact of ours.
func unpack(m registry.Manifest, artifactType string) (map[string]string, error) {
	var parsed ocispec.Manifest
	if err := json.Unmarshal(m.Body, &parsed); err != nil {
		return nil, err
	}
	if parsed.ArtifactType != artifactType {
		return nil, fmt.Errorf("it is no %s", artifactType)
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
	return encoded, json.Unmarshal(data, &encoded.Event)
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
