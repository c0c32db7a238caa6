package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/release"
)

func digest(c string) release.Digest { return release.Digest("sha256:" + strings.Repeat(c, 64)) }

// Each of these histories breaks a promise, but for the first two.
func TestLawful(t *testing.T) {
	a, b := release.Release{Digest: digest("a"), Version: "1.0.0"}, release.Release{Digest: digest("b"), Version: "2.0.0"}
	live := func(r release.Release, id string) *ledger.Entry { return &ledger.Entry{Release: r, ID: id} }
	rolling := ledger.Snapshot{Live: live(b, "4"), Intent: &ledger.Intent{Kind: ledger.RollbackStarted, Seq: 7, Holder: "h", To: a}}
	condemned := []ledger.Quarantine{{Release: b}}
	for _, c := range []struct {
		name        string
		before, now ledger.Snapshot
		kind        ledger.Kind
		want        string
	}{
		{"a rollback ends", rolling, ledger.Snapshot{Live: live(a, "n"), Quarantined: condemned}, ledger.RollbackFinished, ""},
		{"a freeze in between", rolling, ledger.Snapshot{Live: rolling.Live, Intent: rolling.Intent, Freezes: []ledger.Freeze{{Cause: ledger.ByPerson}}}, ledger.Frozen, ""},
		{"a rollback is aborted", rolling, ledger.Snapshot{Live: rolling.Live}, ledger.DeployAborted, "it ends the intent of rollback.started, event 7"},
		{"a freeze is lost", ledger.Snapshot{Freezes: []ledger.Freeze{{Cause: ledger.ByPerson}}}, ledger.Snapshot{}, ledger.Lifted, "it changes the freezes"},
		{"a quarantine is lost", ledger.Snapshot{Quarantined: condemned}, ledger.Snapshot{}, ledger.Unfrozen, "it changes the quarantine"},
		{"a verdict moves", ledger.Snapshot{Live: live(a, "1")}, ledger.Snapshot{Live: live(b, "2")}, ledger.Verified, "it changes what is live"},
		{"what is bad is live", ledger.Snapshot{}, ledger.Snapshot{Live: live(b, "2"), Quarantined: condemned}, ledger.NoteAdopted, "what is live, 2.0.0 (bbbbbbbbbbbb), is in quarantine"},
	} {
		got := ""
		if err := lawful(ledger.Event{Seq: 7, State: c.before}, ledger.Event{Seq: 8, Kind: c.kind, State: c.now}); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestChain(t *testing.T) {
	at := func(seq uint64, kind ledger.Kind, own, previous string) link {
		return link{ledger.Event{Seq: seq, Kind: kind, Previous: digest(previous)}, digest(own)}
	}
	p := past{digest: digest("0")}
	chain, err := p.chain([]link{at(1, ledger.Frozen, "1", "0"), at(2, ledger.Frozen, "2", "1"), at(3, ledger.Skipped, "3", "1"), at(4, ledger.Unfrozen, "4", "1")})
	if err != nil || len(chain) != 2 || chain[1].Seq != 4 || p.voids != 1 {
		t.Errorf("a late event: %v, %v, %d voids", chain, err, p.voids)
	}
	if chain, err := p.chain([]link{at(1, ledger.Frozen, "1", "0"), at(2, ledger.Skipped, "2", "1")}); err != nil || chain != nil {
		t.Errorf("an open end: %v, %v", chain, err)
	}
	if _, err := p.chain([]link{at(1, ledger.Frozen, "1", "f")}); err == nil || !strings.HasPrefix(err.Error(), "the chain is broken: event 1 (freeze of run ) names ffffffffffff") {
		t.Errorf("a fork: %v", err)
	}
}

func TestAnswered(t *testing.T) {
	deploy := outcome{run: run{step: "deploy", about: shops[0]}}
	for _, c := range []struct {
		code  int
		said  string
		sky   sky
		alone bool
		want  string
	}{
		{0, "", sky{}, true, ""},
		{7, "the environment is frozen since 2026", sky{}, true, ""},
		{7, "deploy of 1.0.0 by ada is under way", sky{}, false, ""},
		{7, "deploy of 1.0.0 by ada is under way", sky{}, true, "it is refused although no other run is alive"},
		{6, "", sky{gone: stopped}, true, ""},
		{6, "", sky{share: 0.1}, false, "it asks for a person although the registry answers and the target can be reached"},
		{5, "", sky{}, true, "a healthy release was taken back"},
		{1, "", sky{share: 0.1}, true, ""},
		{1, "", sky{}, true, "it fails although nothing was in its way"},
		{2, "", sky{}, true, "it finds fault with its input"},
		{-1, "", sky{}, true, "it was killed, and not by us"},
	} {
		o, got := deploy, ""
		o.code, o.said = c.code, c.said
		if err := answered(o, circumstances{sky: c.sky, alone: c.alone, after: ledger.Snapshot{Recent: []ledger.Entry{{Good: true}}}}); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("exit code %d, %q, %s: got %q, want %q", c.code, c.said, c.sky, got, c.want)
		}
	}
}

func TestShown(t *testing.T) {
	for page, want := range map[string]string{"shop 1.0.0: 12 items in the cart red\n": "1.0.0 red", "shop 2.0.0: checkout: no such column: discount stall-red\n": "2.0.0 stall-red",
		"<html><body><h1>503 Service Unavailable</h1>": "", "shop": "", "": ""} {
		if got := shown(page); got != want {
			t.Errorf("%q shows %q, want %q", page, got, want)
		}
	}
}

// Who has answered was live, or on its way to be; a configuration that was never deployed is neither.
func TestExpected(t *testing.T) {
	in := func(colour string) ledger.Snapshot {
		return ledger.Snapshot{Live: &ledger.Entry{Release: release.Release{Digest: digest("a"), Config: "f", Version: "1.0.0"}},
			Configurations: map[release.Fingerprint]release.Configuration{"f": {"env": {{Key: "SHOP_COLOUR", Text: colour}}}}}
	}
	w := &world{past: &past{events: []ledger.Event{{Seq: 1, State: in("red")}, {Seq: 2, State: in("blue")}}}, customers: &customers{}}
	for _, c := range []struct{ serves, want string }{
		{"1.0.0 red", ""},
		{"1.0.0 red", `customers got "1.0.0 red" at T; it was neither live nor on its way to be: 1.0.0 blue`}, // that was before the last look
		{"1.0.0 blue", ""},
	} {
		got := ""
		w.customers.seen = map[string]string{c.serves: "T"}
		if err := w.expected(in("blue")); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.serves, got, c.want)
		}
	}
}

// What the run of one ledger does to containers and volumes of another one is noted, and what it does to its own is not.
func TestGate(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	docker := http.NewServeMux()
	docker.HandleFunc("/containers/{id}/json", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"Config": {"Labels": {"backstep.ledger": %q}}}`, r.PathValue("id"))
	})
	docker.HandleFunc("/volumes/{id}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"Labels": {"backstep.claim": "{\"ledger\": \"%s\"}"}}`, r.PathValue("id"))
	})
	server := &http.Server{Handler: docker}
	go server.Serve(listener)
	defer server.Close()
	e := &engine{socket: socket}
	e.http = &http.Client{Transport: &http.Transport{DialContext: e.dial, DisableKeepAlives: true}}
	for _, c := range []struct {
		method, path string
		rival, noted bool
	}{
		{"POST", "/v1.41/containers/own/stop?t=1", false, false},
		{"POST", "/v1.41/containers/other/stop?t=1", false, true},
		{"DELETE", "/containers/other?force=1", false, true},
		{"GET", "/v1.41/containers/other/json", false, false},
		{"DELETE", "/v1.41/volumes/own", false, false},
		{"DELETE", "/v1.41/volumes/other", false, true},
		{"POST", "/v1.41/containers/create?name=x", false, false},
		{"POST", "/v1.41/volumes/create", true, true},
		{"POST", "/v1.41/images/create?fromImage=x", true, false},
	} {
		g := &gate{engine: e, owner: "own", rival: c.rival}
		g.look(httptest.NewRequest(c.method, c.path, nil))
		if (g.fault() != nil) != c.noted {
			t.Errorf("%s %s by a rival %v: %v", c.method, c.path, c.rival, g.fault())
		}
	}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		o      options
		worlds int
		want   string
	}{
		{options{target: onProcess, restore: alternating}, 3, ""},
		{options{target: onDocker, restore: "on"}, 4, ""},
		{options{target: onDocker, restore: "off", worlds: 5}, 6, ""},
		{options{target: "swarm", restore: "off"}, 0, `-target "swarm": want process or docker`},
		{options{target: onDocker, restore: "yes"}, 0, `-live-restore "yes": want on, off or alternating`},
	} {
		got := ""
		if err := c.o.complete(); err != nil {
			got = err.Error()
		}
		if got != c.want || c.o.worlds != c.worlds {
			t.Errorf("%+v: %q", c.o, got)
		}
	}
}

// A request that nobody answers counts against the releases, unless the machine answered nobody then.
func TestStalledMachine(t *testing.T) {
	c, now := newControl(), time.Now()
	defer c.server.Close()
	c.begin(now)
	if c.stalled(now.Add(-10*time.Second), now.Add(stallAfter/2)) {
		t.Error("a control that was just asked has stalled")
	}
	if !c.stalled(now.Add(-10*time.Second), now.Add(stallAfter)) {
		t.Error("one that does not answer has not")
	}
	c.end(now.Add(2 * stallAfter))
	if !c.stalled(now.Add(stallAfter), now.Add(5*time.Second)) || c.stalled(now.Add(3*stallAfter), now.Add(5*time.Second)) {
		t.Error("a stall counts for requests that were under way in it, and for no other")
	}
}
