package replay

import (
	"bytes"
	"encoding/csv"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/verdict"
	"github.com/backstep/backstep/internal/verdict/ticks"
)

// What was judged and recorded is judged the same again: the verdict and its second, for rules, rates and ends of every kind.
func TestReplayIsTheRuleThatRan(t *testing.T) {
	random := rand.New(rand.NewPCG(4, 2))
	said := map[string]int{}
	for run := range 60 {
		by := verdict.Setting{Rule: []string{verdict.Probed, verdict.Metered}[run%2], Options: verdict.Options{Harmless: 1, Objective: 0.01, Intolerable: 0.05, Ratio: 2.5,
			Negligible: 0.05, WarmUp: 3 * time.Second, Alpha: 0.009, Beta: 0.01, Bake: 10 * time.Second}}
		if by.Rule == verdict.Metered {
			by.Tick, by.Skew = time.Second, 2*time.Second
		}
		rule, err := by.New()
		if err != nil {
			t.Fatal(err)
		}
		rate, beside := []float64{0, 0.2, 1}[random.IntN(3)], random.IntN(3) > 0
		record := ticks.Series{Name: "shop", Rule: by}
		want, at := verdict.Unknown, time.Duration(0)
		for at < 40*time.Second && want == verdict.Unknown {
			at += 50*time.Millisecond + time.Duration(random.IntN(1e6)) // as a clock goes
			tick := verdict.Tick{Elapsed: at, Candidate: verdict.Counts{Requests: 1}}
			if random.Float64() < rate {
				tick.Candidate.Errors = 1
			}
			if beside {
				tick.Baseline.Requests = 1
			}
			record.Ticks, want = append(record.Ticks, tick), rule.Observe(tick)
		}
		var file, out bytes.Buffer
		if err := ticks.Write(&file, []ticks.Series{record}); err != nil {
			t.Fatal(err)
		}
		if err := replay(t.Context(), &file, &out, "ticks.csv", verdict.Setting{}); err != nil {
			t.Fatal(err)
		}
		lines, err := csv.NewReader(&out).ReadAll()
		if err != nil || len(lines) != 2 {
			t.Fatal(lines, err)
		}
		if got := lines[1]; got[1] != want.String() || got[3] != strconv.FormatFloat(at.Seconds(), 'f', -1, 64) || got[4] != rule.Reason() {
			t.Errorf("run %d: %v, want %s at %s: %s", run, got, want, at, rule.Reason())
		}
		said[want.String()]++
	}
	if said["pass"] == 0 || said["fail"] == 0 {
		t.Errorf("the runs say too little: %v", said)
	}
}
