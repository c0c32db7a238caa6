package main

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/release"
)

// promise is what a run has said or done, and what the history has to show for it once the next run has healed.
type promise struct {
	by    outcome
	what  string
	since uint64 // the newest event when the run began
	kept  func(p *past, since uint64) bool
}

// unwritten is what a run says when the ledger does not know yet what it has done.
const unwritten = "the ledger could not be written"

// promised is what the outcome of a run promises. Alone says that no other run was alive.
func promised(o outcome, alone bool) (all []promise) {
	add := func(what string, kept func(p *past, since uint64) bool) {
		all = append(all, promise{by: o, what: what, kept: kept})
	}
	if o.code == -1 {
		return died(o, alone)
	}
	code := fault.Code(o.code)
	switch {
	case o.step == "deploy" && code == fault.Done:
		add("its deploy.finished is event "+o.values["seq"], o.isEvent(ledger.DeployFinished))
	case o.step == "deploy":
		add("a deploy that did not succeed is not finished by anybody", func(p *past, since uint64) bool {
			return code == fault.HalfWay || !o.ended(ledger.DeployFinished)(p, since)
		})
	case o.step == "verify" && code == fault.RolledBack:
		add("its rollback is in the history", o.wentBack)
	case o.step == "verify" && code == fault.Done:
		add("its verify.passed is in the history", o.wrote(ledger.Verified))
	case o.step == "verify" && code == fault.VerdictFail:
		add("its verify.failed is in the history", o.wrote(ledger.Rejected))
	case o.step == "rollback" && code == fault.Done:
		add("the history says what it has printed: what is live, and in quarantine, by which event", o.rolledBack())
	case code == fault.Done:
		kind := map[string]ledger.Kind{"freeze": ledger.Frozen, "unfreeze": ledger.Unfrozen, "lift": ledger.Lifted}[o.step]
		add("its "+string(kind)+" is in the history", o.wrote(kind))
	}
	return all
}

// died is what a killed run promises by how far it had come.
func died(o outcome, alone bool) (all []promise) {
	passed := func(point string) bool { return slices.Contains(o.points, point) }
	if passed("claimed fire") {
		all = append(all, promise{by: o, what: "it died after it had claimed the way back: that is carried to its end", kept: o.wentBack})
	}
	if passed("claimed done") && alone {
		all = append(all, promise{by: o, what: "it died after all the traffic had moved: the deploy is finished", kept: func(p *past, since uint64) bool {
			return o.ended(ledger.DeployFinished)(p, since) || o.ended(ledger.RollbackFinished)(p, since)
		}})
	}
	return all
}

// isEvent says whether the event that the run names is there, of this kind and about its release.
func (o outcome) isEvent(kind ledger.Kind) func(*past, uint64) bool {
	return func(p *past, _ uint64) bool {
		seq, err := strconv.ParseUint(o.values["seq"], 10, 64)
		return err == nil && p.find(seq-1, func(_, e ledger.Event) bool {
			return e.Seq == seq && e.Kind == kind && e.State.Live != nil && string(e.State.Live.Release.Digest) == o.values["digest"]
		}) != nil
	}
}

// wrote says whether the run has written an event of this kind.
func (o outcome) wrote(kind ledger.Kind) func(*past, uint64) bool {
	return func(p *past, since uint64) bool {
		return p.find(since, func(_, e ledger.Event) bool { return e.Kind == kind && e.Author.Run == o.id }) != nil
	}
}

// ended says whether the intent of the run was ended by an event of this kind, whoever wrote it.
func (o outcome) ended(kind ledger.Kind) func(*past, uint64) bool {
	return func(p *past, since uint64) bool {
		return p.find(since, func(before, e ledger.Event) bool { return e.Kind == kind && intentOf(before, o.id) }) != nil
	}
}

func intentOf(e ledger.Event, id string) bool {
	return e.State.Intent != nil && e.State.Intent.Author.Run == id
}

// wentBack says whether the run's way back is in the history: it wrote it, its intent was ended with it, or the note that it
// left was adopted.
func (o outcome) wentBack(p *past, since uint64) bool {
	return p.find(since, func(before, e ledger.Event) bool {
		back := e.Kind == ledger.RollbackFinished || e.Kind == ledger.RollbackFailed
		switch {
		case back || e.Kind == ledger.NoteAdopted:
			if e.Author.Run == o.id || intentOf(before, o.id) {
				return true
			}
			fallthrough
		case e.Kind == ledger.DeployAborted: // a note that is found while another run's intent is open has that run's name
			in := before.State.Intent
			return in != nil && in.Author.Run != e.Author.Run && !slices.Equal(e.State.Adopted, before.State.Adopted)
		}
		return false
	}) != nil
}

// rolledBack says whether the history shows what a rollback by hand has printed.
func (o outcome) rolledBack() func(*past, uint64) bool {
	seq, err := strconv.ParseUint(o.values["seq"], 10, 64)
	left := release.Digest(o.values["quarantined"])
	switch {
	case err != nil:
		return func(*past, uint64) bool { return false }
	case seq == 0 && !o.says(unwritten): // already back, by what the target knows
		return func(*past, uint64) bool { return true }
	case seq == 0:
		return o.wentBack
	}
	return func(p *past, _ uint64) bool {
		return p.find(seq-1, func(_, e ledger.Event) bool {
			return e.Seq == seq && e.State.Live != nil && string(e.State.Live.Release.Digest) == o.values["digest"] &&
				(left == "" || slices.ContainsFunc(e.State.Quarantined, func(q ledger.Quarantine) bool { return q.Release.Digest == left }))
		}) != nil
	}
}

// settled takes out the promises that the history has kept, and is the first that it has not.
func (w *world) settled() error {
	promises := w.promises
	w.promises = nil
	for _, m := range promises {
		if !m.kept(w.past, m.since) {
			return fmt.Errorf("not true: %s (newest event before it: %d)\n  %s", m.what, m.since, m.by)
		}
	}
	return nil
}
