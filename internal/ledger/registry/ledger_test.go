package registry

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/ledger/ledgertest"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/registry/registrytest"
)

func conform(t *testing.T, host string) {
	t.Helper()
	ledgertest.Run(t, func() ledger.Ledger { return New(registry.New(), host+"/acme/shop", "production") })
}

func TestInProcess(t *testing.T) { conform(t, registrytest.InProcess(t)) }

func TestInProcessFaulty(t *testing.T) {
	conform(t, registrytest.Faulty(t, registrytest.InProcess(t), 8))
}

func TestE2EDebian(t *testing.T)       { conform(t, registrytest.Debian(t)) }
func TestE2EDistribution(t *testing.T) { conform(t, registrytest.Distribution(t)) }

func TestE2EDebianFaulty(t *testing.T) {
	conform(t, registrytest.Faulty(t, registrytest.Debian(t), 8))
}

func TestE2EDistributionFaulty(t *testing.T) {
	conform(t, registrytest.Faulty(t, registrytest.Distribution(t), 8))
}

func frozen(reason string) func(ledger.Event) (ledger.Event, error) {
	return func(e ledger.Event) (ledger.Event, error) {
		return ledger.SetFreeze(e, reason, ledger.Stamp{At: time.Unix(1, 0).UTC()})
	}
}

// written is a ledger with n events.
func written(t *testing.T, n int) (*Ledger, *registry.Client) {
	t.Helper()
	client := registry.New()
	l := New(client, registrytest.InProcess(t)+"/acme/shop", "production")
	for range n {
		if _, err := l.Commit(t.Context(), frozen("x")); err != nil {
			t.Fatal(err)
		}
	}
	return l, client
}

func wantNewest(t *testing.T, l *Ledger, seq uint64) {
	t.Helper()
	if e, err := l.Newest(t.Context()); err != nil || e.Seq != seq {
		t.Errorf("newest: event %d, %v; want %d", e.Seq, err, seq)
	}
}

func TestHintLostTornOrStale(t *testing.T) {
	l, client := written(t, 5)
	third, err := client.Get(t.Context(), l.repository, l.event(3))
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string][]byte{"stale": third.Body, "torn": []byte(`{"schemaVersion":2,"layers":[]}`)} {
		if _, err := client.Put(t.Context(), l.repository, l.hint(), registry.OCIManifest, body); err != nil {
			t.Fatal(name, err)
		}
		wantNewest(t, l, 5)
	}
	if _, err := client.Delete(t.Context(), l.repository, l.hint()); err != nil {
		t.Fatal(err)
	}
	wantNewest(t, l, 5)
	if e, err := l.Commit(t.Context(), frozen("on")); err != nil || e.Seq != 6 {
		t.Errorf("commit without a hint: event %d, %v", e.Seq, err)
	}
}

func TestFlagOfADeadWriter(t *testing.T) {
	l, _ := written(t, 1)
	l.dead = 50 * time.Millisecond
	if _, err := l.put(t.Context(), l.flags(2)+"dead", flagType, []byte(`"dead"`)); err != nil {
		t.Fatal(err)
	}
	if e, err := l.Commit(t.Context(), frozen("on")); err != nil || e.Seq != 2 {
		t.Errorf("commit beside a dead flag: event %d, %v", e.Seq, err)
	}
}

func TestFlagOfALivingWriterIsHonoured(t *testing.T) {
	l, _ := written(t, 1)
	if _, err := l.put(t.Context(), l.flags(2)+"other", flagType, []byte(`"other"`)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if e, err := l.Commit(ctx, frozen("on")); err == nil {
		t.Errorf("event %d was written beside a flag that stands", e.Seq)
	}
	wantNewest(t, l, 1)
}

func TestBeats(t *testing.T) {
	l, _ := written(t, 1)
	l.silence = 100 * time.Millisecond
	want := func(seq uint64, alive bool) {
		t.Helper()
		if got, err := l.Beating(t.Context(), seq); err != nil || got != alive {
			t.Errorf("run of event %d alive: %v, %v; want %v", seq, got, err, alive)
		}
	}
	want(1, false) // never heard
	if err := l.Beat(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	want(1, false) // silent since
	l.silence = time.Minute
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for ctx.Err() == nil {
			if err := l.Beat(ctx, 1); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	want(1, true)
	stop()
	<-stopped
	if err := l.Beat(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	want(1, false) // another run has taken over
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
		reader := New(registry.New(registry.WithTransport(&c)), l.repository, l.env)
		wantNewest(t, reader, uint64(events))
		if got := c.n.Load(); got != 2 {
			t.Errorf("reading the newest of %d events took %d requests, want 2", events, got)
		}
	}
}

func TestARegistryThatCannotBeReadIsNoEmptyHistory(t *testing.T) {
	down := New(registry.New(registry.WithTransport(refusing{})), "127.0.0.1:1/acme/shop", "production")
	if e, err := down.Newest(t.Context()); err == nil {
		t.Errorf("event %d and no error", e.Seq)
	}
}

type refusing struct{}

func (refusing) RoundTrip(*http.Request) (*http.Response, error) { return nil, http.ErrServerClosed }

// BenchmarkRead prints how many requests it takes to read the newest of 10 and of 10 000 events.
func BenchmarkRead(b *testing.B) {
	host := registrytest.InProcess(b)
	client := registry.New()
	for _, events := range []int{10, 10_000} {
		l := New(client, fmt.Sprintf("%s/acme/%d", host, events), "production")
		for seq := uint64(1); seq <= uint64(events); seq++ {
			data := fmt.Appendf(nil, `{"seq":%d,"environment":"production","kind":"freeze","state":{}}`, seq)
			tags := []string{l.event(seq)}
			if seq == uint64(events) {
				tags = append(tags, l.hint())
			}
			for _, tag := range tags {
				if _, err := l.put(b.Context(), tag, eventType, data); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.Run(fmt.Sprint(events), func(b *testing.B) {
			var c counting
			reader := New(registry.New(registry.WithTransport(&c)), l.repository, l.env)
			for b.Loop() {
				if e, err := reader.Newest(b.Context()); err != nil || e.Seq != uint64(events) {
					b.Fatal(e.Seq, err)
				}
			}
			b.ReportMetric(float64(c.n.Load())/float64(b.N), "requests/read")
		})
	}
}
