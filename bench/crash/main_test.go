package main

import (
	"strings"
	"testing"

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
