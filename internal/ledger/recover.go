package ledger

import (
	"slices"

	"github.com/backstep/backstep/internal/plan"
)

// Action is what a run has to do before its own work, because of what earlier runs left behind.
type Action string

// The actions. All but ReadAgain, BringAlong and ForgetNotes write an event; whoever is first to write it decides.
const (
	Nothing        Action = "nothing"
	ReadAgain      Action = "read again"   // a target knows of an event that we have not seen
	EndRollback    Action = "end rollback" // the traffic went back, or has to: say so
	EndVerify      Action = "end verify"   // its run died before it moved anything
	EndDeploy      Action = "end deploy"   // it had moved all the traffic
	TakeDeployBack Action = "take deploy back"
	TakeNote       Action = "take note"   // a rollback happened without the ledger
	BringAlong     Action = "bring along" // a target is not where the ledger says
	ForgetNotes    Action = "forget notes"
)

// Remedy is an action with what it needs.
type Remedy struct {
	Do    Action
	Note  *plan.Note // the one to adopt, or nil
	Notes []string   // the ids to forget
}

// Recover decides what to do about the intent in newest, whose run is not at work any more, and about targets that are not
// where the ledger says. It knows those that can be reached, and only what they say: weights decide nothing while an intent
// is open, because a living run may be moving them. It is to be called again after each remedy, until it says Nothing.
// The rules are those of docs/protocol.md.
func Recover(newest Event, fleet []plan.State) Remedy {
	for _, s := range fleet {
		if next := (plan.Number{Epoch: newest.State.Epoch, Seq: newest.Seq + 1}); s.Claim.Number.Compare(next) >= 0 {
			return Remedy{Do: ReadAgain}
		}
	}
	fresh := freshNotes(newest, fleet)
	if in := newest.State.Intent; in != nil {
		return recoverIntent(newest, *in, fleet, fresh)
	}
	if len(fresh) > 0 {
		return Remedy{Do: TakeNote, Note: &fresh[0]}
	}
	for _, s := range fleet {
		if s.Claim.Number.Compare(newest.Number(0)) < 0 || !newest.State.ServedBy(s) {
			return Remedy{Do: BringAlong}
		}
	}
	var ids []string
	for _, s := range fleet {
		for _, n := range s.Notes {
			ids = append(ids, n.ID)
		}
	}
	if len(ids) > 0 {
		return Remedy{Do: ForgetNotes, Notes: ids}
	}
	return Remedy{Do: Nothing}
}

func recoverIntent(newest Event, in Intent, fleet []plan.State, fresh []plan.Note) Remedy {
	first := func(fits func(plan.Note) bool) *plan.Note {
		if i := slices.IndexFunc(fresh, fits); i >= 0 {
			return &fresh[i]
		}
		return nil
	}
	live := ""
	if newest.State.Live != nil {
		live = newest.State.Live.ID
	}
	switch in.Kind {
	case VerifyStarted:
		if n := first(func(n plan.Note) bool { return n.Number.Seq == in.Seq || n.LeftEntry == live }); n != nil {
			return Remedy{Do: EndRollback, Note: n}
		}
		return Remedy{Do: EndVerify}
	case RollbackStarted:
		return Remedy{Do: EndRollback, Note: first(func(n plan.Note) bool { return n.Number.Seq == in.Seq })}
	}
	if n := first(func(n plan.Note) bool { return n.LeftEntry == in.Entry() && !n.Condemn }); n != nil {
		return Remedy{Do: TakeDeployBack, Note: n}
	}
	if n := first(func(n plan.Note) bool { return n.LeftEntry == in.Entry() || live != "" && n.LeftEntry == live }); n != nil {
		return Remedy{Do: EndRollback, Note: n}
	}
	done, undone := false, false
	for _, s := range fleet {
		if s.Claim.Number == (plan.Number{Epoch: newest.State.Epoch, Seq: in.Seq, Sub: 1}) && s.Claim.Holder == in.Holder {
			done, undone = done || s.Claim.Aim == plan.Done, undone || s.Claim.Aim == plan.Undo
		}
	}
	if done && !undone {
		return Remedy{Do: EndDeploy}
	}
	return Remedy{Do: TakeDeployBack}
}

// freshNotes are the notes that the ledger has not adopted, the highest number first.
func freshNotes(newest Event, fleet []plan.State) []plan.Note {
	var fresh []plan.Note
	for _, s := range fleet {
		for _, n := range s.Notes {
			known := slices.ContainsFunc(fresh, func(m plan.Note) bool { return m.ID == n.ID })
			if !known && !slices.Contains(newest.State.Adopted, n.ID) {
				fresh = append(fresh, n)
			}
		}
	}
	slices.SortStableFunc(fresh, func(a, b plan.Note) int { return b.Number.Compare(a.Number) })
	return fresh
}

// ServedBy says whether what is live has all the traffic on the target, and its jobs alone work. Nothing else can be asked of a
// target when nothing is live, or when what is live has failed: that is evidence, not a target that lags behind. It lags when another
// release has the traffic: then what has failed did so before it was to serve, as one that was stopped and is to come back.
func (s Snapshot) ServedBy(t plan.State) bool {
	if s.Live == nil {
		return true
	}
	in := t.Find(s.Live.Release.ID())
	if in == nil {
		return false
	}
	if in.Phase == plan.Failed {
		serves := t.Serving()
		return serves == nil || serves == in
	}
	for _, other := range t.Instances {
		works := other.Jobs == plan.Working || other.Jobs == plan.Mixed
		if works && other.Release.ID() != in.Release.ID() {
			return false
		}
	}
	return in.Weight == 100 && in.Jobs != plan.Idle && in.Jobs != plan.Mixed
}
