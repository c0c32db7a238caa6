// Package verdict turns evidence into a verdict. It is pure: ticks go in, a verdict comes out, and it has
// neither a clock nor a network.
package verdict

import "time"

// Verdict is what the evidence says. The zero value is Unknown, which never promotes.
type Verdict uint8

// The verdicts.
const (
	Unknown Verdict = iota
	Pass
	Fail
)

func (v Verdict) String() string { return [...]string{"unknown", "pass", "fail"}[v] }

// Counts is what was seen of one release in one tick. A request that could not be made is in neither number.
type Counts struct {
	Requests int `json:"requests"`
	Errors   int `json:"errors"`
}

// Add is the sum of both.
func (c Counts) Add(o Counts) Counts {
	return Counts{c.Requests + o.Requests, c.Errors + o.Errors}
}

// Pair is what was counted of both sides.
type Pair struct {
	Candidate Counts `json:"candidate"`
	Baseline  Counts `json:"baseline"`
}

// Tick is the evidence of one stretch of time. Elapsed is its end, counted from the start of the bake; before it, it is
// negative.
type Tick struct {
	Region    string        `json:"region,omitempty"` // whose sides these are; "" when there is one only
	Elapsed   time.Duration `json:"elapsed"`
	Candidate Counts        `json:"candidate"`
	Baseline  Counts        `json:"baseline"`
	Slower    []Pair        `json:"slower,omitempty"` // for each bound of latency, the requests that took longer, as Errors
}

// add adds a tick that comes later.
func (t *Tick) add(o Tick) {
	t.Region, t.Elapsed, t.Candidate, t.Baseline = o.Region, o.Elapsed, t.Candidate.Add(o.Candidate), t.Baseline.Add(o.Baseline)
	for i, p := range o.Slower {
		if i == len(t.Slower) {
			t.Slower = append(t.Slower, Pair{})
		}
		t.Slower[i] = Pair{t.Slower[i].Candidate.Add(p.Candidate), t.Slower[i].Baseline.Add(p.Baseline)}
	}
}

// Rule judges ticks in the order they come. Once it has said Fail it stays with it; a Pass holds for as long as the evidence does.
type Rule interface {
	// Observe takes one tick and returns what all ticks so far say.
	Observe(Tick) Verdict
	// Reason says why, in one line.
	Reason() string
	// Progress is how far the evidence has come on the way to a fail and to a pass, each from 0 to 1.
	Progress() (fail, pass float64)
}
