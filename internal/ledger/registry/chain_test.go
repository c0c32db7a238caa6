package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/registry/registrytest"
	"github.com/backstep/backstep/internal/release"
)

// findings is what a handle reports.
type findings struct {
	mu  sync.Mutex
	all []string
}

func (f *findings) of(l *Ledger) *Ledger {
	l.Report = func(err error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.all = append(f.all, err.Error())
	}
	return l
}

// has says whether something was reported of a tag.
func (f *findings) has(tag string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.all, func(s string) bool { return strings.Contains(s, ":"+tag+" ") || strings.Contains(s, ":"+tag+":") })
}

// forged is the manifest of an event as somebody may write it who knows what ours look like.
func forged(t *testing.T, base ledger.Event, before []string, change func(*ledger.Event)) []byte {
	t.Helper()
	e := base
	e.Kind, e.Reason = ledger.Verified, "forged"
	change(&e)
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return pack(eventType, map[string]string{eventKey: string(data), beforeKey: strings.Join(before, " ")})
}

var evil = release.Release{Digest: release.Digest("sha256:" + strings.Repeat("6", 64)), Repository: "evil.example/x", Version: "6.6.6"}

// Whatever somebody with push rights puts under our names who does not know the digest of the last event, or tells of another ledger:
// it is named, never followed, and the ledger goes on from the last event that holds.
func TestForgedEventsAreNeverFollowed(t *testing.T) {
	const jump = 99_999_999
	zero := release.Digest("sha256:" + strings.Repeat("0", 64))
	live := func(e *ledger.Event) {
		e.State.Recent = []ledger.Entry{{Release: evil, ID: "6", Seq: 1, Good: true}}
		e.State.Live, e.State.LastGood = &e.State.Recent[0], &e.State.Recent[0]
	}
	next := func(change func(*ledger.Event)) func(t *testing.T, l *Ledger, last ledger.Event) string {
		return func(t *testing.T, l *Ledger, last ledger.Event) string {
			l.store(t, l.name(last.Seq+1), forged(t, last, []string{ancestor(last.Digest)}, func(e *ledger.Event) {
				e.Seq, e.Previous = last.Seq+1, last.Digest
				live(e)
				change(e)
			}))
			return l.name(last.Seq + 1)
		}
	}
	hinted := func(tagged bool, change func(e *ledger.Event)) func(t *testing.T, l *Ledger, last ledger.Event) string {
		return func(t *testing.T, l *Ledger, last ledger.Event) string {
			body := forged(t, last, nil, func(e *ledger.Event) { live(e); change(e) })
			var e ledger.Event
			annotations, err := unpack(registry.Manifest{Body: body}, eventType)
			if err == nil {
				err = json.Unmarshal([]byte(annotations[eventKey]), &e)
			}
			if err != nil {
				t.Fatal(err)
			}
			l.store(t, l.hint(), body)
			if tagged {
				l.store(t, l.name(e.Seq), body)
			}
			return l.name(e.Seq)
		}
	}
	for name, put := range map[string]func(t *testing.T, l *Ledger, last ledger.Event) string{
		"previous of nothing": func(t *testing.T, l *Ledger, last ledger.Event) string {
			l.store(t, l.name(last.Seq+1), forged(t, last, nil, func(e *ledger.Event) { e.Seq, e.Previous = last.Seq+1, zero; live(e) }))
			return l.name(last.Seq + 1)
		},
		"no previous": func(t *testing.T, l *Ledger, last ledger.Event) string {
			l.store(t, l.name(last.Seq+1), forged(t, last, nil, func(e *ledger.Event) { e.Seq, e.Previous = last.Seq+1, ""; live(e) }))
			return l.name(last.Seq + 1)
		},
		"of another service":      next(func(e *ledger.Event) { e.Service = "web" }),
		"of another environment":  next(func(e *ledger.Event) { e.Environment = "staging" }),
		"of another number":       next(func(e *ledger.Event) { e.Seq += 5 }),
		"a digest of no shape":    next(func(e *ledger.Event) { e.State.Recent[0].Release.Digest = "sha256:6" }),
		"a version of PromQL":     next(func(e *ledger.Event) { e.State.Recent[0].Release.Version = `1"} * 0) #` }),
		"good out of nowhere":     next(func(e *ledger.Event) { e.State.LastGood = &ledger.Entry{Release: release.Release{Digest: zero}} }),
		"of the future":           next(func(e *ledger.Event) { e.State.Recent[0].Seq = jump }),
		"the hint jumps":          hinted(false, func(e *ledger.Event) { e.Seq, e.Previous = jump, zero }),
		"the hint and an event":   hinted(true, func(e *ledger.Event) { e.Seq, e.Previous = jump, zero }),
		"a jump without previous": hinted(true, func(e *ledger.Event) { e.Seq, e.Previous = 500, "" }),
		"the newest rewritten":    hinted(true, func(*ledger.Event) {}),
		"all of it rewritten":     hinted(true, func(e *ledger.Event) { e.Previous = zero }),
	} {
		t.Run(name, func(t *testing.T) {
			l, _ := written(t, 0)
			l.grace = shortGrace
			for _, reason := range []string{"one", "two", "three"} {
				commitNoted(t, l, reason)
			}
			l.Wait()
			last, err := l.Newest(t.Context())
			if err != nil || last.Seq != 3 || last.Digest == "" {
				t.Fatalf("event %d %q, %v", last.Seq, last.Digest, err)
			}
			tag := put(t, l, last)
			var found findings
			reader := found.of(l.another())
			if _, err := reader.Newest(t.Context()); err != nil {
				t.Fatal(err)
			}
			e, err := reader.After(t.Context(), last.Seq, last.Digest)
			if err != nil || e.State.Live != nil || len(e.State.Recent) != 3 {
				t.Errorf("after what the target has seen: event %d, live %v, %v; want the state of event 3", e.Seq, e.State.Live, err)
			}
			if !found.has(tag) && name != "all of it rewritten" {
				t.Errorf("%s is not named: %q", tag, found.all)
			}
			if e := commitNoted(t, reader, "four"); e.Seq > 9 {
				t.Errorf("the next event is %d", e.Seq)
			}
			reader.Wait()
			wantCounted(t, l, "one", "two", "three", "four")
		})
	}
}

// Without a target nobody knows the last digest; that the hint jumps is seen all the same before anything is written.
func TestAHintThatJumpsIsNotWrittenAfter(t *testing.T) {
	for _, tagged := range []bool{false, true} {
		l, _ := written(t, 3)
		body := packed(99_999_999, "")
		l.store(t, l.hint(), body)
		if tagged {
			l.store(t, l.name(99_999_999), body)
		}
		if e := commit1(t, l.another(), "on"); e.Seq != 4 {
			t.Errorf("tagged %v: event %d, want 4", tagged, e.Seq)
		}
	}
}

// What a target has seen is read by its digest. When it is gone, that is an error, and nothing is followed.
func TestALedgerThatWasReplaced(t *testing.T) {
	l, client := written(t, 3)
	last, err := l.Newest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	body := forged(t, last, nil, func(*ledger.Event) {})
	l.store(t, l.hint(), body)
	l.store(t, l.name(3), body)
	if _, err := client.Delete(t.Context(), l.repository, string(last.Digest)); err != nil {
		t.Fatal(err)
	}
	other := l.another()
	e, err := other.After(t.Context(), 3, last.Digest)
	want := fmt.Sprintf("%s: the ledger was rewritten: the target has seen event 3 with the digest %s, and that is gone", l.doing(3), last.Digest)
	if !errors.Is(err, ledger.ErrForged) || err.Error() != want {
		t.Errorf("event %d, %v\nwant %s", e.Seq, err, want)
	}
	if hint := fault.HintOf(err); !strings.HasSuffix(hint, "If it was a clean-up: whatever removes tags there has to keep those that begin with bs.: docs/registries.md") {
		t.Errorf("hint %q", hint)
	}
}

// A PUT that is applied late, over an event that counts, is noticed by the chain, and the event has its tag again after the next commit.
func TestALatePUTOverAnEventIsRepaired(t *testing.T) {
	for name, body := range map[string]func(l *Ledger, over ledger.Event) []byte{
		"a skipped number": func(l *Ledger, over ledger.Event) []byte {
			return pack(eventType, map[string]string{skippedKey: filled, eventKey: fmt.Sprintf(`{"seq":%d,"service":"shop","environment":"production","kind":"skipped","previous":%q,"state":{}}`, over.Seq, over.Previous)})
		},
		"another event": func(l *Ledger, over ledger.Event) []byte { return packed(over.Seq, over.Previous) },
		"an image":      func(*Ledger, ledger.Event) []byte { return []byte(`{"schemaVersion":2,"layers":[]}`) },
	} {
		for _, newest := range []bool{false, true} {
			s := registrytest.NewSwitch(t, registrytest.InProcess(t))
			l := New(registry.New(), s.Host()+"/acme/shop", "shop", "production")
			l.grace = shortGrace
			commitNoted(t, l, "first")
			l.Wait()
			first, err := registry.New().Get(t.Context(), l.repository, l.hint())
			if err != nil {
				t.Fatal(err)
			}
			over := commitNoted(t, l, "second")
			last := over
			if !newest {
				last = commitNoted(t, l, "third")
			}
			l.Wait()
			l.store(t, l.hint(), first.Body) // as it stays behind an intent
			late := s.LatePUT(func(tag string) bool { return tag == l.name(over.Seq) })
			impatient := l.through(nil)
			impatient.client = registry.New()
			go impatient.client.Put(registry.Once(t.Context()), l.repository, l.name(over.Seq), registry.OCIManifest, body(l, over))
			<-late.Held
			late.Apply()
			var found findings
			reader := found.of(l.another())
			if e, err := reader.After(t.Context(), last.Seq, last.Digest); err != nil || e.Seq != last.Seq || e.Digest != last.Digest {
				t.Errorf("%s, newest %v: event %d %q, %v; want %d", name, newest, e.Seq, e.Reason, err, last.Seq)
			}
			next := commitNoted(t, reader, "next")
			reader.Wait()
			if next.Previous != last.Digest {
				t.Errorf("%s, newest %v: the next event follows %s, want %s", name, newest, next.Previous, last.Digest)
			}
			if e, err := l.At(t.Context(), over.Seq); err != nil || e.Digest != over.Digest {
				t.Errorf("%s, newest %v: event %d is %q, %v; want what was written", name, newest, over.Seq, e.Reason, err)
			}
			if !found.has(l.name(over.Seq)) {
				t.Errorf("%s, newest %v: nothing is reported: %q", name, newest, found.all)
			}
			wantVoid(t, l, over.Seq, false)
		}
	}
}

// Being held to what a target has seen costs no request, and saves one later.
func TestAfterCostsNoRequest(t *testing.T) {
	l, _ := written(t, 5)
	last, err := l.Newest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, seen := range []ledger.Event{last, {Seq: 4, Digest: last.Previous}} {
		var c counting
		reader := l.through(c.RoundTrip)
		for i, want := range []int64{2, 2, 3} {
			if i == 1 {
				_, err = reader.After(t.Context(), seen.Seq, seen.Digest)
			} else {
				_, err = reader.Newest(t.Context())
			}
			if err != nil || c.n.Load() != want {
				t.Errorf("seen %d, step %d: %d requests, %v; want %d", seen.Seq, i, c.n.Load(), err, want)
			}
		}
	}
}

// What an inline descriptor holds has to be what it names, and a signature that is not known yet changes nothing.
func TestInlineDataAndSignature(t *testing.T) {
	l, _ := written(t, 1)
	first, err := l.Newest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	annotations := map[string]string{eventKey: fmt.Sprintf(`{"seq":2,"service":"shop","environment":"production","kind":"freeze","previous":%q,"state":{}}`, first.Digest), signatureKey: "x"}
	good := pack(eventType, annotations)
	l.store(t, l.name(2), good)
	wantNewest(t, l.another(), 2)
	bad := strings.Replace(string(good), `"data":"e30="`, `"data":"e34="`, 1)
	if r := l.parse(registry.Manifest{Body: []byte(bad)}); bad == string(good) || r.garbage == nil || !strings.Contains(r.garbage.Error(), "what it holds is not sha256:") {
		t.Errorf("data of another digest: %v", r.garbage)
	}
}

// FuzzEvent: whatever stands in the place of an event, reading it ends, and what is believed has the shape of an event.
func FuzzEvent(f *testing.F) {
	l := New(registry.New(), "127.0.0.1:1/acme/shop", "shop", "production")
	f.Add([]byte(`{"schemaVersion":2,"layers":[]}`))
	f.Add(packed(7, "sha256:6"))
	f.Add(packed(7, ""))
	f.Fuzz(func(t *testing.T, body []byte) {
		r := l.parse(registry.Manifest{Body: body, Digest: registry.DigestOf(body)})
		if r.isEvent() && (r.event.Service != "shop" || r.event.Environment != "production" || r.event.Check() != nil) {
			t.Errorf("believed: %+v", r.event)
		}
	})
}
