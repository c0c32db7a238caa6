package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/ledger/ledgertest"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/registry/registrytest"
	"github.com/backstep/backstep/internal/release"
)

// conform runs the suite on the registry at upstream, through host.
func conform(t *testing.T, host, upstream string) {
	t.Helper()
	client := registry.New()
	image, parts := index(t, client, upstream+"/acme/shop")
	image.Repository = host + "/acme/shop"
	var mu sync.Mutex
	var handles []*Ledger
	defer func() {
		for _, l := range handles {
			l.Wait()
		}
	}()
	ledgertest.Run(t, ledgertest.Subject{Image: image, Parts: parts,
		Open: func() ledger.Ledger {
			l := New(registry.New(), host+"/acme/shop", "shop", "production")
			l.grace, l.silence = 400*time.Millisecond, 500*time.Millisecond
			mu.Lock()
			defer mu.Unlock()
			handles = append(handles, l)
			return l
		},
		Pinned: func(seq uint64) []release.Digest {
			var all []release.Digest
			tags, err := client.Tags(t.Context(), upstream+"/acme/shop")
			if err != nil {
				t.Fatal(err)
			}
			for _, tag := range tags {
				if strings.HasPrefix(tag, fmt.Sprintf("bs.shop.production.k.%08d", seq)) {
					d, err := client.Head(t.Context(), upstream+"/acme/shop", tag)
					if err != nil {
						t.Fatal(err)
					}
					all = append(all, d)
				}
			}
			return all
		}})
}

// index stores an index of two platforms, and returns it with all digests in it.
func index(t *testing.T, client *registry.Client, repository string) (release.Release, []release.Digest) {
	t.Helper()
	if _, err := client.PutBlob(t.Context(), repository, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	var parts []release.Digest
	var children []string
	for _, arch := range []string{"amd64", "arm64"} {
		body := pack("test", map[string]string{"arch": arch})
		d, err := client.Put(t.Context(), repository, string(registry.DigestOf(body)), registry.OCIManifest, body)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, d)
		children = append(children, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"platform":{"os":"linux","architecture":%q}}`, registry.OCIManifest, d, len(body), arch))
	}
	body := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, ocispec.MediaTypeImageIndex, strings.Join(children, ","))
	d, err := client.Put(t.Context(), repository, "1.0.0", ocispec.MediaTypeImageIndex, body)
	if err != nil {
		t.Fatal(err)
	}
	return release.Release{Repository: repository, Digest: d}, append(parts, d)
}

func faulty(t *testing.T, upstream string) {
	conform(t, registrytest.Faulty(t, upstream, 8), upstream)
}

func healthy(t *testing.T, upstream string) { conform(t, upstream, upstream) }

func TestInProcess(t *testing.T)             { healthy(t, registrytest.InProcess(t)) }
func TestInProcessFaulty(t *testing.T)       { faulty(t, registrytest.InProcess(t)) }
func TestE2EDebian(t *testing.T)             { healthy(t, registrytest.Debian(t)) }
func TestE2EDistribution(t *testing.T)       { healthy(t, registrytest.Distribution(t)) }
func TestE2EDebianFaulty(t *testing.T)       { faulty(t, registrytest.Debian(t)) }
func TestE2EDistributionFaulty(t *testing.T) { faulty(t, registrytest.Distribution(t)) }

func frozen(reason string) func(ledger.Event) (ledger.Event, error) {
	return func(e ledger.Event) (ledger.Event, error) {
		return ledger.Event{Kind: ledger.Frozen, At: time.Unix(1, 0).UTC(), Reason: reason, State: e.State}, nil
	}
}

// written is a ledger with n events.
func written(t *testing.T, n int) (*Ledger, *registry.Client) {
	t.Helper()
	client := registry.New()
	l := New(client, registrytest.InProcess(t)+"/acme/shop", "shop", "production")
	for range n {
		commit1(t, l, "x")
	}
	l.Wait()
	return l, client
}

func commit1(t *testing.T, l *Ledger, reason string) ledger.Event {
	t.Helper()
	e, err := l.Commit(t.Context(), frozen(reason))
	if err != nil || e.Reason != reason {
		t.Fatalf("commit %q: event %d %q, %v", reason, e.Seq, e.Reason, err)
	}
	return e
}

// another is a handle as another process would have it.
func (l *Ledger) another() *Ledger {
	other := New(registry.New(), l.repository, l.service, l.env)
	other.grace, other.silence = l.grace, l.silence
	return other
}

func wantNewest(t *testing.T, l *Ledger, seq uint64) {
	t.Helper()
	if e, err := l.Newest(t.Context()); err != nil || e.Seq != seq {
		t.Errorf("newest: event %d, %v; want %d", e.Seq, err, seq)
	}
}

func (l *Ledger) store(t testing.TB, tag string, body []byte) {
	t.Helper()
	if err := l.put(t.Context(), tag, body); err != nil {
		t.Fatal(err)
	}
}

func packed(seq uint64, previous release.Digest) []byte {
	return pack(eventType, map[string]string{eventKey: fmt.Sprintf(`{"seq":%d,"service":"shop","environment":"production","kind":"freeze","previous":%q,"state":{}}`, seq, previous)})
}

func TestHintLostTornOrStale(t *testing.T) {
	l, client := written(t, 5)
	third, err := client.Get(t.Context(), l.repository, l.name(3))
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range [][]byte{third.Body, []byte(`{"schemaVersion":2,"layers":[]}`)} { // stale, torn
		l.store(t, l.hint(), body)
		wantNewest(t, l.another(), 5)
	}
	if _, err := client.Delete(t.Context(), l.repository, l.hint()); err != nil {
		t.Fatal(err)
	}
	wantNewest(t, l.another(), 5)
	if e := commit1(t, l.another(), "on"); e.Seq != 6 {
		t.Errorf("commit without a hint: event %d", e.Seq)
	}
}

// Beats leave at most two manifests for each of eight runs behind, and where tags are fixed that is said.
func TestBeatsLeaveNoLitter(t *testing.T) {
	l, client := written(t, 0)
	seen := map[release.Digest]bool{}
	for n := range uint64(100) {
		if err := l.Beat(t.Context(), n%23); err != nil {
			t.Fatal(err)
		}
		d, err := client.Head(t.Context(), l.repository, l.beat())
		if err != nil {
			t.Fatal(err)
		}
		seen[d] = true
	}
	if len(seen) > 2*beatSlots {
		t.Errorf("%d manifests, want at most %d", len(seen), 2*beatSlots)
	}
}

// counting counts requests about manifests, blobs and tags.
type counting struct{ n atomic.Int64 }

func (c *counting) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Path != "/v2/" {
		c.n.Add(1)
	}
	return http.DefaultTransport.RoundTrip(r)
}

func TestReadingTakesTwoRequests(t *testing.T) {
	for _, events := range []int{1, 10, 40} {
		l, _ := written(t, events)
		var c counting
		wantNewest(t, New(registry.New(registry.WithTransport(&c)), l.repository, l.service, l.env), uint64(events))
		if got := c.n.Load(); got != 2 {
			t.Errorf("reading the newest of %d events took %d requests, want 2", events, got)
		}
	}
}

// Writing takes as many requests however many tags there are: what has to be waited for, and all with what is done in the
// background; the handshakes are not counted.
func TestRequestsOfACommit(t *testing.T) {
	for _, tags := range []int{10, 10_000} {
		s := registrytest.NewSwitch(t, registrytest.InProcess(t))
		s.Pages(100)
		var c counting
		l := New(registry.New(registry.WithTransport(&c)), s.Host()+"/acme/shop", "shop", "production")
		direct := registry.New()
		for n := range tags {
			if _, err := direct.Put(t.Context(), l.repository, fmt.Sprintf("v%d", n), registry.OCIManifest, []byte("{}")); err != nil {
				t.Fatal(err)
			}
		}
		commit1(t, l, "before") // so that there is a hint
		l.Wait()
		l = New(registry.New(registry.WithTransport(&c)), l.repository, l.service, l.env)
		for _, want := range []struct {
			name          string
			waited, total int64
		}{{"first commit of a handle", 8, 11}, {"second commit", 6, 9}} {
			c.n.Store(0)
			ctx, cancel := context.WithCancel(t.Context())
			if _, err := l.Commit(ctx, frozen("x")); err != nil {
				t.Fatal(err)
			}
			cancel()
			l.Wait()
			total := c.n.Load()
			t.Logf("%d tags, %s: %d requests, 3 of them in the background", tags, want.name, total)
			if total > want.total {
				t.Errorf("%d tags, %s: %d requests, want at most %d", tags, want.name, total, want.total)
			}
		}
	}
}

func TestARegistryThatCannotBeReadIsNoEmptyHistory(t *testing.T) {
	down := New(registry.New(registry.WithTransport(refusing{})), "127.0.0.1:1/acme/shop", "shop", "production")
	if e, err := down.Newest(t.Context()); err == nil {
		t.Errorf("event %d and no error", e.Seq)
	}
}

type refusing struct{}

func (refusing) RoundTrip(*http.Request) (*http.Response, error) { return nil, http.ErrServerClosed }

// What is too large is shortened, and only what does not lie on the way back is refused.
func TestTooLarge(t *testing.T) {
	l := New(registry.New(), "127.0.0.1:1/acme/shop", "shop", "production")
	bad := ledger.Quarantine{Reason: strings.Repeat("ü", 600)}
	event := func(kind ledger.Kind, entries int, evidence string) ledger.Event {
		e := ledger.Event{Seq: 7, Kind: kind, Evidence: evidence}
		for range entries {
			e.State.Quarantined = append(e.State.Quarantined, bad)
		}
		return e
	}
	for _, c := range []struct {
		e         ledger.Event
		oldest    int // bytes of the reason of the oldest entry
		newest    int
		oversized bool
	}{
		{event(ledger.Frozen, 10, "e"), 1200, 1200, false},
		{event(ledger.Verified, 10, strings.Repeat("e", 70_000)), 1200, 1200, false},
		{event(ledger.Frozen, 100, "e"), 199, 1200, false},
		{event(ledger.Frozen, 250, "e"), 0, 1200, false},
		{event(ledger.RollbackStarted, 1000, "e"), 0, 0, true},
	} {
		encoded, err := l.encode(c.e, nil)
		if err != nil {
			t.Errorf("%s with %d entries: %v", c.e.Kind, len(c.e.State.Quarantined), err)
			continue
		}
		all := encoded.State.Quarantined
		if got, want := len(all[0].Reason), c.oldest; got != want {
			t.Errorf("%s with %d entries: oldest reason has %d bytes, want %d", c.e.Kind, len(all), got, want)
		}
		if got, want := len(all[len(all)-1].Reason), c.newest; got != want {
			t.Errorf("%s with %d entries: newest reason has %d bytes, want %d", c.e.Kind, len(all), got, want)
		}
		if data, _ := json.Marshal(encoded.Event); (len(data) > eventLimit) != c.oversized {
			t.Errorf("%s with %d entries: %d bytes", c.e.Kind, len(all), len(data))
		}
		if !bytes.Contains(encoded.body, []byte(eventKey)) || c.e.State.Quarantined[0].Reason != bad.Reason {
			t.Errorf("%s: not packed, or the event of the caller was changed", c.e.Kind)
		}
	}
	if _, err := l.encode(event(ledger.Frozen, 1000, ""), nil); err == nil || !strings.Contains(err.Error(), "the event has") {
		t.Errorf("a freeze of 1000 entries: %v, want a refusal", err)
	}
}

// BenchmarkRead prints how many requests it takes to read the newest of 10 and of 10 000 events.
func BenchmarkRead(b *testing.B) {
	host := registrytest.InProcess(b)
	client := registry.New()
	for _, events := range []int{10, 10_000} {
		l := New(client, fmt.Sprintf("%s/acme/%d", host, events), "shop", "production")
		for seq := uint64(1); seq <= uint64(events); seq++ {
			l.store(b, l.name(seq), packed(seq, ""))
		}
		l.store(b, l.hint(), packed(uint64(events), ""))
		b.Run(fmt.Sprint(events), func(b *testing.B) {
			var c counting
			reader := New(registry.New(registry.WithTransport(&c)), l.repository, l.service, l.env)
			for b.Loop() {
				if e, err := reader.Newest(b.Context()); err != nil || e.Seq != uint64(events) {
					b.Fatal(e.Seq, err)
				}
			}
			b.ReportMetric(float64(c.n.Load())/float64(b.N), "requests/read")
		})
	}
}
