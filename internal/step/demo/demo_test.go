package demo

import (
	"testing"
	"time"
)

func TestOnlyARealRecoveryCounts(t *testing.T) {
	good := Result{RequestsFailed: 3, Verdict: "fail", RolledBackTo: "1.0.0",
		Ledger: LedgerState{Live: "1.0.0", Quarantined: []string{"1.1.0"}, Frozen: "verdict fail"}}
	served := tally{goodSince: 10}
	if err := recovered(good, served); err != nil {
		t.Errorf("a recovery: %v", err)
	}
	for name, spoil := range map[string]func(*Result, *tally){
		"nothing failed":   func(r *Result, _ *tally) { r.RequestsFailed = 0 },
		"verdict":          func(r *Result, _ *tally) { r.Verdict = "pass" },
		"wrong release":    func(r *Result, _ *tally) { r.Ledger.Live = "1.1.0" },
		"no quarantine":    func(r *Result, _ *tally) { r.Ledger.Quarantined = nil },
		"not frozen":       func(r *Result, _ *tally) { r.Ledger.Frozen = "" },
		"nobody is served": func(_ *Result, s *tally) { s.goodSince = 0 },
	} {
		r, s := good, served
		spoil(&r, &s)
		if recovered(r, s) == nil {
			t.Errorf("%s: counts as a recovery", name)
		}
	}
}

func TestTally(t *testing.T) {
	start := time.Unix(100, 0)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	customers := traffic{answers: []answer{{at(1), "a", true}, {at(4), "b", false}, {at(2), "b", false}, {at(5), "a", true}}}
	sum := customers.since(start)
	if sum.requests != 4 || sum.failed != 2 || !sum.firstBad.Equal(at(2)) || !sum.lastBad.Equal(at(4)) || sum.goodSince != 1 || sum.bySource["b"] != 2 {
		t.Errorf("got %+v", sum)
	}
}
