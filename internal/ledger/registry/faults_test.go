package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/registry/registrytest"
	"github.com/backstep/backstep/internal/release"
)

const shortGrace = 200 * time.Millisecond // instead of graceForWriter

// meddler sees each request before the registry does. It passes on what meddle answers with nil, nil.
type meddler func(*http.Request) (*http.Response, error)

func (m meddler) RoundTrip(r *http.Request) (*http.Response, error) {
	if response, err := m(r); response != nil || err != nil {
		return response, err
	}
	return http.DefaultTransport.RoundTrip(r)
}

// through is another handle on the ledger, whose requests m sees.
func (l *Ledger) through(m meddler) *Ledger {
	other := l.another()
	other.client = registry.New(registry.WithTransport(m))
	return other
}

func answer(r *http.Request, status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Request: r, ProtoMajor: 1, ProtoMinor: 1,
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}
}

func isPut(r *http.Request, tag string) bool {
	return r.Method == http.MethodPut && path.Base(r.URL.Path) == tag
}

// noted is a change that says so in the snapshot, which tells later what counts.
func noted(reason string) func(ledger.Event) (ledger.Event, error) {
	return func(e ledger.Event) (ledger.Event, error) {
		state := e.State
		state.Recent = append(slices.Clone(state.Recent), ledger.Entry{Release: release.Release{Version: reason, Digest: "sha256:0000000000000000000000000000000000000000000000000000000000000001"}})
		return ledger.Event{Kind: ledger.Frozen, Reason: reason, State: state}, nil
	}
}

func commitNoted(t *testing.T, l *Ledger, reason string) ledger.Event {
	t.Helper()
	e, err := l.Commit(t.Context(), noted(reason))
	if err != nil {
		t.Fatalf("commit %q: %v", reason, err)
	}
	return e
}

// wantCounted checks what the newest event knows of.
func wantCounted(t *testing.T, l *Ledger, want ...string) {
	t.Helper()
	e, err := l.another().Newest(t.Context())
	var got []string
	for _, r := range e.State.Recent {
		got = append(got, r.Release.Version)
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("event %d knows %v, %v; want %v", e.Seq, got, err, want)
	}
}

func wantVoid(t *testing.T, l *Ledger, seq uint64, want bool) {
	t.Helper()
	if void, err := l.Void(t.Context(), seq); err != nil || void != want {
		t.Errorf("event %d void: %v, %v; want %v", seq, void, err, want)
	}
}

// A PUT that is applied when the ledger has long gone on is not believed, and nothing is lost.
func TestLatePUT(t *testing.T) {
	s := registrytest.NewSwitch(t, registrytest.InProcess(t))
	l := New(registry.New(), s.Host()+"/acme/shop", "shop", "production")
	l.grace = shortGrace
	commitNoted(t, l, "first")
	l.Wait()
	late := s.LatePUT(func(tag string) bool { return tag == l.name(2) })
	ctx, kill := context.WithCancel(t.Context())
	killed := make(chan error, 1)
	go func() {
		_, err := l.another().Commit(ctx, noted("late"))
		killed <- err
	}()
	<-late.Held
	kill()
	if err := <-killed; !errors.Is(err, context.Canceled) {
		t.Errorf("the killed writer: %v", err)
	}
	next := commitNoted(t, l.another(), "next")
	late.Apply()
	if e, err := l.At(t.Context(), 2); err != nil || e.Reason != "late" {
		t.Fatalf("event 2: %q, %v; want the late one", e.Reason, err)
	}
	wantVoid(t, l, 2, true)
	wantVoid(t, l, 1, false)
	wantVoid(t, l, next.Seq, false)
	wantCounted(t, l, "first", "next")
	commitNoted(t, l.another(), "after")
	wantCounted(t, l, "first", "next", "after")
}

// A writer that hangs at the PUT of its event until another has skipped it is not acknowledged wrongly: it goes on, and
// what it wanted counts once.
func TestLateWriter(t *testing.T) {
	l, _ := written(t, 0)
	l.grace = shortGrace
	commitNoted(t, l, "first")
	hanging, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	slow := l.through(func(r *http.Request) (*http.Response, error) {
		if isPut(r, l.name(2)) {
			once.Do(func() { close(hanging); <-goOn })
		}
		return nil, nil
	})
	late := make(chan error, 1)
	go func() {
		e, err := slow.Commit(t.Context(), noted("late"))
		if err == nil && e.Seq == 2 {
			err = errors.New("acknowledged as event 2")
		}
		late <- err
	}()
	<-hanging
	commitNoted(t, l.another(), "in time")
	close(goOn)
	if err := <-late; err != nil {
		t.Error(err)
	}
	wantVoid(t, l, 2, true)
	wantCounted(t, l, "first", "in time", "late")
}

// A writer that hangs before it writes, and is looked for before it is skipped for good, is believed by those who skip it: it
// learns that its event counts and does not write it twice.
func TestLateWriterThatIsBelieved(t *testing.T) {
	l, _ := written(t, 0)
	l.grace = shortGrace
	commitNoted(t, l, "first")
	hanging, goOn := make(chan struct{}), make(chan struct{})
	var once, sealing sync.Once
	slow := l.through(func(r *http.Request) (*http.Response, error) {
		if isPut(r, l.name(2)) {
			once.Do(func() { close(hanging); <-goOn })
		}
		return nil, nil
	})
	late := make(chan ledger.Event, 1)
	go func() {
		e, err := slow.Commit(t.Context(), noted("late"))
		if err != nil {
			t.Error(err)
		}
		late <- e
	}()
	<-hanging
	skipper := l.through(func(r *http.Request) (*http.Response, error) {
		if !isPut(r, l.name(3)) {
			return nil, nil
		}
		response, err := http.DefaultTransport.RoundTrip(r)
		sealing.Do(func() {
			close(goOn)
			for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
				if ok, _ := l.has(t.Context(), l.name(2)); ok {
					break
				}
			}
		})
		return response, err
	})
	commitNoted(t, skipper, "in time")
	if e := <-late; e.Seq != 2 || e.Reason != "late" {
		t.Errorf("the late one is event %d %q, want 2", e.Seq, e.Reason)
	}
	wantVoid(t, l, 2, false)
	wantCounted(t, l, "first", "late", "in time")
}

// Writers that die at any point cost the next one the grace, and some requests.
func TestDeadWriters(t *testing.T) {
	ours := func(n uint64, how string) []byte {
		return pack(eventType, map[string]string{skippedKey: how, eventKey: fmt.Sprintf(`{"seq":%d,"service":"shop","environment":"production","kind":"skipped","state":{}}`, n)})
	}
	for name, c := range map[string]struct {
		die      func(l *Ledger)
		want     uint64 // number of the next event
		requests int64
	}{
		"after x": {func(l *Ledger) { l.store(t, l.x(2), []byte(`{}`)) }, 2, 11},
		"after y": {func(l *Ledger) { l.split(t.Context(), 2) }, 4, 40},
		"twice":   {func(l *Ledger) { l.split(t.Context(), 2); l.split(t.Context(), 3) }, 5, 60},
		"one who skipped, before it filled": {func(l *Ledger) {
			l.split(t.Context(), 2)
			l.split(t.Context(), 3)
			l.store(t, l.name(3), ours(3, sealed))
		}, 4, 40},
		"one who skipped, afterwards": {func(l *Ledger) {
			for n, how := range map[uint64]string{2: filled, 3: sealed} {
				l.split(t.Context(), n)
				l.store(t, l.name(n), ours(n, how))
			}
		}, 4, 16},
	} {
		t.Run(name, func(t *testing.T) {
			l, _ := written(t, 0)
			l.grace = shortGrace
			commitNoted(t, l, "first")
			l.Wait()
			c.die(l)
			var n counting
			next := l.through(n.RoundTrip)
			e := commitNoted(t, next, "next")
			next.Wait()
			t.Logf("%d requests", n.n.Load())
			if e.Seq != c.want || n.n.Load() > c.requests {
				t.Errorf("event %d after %d requests, want %d and at most %d", e.Seq, n.n.Load(), c.want, c.requests)
			}
			wantCounted(t, l, "first", "next")
			wantVoid(t, l, 1, false)
		})
	}
}

// A run that finds the ledger after a skipped number, and writes only if nothing has changed since, gets on.
func TestGuardAfterASkippedNumber(t *testing.T) {
	l, _ := written(t, 1)
	l.grace = shortGrace
	l.split(t.Context(), 2)
	for range 5 {
		next := l.another()
		seen, err := next.Newest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		moved := errors.New("moved")
		_, err = next.Commit(t.Context(), func(e ledger.Event) (ledger.Event, error) {
			if e.Seq != seen.Seq {
				return e, moved
			}
			return frozen("x")(e)
		})
		if err == nil {
			return
		}
		if !errors.Is(err, moved) {
			t.Fatal(err)
		}
	}
	t.Error("the newest event is never the one that was seen")
}

// However many have died in a row, the next one waits for them once.
func TestManyDeadWriters(t *testing.T) {
	l, _ := written(t, 1)
	l.grace = shortGrace
	const died = 20
	for n := range uint64(died) {
		l.split(t.Context(), n+2)
	}
	var n counting
	if e := commit1(t, l.through(n.RoundTrip), "on"); e.Seq != 2+died+1 || n.n.Load() > 8*died {
		t.Errorf("event %d after %d requests", e.Seq, n.n.Load())
	}
}

// An event that the registry does not take leaves a number for which nobody waits.
func TestEventThatIsRefused(t *testing.T) {
	l, _ := written(t, 1)
	var large atomic.Int64
	narrow := l.through(func(r *http.Request) (*http.Response, error) {
		if isPut(r, l.name(2)) && r.ContentLength > 1000 && large.Add(1) > 0 {
			return answer(r, http.StatusRequestEntityTooLarge, `{"errors":[{"code":"SIZE_INVALID","message":"too large"}]}`), nil
		}
		return nil, nil
	})
	_, err := narrow.Commit(t.Context(), frozen(strings.Repeat("x", 1000)))
	if want := fmt.Sprintf("write %s: the registry answered 413 SIZE_INVALID too large", l.doing(2)); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	var n counting
	if e := commit1(t, l.through(n.RoundTrip), "on"); e.Seq != 3 || n.n.Load() > 13 {
		t.Errorf("event %d after %d requests, want 3 and at most 13", e.Seq, n.n.Load())
	}
}

// fixed refuses to move and to delete tags, as registries with immutable tags do.
func fixed() meddler {
	var mu sync.Mutex
	there := map[string]bool{}
	return func(r *http.Request) (*http.Response, error) {
		mu.Lock()
		defer mu.Unlock()
		tag := r.URL.Path
		switch {
		case r.Method == http.MethodDelete:
			return answer(r, http.StatusMethodNotAllowed, ""), nil
		case r.Method != http.MethodPut || !strings.Contains(tag, "/manifests/"):
			return nil, nil
		case there[tag]:
			return answer(r, http.StatusBadRequest, `{"errors":[{"code":"TAG_INVALID","message":"the tag exists"}]}`), nil
		}
		response, err := http.DefaultTransport.RoundTrip(r) // under the lock: who is refused finds the tag
		there[tag] = err == nil && response.StatusCode/100 == 2
		return response, err
	}
}

func TestImmutableTags(t *testing.T) {
	l, _ := written(t, 0)
	l.grace = shortGrace
	fix := fixed()
	var race sync.WaitGroup
	for w := range 3 {
		race.Go(func() {
			l := l.through(fix)
			for n := range 3 {
				if _, err := l.Commit(t.Context(), noted(fmt.Sprint(w, n))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	race.Wait()
	e, err := l.another().Newest(t.Context())
	if err != nil || len(e.State.Recent) != 9 {
		t.Errorf("event %d knows %d commits, %v; want 9", e.Seq, len(e.State.Recent), err)
	}
	dead := l.through(fix)
	dead.split(t.Context(), e.Seq+1)
	commitNoted(t, l.through(fix), "next")
}

// A living run does not look dead where its beat cannot be moved, and a dead one does not look alive.
func TestBeatsWhereTagsCannotBeMoved(t *testing.T) {
	l, _ := written(t, 1)
	l = l.through(fixed())
	l.silence, l.fixedPace = 300*time.Millisecond, 10*time.Millisecond
	want := func(alive bool) {
		t.Helper()
		if got, err := l.another().Beating(t.Context(), 1); err != nil || got != alive {
			t.Errorf("alive: %v, %v; want %v", got, err, alive)
		}
	}
	for n := range 5 {
		if err := l.Beat(t.Context(), 1); errors.Is(err, ErrImmutable) != (n == 1) || n != 1 && err != nil {
			t.Fatal(n, err)
		}
		time.Sleep(l.fixedPace)
	}
	want(false)
	ctx, stop := context.WithCancel(t.Context())
	var beating sync.WaitGroup
	beating.Go(func() {
		for ctx.Err() == nil {
			if err := l.Beat(ctx, 1); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
			time.Sleep(l.fixedPace)
		}
	})
	want(true)
	stop()
	beating.Wait()
	want(false)
}

// What others put under our names does not stop us.
func TestGarbage(t *testing.T) {
	for _, tags := range [][]string{{"x"}, {"y"}, {"event"}, {"event", "event after"}, {"x", "y", "event"}, {"hint", "event"}} {
		l, _ := written(t, 0)
		l.grace = shortGrace
		commitNoted(t, l, "first")
		l.Wait()
		names := map[string]string{"x": l.x(2), "y": l.y(2), "event": l.name(2), "event after": l.name(3), "hint": l.hint()}
		for _, tag := range tags {
			l.store(t, names[tag], []byte(`{"schemaVersion":2,"layers":[]}`))
		}
		next := commitNoted(t, l.another(), "next")
		t.Logf("%v: event %d", tags, next.Seq)
		wantCounted(t, l, "first", "next")
	}
}

// A handle that goes on from where it saw the ledger last notices that others have written.
func TestRememberedPosition(t *testing.T) {
	l, _ := written(t, 1)
	other := l.another()
	for range 5 {
		commit1(t, other, "other")
	}
	other.Wait()
	if e := commit1(t, l, "mine"); e.Seq != 7 {
		t.Errorf("event %d, want 7", e.Seq)
	}
	commit1(t, other, "newer")
	// The refusal of a change is the answer to what is there now.
	_, err := l.Commit(t.Context(), func(e ledger.Event) (ledger.Event, error) {
		if e.Seq < 8 {
			return e, fmt.Errorf("event %d is old", e.Seq)
		}
		return frozen("on")(e)
	})
	if err != nil {
		t.Error(err)
	}
}

// A hint that is there but cannot be read, and a list that shows nothing, are no proof of an empty history.
func TestTornHintAndEmptyListIsAnError(t *testing.T) {
	l, _ := written(t, 3)
	l.store(t, l.hint(), []byte(`{"schemaVersion":2,"layers":[]}`))
	pruned := l.through(func(r *http.Request) (*http.Response, error) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/tags/list"):
			return answer(r, http.StatusOK, `{"name":"acme/shop","tags":[]}`), nil
		case strings.HasSuffix(r.URL.Path, "/manifests/"+l.name(1)):
			return answer(r, http.StatusNotFound, ""), nil
		}
		return nil, nil
	})
	e, err := pruned.Newest(t.Context())
	want := fmt.Sprintf("read %s:bs.shop.production: it is no application/vnd.backstep.event.v1; and the registry shows no event", l.repository)
	if err == nil || err.Error() != want {
		t.Errorf("event %d, %v\nwant %s", e.Seq, err, want)
	}
}

// Where tags cannot be moved, the hint stays at the first event: reading must not ask for each one after it.
func TestHintThatCannotMove(t *testing.T) {
	l, client := written(t, 1)
	first, err := client.Get(t.Context(), l.repository, l.hint())
	if err != nil {
		t.Fatal(err)
	}
	const events = 300
	previous := first.Digest
	for seq := uint64(2); seq <= events; seq++ {
		body := packed(seq, previous)
		l.store(t, l.name(seq), body)
		previous = registry.DigestOf(body)
	}
	l.store(t, l.hint(), first.Body)
	var c counting
	wantNewest(t, l.through(c.RoundTrip), events)
	if got := c.n.Load(); got > 24 {
		t.Errorf("reading %d events past the hint took %d requests, want at most 24", events, got)
	}
}

// A registry with fixed tags refuses the repetition of a PUT whose first answer was lost: it was written.
func TestPutThatIsRefusedAfterItWasDone(t *testing.T) {
	l, _ := written(t, 1)
	var puts atomic.Int64
	fixed := l.through(func(r *http.Request) (*http.Response, error) {
		if !isPut(r, l.name(2)) {
			return nil, nil
		}
		if puts.Add(1) > 1 {
			return answer(r, http.StatusBadRequest, `{"errors":[{"code":"TAG_INVALID","message":"the tag exists"}]}`), nil
		}
		response, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		response.Body.Close()
		return nil, io.ErrUnexpectedEOF
	})
	if e := commit1(t, fixed, "once"); e.Seq != 2 {
		t.Errorf("event %d", e.Seq)
	}
	wantNewest(t, l, 2)
}

// No nonce is ever sent twice, however often the registry is busy.
func TestEachNonceIsSentOnce(t *testing.T) {
	l, _ := written(t, 1)
	var mu sync.Mutex
	seen := map[string]int{}
	busy := l.through(func(r *http.Request) (*http.Response, error) {
		if !isPut(r, l.x(2)) {
			return nil, nil
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		mu.Lock()
		defer mu.Unlock()
		seen[string(body)]++
		switch len(seen) {
		case 1:
			return answer(r, http.StatusServiceUnavailable, ""), nil
		case 2:
			return nil, io.ErrUnexpectedEOF
		}
		return nil, nil
	})
	if e := commit1(t, busy, "on"); e.Seq != 2 {
		t.Errorf("event %d", e.Seq)
	}
	for _, n := range seen {
		if n != 1 || len(seen) != 3 {
			t.Errorf("%d nonces, one sent %d times; want 3, each once", len(seen), n)
		}
	}
}

// Each answer comes cut short once; reading and writing go on all the same.
func TestAnswersCutShort(t *testing.T) {
	l, _ := written(t, 2)
	var mu sync.Mutex
	seen := map[string]bool{}
	cut := l.through(func(r *http.Request) (*http.Response, error) {
		mu.Lock()
		again := seen[r.URL.Path]
		seen[r.URL.Path] = true
		mu.Unlock()
		if r.Method != http.MethodGet || again || r.URL.Path == "/v2/" {
			return nil, nil
		}
		response, err := http.DefaultTransport.RoundTrip(r)
		if err != nil || response.StatusCode != http.StatusOK {
			return response, err
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			return nil, err
		}
		response.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body[:len(body)/2]), broken{}))
		return response, nil
	})
	if e := commit1(t, cut, "on"); e.Seq != 3 {
		t.Errorf("event %d", e.Seq)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// A registry that is away, only reads, or is full, ends a commit with an error within the caller's time, and heals.
func TestSwitchedRegistry(t *testing.T) {
	s := registrytest.NewSwitch(t, registrytest.InProcess(t))
	l := New(registry.New(), s.Host()+"/acme/shop", "shop", "production")
	l.grace = shortGrace
	commitNoted(t, l, "first")
	l.Wait()
	for mode, want := range map[registrytest.Mode]error{registrytest.Silent: context.DeadlineExceeded, registrytest.Stopped: context.DeadlineExceeded,
		registrytest.Forbidden: registry.ErrDenied, registrytest.ReadOnly: registry.ErrRefused, registrytest.DiskFull: nil} {
		s.Set(mode)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if _, err := l.another().Commit(ctx, noted("lost")); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("mode %d: %v, want %v", mode, err, want)
		}
		cancel()
	}
	s.Set(registrytest.Healthy)
	commitNoted(t, l.another(), "next")
	wantCounted(t, l, "first", "next")
}

// Each event names the digest of the one before it, and splitters are removed.
func TestChain(t *testing.T) {
	l, client := written(t, 4)
	previous := ""
	for seq := uint64(1); seq <= 4; seq++ {
		e, err := l.At(t.Context(), seq)
		if err != nil || string(e.Previous) != previous {
			t.Errorf("event %d: previous %q, %v; want %q", seq, e.Previous, err, previous)
		}
		d, err := client.Head(t.Context(), l.repository, l.name(seq))
		if err != nil {
			t.Fatal(err)
		}
		previous = string(d)
	}
	if _, err := l.At(t.Context(), 5); !errors.Is(err, ledger.ErrNoEvent) || err.Error() != "read "+l.doing(5)+": no such event" {
		t.Errorf("event 5: %v", err)
	}
	tags, err := client.Tags(t.Context(), l.repository)
	if err != nil || len(tags) != 5 {
		t.Errorf("tags %v, %v; want four events and the hint", tags, err)
	}
}
