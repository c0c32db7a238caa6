// Package targettest is the conformance suite of targets with their routers.
package targettest

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/router"
	"github.com/backstep/backstep/internal/target"
)

// Subject is a target to check, with nothing on it, and releases that it can run.
type Subject struct {
	Target target.Target
	Router router.Router
	// Good and Other answer every request with 200 and the header X-Backstep-Release, once they are ready.
	Good, Other release.Release
	// Crashing ends by itself at once, after a line on its standard output.
	Crashing release.Release
	// Address is where customers ask, http://host:port.
	Address string
}

// Run checks a subject.
func Run(t *testing.T, s Subject) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	observe := func() plan.State {
		t.Helper()
		state, err := s.Target.Observe(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return state
	}
	settled := func(r release.Release, want plan.Phase) plan.Instance {
		t.Helper()
		for ctx.Err() == nil {
			in := observe().Find(r.Digest)
			if in == nil {
				t.Fatalf("%s is not on the target", r)
			}
			if in.Phase != plan.Starting {
				if in.Phase != want {
					t.Fatalf("%s is %s (%s), want %s", r, in.Phase, in.Reason, want)
				}
				return *in
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("%s is still starting", r)
		return plan.Instance{}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	share := func(r release.Release) int {
		t.Helper()
		const requests = 100
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		count := 0
		for range requests {
			answer, err := client.Get(s.Address)
			must(err)
			answer.Body.Close()
			if answer.StatusCode != http.StatusOK {
				t.Fatalf("a customer got %d", answer.StatusCode)
			}
			if answer.Header.Get("X-Backstep-Release") == r.Digest.Short() {
				count++
			}
		}
		return count
	}

	if state := observe(); state.Fence != 0 || len(state.Instances) != 0 {
		t.Fatalf("an empty target: %+v", state)
	}

	missing := s.Good
	missing.Digest = release.Digest("sha256:" + strings.Repeat("0", 64))
	if err := s.Target.Stage(ctx, 1, missing); err == nil {
		t.Error("an image that does not exist was staged")
	}
	if state := observe(); state.Fence != 0 || len(state.Instances) != 0 {
		t.Errorf("after an image that does not exist: %+v, want nothing changed", state)
	}

	must(s.Target.Stage(ctx, 2, s.Good))
	if in := settled(s.Good, plan.Ready); in.Address == "" || in.Weight != 0 || in.Release != s.Good {
		t.Errorf("staged: %+v, want an address and no traffic", in)
	}
	must(s.Target.Stage(ctx, 2, s.Good)) // again
	if state := observe(); len(state.Instances) != 1 || state.Fence != 2 {
		t.Errorf("staged twice: %+v", state)
	}
	must(s.Router.Shift(ctx, 2, map[release.Digest]int{s.Good.Digest: 100}))
	if got := share(s.Good); got != 100 {
		t.Errorf("the only release has %d of 100 requests", got)
	}

	must(s.Target.Stage(ctx, 3, s.Other))
	settled(s.Other, plan.Ready)
	if got := share(s.Good); got != 100 {
		t.Errorf("staging took traffic: %d of 100 requests are left", got)
	}
	must(s.Router.Shift(ctx, 3, map[release.Digest]int{s.Good.Digest: 75, s.Other.Digest: 25}))
	if got := share(s.Other); got < 15 || got > 35 {
		t.Errorf("at a weight of 25 the release got %d of 100 requests", got)
	}
	if state := observe(); state.Find(s.Other.Digest).Weight != 25 || state.Serving().Release != s.Good {
		t.Errorf("weights: %+v", state)
	}
	for name, weights := range map[string]map[release.Digest]int{
		"a sum of 90":     {s.Good.Digest: 90},
		"nobody":          {},
		"somebody absent": {missing.Digest: 100},
	} {
		if err := s.Router.Shift(ctx, 3, weights); err == nil {
			t.Errorf("traffic for %s was taken", name)
		}
	}

	for what, err := range map[string]error{
		"stage":  s.Target.Stage(ctx, 1, s.Good),
		"shift":  s.Router.Shift(ctx, 1, map[release.Digest]int{s.Good.Digest: 100}),
		"retire": s.Target.Retire(ctx, 1, s.Good.Digest, 0),
	} {
		if !errors.Is(err, target.ErrFenced) {
			t.Errorf("%s with a lower number: %v, want ErrFenced", what, err)
		}
	}

	must(s.Target.Stage(ctx, 4, s.Crashing))
	in := settled(s.Crashing, plan.Failed)
	if in.Reason == "" || len(in.Log) == 0 {
		t.Errorf("a release that crashed: %+v, want a reason and its last lines", in)
	}
	if err := s.Router.Shift(ctx, 4, map[release.Digest]int{s.Crashing.Digest: 100}); err == nil {
		t.Error("a release that crashed got traffic")
	}
	must(s.Target.Retire(ctx, 4, s.Crashing.Digest, 0))

	must(s.Router.Shift(ctx, 5, map[release.Digest]int{s.Other.Digest: 100}))
	must(s.Target.Retire(ctx, 5, s.Good.Digest, time.Second))
	must(s.Target.Retire(ctx, 5, s.Good.Digest, time.Second)) // again
	if state := observe(); len(state.Instances) != 1 || state.Serving().Release != s.Other || state.Fence != 5 {
		t.Errorf("in the end: %+v", state)
	}
	if got := share(s.Other); got != 100 {
		t.Errorf("in the end the release has %d of 100 requests", got)
	}
}
