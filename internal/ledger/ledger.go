// Package ledger is the history of an environment: what an event holds, which transitions there are, and
// the contract of where events are kept.
package ledger

import (
	"context"
	"errors"
	"time"

	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
)

// Kind says what an event tells.
type Kind string

// The kinds of events. A started event is an intent: it is written before anything is touched.
const (
	DeployStarted    Kind = "deploy.started"
	DeployFinished   Kind = "deploy.finished"
	DeployAborted    Kind = "deploy.aborted"
	Verified         Kind = "verify.passed"
	Rejected         Kind = "verify.failed"
	RollbackStarted  Kind = "rollback.started"
	RollbackFinished Kind = "rollback.finished"
	RollbackFailed   Kind = "rollback.failed"
	Frozen           Kind = "freeze"
	Unfrozen         Kind = "unfreeze"
	Lifted           Kind = "lift"
)

// Author is who wrote an event: the person, and the CI run that acted for them.
type Author struct {
	Actor   string `json:"actor,omitempty"`
	Run     string `json:"run,omitempty"`
	Attempt string `json:"attempt,omitempty"`
	URL     string `json:"url,omitempty"`
	Machine string `json:"machine,omitempty"` // its name, and on Linux its numbering of processes
	Process int    `json:"process,omitempty"` // the number of the process on the machine
}

// Event is one transition of an environment, with a full snapshot of what is true after it: losing older
// events loses history only.
type Event struct {
	Seq         uint64              `json:"seq"` // 1 is the first; also the fencing number of what it starts
	Environment release.Environment `json:"environment"`
	Kind        Kind                `json:"kind"`
	At          time.Time           `json:"at"` // for people; never used to order anything
	Author      Author              `json:"author"`
	Reason      string              `json:"reason,omitempty"`
	Evidence    string              `json:"evidence,omitempty"` // why a verdict was given, in one line
	Seconds     float64             `json:"seconds,omitempty"`  // how long what it finishes took
	Release     *release.Release    `json:"release,omitempty"`  // what it is about
	Previous    release.Digest      `json:"previous,omitempty"` // digest of the event before it
	State       Snapshot            `json:"state"`
}

// Snapshot is what is true of an environment.
type Snapshot struct {
	Live        *Entry       `json:"live,omitempty"`
	LastGood    *Entry       `json:"last_good,omitempty"`
	Intent      *Intent      `json:"intent,omitempty"` // what is being done; its run holds the lock
	Freeze      *Freeze      `json:"freeze,omitempty"`
	Quarantined []Quarantine `json:"quarantined,omitempty"`
	Recent      []Entry      `json:"recent,omitempty"` // newest first, at most RecentLimit
}

// RecentLimit is how many releases a snapshot remembers.
const RecentLimit = 20

// Entry is one release in the life of an environment.
type Entry struct {
	Release  release.Release `json:"release"`
	Seq      uint64          `json:"seq"`                // of the event that made it live
	Good     bool            `json:"good"`               // verified and baked
	Restored bool            `json:"restored,omitempty"` // it became live by a rollback
}

// Intent is what one run has set out to do. As long as it is in the snapshot, that run holds the lock.
type Intent struct {
	Kind     Kind            `json:"kind"` // DeployStarted or RollbackStarted
	Seq      uint64          `json:"seq"`  // the fencing number of everything it does
	Author   Author          `json:"author"`
	Deadline time.Time       `json:"deadline"` // after it the run is dead, whatever it says
	From     *Entry          `json:"from,omitempty"`
	To       release.Release `json:"to"`
	Plan     plan.Plan       `json:"plan"`
	Reason   string          `json:"reason,omitempty"`
	Condemn  bool            `json:"condemn,omitempty"` // rollback: quarantine what it leaves, and freeze
}

// Freeze makes an environment refuse deploys. Rolling back is always allowed.
type Freeze struct {
	Author Author    `json:"author"`
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
}

// Quarantine keeps a release that was found bad from being deployed.
type Quarantine struct {
	Release release.Release `json:"release"`
	Author  Author          `json:"author"`
	At      time.Time       `json:"at"`
	Reason  string          `json:"reason"`
}

// QuarantineOf is the entry that forbids d, or nil.
func (s Snapshot) QuarantineOf(d release.Digest) *Quarantine {
	for i := range s.Quarantined {
		if s.Quarantined[i].Release.Digest == d {
			return &s.Quarantined[i]
		}
	}
	return nil
}

// Ledger keeps the events of one environment.
type Ledger interface {
	// Newest is the newest event; the zero Event when there is none yet. What cannot be read is an
	// error, never "no history".
	Newest(ctx context.Context) (Event, error)
	// At is the event with this number, or an error that wraps ErrNoEvent.
	At(ctx context.Context, seq uint64) (Event, error)
	// Commit reads the newest event, asks change for the one that follows it, and writes that. Change is
	// asked again when another writer was faster; an error of change ends the commit and is returned as
	// it is. Seq, Environment and Previous are set by the ledger. When Commit returns nil, every later
	// Newest of anybody shows this event or a later one.
	Commit(ctx context.Context, change func(newest Event) (Event, error)) (Event, error)
	// Beat shows that the run which holds the intent numbered seq is alive. It has to be called every
	// BeatEvery for as long as the run changes anything.
	Beat(ctx context.Context, seq uint64) error
	// Beating waits until the run that holds the intent numbered seq is heard, or has been silent for
	// several beats by our own clock: clocks are never compared.
	Beating(ctx context.Context, seq uint64) (bool, error)
	// Pin keeps r, with every platform of it, from being cleaned up.
	Pin(ctx context.Context, seq uint64, r release.Release) error
}

// BeatEvery is the time between two beats of a run that is at work.
const BeatEvery = 2 * time.Second

// ErrNoEvent says that the ledger has no event with that number.
var ErrNoEvent = errors.New("no such event")
