package plan

import (
	"strings"
	"testing"

	"github.com/backstep/backstep/internal/release"
)

func rel(name string) release.Release {
	return release.Release{Digest: release.Digest("sha256:" + strings.Repeat(name, 64)), Version: name}
}

// brief is a plan as one line.
func brief(p Plan) string {
	var words []string
	for _, op := range p {
		w := string(op.Do) + " " + op.Release.Version
		if op.Do == Shift {
			w += strings.Fields(op.String())[1]
		}
		words = append(words, w)
	}
	return strings.Join(words, ", ")
}

func TestFor(t *testing.T) {
	on := func(name string, weight int, phase Phase) Instance {
		return Instance{Release: rel(name), Weight: weight, Phase: phase}
	}
	for _, c := range []struct {
		name     string
		now      []Instance
		strategy Strategy
		weights  []int
		keep     []release.ID
		want     string
	}{
		{"first release", nil, BlueGreen, nil, nil, "stage b, await b, shift b100"},
		{"blue-green keeps the old one warm", []Instance{on("a", 100, Ready)}, BlueGreen, nil, nil, "stage b, await b, shift b100"},
		{"canary", []Instance{on("a", 100, Ready)}, Canary, []int{10, 50}, nil, "stage b, await b, shift b10, watch b, shift b50, watch b, shift b100"},
		{"canary goes on where it was", []Instance{on("a", 90, Ready), on("b", 10, Ready)}, Canary, []int{10, 50}, nil, "shift b50, watch b, shift b100"},
		{"warm", []Instance{on("a", 100, Ready), on("b", 0, Ready)}, BlueGreen, nil, nil, "shift b100"},
		{"still starting", []Instance{on("a", 100, Ready), on("b", 0, Starting)}, BlueGreen, nil, nil, "stage b, await b, shift b100"},
		{"a failed one is started anew", []Instance{on("a", 100, Ready), on("b", 0, Failed)}, BlueGreen, nil, nil, "retire b, stage b, await b, shift b100"},
		{"what nobody needs goes first", []Instance{on("a", 100, Ready), on("c", 0, Ready)}, BlueGreen, nil, nil, "retire c, stage b, await b, shift b100"},
		{"what is to be kept stays", []Instance{on("a", 100, Ready), on("c", 0, Ready)}, BlueGreen, nil, []release.ID{rel("c").ID()}, "stage b, await b, shift b100"},
		{"there already", []Instance{on("b", 100, Ready)}, BlueGreen, nil, nil, ""},
		{"a third one with traffic goes last", []Instance{on("a", 60, Ready), on("c", 40, Ready)}, BlueGreen, nil, nil, "stage b, await b, shift b100, retire c"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := brief(For(State{Instances: c.now}, Wanted{Release: rel("b"), Strategy: c.strategy, Weights: c.weights, Keep: c.keep}))
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// Going back is one shift when the release is warm; nothing is removed but what stands in its own way.
func TestBack(t *testing.T) {
	good, bad := release.Release{Digest: "sha256:a"}, release.Release{Digest: "sha256:b"}
	for name, c := range map[string]struct {
		now  []Instance
		want string
	}{
		"warm": {[]Instance{{Release: good, Phase: Ready}, {Release: bad, Phase: Ready, Weight: 100}}, "shift"},
		"cold": {[]Instance{{Release: bad, Phase: Ready, Weight: 100}}, "stage await shift"},
		"died": {[]Instance{{Release: good, Phase: Failed}, {Release: bad, Phase: Failed, Weight: 100}}, "retire stage await shift"},
		"done": {[]Instance{{Release: good, Phase: Ready, Weight: 100}}, ""},
	} {
		var verbs []string
		for _, op := range Back(State{Instances: c.now}, good) {
			verbs = append(verbs, string(op.Do))
		}
		if got := strings.Join(verbs, " "); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
