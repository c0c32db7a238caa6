// Package plan decides what will be done: what runs and what is wanted go in, operations come out. A plan
// is data: a dry run prints it, the ledger stores it, and one executor runs it.
package plan

import (
	"fmt"
	"strings"

	"github.com/backstep/backstep/internal/release"
)

// Strategy is how a target goes from one release to the next.
type Strategy string

// The strategies.
const (
	BlueGreen Strategy = "blue-green" // beside the old one, then all traffic at once
	Canary    Strategy = "canary"     // beside the old one, then by weights with a verdict between them
	Recreate  Strategy = "recreate"   // in place of the old one, which is stopped for it: there is a gap
)

// Phase is how far an instance has come.
type Phase string

// The phases. Failed is final: the target does not try again by itself. What is parked is stopped, and only has to be started.
const (
	Starting Phase = "starting"
	Ready    Phase = "ready"
	Failed   Phase = "failed"
	Parked   Phase = "parked"
)

// Jobs is whether the parts of a release that have no traffic, such as workers of a queue, are at work.
type Jobs string

// The states of jobs. Those of what has all the traffic work, and those of every other release are idle.
const (
	Idle    Jobs = "idle"
	Working Jobs = "working"
	Mixed   Jobs = "mixed" // somebody died between starting or stopping two of them
)

// Replica is one of several copies of a release on a target.
type Replica struct {
	Phase   Phase  `json:"phase"`
	Ended   bool   `json:"ended,omitempty"`   // it has failed since its process does not run: no check is needed to tell
	Reason  string `json:"reason,omitempty"`  // why it failed, or what it is waiting for
	Address string `json:"address,omitempty"` // host:port at which it is asked now
	Front   string `json:"front,omitempty"`   // host:port for a load balancer, which never means another release; Address when empty
}

// Instance is one release on a target.
type Instance struct {
	Release release.Release `json:"release"`
	Phase   Phase           `json:"phase"`
	Weight  int             `json:"weight"`            // percent of the traffic, 0 to 100
	Address string          `json:"address,omitempty"` // host:port that always means this release, whatever has the traffic
	Reason  string          `json:"reason,omitempty"`  // why it failed, or what it is waiting for
	Ended   bool            `json:"ended,omitempty"`   // it has failed since a process of it does not run: no check is needed to tell
	// Restarts counts how often the target has started it again by itself, after it ended.
	Restarts int `json:"restarts,omitempty"`
	// Jobs says whether the parts of it that have no traffic are at work; "" when it has none.
	Jobs Jobs `json:"jobs,omitempty"`
	// Replicas are its copies; the target that knows only one leaves them out.
	Replicas []Replica `json:"replicas,omitempty"`
}

// Sum makes what the replicas say what the instance says: it has failed when one has, and is ready when all are.
func (in *Instance) Sum() {
	in.Phase, in.Reason, in.Ended = Ready, "", false
	worst := map[Phase]int{Ready: 0, Parked: 1, Starting: 2, Failed: 3}
	for i, r := range in.Replicas {
		if i == 0 {
			in.Address = r.Address
		}
		in.Ended = in.Ended || r.Ended
		if worst[r.Phase] > worst[in.Phase] {
			if in.Phase, in.Reason = r.Phase, r.Reason; len(in.Replicas) > 1 && r.Reason != "" {
				in.Reason = fmt.Sprintf("replica %d: %s", i+1, r.Reason)
			}
		}
	}
}

// Addresses are where probes ask it, one replica after the other.
func (in Instance) Addresses() []string {
	if len(in.Replicas) == 0 {
		return []string{in.Address}
	}
	var all []string
	for _, r := range in.Replicas {
		all = append(all, r.Address)
	}
	return all
}

// Fronts are the addresses that a load balancer shares its traffic out to.
func (in Instance) Fronts() []string {
	all := in.Addresses()
	for i, r := range in.Replicas {
		if r.Front != "" {
			all[i] = r.Front
		}
	}
	return all
}

// State is what a target says of itself.
type State struct {
	Claim     Claim      `json:"claim"`           // the highest one made on it; the zero value when there is none
	Notes     []Note     `json:"notes,omitempty"` // of rollbacks; the highest number first
	Instances []Instance `json:"instances"`
	// Configurations are those that the instances were started with, as far as the target knows them.
	Configurations map[release.Fingerprint]release.Configuration `json:"configurations,omitempty"`
}

// Find is the instance of the release, or nil.
func (s State) Find(id release.ID) *Instance {
	for i := range s.Instances {
		if s.Instances[i].Release.ID() == id {
			return &s.Instances[i]
		}
	}
	return nil
}

// Know notes the configuration that an instance of the release was started with.
func (s *State) Know(r release.Release, c release.Configuration) {
	if r.Config == "" || len(c) == 0 {
		return
	}
	if s.Configurations == nil {
		s.Configurations = map[release.Fingerprint]release.Configuration{}
	}
	s.Configurations[r.Config] = c
}

// Serving is the instance with the most traffic, or nil when none has any.
func (s State) Serving() *Instance {
	var most *Instance
	for i := range s.Instances {
		if in := &s.Instances[i]; in.Weight > 0 && (most == nil || in.Weight > most.Weight) {
			most = in
		}
	}
	return most
}

// Verb is what an operation does.
type Verb string

// The verbs.
const (
	Stage  Verb = "stage"  // start a release beside the one that serves
	Await  Verb = "await"  // wait until it is ready, or has failed
	Try    Verb = "try"    // ask it before a customer does
	Shift  Verb = "shift"  // give it a share of the traffic; the rest stays with From
	Watch  Verb = "watch"  // judge it at this share
	Retire Verb = "retire" // drain and remove it
	Park   Verb = "park"   // drain and stop it, and keep what a start needs
)

// Operation is one change of a target, or one wait.
type Operation struct {
	Do      Verb            `json:"do"`
	Release release.Release `json:"release"`
	From    *release.ID     `json:"from,omitempty"`   // shift: who keeps the rest of the traffic; nil when nobody does
	Weight  int             `json:"weight,omitempty"` // shift: percent of the traffic for the release
}

// String is the operation as a dry run prints it.
func (op Operation) String() string {
	if op.Do == Shift {
		return fmt.Sprintf("shift %d %% of the traffic to %s", op.Weight, op.Release)
	}
	return fmt.Sprintf("%s %s", op.Do, op.Release)
}

// Plan is what will be done, in order.
type Plan []Operation

// String is the plan, one numbered operation a line.
func (p Plan) String() string {
	var b strings.Builder
	for i, op := range p {
		fmt.Fprintf(&b, "%2d. %s\n", i+1, op)
	}
	return b.String()
}

// Wanted is the end that a plan has to reach.
type Wanted struct {
	Release  release.Release
	Strategy Strategy
	Try      bool         // ask it before it gets traffic
	Weights  []int        // canary: the percentages before 100, rising
	Keep     []release.ID // stays on the target without traffic: the warm way back
}

// For is the plan that brings current to wanted. It is pure and total: what cannot be reached is for the
// target to refuse. The release that serves is kept warm; what is neither wanted nor to be kept is retired
// first, so that it frees its room, except what has traffic, which is retired last.
func For(current State, wanted Wanted) Plan {
	var p, last Plan
	serving := current.Serving()
	keep := map[release.ID]bool{wanted.Release.ID(): true}
	for _, id := range wanted.Keep {
		keep[id] = true
	}
	if serving != nil {
		keep[serving.Release.ID()] = true
	}
	for _, in := range current.Instances {
		switch {
		case !keep[in.Release.ID()] && in.Weight == 0:
			p = append(p, Operation{Do: Retire, Release: in.Release})
		case !keep[in.Release.ID()]:
			last = append(last, Operation{Do: Retire, Release: in.Release})
		}
	}
	there := current.Find(wanted.Release.ID())
	if there != nil && there.Phase == Failed {
		p = append(p, Operation{Do: Retire, Release: there.Release})
		there = nil
	}
	if there == nil || there.Phase == Starting || there.Phase == Parked { // who made it may have died before starting it
		p = append(p, Operation{Do: Stage, Release: wanted.Release})
	}
	if wanted.Strategy != Recreate && (there == nil || there.Phase != Ready) {
		p = append(p, Operation{Do: Await, Release: wanted.Release})
	}
	if there != nil && there.Weight == 100 {
		return append(p, last...)
	}
	if wanted.Try && wanted.Strategy != Recreate && (there == nil || there.Weight == 0) {
		p = append(p, Operation{Do: Try, Release: wanted.Release})
	}
	var from *release.ID
	if serving != nil && serving.Release.ID() != wanted.Release.ID() {
		id := serving.Release.ID()
		from = &id
		if wanted.Strategy == Canary && serving.Phase == Ready { // there is nothing to compare with what has failed
			for _, weight := range wanted.Weights {
				if there != nil && weight <= there.Weight {
					continue
				}
				p = append(p,
					Operation{Do: Shift, Release: wanted.Release, From: from, Weight: weight},
					Operation{Do: Watch, Release: wanted.Release, Weight: weight})
			}
		}
	}
	p = append(p, Operation{Do: Shift, Release: wanted.Release, From: from, Weight: 100})
	if wanted.Strategy == Recreate {
		p = append(p, Operation{Do: Await, Release: wanted.Release}) // it starts when it gets the traffic
	}
	return append(p, last...)
}

// Back is the plan that gives to all the traffic again: one shift when it is ready, else it is started first. Nothing is
// removed, except what stands in its own way.
func Back(current State, to release.Release) Plan {
	var keep []release.ID
	for _, in := range current.Instances {
		keep = append(keep, in.Release.ID())
	}
	return For(current, Wanted{Release: to, Strategy: BlueGreen, Keep: keep})
}
