package verdict

import (
	"testing"
	"time"
)

func TestThresholds(t *testing.T) {
	for name, c := range map[string]struct {
		rule Rule
		rate int // errors of 100 requests a tick of 15 s
		want Verdict
		at   time.Duration
	}{
		"Argo, all bad":       {Argo(), 100, Fail, 20 * time.Minute},
		"Argo, at its limit":  {Argo(), 5, Pass, 30 * time.Minute},
		"Flagger, all bad":    {Flagger(), 100, Fail, 11 * time.Minute},
		"Flagger, in bounds":  {Flagger(), 1, Pass, 30 * time.Minute},
		"Flagger, no request": {Flagger(), -1, Unknown, 40 * time.Minute},
	} {
		for at := 15 * time.Second; ; at += 15 * time.Second {
			counts := Counts{100, c.rate}
			if c.rate < 0 {
				counts = Counts{}
			}
			v := c.rule.Observe(Tick{Elapsed: at, Candidate: counts})
			if v != Unknown || at == 40*time.Minute {
				if v != c.want || at != c.at {
					t.Errorf("%s: %s at %s (%s), want %s at %s", name, v, at, c.rule.Reason(), c.want, c.at)
				}
				break
			}
		}
	}
}
