// Package ledger is the history of an environment: what an event holds, which transitions there are, and
// the contract of where events are kept.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
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
	VerifyStarted    Kind = "verify.started"
	Verified         Kind = "verify.passed"
	Rejected         Kind = "verify.failed"   // a fail verdict that moved nothing
	Disarmed         Kind = "verify.disarmed" // no verdict, and nothing was moved
	RollbackStarted  Kind = "rollback.started"
	RollbackFinished Kind = "rollback.finished"
	RollbackFailed   Kind = "rollback.failed" // the traffic went back, and the restored release fails as well
	NoteAdopted      Kind = "note.adopted"    // a rollback that happened without the ledger
	Skipped          Kind = "skipped"         // the number of a writer that died; nothing changed
	Frozen           Kind = "freeze"
	Unfrozen         Kind = "unfreeze"
	Lifted           Kind = "lift"
	MovedIn          Kind = "moved-in" // what served before the first release is live, and the way back
	Paused           Kind = "pause"    // a person holds what is under way
	Resumed          Kind = "resume"
	Adopted          Kind = "adopt" // the targets were taken over, with what they know
)

// Event is one transition of an environment, with a full snapshot of what is true after it: losing older
// events loses history only.
type Event struct {
	Seq         uint64              `json:"seq"` // 1 is the first; also the fencing number of what it starts
	Service     string              `json:"service"`
	Environment release.Environment `json:"environment"`
	Kind        Kind                `json:"kind"`
	At          time.Time           `json:"at"` // for people; never used to order anything
	Author      release.Author      `json:"author"`
	Reason      string              `json:"reason,omitempty"`
	Evidence    string              `json:"evidence,omitempty"` // why a verdict was given, and the last lines of what was left
	Seconds     float64             `json:"seconds,omitempty"`  // how long what it finishes took
	Release     *release.Release    `json:"release,omitempty"`  // what it is about
	Previous    release.Digest      `json:"previous,omitempty"` // digest of the event before it
	State       Snapshot            `json:"state"`
	// Digest is its own, by which a target knows it again; "" when it may still turn out not to count.
	Digest release.Digest `json:"-"`
}

// Check says why e cannot be an event, or nil: it has the shape of what is written, and does not contradict itself. Whether it follows
// the event before it is for the ledger to find out.
func (e Event) Check() error {
	if _, err := release.ParseDigest(string(e.Previous)); e.Previous != "" && err != nil {
		return fmt.Errorf("previous: %w", err)
	}
	s := e.State
	named := []*release.Release{e.Release}
	for _, known := range []*Entry{s.Live, s.LastGood} {
		if known == nil {
			continue
		}
		if !slices.ContainsFunc(s.Recent, func(r Entry) bool { return r.Release == known.Release }) {
			return fmt.Errorf("%s is live or good, and not among the recent releases", known.Release)
		}
	}
	for i := range s.Recent {
		if s.Recent[i].Seq > e.Seq {
			return fmt.Errorf("%s is of event %d, which is yet to come", s.Recent[i].Release, s.Recent[i].Seq)
		}
		named = append(named, &s.Recent[i].Release)
	}
	for i := range s.Quarantined {
		named = append(named, &s.Quarantined[i].Release)
	}
	if in := s.Intent; in != nil {
		if in.Seq > e.Seq {
			return fmt.Errorf("%s is yet to come", in)
		}
		if named = append(named, &in.To); in.From != nil {
			named = append(named, &in.From.Release)
		}
	}
	for _, r := range named {
		if r == nil || *r == (release.Release{}) {
			continue
		}
		if err := r.Check(); err != nil {
			return err
		}
	}
	return nil
}

// Number is that of the claims made under the event; sub counts them.
func (e Event) Number(sub uint64) plan.Number {
	return plan.Number{Epoch: e.State.Epoch, Seq: e.Seq, Sub: sub}
}

// Snapshot is what is true of an environment.
type Snapshot struct {
	Epoch       uint64       `json:"epoch,omitempty"`  // how often a ledger has taken over the targets
	Former      []string     `json:"former,omitempty"` // the ledgers that it has taken them over from
	Live        *Entry       `json:"live,omitempty"`
	LastGood    *Entry       `json:"last_good,omitempty"` // the newest of Recent that is good and not in quarantine
	Intent      *Intent      `json:"intent,omitempty"`    // what is being done; its run holds the lock
	Freezes     []Freeze     `json:"freezes,omitempty"`   // at most one for each cause
	Quarantined []Quarantine `json:"quarantined,omitempty"`
	Recent      []Entry      `json:"recent,omitempty"` // newest first, at most recentLimit
	// Configurations are what the releases above are started with, those of old ones as far as there is room.
	Configurations map[release.Fingerprint]release.Configuration `json:"configurations,omitempty"`
	Adopted        []string                                      `json:"adopted,omitempty"` // the notes that are part of this history, newest last, at most adoptedLimit
}

const (
	recentLimit  = 20 // releases that a snapshot remembers
	adoptedLimit = 20 // ids of notes
)

// Entry is one release in the life of an environment.
type Entry struct {
	Release  release.Release `json:"release"`
	ID       string          `json:"id"`                 // its name: the number of the intent, or the note, that made it live
	Seq      uint64          `json:"seq"`                // of the event that made it live
	Good     bool            `json:"good"`               // verified and baked
	Passed   uint64          `json:"passed,omitempty"`   // the number of the verify that it passed last
	Restored bool            `json:"restored,omitempty"` // it became live by a rollback
}

// Intent is what one run has set out to do. As long as it is in the snapshot, that run holds the lock.
type Intent struct {
	Kind     Kind            `json:"kind"`   // DeployStarted, VerifyStarted or RollbackStarted
	Seq      uint64          `json:"seq"`    // the number of its event, under which it claims the target
	Holder   string          `json:"holder"` // a text that only its run has
	Author   release.Author  `json:"author"`
	Deadline time.Time       `json:"deadline"`       // when its run ends by itself; nobody else judges by it
	From     *Entry          `json:"from,omitempty"` // what was live when it began; verify: what is judged
	To       release.Release `json:"to"`             // who gets the traffic; verify: on a fail, and zero when there is no way back
	Plan     plan.Plan       `json:"plan"`
	Reason   string          `json:"reason,omitempty"`
	Paused   *Pause          `json:"paused,omitempty"`  // a person holds it
	Watch    bool            `json:"watch,omitempty"`   // verify: it only watches, and gives way to everybody
	Condemn  bool            `json:"condemn,omitempty"` // rollback: quarantine what it leaves, and freeze
}

// Pause says who holds a run, and why.
type Pause struct {
	Author release.Author `json:"author"`
	At     time.Time      `json:"at"`
	Reason string         `json:"reason,omitempty"`
}

// Key names an intent: its number and the run that has it.
type Key struct {
	Seq    uint64
	Holder string
}

// Key names the intent.
func (in Intent) Key() Key { return Key{in.Seq, in.Holder} }

// String is what the intent does, of what, and whose it is.
func (in Intent) String() string {
	about := in.To
	if in.Kind == VerifyStarted && in.From != nil {
		about = in.From.Release
	}
	return fmt.Sprintf("%s of %s by %s (event %d)", strings.TrimSuffix(string(in.Kind), ".started"), about, in.Author, in.Seq)
}

// Entry is the name of the entry that the intent makes live.
func (in Intent) Entry() string { return strconv.FormatUint(in.Seq, 10) }

// Cause says who set a freeze.
type Cause string

// The causes. Ending one freeze leaves the other.
const (
	ByPerson   Cause = "person"
	ByRollback Cause = "rollback"
)

// Freeze makes an environment refuse deploys. Rolling back is always allowed.
type Freeze struct {
	Cause  Cause          `json:"cause"`
	Author release.Author `json:"author"`
	At     time.Time      `json:"at"`
	Until  *time.Time     `json:"until,omitempty"` // when it ends by itself; nil is never
	Reason string         `json:"reason"`
}

// Over says whether the freeze has ended by itself.
func (f Freeze) Over(now time.Time) bool { return f.Until != nil && !now.Before(*f.Until) }

// FreezeBy is the freeze with this cause, or nil.
func (s Snapshot) FreezeBy(cause Cause) *Freeze {
	for i := range s.Freezes {
		if s.Freezes[i].Cause == cause {
			return &s.Freezes[i]
		}
	}
	return nil
}

// HasAdopted says whether the note with this id is part of the history.
func (s Snapshot) HasAdopted(note string) bool { return slices.Contains(s.Adopted, note) }

// Quarantine keeps a release that was found bad from being deployed.
type Quarantine struct {
	Release release.Release `json:"release"`
	Author  release.Author  `json:"author"`
	At      time.Time       `json:"at"`
	Reason  string          `json:"reason"`
}

// QuarantineOf is the entry that forbids the release, or nil.
func (s Snapshot) QuarantineOf(id release.ID) *Quarantine {
	for i := range s.Quarantined {
		if s.Quarantined[i].Release.ID() == id {
			return &s.Quarantined[i]
		}
	}
	return nil
}

// Ledger keeps the events of one environment.
type Ledger interface {
	History
	Pulse
	// Pin keeps r, with every platform of it, from being cleaned up.
	Pin(ctx context.Context, seq uint64, r release.Release) error
}

// History is the events themselves.
type History interface {
	// Newest is the newest event; the zero Event when there is none yet. What cannot be read is an
	// error, never "no history".
	Newest(ctx context.Context) (Event, error)
	// At is the event with this number, or an error that wraps ErrNoEvent.
	At(ctx context.Context, seq uint64) (Event, error)
	// After is the newest event as well, and makes sure that it descends from the one with this number and digest, which a target has
	// seen to count; with an empty digest, that it follows another event at all. What does not is reported and never followed: then it
	// is the last event that holds. The error wraps ErrForged when there is none.
	After(ctx context.Context, seq uint64, digest release.Digest) (Event, error)
	// Before is the event that e names as the one before it, whatever stands under its number now, or an error that wraps ErrNoEvent.
	Before(ctx context.Context, e Event) (Event, error)
	// Moved says whether something follows the event numbered seq: a request that registries do not count as a download.
	Moved(ctx context.Context, seq uint64) (bool, error)
	// Commit calls change with the newest event for the one that follows it, and writes that. Change is
	// called again when another writer was faster; an error of change ends the commit and is returned as
	// it is. Seq, Service, Environment and Previous are set by the ledger. When Commit returns nil, every later
	// Newest of anybody shows this event or a later one.
	Commit(ctx context.Context, change func(newest Event) (Event, error)) (Event, error)
}

// Pulse shows whether a run is alive: clocks are never compared.
type Pulse interface {
	// Beat shows that the run which holds the intent numbered seq is alive. It has to be called every
	// BeatEvery for as long as the run changes anything.
	Beat(ctx context.Context, seq uint64) error
	// Beating waits until the run that holds the intent numbered seq is heard, or has been silent for
	// several beats by our own clock.
	Beating(ctx context.Context, seq uint64) (bool, error)
}

// BeatEvery is the time between two beats of a run that is at work.
const BeatEvery = 2 * time.Second

// ErrForged is wrapped by the error of a ledger that is not what it was: what a target has seen there is gone.
var ErrForged = errors.New("the ledger was rewritten")

// ErrNoEvent says that the ledger has no event with that number.
var ErrNoEvent = errors.New("no such event")
