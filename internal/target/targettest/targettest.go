// Package targettest is the conformance suite of targets with their routers, and a target in memory that passes it.
package targettest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/router"
	"github.com/backstep/backstep/internal/target"
)

// Subject is a target to check, with nothing on it, and releases that it can run.
type Subject struct {
	Target target.Target
	Router router.Router
	// Good and Other write a line, and answer every request with 200 and the header X-Backstep-Release, once they are ready.
	Good, Other release.Release
	// Crashing ends by itself at once, after a line on its standard output.
	Crashing release.Release
	// Mute writes a line, and never becomes ready.
	Mute release.Release
	// Missing is an image that cannot be had.
	Missing release.Release
	// Address is where customers ask, http://host:port; "" when nobody can.
	Address string
	// Kill ends a release as a crash would.
	Kill func(release.ID)
	// Busy lets a release that has the traffic have a request under way until done is called, which says whether the customer
	// got the whole answer; nil when it cannot.
	Busy func(release.ID) (done func() bool)
}

// Ledger is the identity of the ledger that the suite claims for.
const Ledger = "registry.example/acme/shop production"

// suite is a subject under check.
type suite struct {
	Subject
	t   *testing.T
	ctx context.Context
	seq uint64 // of the last claim
	by  plan.Token
}

// Run checks a subject.
func Run(t *testing.T, subject Subject) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	s := &suite{Subject: subject, t: t, ctx: ctx}
	if s.Missing.Digest == "" {
		s.Missing = s.Good
		s.Missing.Digest = release.Digest("sha256:" + strings.Repeat("0", 64))
	}
	s.nothing()
	s.claims()
	s.notes()
	s.races()
	s.stages()
	s.shifts()
	s.fences()
	s.failures()
	s.dies()
	s.twins()
	s.parks()
	s.closes()
	s.retires()
}

func (s *suite) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *suite) observe() plan.State {
	s.t.Helper()
	state, err := s.Target.Observe(s.ctx)
	s.must(err)
	return state
}

func (s *suite) find(r release.Release) *plan.Instance {
	s.t.Helper()
	in, err := s.Target.Find(s.ctx, r.ID())
	s.must(err)
	return in
}

func (s *suite) has(r release.Release) bool {
	s.t.Helper()
	has, err := s.Target.Has(s.ctx, r)
	s.must(err)
	return has
}

func (s *suite) logs(r release.Release, lines int) []string {
	s.t.Helper()
	last, err := s.Target.Logs(s.ctx, r.ID(), lines)
	s.must(err)
	return last
}

// until waits until Find says what is wanted of r.
func (s *suite) until(r release.Release, what string, wanted func(plan.Instance) bool) plan.Instance {
	s.t.Helper()
	var last *plan.Instance
	for s.ctx.Err() == nil {
		if last = s.find(r); last != nil && wanted(*last) {
			return *last
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.t.Fatalf("%s is not %s: %+v", r, what, last)
	return plan.Instance{}
}

// settled waits until r has one of the two phases that last, which has to be want.
func (s *suite) settled(r release.Release, want plan.Phase) plan.Instance {
	s.t.Helper()
	in := s.until(r, "settled", func(in plan.Instance) bool { return in.Phase != plan.Starting })
	if in.Phase != want {
		s.t.Fatalf("%s is %s (%s), want %s", r, in.Phase, in.Reason, want)
	}
	return in
}

// share is how many of 100 requests r answers.
func (s *suite) share(r release.Release) int {
	s.t.Helper()
	const requests = 100
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	count := 0
	for range requests {
		answer, err := client.Get(s.Address)
		s.must(err)
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			s.t.Fatalf("a customer got %d", answer.StatusCode)
		}
		if answer.Header.Get("X-Backstep-Release") == r.Digest.Short() {
			count++
		}
	}
	return count
}

// serves checks that r answers between low and high of 100 requests.
func (s *suite) serves(what string, r release.Release, low, high int) {
	s.t.Helper()
	if s.Address == "" {
		return
	}
	if got := s.share(r); got < low || got > high {
		s.t.Errorf("%s: %s has %d of 100 requests, want %d to %d", what, r, got, low, high)
	}
}

func all(r release.Release) map[release.ID]int { return map[release.ID]int{r.ID(): 100} }

// record is a claim with everything in it.
func (s *suite) record(seq, sub uint64, holder string, aim plan.Aim) plan.Claim {
	back := s.Other
	return plan.Claim{Token: plan.Token{Number: plan.Number{Seq: seq, Sub: sub}, Holder: holder}, Ledger: Ledger, Aim: aim,
		Wanted: s.Good, Entry: `7 "with" <signs> ✓`, Back: &back, Restored: true}
}

func (s *suite) note(id string) *plan.Note {
	return &plan.Note{ID: id, Left: s.Good, LeftEntry: "7", To: s.Other, Condemn: true, Freeze: true,
		Author: release.Author{Actor: "ada", Run: "42"}, At: time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC), Why: "it's \"slow\"\n", Evidence: "p99 <3s>"}
}

// claim takes the target under the next number.
func (s *suite) claim() plan.Token {
	s.t.Helper()
	s.seq++
	c := s.record(s.seq, 0, "suite", plan.Do)
	s.must(s.Target.Claim(s.ctx, c, nil))
	s.by = c.Token
	return c.Token
}

// refused tries every change with a token, and checks that nothing comes of it.
func (s *suite) refused(what string, by plan.Token) {
	s.t.Helper()
	before := s.observe()
	for change, err := range map[string]error{
		"stage":  s.Target.Stage(s.ctx, by, s.Good),
		"shift":  s.Router.Shift(s.ctx, by, all(s.Good)),
		"retire": s.Target.Retire(s.ctx, by, s.Good.ID(), 0),
		"forget": s.Target.Forget(s.ctx, by, []string{"nobody"}),
	} {
		if !errors.Is(err, target.ErrFenced) {
			s.t.Errorf("%s with %s: %v, want ErrFenced", change, what, err)
		}
	}
	if after := s.observe(); !reflect.DeepEqual(before, after) {
		s.t.Errorf("what was refused with %s changed %+v to %+v", what, before, after)
	}
}

// nothing is a target that nobody has claimed.
func (s *suite) nothing() {
	if state := s.observe(); !reflect.DeepEqual(state.Claim, plan.Claim{}) || len(state.Notes) != 0 || len(state.Instances) != 0 {
		s.t.Fatalf("an empty target: %+v", state)
	}
	if in, has, lines := s.find(s.Good), s.has(s.Missing), s.logs(s.Good, 5); in != nil || has || len(lines) > 0 {
		s.t.Errorf("an empty target: found %v, has %v, logs %q", in, has, lines)
	}
	s.refused("no claim", plan.Token{})
	s.refused("no claim, and a number", plan.Token{Number: plan.Number{Seq: 9}, Holder: "suite"})
}

func (s *suite) claims() {
	for _, c := range []struct {
		seq, sub uint64
		holder   string
		fenced   bool
	}{
		{2, 0, "a", false},
		{2, 0, "a", false}, // again
		{1, 0, "a", true},
		{1, 9, "a", true},
		{2, 0, "b", true},
		{2, 1, "a", false},
		{2, 0, "a", true},
		{2, 1, plan.LedgerHolder, true},
		{3, 0, plan.LedgerHolder, false},
		{3, 0, plan.LedgerHolder, false},
		{2, 2, "a", true},
	} {
		record := s.record(c.seq, c.sub, c.holder, plan.Arm)
		before := s.observe().Claim
		err := s.Target.Claim(s.ctx, record, nil)
		if c.fenced != errors.Is(err, target.ErrFenced) || !c.fenced && err != nil {
			s.t.Errorf("claim %s of %s: %v, want refused %v", record.Number, c.holder, err, c.fenced)
		}
		want := record
		if c.fenced {
			want = before
		}
		if got := s.observe().Claim; !reflect.DeepEqual(got, want) {
			s.t.Errorf("after the claim %s of %s the record is\n%+v, want\n%+v", record.Number, c.holder, got, want)
		}
	}
	foreign := s.record(4, 0, "a", plan.Do)
	foreign.Ledger = "registry.example/else/where production"
	err := s.Target.Claim(s.ctx, foreign, nil)
	if err == nil || errors.Is(err, target.ErrFenced) || fault.CodeOf(err) != fault.Refused ||
		!strings.Contains(err.Error(), "belongs to the ledger "+Ledger+", not to "+foreign.Ledger) {
		s.t.Errorf("a claim for another ledger: %v", err)
	}
	s.seq = 3
	s.refused("the right number and another holder", plan.Token{Number: plan.Number{Seq: 3}, Holder: "a"})
	s.refused("another sub", plan.Token{Number: plan.Number{Seq: 3, Sub: 1}, Holder: plan.LedgerHolder})
	s.refused("a higher number", plan.Token{Number: plan.Number{Seq: 4}, Holder: "a"})
}

func (s *suite) notes() {
	noted := func(what string, ids ...string) {
		s.t.Helper()
		var got []string
		for _, n := range s.observe().Notes {
			got = append(got, n.ID)
		}
		if !slices.Equal(got, ids) {
			s.t.Errorf("%s: the notes are %q, want %q", what, got, ids)
		}
	}
	s.seq++
	first := s.record(s.seq, 1, "n", plan.Fire)
	note := s.note("one")
	for range 2 {
		s.must(s.Target.Claim(s.ctx, first, note))
		note.Number = first.Number
		if got := s.observe().Notes; len(got) != 1 || !reflect.DeepEqual(got[0], *note) {
			s.t.Errorf("the notes are %+v, want %+v", got, *note)
		}
	}
	if err := s.Target.Claim(s.ctx, s.record(s.seq, 0, "late", plan.Fire), s.note("late")); !errors.Is(err, target.ErrFenced) {
		s.t.Errorf("a lower claim with a note: %v, want ErrFenced", err)
	}
	if err := s.Target.Claim(s.ctx, first, s.note("afterwards")); err == nil {
		s.t.Error("a note was taken for a claim that is there without it")
	}
	noted("after a claim that was refused", "one")
	if err := s.Target.Forget(s.ctx, first.Token, []string{"one"}); err == nil || errors.Is(err, target.ErrFenced) {
		s.t.Errorf("to forget the note of the record itself: %v, want an error", err)
	}
	s.claim()
	noted("under a higher claim", "one")
	s.seq++
	second := s.record(s.seq, 0, "n", plan.Fire)
	s.must(s.Target.Claim(s.ctx, second, s.note("two")))
	noted("after a second rollback", "two", "one")
	for _, old := range []plan.Token{first.Token, s.by} {
		if err := s.Target.Forget(s.ctx, old, []string{"one"}); !errors.Is(err, target.ErrFenced) {
			s.t.Errorf("to forget with the token of an older claim: %v, want ErrFenced", err)
		}
	}
	s.must(s.Target.Forget(s.ctx, second.Token, []string{"nobody", "one"}))
	noted("when one is forgotten", "two")
	s.must(s.Target.Forget(s.ctx, s.claim(), []string{"two"}))
	s.must(s.Target.Forget(s.ctx, s.by, []string{"two"})) // again
	noted("in the end")
}

// races is what two holders do at once.
func (s *suite) races() {
	at := func(claims ...plan.Claim) []error {
		results := make([]error, len(claims))
		var both sync.WaitGroup
		for i, c := range claims {
			both.Go(func() { results[i] = s.Target.Claim(s.ctx, c, s.note(c.Holder)) })
		}
		both.Wait()
		return results
	}
	for range 20 {
		s.seq++
		x, y := s.record(s.seq, 0, "x", plan.Fire), s.record(s.seq, 0, "y", plan.Fire)
		results := at(x, y)
		won, lost := x, results[1]
		if results[0] != nil {
			won, lost = y, results[0]
		}
		state := s.observe()
		if !errors.Is(lost, target.ErrFenced) || results[0] != nil && results[1] != nil || !reflect.DeepEqual(state.Claim, won) ||
			len(state.Notes) != 1 || state.Notes[0].ID != won.Holder {
			s.t.Fatalf("two claims of one number ended with %v and %v, and left %+v", results[0], results[1], state)
		}
		s.must(s.Target.Forget(s.ctx, s.claim(), []string{"x", "y"}))

		s.seq++
		x, y = s.record(s.seq, 0, "x", plan.Fire), s.record(s.seq, 1, "y", plan.Fire)
		results = at(x, y)
		want := []string{"y"}
		if results[0] == nil {
			want = append(want, "x")
		}
		state = s.observe()
		var noted []string
		for _, n := range state.Notes {
			noted = append(noted, n.ID)
		}
		if results[0] != nil && !errors.Is(results[0], target.ErrFenced) || results[1] != nil || !reflect.DeepEqual(state.Claim, y) || !slices.Equal(noted, want) {
			s.t.Fatalf("two claims at once ended with %v and %v, and left %+v, want the higher one, and the notes %q", results[0], results[1], state, want)
		}
		s.must(s.Target.Forget(s.ctx, s.claim(), []string{"x", "y"}))
		if left := s.observe().Notes; len(left) > 0 {
			s.t.Fatalf("forgotten notes are left: %+v", left)
		}
	}
}

func (s *suite) stages() {
	by := s.claim()
	if err := s.Target.Stage(s.ctx, by, s.Missing); err == nil {
		s.t.Error("an image that does not exist was staged")
	}
	if state := s.observe(); len(state.Instances) != 0 || s.has(s.Missing) {
		s.t.Errorf("after an image that does not exist: %+v, want nothing changed", state)
	}
	// At once, and again: it is there once.
	results := make([]error, 4)
	var runs sync.WaitGroup
	for i := range results {
		runs.Go(func() { results[i] = s.Target.Stage(s.ctx, by, s.Good) })
	}
	runs.Wait()
	s.must(errors.Join(results...))
	if in := s.settled(s.Good, plan.Ready); in.Address == "" || in.Weight != 0 || in.Release != s.Good || in.Reason != "" {
		s.t.Errorf("staged: %+v, want an address, no traffic and no reason", in)
	}
	s.must(s.Target.Stage(s.ctx, by, s.Good))
	if state := s.observe(); len(state.Instances) != 1 || state.Claim.Token != by {
		s.t.Errorf("staged five times: %+v", state)
	}
	if !s.has(s.Good) || s.find(s.Other) != nil {
		s.t.Errorf("has %s: %v; found %+v, which was never staged", s.Good, s.has(s.Good), s.find(s.Other))
	}
	if lines := s.logs(s.Good, 5); len(lines) == 0 {
		s.t.Error("a release that runs has written no line")
	}
}

func (s *suite) shifts() {
	s.must(s.Router.Shift(s.ctx, s.by, all(s.Good)))
	s.serves("the only release", s.Good, 100, 100)
	if in := s.find(s.Good); in.Weight != 0 {
		s.t.Errorf("Find says a weight of %d, want none", in.Weight)
	}

	by := s.claim()
	s.must(s.Target.Stage(s.ctx, by, s.Other))
	s.settled(s.Other, plan.Ready)
	s.serves("when another one is staged", s.Good, 100, 100)
	s.must(s.Router.Shift(s.ctx, by, map[release.ID]int{s.Good.ID(): 75, s.Other.ID(): 25}))
	s.serves("at a weight of 25", s.Other, 15, 35)
	if state := s.observe(); state.Find(s.Other.ID()).Weight != 25 || state.Serving().Release != s.Good {
		s.t.Errorf("weights: %+v", state)
	}
	for name, weights := range map[string]map[release.ID]int{
		"a sum of 90":     {s.Good.ID(): 90},
		"less than none":  {s.Good.ID(): 110, s.Other.ID(): -10},
		"nobody":          {},
		"somebody absent": {s.Missing.ID(): 100},
	} {
		if err := s.Router.Shift(s.ctx, by, weights); err == nil || errors.Is(err, target.ErrFenced) {
			s.t.Errorf("traffic for %s: %v, want an error", name, err)
		}
	}
}

// fences is that an older run changes nothing on a target that serves.
func (s *suite) fences() {
	old := s.by
	s.claim()
	s.refused("an older token", old)
	s.refused("the right number and another holder", plan.Token{Number: s.by.Number, Holder: "somebody"})
}

func (s *suite) failures() {
	s.must(s.Target.Stage(s.ctx, s.by, s.Crashing))
	for range 2 {
		if in := s.settled(s.Crashing, plan.Failed); in.Reason == "" {
			s.t.Errorf("a release that crashed: %+v, want a reason", in)
		}
		if lines := s.logs(s.Crashing, 20); len(lines) == 0 {
			s.t.Error("a release that crashed has no last line")
		}
		if err := s.Router.Shift(s.ctx, s.by, all(s.Crashing)); err == nil {
			s.t.Error("a release that crashed got traffic")
		}
		s.must(s.Target.Stage(s.ctx, s.by, s.Crashing)) // again
	}
	s.must(s.Target.Retire(s.ctx, s.by, s.Crashing.ID(), 0))

	s.must(s.Target.Stage(s.ctx, s.by, s.Mute))
	in := s.until(s.Mute, "starting, with a reason", func(in plan.Instance) bool { return in.Phase != plan.Starting || in.Reason != "" })
	if in.Phase != plan.Starting {
		s.t.Errorf("a release that does not answer: %+v, want starting", in)
	}
	if state := s.observe(); state.Find(s.Mute.ID()).Reason == "" {
		s.t.Errorf("a release that does not answer: %+v, want the reason", state)
	}
	if err := s.Router.Shift(s.ctx, s.by, all(s.Mute)); err == nil {
		s.t.Error("a release that is not ready got traffic")
	}
	s.must(s.Target.Retire(s.ctx, s.by, s.Mute.ID(), 0))
	if s.find(s.Mute) != nil || s.find(s.Crashing) != nil {
		s.t.Error("what was retired is still there")
	}
}

// twins are two releases of one image: what happens to one does not happen to the other.
func (s *suite) twins() {
	twin := s.Good
	twin.Config = "0123456789abcdef"
	s.must(s.Target.Stage(s.ctx, s.by, twin))
	in := s.settled(twin, plan.Ready)
	if good := s.find(s.Good); good == nil || good.Address == in.Address || in.Release != twin {
		s.t.Errorf("%+v beside %+v: want two instances", in, good)
	}
	s.must(s.Router.Shift(s.ctx, s.by, all(twin)))
	if state := s.observe(); state.Find(twin.ID()).Weight != 100 || state.Find(s.Good.ID()).Weight != 0 {
		s.t.Errorf("the traffic of a twin: %+v", state)
	}
	s.must(s.Router.Shift(s.ctx, s.by, all(s.Good)))
	s.must(s.Target.Retire(s.ctx, s.by, twin.ID(), 0))
	if s.find(twin) != nil || s.find(s.Good) == nil || !s.has(s.Good) {
		s.t.Error("a twin was retired, and the other one is gone, or it is still there")
	}
	s.serves("after its twin was retired", s.Good, 100, 100)
}

// parks is a release that is stopped and kept.
func (s *suite) parks() {
	s.must(s.Target.Stage(s.ctx, s.by, s.Other))
	s.settled(s.Other, plan.Ready)
	old := s.by
	s.claim()
	if err := s.Target.Park(s.ctx, old, s.Other.ID(), 0); !errors.Is(err, target.ErrFenced) {
		s.t.Errorf("parked by an older token: %v", err)
	}
	for range 2 {
		s.must(s.Target.Park(s.ctx, s.by, s.Other.ID(), 0))
		s.until(s.Other, "parked", func(in plan.Instance) bool { return in.Phase == plan.Parked })
	}
	if state := s.observe(); state.Find(s.Other.ID()) == nil || state.Find(s.Other.ID()).Phase != plan.Parked || !s.has(s.Other) {
		s.t.Errorf("what is parked is not there, or not kept: %+v", state)
	}
	if err := s.Router.Shift(s.ctx, s.by, all(s.Other)); err == nil {
		s.t.Error("what is parked got traffic")
	}
	s.must(s.Target.Park(s.ctx, s.by, s.Missing.ID(), 0)) // what is not there stays away
	s.must(s.Target.Stage(s.ctx, s.by, s.Other))
	s.settled(s.Other, plan.Ready)
	s.must(s.Router.Shift(s.ctx, s.by, all(s.Other)))
	s.serves("started again", s.Other, 100, 100)
	s.must(s.Router.Shift(s.ctx, s.by, all(s.Good)))
	s.must(s.Target.Park(s.ctx, s.by, s.Other.ID(), 0))
	s.must(s.Target.Retire(s.ctx, s.by, s.Other.ID(), 0))
	if s.find(s.Other) != nil {
		s.t.Error("what was parked is not removed")
	}
	s.must(s.Target.Stage(s.ctx, s.by, s.Other))
	s.settled(s.Other, plan.Ready)
}

// dies is a release that is staged again after it died.
func (s *suite) dies() {
	s.must(s.Router.Shift(s.ctx, s.by, all(s.Good)))
	s.settled(s.Other, plan.Ready)
	s.Kill(s.Other.ID())
	in := s.until(s.Other, "failed", func(in plan.Instance) bool { return in.Phase == plan.Failed })
	if in.Reason == "" {
		s.t.Errorf("a release that was killed: %+v, want a reason", in)
	}
	results := make([]error, 2)
	var runs sync.WaitGroup
	for i := range results {
		runs.Go(func() { results[i] = s.Target.Stage(s.ctx, s.by, s.Other) })
	}
	runs.Wait()
	s.must(errors.Join(results...))
	s.until(s.Other, "ready again", func(in plan.Instance) bool { return in.Phase == plan.Ready })
	if state := s.observe(); len(state.Instances) != 2 {
		s.t.Errorf("staged again after it died: %+v", state)
	}
	s.serves("while the other one died", s.Good, 100, 100)
	s.must(s.Router.Shift(s.ctx, s.by, all(s.Other)))
	s.serves("when it is back", s.Other, 100, 100)
}

// patience is what a change may take that waits for nobody; drain is much longer.
const (
	patience = 5 * time.Second
	drain    = time.Minute
)

// closes is a release whose last connections are ended, so that nothing waits for them.
func (s *suite) closes() {
	if s.Busy == nil {
		return
	}
	old := s.by
	by := s.claim()
	s.must(s.Router.Shift(s.ctx, by, all(s.Good)))
	done := s.Busy(s.Good.ID())
	s.must(s.Router.Shift(s.ctx, by, all(s.Other)))
	if err := s.Router.Close(s.ctx, old, s.Good.ID(), 0); !errors.Is(err, target.ErrFenced) {
		s.t.Errorf("closed by an older token: %v", err)
	}
	s.must(s.Router.Close(s.ctx, by, s.Good.ID(), 50*time.Millisecond))
	s.must(s.Router.Close(s.ctx, by, s.Missing.ID(), 0)) // nobody has a connection with it
	ctx, cancel := context.WithTimeout(s.ctx, 30*time.Second)
	defer cancel()
	if err := s.Target.Retire(ctx, by, s.Good.ID(), time.Minute); err != nil {
		s.t.Errorf("retired after its connections were closed: %v", err)
	}
	if done() {
		s.t.Error("a connection that was closed has gone on")
	}
	s.must(s.Target.Stage(s.ctx, by, s.Good))
	s.settled(s.Good, plan.Ready)
}

func (s *suite) retires() {
	by := s.claim()
	s.must(s.Router.Shift(s.ctx, by, all(s.Good)))
	if s.Busy != nil {
		done := s.Busy(s.Good.ID())
		defer done()
		s.must(s.Router.Shift(s.ctx, by, all(s.Other)))
		retired := make(chan error, 1)
		go func() { retired <- s.Target.Retire(s.ctx, by, s.Good.ID(), drain) }()
		for range 20 {
			begun := time.Now()
			s.must(s.Router.Shift(s.ctx, by, all(s.Other)))
			s.observe()
			if took := time.Since(begun); took > patience {
				s.t.Fatalf("a shift took %s beside a release that drains", took)
			}
			select {
			case err := <-retired:
				s.t.Fatalf("a release with a request under way was retired: %v", err)
			default:
			}
		}
		if !done() {
			s.t.Error("a request that was under way got no answer")
		}
		s.must(<-retired)
	}
	s.must(s.Router.Shift(s.ctx, by, all(s.Other)))
	s.must(s.Target.Retire(s.ctx, by, s.Good.ID(), time.Second))
	s.must(s.Target.Retire(s.ctx, by, s.Good.ID(), time.Second)) // again
	state := s.observe()
	if len(state.Instances) != 1 || state.Serving() == nil || state.Serving().Release != s.Other || state.Claim.Token != by {
		s.t.Errorf("in the end: %+v", state)
	}
	if lines := s.logs(s.Good, 5); len(lines) > 0 {
		s.t.Errorf("a release that is gone has written %q", lines)
	}
	s.serves("in the end", s.Other, 100, 100)
}

// Release is a release of a target in memory.
func Release(version string) release.Release {
	return release.Release{Digest: release.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(version)))), Repository: "registry.example/acme/shop", Version: version}
}
