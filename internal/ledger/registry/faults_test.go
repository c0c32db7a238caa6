package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/registry"
)

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
	other := New(registry.New(registry.WithTransport(m)), l.repository, l.env)
	other.dead, other.holding = l.dead, l.holding
	return other
}

func answer(r *http.Request, status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Request: r, ProtoMajor: 1, ProtoMinor: 1,
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}
}

// A writer whose request hangs until its flag has been taken for dead must not overwrite what was committed.
func TestALateWriterDoesNotOverwrite(t *testing.T) {
	l, _ := written(t, 1)
	l.dead, l.holding = 200*time.Millisecond, 100*time.Millisecond
	hanging, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	slow := l.through(func(r *http.Request) (*http.Response, error) {
		if r.Method != http.MethodPut || !strings.HasSuffix(r.URL.Path, "/manifests/"+l.event(2)) {
			return nil, nil
		}
		var err error
		once.Do(func() {
			close(hanging)
			select {
			case <-release:
			case <-r.Context().Done():
				err = r.Context().Err()
			}
		})
		return nil, err
	})
	type outcome struct {
		e   ledger.Event
		err error
	}
	late := make(chan outcome, 1)
	go func() {
		e, err := slow.Commit(t.Context(), frozen("late"))
		late <- outcome{e, err}
	}()
	<-hanging
	e, err := l.Commit(t.Context(), frozen("in time"))
	close(release)
	for _, o := range []outcome{{e, err}, <-late} {
		if o.err != nil {
			t.Errorf("commit: %v", o.err)
			continue
		}
		if now, err := l.At(t.Context(), o.e.Seq); err != nil || now.Reason != o.e.Reason {
			t.Errorf("event %d was committed as %q and is %q now, %v", o.e.Seq, o.e.Reason, now.Reason, err)
		}
	}
	wantNewest(t, l, 3)
}

// A hint that is there but cannot be read, and a list that shows nothing, are no proof of an empty history.
func TestTornHintAndEmptyListIsAnError(t *testing.T) {
	l, client := written(t, 3)
	if _, err := client.Put(t.Context(), l.repository, l.hint(), registry.OCIManifest, []byte(`{"schemaVersion":2,"layers":[]}`)); err != nil {
		t.Fatal(err)
	}
	pruned := l.through(func(r *http.Request) (*http.Response, error) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/tags/list"):
			return answer(r, http.StatusOK, `{"name":"acme/shop","tags":[]}`), nil
		case strings.HasSuffix(r.URL.Path, "/manifests/"+l.event(1)):
			return answer(r, http.StatusNotFound, ""), nil
		}
		return nil, nil
	})
	e, err := pruned.Newest(t.Context())
	want := fmt.Sprintf("read %s:bs.production: it is no application/vnd.backstep.event.v1+json; and the registry shows no event", l.repository)
	if err == nil || err.Error() != want {
		t.Errorf("event %d, %v\nwant %s", e.Seq, err, want)
	}
}

// Where nothing can be deleted or overwritten, the flag of a dead writer still does not block for ever.
func TestFlagThatCannotBeLowered(t *testing.T) {
	l, _ := written(t, 1)
	l.dead = 50 * time.Millisecond
	if _, err := l.put(t.Context(), l.flags(2)+"dead", flagType, []byte(`"dead"`)); err != nil {
		t.Fatal(err)
	}
	immutable := l.through(func(r *http.Request) (*http.Response, error) {
		switch {
		case r.Method == http.MethodDelete,
			r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, l.flags(2)+"dead"):
			return answer(r, http.StatusMethodNotAllowed, ""), nil
		}
		return nil, nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if e, err := immutable.Commit(ctx, frozen("on")); err != nil || e.Seq != 2 {
		t.Errorf("commit beside a flag that cannot be lowered: event %d, %v", e.Seq, err)
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
	for seq := uint64(2); seq <= events; seq++ {
		data := fmt.Appendf(nil, `{"seq":%d,"environment":"production","kind":"freeze","state":{}}`, seq)
		if _, err := l.put(t.Context(), l.event(seq), eventType, data); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.Put(t.Context(), l.repository, l.hint(), registry.OCIManifest, first.Body); err != nil {
		t.Fatal(err)
	}
	var c counting
	reader := New(registry.New(registry.WithTransport(&c)), l.repository, l.env)
	wantNewest(t, reader, events)
	if got := c.n.Load(); got > 24 {
		t.Errorf("reading %d events past the hint took %d requests, want at most 24", events, got)
	}
}

// A registry with fixed tags refuses the repetition of a PUT whose first answer was lost: it was written.
func TestPutThatIsRefusedAfterItWasDone(t *testing.T) {
	l, _ := written(t, 1)
	var puts atomic.Int64
	fixed := l.through(func(r *http.Request) (*http.Response, error) {
		if r.Method != http.MethodPut || !strings.HasSuffix(r.URL.Path, "/manifests/"+l.event(2)) {
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
	if e, err := fixed.Commit(t.Context(), frozen("once")); err != nil || e.Seq != 2 || e.Reason != "once" {
		t.Errorf("event %d %q, %v", e.Seq, e.Reason, err)
	}
	wantNewest(t, l, 2)
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
	if e, err := cut.Commit(t.Context(), frozen("on")); err != nil || e.Seq != 3 {
		t.Errorf("event %d, %v", e.Seq, err)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// Each event names the digest of the one before it.
func TestChain(t *testing.T) {
	l, client := written(t, 4)
	previous := ""
	for seq := uint64(1); seq <= 4; seq++ {
		e, err := l.At(t.Context(), seq)
		if err != nil || string(e.Previous) != previous {
			t.Errorf("event %d: previous %q, %v; want %q", seq, e.Previous, err, previous)
		}
		d, err := client.Head(t.Context(), l.repository, l.event(seq))
		if err != nil {
			t.Fatal(err)
		}
		previous = string(d)
	}
	if _, err := l.At(t.Context(), 5); !errors.Is(err, ledger.ErrNoEvent) || err.Error() != "read "+l.doing(5)+": no such event" {
		t.Errorf("event 5: %v", err)
	}
}
