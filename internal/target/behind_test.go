package target

import (
	"maps"
	"testing"

	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
)

// The shares of replicas add up, and what served before has its shares in proportion.
func TestAddresses(t *testing.T) {
	three := plan.Instance{Release: release.Release{Digest: "sha256:a"}, Phase: plan.Ready,
		Replicas: []plan.Replica{{Address: "a1", Front: "f1"}, {Address: "a2", Front: "f2"}, {Address: "a3"}}}
	one := plan.Instance{Release: release.Release{Digest: "sha256:b"}, Phase: plan.Ready, Address: "b"}
	old := plan.Instance{Release: release.ServedBefore(map[string]int{"o1": 1, "o2": 3}), Phase: plan.Ready}
	state := plan.State{Instances: []plan.Instance{three, one, old}}
	for name, c := range map[string]struct {
		weights map[release.ID]int
		want    map[string]int
	}{
		"all to three":         {map[release.ID]int{three.Release.ID(): 100}, map[string]int{"f1": 34, "f2": 33, "a3": 33}},
		"a canary of three":    {map[release.ID]int{three.Release.ID(): 10, one.Release.ID(): 90}, map[string]int{"f1": 4, "f2": 3, "a3": 3, "b": 90}},
		"one in a hundred":     {map[release.ID]int{three.Release.ID(): 1, one.Release.ID(): 99}, map[string]int{"f1": 1, "b": 99}},
		"beside what was here": {map[release.ID]int{one.Release.ID(): 20, old.Release.ID(): 80}, map[string]int{"b": 20, "o1": 20, "o2": 60}},
		"back to what was":     {map[release.ID]int{old.Release.ID(): 100}, map[string]int{"o1": 25, "o2": 75}},
	} {
		if got, err := addresses(state, c.weights); err != nil || !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, %v; want %v", name, got, err, c.want)
		}
	}
	state.Instances[0].Phase = plan.Parked
	if _, err := addresses(state, map[release.ID]int{three.Release.ID(): 100}); err == nil {
		t.Error("what is parked got traffic")
	}
}
