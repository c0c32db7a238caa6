package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"hash/maphash"
	"math/bits"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
)

// This is docs/protocol.md as a model: one ledger with the transitions of this package, two targets, and up to three runs,
// each a machine that does one operation on the ledger or on a target at a step. The search tries every order of their
// steps, with runs that are killed, that lose the registry, and that are taken for dead although they live. Whenever all
// runs have ended, one more run heals with Recover, and then what was promised has to be true.

// The releases. Z and A are good, B is live and not judged yet, C is new.
const (
	noRelease = iota
	releaseZ
	releaseA
	releaseB
	releaseC
)

const (
	maxRuns  = 3
	maxNotes = 4
)

// job is what a run has to do.
type job uint8

const (
	deployC job = iota
	verifyLive
	rollBack     // by hand, with the registry
	rollBackBare // by hand, and the registry has never answered
)

func (j job) String() string { return [...]string{"deploy", "verify", "rollback", "bare rollback"}[j] }

// A plant is a rule that is switched off: the search has to find what comes of it.
type plant uint32

const (
	noteAfterShift       plant = 1 << iota // the note is written after the shift
	claimsRemoveNotes                      // a higher claim removes the notes of lower ones
	noSecondLoop                           // a run ends without looking again
	weightsDecide                          // a deploy whose release serves everywhere is finished
	healersTakeSubs                        // who follows takes the next sub, for itself
	noLookAfterShift                       // nobody looks at the record after a shift
	noGuard                                // events are written on an older look
	nextNumberBare                         // without the registry: the next seq instead of the next sub
	condemnWhatIsLive                      // a rollback condemns what is live when it is written
	noFirstLook                            // a rollback does not remember what was live when the person looked
	fenceNotRaised                         // what serves the right release is not claimed by who follows
	armBlindly                             // verify arms without looking at who serves and at notes
	undoAfterDone                          // a deploy undoes after it has claimed done
	continueOldNote                        // a bare rollback that continues another leaves no note of its own
	othersTookItBack                       // only what the rollback's own healing took back counts as its rollback
	condemnUnserved                        // a bare rollback condemns what does not serve everywhere
	backToItself                           // what is live, deployed once more, is its own way back
	forgetFirstLook                        // a rollback that loses the registry goes by the record alone
	passedByItsEvent                       // a pass counts from its event on, not from its verify's
	anyOtherEntryIsNewer                   // a note is history only as soon as what it left has another entry
	adoptTwice                             // the ids of notes are not compared
)

// pc is where a run is.
type pc uint8

const (
	atRead pc = iota // the loop: read the ledger, look at both targets, heal
	atSee0
	atSee1
	atHeal
	atFollow
	atForget0
	atForget1
	deployStart
	deployClaim0
	deployClaim1
	deployNotes0
	deployNotes1
	deployTurn0 // stage, shift and look at one target after the other
	deployTurn1
	deployDone0
	deployDone1
	deployFinish
	deployUndo
	deployAbort
	verifyStart
	verifyArm0
	verifyArm1
	verifySee0
	verifySee1
	verifyJudge
	verifyFire
	verifyWrite
	verifyPass
	verifyDisarm
	verifyReject
	verifyRetire0
	verifyRetire1
	personRead
	personSee0
	personSee1
	personStart
	personSame0 // the registry is lost in between
	personSame1
	personFire
	personWrite
	bareSee0
	bareSee1
	bareFire
	ended
)

// pos is how far a change of one target is: claim, stage, shift, look again. A shift is two steps, because a router does not
// compare claims: the call may land after a newer one.
type pos uint8

const (
	toClaim pos = iota
	toStage
	toCheck
	toLand
	toNote // only with noteAfterShift
	toLook
	toWish // the winner's wish, once more
	toWishLand
	changed
	fenced
)

// exit is how a run has ended.
type exit uint8

const (
	running exit = iota
	exitKilled
	exitOK
	exitFailed
	exitBack
	exitHalfWay
	exitRefused
)

func (e exit) String() string {
	return [...]string{"running", "killed", "exit 0", "exit 1", "exit 5", "exit 6", "exit 7"}[e]
}

// site is a target; its claim and notes are indices into the tables of the model.
type site struct {
	claim  uint16
	notes  [maxNotes]uint16 // sorted, 0 is none
	serves uint8
	there  uint8 // bits of the releases that are ready
}

func (t *site) has(r uint8) bool { return t.there&(1<<r) != 0 }

func (t *site) add(note uint16) {
	if note == 0 || slices.Contains(t.notes[:], note) {
		return
	}
	if t.notes[0] != 0 {
		panic("too many notes")
	}
	t.notes[0] = note
	slices.Sort(t.notes[:])
}

func (t *site) forget(gone func(uint16) bool) {
	for i, n := range t.notes {
		if n != 0 && gone(n) {
			t.notes[i] = 0
		}
	}
	slices.Sort(t.notes[:])
}

// run is one process. What it has left behind when it ended is all that remains of it.
type run struct {
	seen       uint32    // the newest event, as it was read
	started    uint32    // the event of its own intent
	saw        [2]uint32 // the targets, as they were looked at
	claim      uint16    // what it carries out
	note       uint16
	wish       [2]uint16
	base       uint16 // the newest event when its note was first there; for the promises
	ahead      uint16 // the event after which a target was ahead
	at         pc
	carry      [2]pos
	exit       exit
	then       exit  // how it ends after the second loop; running: its own work is still to be done
	first      uint8 // the entry that was live when it began
	served     uint8 // the release that had all the traffic then
	unfinished uint8 // the entry of a deploy that was under way then
	left       uint8 // the entry that it says it has left
	down       bool  // the registry does not answer it any more
	noted      bool  // its note was on a target
	condemns   bool
	alone      bool // all others had ended when its last look began
	tookBack   bool
	undone     bool // a deploy that claimed to undo
	partly     bool // it was fenced on one of the targets
}

type state struct {
	ledger   uint32
	sites    [2]site
	runs     [maxRuns]run
	culprits uint8 // releases with a fail verdict, or that a person has seen and left
	kills    uint8
	outages  uint8
	doubts   uint8
	rest     uint16 // the newest event at which a run found nothing to do
	last     uint8  // the run whose step it was, + 1; only when switches are bounded
	switches uint8
}

// claim and note are plan.Claim and plan.Note in small.
type claim struct {
	seq, sub uint16
	holder   uint8 // run + 1; 0 is the ledger's
	aim      plan.Aim
	wanted   uint8
	entry    uint8
	back     uint8
	restored bool
}

type note struct {
	run             uint8
	seq, sub        uint16
	left, leftEntry uint8
	to              uint8
	condemn         bool
}

// node is an event with all that came before it.
type node struct {
	e       Event
	parent  uint32
	adopted [maxRuns]uint8 // how often the note of each run is in the history
}

type table[T comparable] struct {
	all []T
	ids map[T]uint32
}

func (t *table[T]) id(v T) uint32 {
	if id, ok := t.ids[v]; ok {
		return id
	}
	if t.ids == nil {
		t.ids = map[T]uint32{}
	}
	id := uint32(len(t.all))
	t.all, t.ids[v] = append(t.all, v), id
	return id
}

type change struct {
	parent uint32
	kind   Kind
	key    uint32 // the event of the intent that it ends
	run    uint8  // for a start: whose
	to     uint8
	note   uint16
}

type view struct {
	ledger uint32
	sites  [2]uint32
}

type cure struct {
	do    Action
	note  uint16
	notes [maxNotes]uint16
}

// limits bound a search.
type limits struct {
	kills, outages, doubts uint8
	switches               uint8 // from a run that could have gone on to another one; 0 is any number
	inTurn                 bool  // a run changes one target after the other, also on the way back
	cold                   bool  // the way back is not warm
	states                 int   // it fails when there are more
}

type model struct {
	jobs     []job
	limits   limits
	without  plant
	claims   table[claim]
	notes    table[note]
	entries  table[string]
	sites    table[site]
	nodes    []node
	children map[change]uint32
	cures    map[view]cure
	next     []state
	broken   string // what is violated by the step that is taken
}

func releaseOf(r uint8) release.Release {
	if r == noRelease {
		return release.Release{}
	}
	return release.Release{Digest: release.Digest("sha256:" + strings.Repeat(fmt.Sprintf("%02x", r), 32)), Version: letter(r)}
}

func letter(r uint8) string { return string("-ZABC"[r]) }

func number(r release.Release) uint8 { return uint8(strings.Index("-ZABC", cmp.Or(r.Version, "-"))) }

func holder(run int) string { return fmt.Sprintf("run %d", run) }

func noteID(run uint8) string { return fmt.Sprintf("note %d", run) }

var modelStamp = Stamp{Author: release.Author{Actor: "ada"}, At: time.Unix(1, 0)}

func newModel(jobs []job, without plant, l limits) *model {
	m := &model{jobs: jobs, limits: l, without: without, children: map[change]uint32{}, cures: map[view]cure{}}
	m.claims.id(claim{})
	m.notes.id(note{})
	m.entries.id("")
	m.sites.id(site{})
	return m
}

func (m *model) begin() state {
	e := Event{}
	for _, r := range []uint8{releaseZ, releaseA, releaseB} {
		e = Start(e, Intent{Kind: DeployStarted, Holder: "before", To: releaseOf(r)}, modelStamp)
		e, _ = FinishDeploy(e, e.State.Intent.Key(), modelStamp)
		if r != releaseB {
			e = Start(e, Intent{Kind: VerifyStarted, Holder: "before"}, modelStamp)
			e, _ = Pass(e, e.State.Intent.Key(), "", modelStamp)
		}
	}
	if m.nodes == nil {
		m.nodes = []node{{e: e}}
	}
	var s state
	live := e.State.Live
	c := m.claims.id(claim{seq: uint16(e.Seq), aim: plan.Follow, wanted: releaseB, entry: m.entry(live.ID), back: releaseA})
	for i := range s.sites {
		s.sites[i] = site{claim: uint16(c), serves: releaseB, there: 1<<releaseA | 1<<releaseB}
		if m.limits.cold {
			s.sites[i].there = 1 << releaseB
		}
	}
	for i := range s.runs {
		switch {
		case i >= len(m.jobs):
			s.runs[i] = run{at: ended, exit: exitOK}
		case m.jobs[i] == rollBack:
			s.runs[i].at = personRead
		case m.jobs[i] == rollBackBare:
			s.runs[i] = run{at: bareSee0, down: true}
		}
	}
	return s
}

func (m *model) entry(id string) uint8 { return uint8(m.entries.id(id)) }

func (m *model) off(p plant) bool { return m.without&p != 0 }

func (m *model) event(id uint32) *Event { return &m.nodes[id].e }

func (m *model) planNote(id uint16) *plan.Note {
	if id == 0 {
		return nil
	}
	n := m.notes.all[id]
	return &plan.Note{ID: noteID(n.run), Number: plan.Number{Seq: uint64(n.seq), Sub: uint64(n.sub)}, Left: releaseOf(n.left),
		LeftEntry: m.entries.all[n.leftEntry], To: releaseOf(n.to), Condemn: n.condemn}
}

func (m *model) planState(t site) plan.State {
	c := m.claims.all[t.claim]
	s := plan.State{Claim: plan.Claim{Token: plan.Token{Number: plan.Number{Seq: uint64(c.seq), Sub: uint64(c.sub)}, Holder: plan.LedgerHolder},
		Aim: c.aim, Wanted: releaseOf(c.wanted), Entry: m.entries.all[c.entry], Restored: c.restored}}
	if c.holder > 0 {
		s.Claim.Holder = holder(int(c.holder) - 1)
	}
	for _, n := range t.notes {
		if n != 0 {
			s.Notes = append(s.Notes, *m.planNote(n))
		}
	}
	for r := uint8(releaseZ); r <= releaseC; r++ {
		if t.has(r) {
			in := plan.Instance{Release: releaseOf(r), Phase: plan.Ready}
			if t.serves == r {
				in.Weight = 100
			}
			s.Instances = append(s.Instances, in)
		}
	}
	return s
}

// recover is Recover, remembered, or what the planted faults make of it.
func (m *model) recover(v view) cure {
	if c, ok := m.cures[v]; ok {
		return c
	}
	e := *m.event(v.ledger)
	var fleet []plan.State
	both := [2]site{m.sites.all[v.sites[0]], m.sites.all[v.sites[1]]}
	for _, t := range both {
		fleet = append(fleet, m.planState(t))
	}
	if e.State.Intent == nil && m.off(fenceNotRaised) {
		for i := range fleet {
			if fleet[i].Claim.Number.Seq < e.Seq {
				fleet[i].Claim.Number = plan.Number{Seq: e.Seq}
			}
		}
	}
	if m.off(adoptTwice) {
		e.State.Adopted = nil
	}
	r := Recover(e, fleet)
	if in := e.State.Intent; in != nil && in.Kind == DeployStarted && m.off(weightsDecide) && both[0].serves == number(in.To) && both[1].serves == number(in.To) {
		r = Remedy{Do: EndDeploy}
	}
	c := cure{do: r.Do}
	find := func(id string, n plan.Number) uint16 {
		for _, t := range both {
			for _, own := range t.notes {
				if own != 0 && noteID(m.notes.all[own].run) == id && (n == plan.Number{} || m.planNote(own).Number == n) {
					return own
				}
			}
		}
		panic("a remedy names a note that is not there")
	}
	if r.Note != nil {
		c.note = find(r.Note.ID, r.Note.Number)
	}
	ids := slices.Compact(slices.Sorted(slices.Values(r.Notes)))
	for i, id := range ids {
		c.notes[i] = find(id, plan.Number{})
	}
	m.cures[v] = c
	return c
}

// commit follows the newest event with a change, through the functions of this package. It is false when they refuse it.
func (m *model) commit(s *state, c change) bool {
	c.parent = s.ledger
	if id, ok := m.children[c]; ok {
		if id == 0 {
			return false
		}
		s.ledger = id
		return true
	}
	e, err := m.transition(c)
	if err != nil {
		if !errors.Is(err, ErrTakenOver) {
			panic(err)
		}
		m.children[c] = 0
		return false
	}
	n := node{e: e, parent: c.parent, adopted: m.nodes[c.parent].adopted}
	if c.note != 0 {
		n.adopted[m.notes.all[c.note].run]++
	}
	id := uint32(len(m.nodes))
	m.nodes, m.children[c] = append(m.nodes, n), id
	s.ledger = id
	return true
}

func (m *model) transition(c change) (Event, error) {
	newest := *m.event(c.parent)
	intent := Intent{Kind: c.kind, Holder: holder(int(c.run)), To: releaseOf(c.to)}
	switch c.kind {
	case DeployStarted, VerifyStarted:
		return Start(newest, intent, modelStamp), nil
	case RollbackStarted:
		intent.Condemn = true
		return Start(newest, intent, modelStamp), nil
	case NoteAdopted:
		if m.off(adoptTwice) {
			newest.State.Adopted = nil
		}
		n := *m.planNote(c.note)
		if m.off(condemnWhatIsLive) && newest.State.Live != nil {
			n.Left, n.LeftEntry = newest.State.Live.Release, newest.State.Live.ID
		}
		if live := newest.State.Live; m.off(anyOtherEntryIsNewer) && live.Release.ID() == n.Left.ID() && live.ID != n.LeftEntry {
			n.Left, n.LeftEntry, n.Condemn = release.Release{}, "", false
		}
		return AdoptNote(newest, n, modelStamp)
	}
	var key Key
	if in := m.event(c.key).State.Intent; in != nil {
		key = in.Key()
	}
	switch c.kind {
	case DeployFinished:
		return FinishDeploy(newest, key, modelStamp)
	case DeployAborted:
		return AbortDeploy(newest, key, modelStamp, "", m.planNote(c.note))
	case RollbackFinished:
		n := m.planNote(c.note)
		if n != nil && m.off(condemnWhatIsLive) && newest.State.Live != nil {
			n.Left, n.LeftEntry = newest.State.Live.Release, newest.State.Live.ID
		}
		return FinishRollback(newest, key, modelStamp, n)
	case Verified:
		e, err := Pass(newest, key, "", modelStamp)
		if err == nil && m.off(passedByItsEvent) {
			e.State.Live.Passed = e.Seq
		}
		return e, err
	case Rejected:
		return Reject(newest, key, "", modelStamp)
	case Disarmed:
		return Disarm(newest, key, "", "", modelStamp)
	}
	panic(c.kind)
}

// steps puts into m.next every state that s can become in one step.
func (m *model) steps(s state) {
	m.next, m.broken = m.next[:0], ""
	for i := range m.jobs {
		if s.runs[i].exit == running {
			m.step(s, i)
		}
	}
}

func (m *model) step(s state, i int) {
	r := s.runs[i]
	if s.kills < m.limits.kills && (m.holds(&s, i) || r.claim != 0) { // who dies with nothing in hand is not missed
		dead := s
		dead.kills++
		m.end(&dead, i, exitKilled)
		m.push(dead)
	}
	if m.limits.switches > 0 && s.last != uint8(i)+1 {
		if s.last != 0 && s.runs[s.last-1].exit == running {
			if s.switches == m.limits.switches {
				return
			}
			s.switches++
		}
		s.last = uint8(i) + 1
	}
	if !r.down && s.outages < m.limits.outages && asksLedger(r.at) {
		lost := s
		lost.outages++
		lost.runs[i].down = true
		m.push(lost)
		if r.at == personStart && m.startRollback(&lost, i) { // the answer is lost: the event is there
			lost.runs[i].started = 0
			lost.runs[i].at = personSame0
			m.push(lost)
		}
	}
	m.act(s, i)
}

func asksLedger(at pc) bool {
	switch at {
	case atRead, atHeal, deployStart, deployFinish, deployAbort, verifyStart, verifyWrite, verifyPass, verifyDisarm, verifyReject, personRead, personStart, personWrite:
		return true
	}
	return false
}

func (m *model) holds(s *state, i int) bool {
	in := m.event(s.ledger).State.Intent
	return in != nil && in.Holder == holder(i)
}

// alive says whether the run that holds the intent has not ended. Who asks is not at work on it.
func (m *model) alive(s *state, in *Intent, asks int) bool {
	for j := range m.jobs {
		if j != asks && in.Holder == holder(j) {
			return s.runs[j].exit == running
		}
	}
	return false
}

func (m *model) end(s *state, i int, e exit) {
	r := &s.runs[i]
	if e != exitKilled && r.alone && r.at == atSee1 {
		live := m.event(s.ledger).State.Live
		for t := range s.sites {
			if m.event(s.ledger).State.Intent == nil && s.sites[t].serves != number(live.Release) {
				m.fail("run %d ends alone, and target %d serves %s while %s is live", i, t, letter(s.sites[t].serves), live.Release.Version)
			}
		}
	}
	if m.off(noSecondLoop) && e == exitOK && r.then == exitOK {
		m.quiet(s, i)
	}
	left, started := r.left, r.started
	if e == exitKilled || e == exitRefused || e == exitHalfWay || e == exitFailed {
		left = 0
	}
	*r = run{at: ended, exit: e, noted: r.noted, base: r.base, left: left, condemns: r.condemns && left != 0, note: r.note, undone: r.undone}
	if !r.noted {
		r.note = 0
	}
	if r.undone {
		r.started = started
	}
}

// quiet is what a run says when it ends well and nobody else is at work.
func (m *model) quiet(s *state, i int) {
	for j := range m.jobs {
		if j != i && s.runs[j].exit == running {
			return
		}
	}
	live := m.event(s.ledger).State.Live
	for t := range s.sites {
		if s.sites[t].serves != number(live.Release) {
			m.fail("run %d ends well and alone, and target %d serves %s while %s is live", i, t, letter(s.sites[t].serves), live.Release.Version)
		}
	}
}

func (m *model) fail(format string, args ...any) {
	if m.broken == "" {
		m.broken = fmt.Sprintf(format, args...)
	}
}

// finish ends the own work of a run: it looks again, and then ends as it should.
func (m *model) finish(s *state, i int, e exit) {
	r := &s.runs[i]
	r.then, r.at, r.carry, r.claim = e, atRead, [2]pos{}, 0
	r.seen, r.saw, r.wish = 0, [2]uint32{}, [2]uint16{}
	if m.off(noSecondLoop) {
		m.end(s, i, e)
	}
}

func (m *model) push(s state) { m.next = append(m.next, s) }

func (m *model) see(s *state, i, t int) { s.runs[i].saw[t] = m.sites.id(s.sites[t]) }

// mayClaim says whether a target takes the claim.
func (m *model) mayClaim(t *site, id uint16) bool {
	c, old := m.claims.all[id], m.claims.all[t.claim]
	order := cmp.Or(cmp.Compare(c.seq, old.seq), cmp.Compare(c.sub, old.sub))
	return order > 0 || order == 0 && c.holder == old.holder
}

// owns says whether a claim is the one on the target, as far as a change of it compares them.
func (m *model) owns(t *site, id uint16) bool {
	c, old := m.claims.all[id], m.claims.all[t.claim]
	return c.seq == old.seq && c.sub == old.sub && c.holder == old.holder
}

// take makes the claim, with the note, and says whether it may.
func (m *model) take(s *state, i, t int, id, note uint16) bool {
	at := &s.sites[t]
	if !m.mayClaim(at, id) {
		if old := m.claims.all[at.claim]; m.claims.all[id].aim == plan.Follow && old.seq == m.claims.all[id].seq &&
			!slices.ContainsFunc(at.notes[:], func(n uint16) bool { return n != 0 && m.notes.all[n].run+1 == old.holder }) {
			m.fail("run %d follows, and is fenced on target %d by a claim that no event and no note explains", i, t)
		}
		return false
	}
	c, old := m.claims.all[id], m.claims.all[at.claim]
	if c.seq != old.seq || c.sub != old.sub || c.holder != old.holder {
		at.claim = id
		if m.off(claimsRemoveNotes) {
			at.forget(func(uint16) bool { return true })
		}
	}
	m.leave(s, i, t, note)
	return true
}

func (m *model) leave(s *state, i, t int, note uint16) {
	if note == 0 {
		return
	}
	s.sites[t].add(note)
	if r := &s.runs[i]; !r.noted {
		r.noted, r.base = true, uint16(m.event(s.ledger).Seq)
	}
}

// carryOn does the next operation of a change of target t.
func (m *model) carryOn(s *state, i, t int) {
	r, at := &s.runs[i], &s.sites[t]
	c := m.claims.all[r.claim]
	note := r.note
	if c.aim != plan.Fire {
		note = 0
	}
	switch r.carry[t] {
	case toClaim:
		r.undone = r.undone || c.aim == plan.Undo && m.mayClaim(at, r.claim)
		now := note
		if m.off(noteAfterShift) {
			now = 0
		}
		switch {
		case !m.take(s, i, t, r.claim, now):
			r.carry[t] = fenced
		case at.has(c.wanted):
			r.carry[t] = toCheck
		default:
			r.carry[t] = toStage
		}
	case toStage:
		if !m.owns(at, r.claim) {
			r.carry[t] = toLook
			break
		}
		at.there |= 1 << c.wanted
		r.carry[t] = toCheck
	case toCheck:
		switch {
		case !m.owns(at, r.claim):
			r.carry[t] = toLook
		case !at.has(c.wanted):
			r.carry[t] = toStage
		case c.seq < s.rest:
			m.fail("run %d moves target %d under event %d, and at event %d there was nothing left to do", i, t, c.seq, s.rest)
		default:
			r.carry[t] = toLand
		}
	case toLand:
		if at.has(c.wanted) {
			at.serves = c.wanted
		}
		switch {
		case note != 0 && m.off(noteAfterShift):
			r.carry[t] = toNote
		case m.off(noLookAfterShift):
			r.carry[t] = changed
		default:
			r.carry[t] = toLook
		}
	case toNote:
		if m.owns(at, r.claim) {
			m.leave(s, i, t, note)
		}
		r.carry[t] = toLook
	case toLook:
		if m.off(noLookAfterShift) {
			r.carry[t] = fenced
			break
		}
		now := m.claims.all[at.claim]
		switch {
		case m.owns(at, r.claim):
			r.carry[t] = changed
		case (now.aim == plan.Fire || now.aim == plan.Undo || now.aim == plan.Follow || now.aim == plan.Arm) && at.has(now.wanted) && at.serves != now.wanted:
			r.carry[t], r.wish[t] = toWish, at.claim
		default:
			r.carry[t] = fenced
		}
	case toWish:
		r.carry[t] = toLook
		if m.owns(at, r.wish[t]) {
			r.carry[t] = toWishLand
		}
	case toWishLand:
		if to := m.claims.all[r.wish[t]].wanted; at.has(to) {
			at.serves = to
		}
		r.carry[t] = toLook
	}
}

func done(p pos) bool { return p == changed || p == fenced }

// carry does the next operations of a change of both targets, and calls after when both have ended.
func (m *model) carry(s state, i int, after func(s *state, r *run)) {
	inTurn := m.limits.inTurn || s.runs[i].at == atFollow
	for t := range s.sites {
		if done(s.runs[i].carry[t]) {
			continue
		}
		now := s
		m.carryOn(&now, i, t)
		if r := &now.runs[i]; done(r.carry[0]) && done(r.carry[1]) {
			after(&now, r)
		}
		m.push(now)
		if inTurn {
			return
		}
	}
}

// send begins a change.
func (m *model) send(r *run, at pc, c claim) {
	r.at, r.carry, r.wish, r.claim = at, [2]pos{}, [2]uint16{}, uint16(m.claims.id(c))
}

// wayBack is where a rollback goes by what an event says, or none.
func wayBack(s Snapshot) uint8 {
	to, _, err := s.WayBack("")
	if err != nil {
		return noRelease
	}
	return number(to)
}

func (m *model) again(r *run) {
	r.at, r.seen, r.saw, r.carry, r.wish, r.claim = atRead, 0, [2]uint32{}, [2]pos{}, [2]uint16{}, 0
}

func (m *model) act(s state, i int) {
	r := &s.runs[i]
	switch r.at {
	case atRead, atSee0, atSee1, atHeal, atFollow, atForget0, atForget1:
		m.loop(s, i)
	case personRead, personSee0, personSee1, personStart, personSame0, personSame1, personFire, personWrite, bareSee0, bareSee1, bareFire:
		m.person(s, i)
	default:
		if m.jobs[i] == deployC {
			m.deploy(s, i)
			return
		}
		m.verify(s, i)
	}
}

// lost is what becomes of a run in its loop when the registry does not answer.
func (m *model) lost(s *state, i int) {
	r := &s.runs[i]
	switch {
	case r.then != running:
		m.end(s, i, r.then)
	case m.jobs[i] == rollBack:
		m.again(r)
		r.at = bareSee0
	default:
		m.end(s, i, exitFailed)
	}
}

func (m *model) loop(s state, i int) {
	r := &s.runs[i]
	switch r.at {
	case atRead:
		if r.down {
			m.lost(&s, i)
			m.push(s)
			return
		}
		r.seen, r.at, r.alone = s.ledger, atSee0, true
		for j := range m.jobs {
			if j != i && s.runs[j].exit == running {
				r.alone = false
			}
		}
		m.push(s)
	case atSee0:
		m.see(&s, i, 0)
		r.at = atSee1
		m.push(s)
	case atSee1:
		m.see(&s, i, 1)
		m.decide(s, i)
	case atHeal:
		m.heal(s, i)
	case atFollow:
		m.carry(s, i, func(_ *state, r *run) { m.again(r) })
	case atForget0, atForget1:
		t := int(r.at - atForget0)
		c := m.recover(view{r.seen, r.saw})
		if !m.owns(&s.sites[t], r.claim) {
			m.again(r)
			m.push(s)
			return
		}
		s.sites[t].forget(func(n uint16) bool {
			return slices.ContainsFunc(c.notes[:], func(g uint16) bool { return g != 0 && m.notes.all[g].run == m.notes.all[n].run })
		})
		if r.at++; t == 1 {
			m.again(r)
		}
		m.push(s)
	}
}

// decide is what follows from a look. It is part of the last observation.
func (m *model) decide(s state, i int) {
	r := &s.runs[i]
	e := m.event(r.seen)
	c := m.recover(view{r.seen, r.saw})
	in := e.State.Intent
	if in != nil && m.spares(s, i, in) && c.do != EndRollback && c.do != ReadAgain {
		m.own(s, i)
		return
	}
	switch c.do {
	case Nothing:
		s.rest = max(s.rest, uint16(e.Seq))
		m.own(s, i)
		return
	case ReadAgain:
		if r.ahead == uint16(e.Seq) {
			m.fail("run %d needs a person: a target is ahead of event %d", i, e.Seq)
		}
		r.ahead = uint16(e.Seq)
		m.again(r)
	case BringAlong:
		live := e.State.Live
		f := claim{seq: uint16(e.Seq), aim: plan.Follow, wanted: number(live.Release), entry: m.entry(live.ID), back: wayBack(e.State), restored: live.Restored}
		if m.off(healersTakeSubs) {
			high := m.highest(r.saw)
			if high.seq == f.seq {
				f.sub = high.sub + 1
			}
			f.holder = uint8(i) + 1
		}
		m.send(r, atFollow, f)
	case ForgetNotes:
		live := e.State.Live
		r.claim = uint16(m.claims.id(claim{seq: uint16(e.Seq), aim: plan.Follow, wanted: number(live.Release), entry: m.entry(live.ID), back: wayBack(e.State), restored: live.Restored}))
		if m.off(healersTakeSubs) {
			r.claim = m.sites.all[r.saw[0]].claim
		}
		r.at = atForget0
	default:
		r.at = atHeal
	}
	m.push(s)
}

// spares says whether the intent may stay open: a person's rollback takes the place of a verify.
func (m *model) spares(s state, i int, in *Intent) bool {
	return m.jobs[i] == rollBack && s.runs[i].then == running && in.Kind == VerifyStarted && in.Holder != holder(i)
}

// heal writes the remedy, when the run that holds the intent has ended, or is taken for dead.
func (m *model) heal(s state, i int) {
	r := &s.runs[i]
	if r.down {
		m.lost(&s, i)
		m.push(s)
		return
	}
	if in := m.event(r.seen).State.Intent; in != nil && m.alive(&s, in, i) {
		if s.doubts < m.limits.doubts {
			doubt := s
			doubt.doubts++
			m.write(doubt, i)
		}
		if s.ledger != r.seen {
			m.again(r)
		} else if r.then != running {
			m.end(&s, i, r.then)
		} else {
			m.end(&s, i, exitRefused)
		}
		m.push(s)
		return
	}
	m.write(s, i)
}

func (m *model) write(s state, i int) {
	r := &s.runs[i]
	c := m.recover(view{r.seen, r.saw})
	if s.ledger == r.seen || m.off(noGuard) {
		ok := m.commit(&s, m.change(r.seen, c))
		if ok && (c.do == TakeDeployBack || c.do == EndRollback) {
			r.tookBack = true
		}
	}
	m.again(&s.runs[i])
	m.push(s)
}

// change is the event of a remedy.
func (m *model) change(seen uint32, c cure) change {
	out := change{key: seen, note: c.note}
	switch c.do {
	case EndRollback:
		out.kind = RollbackFinished
	case EndVerify:
		out.kind = Disarmed
	case EndDeploy:
		out.kind = DeployFinished
	case TakeDeployBack:
		out.kind = DeployAborted
	case TakeNote:
		out.kind, out.key = NoteAdopted, 0
	}
	return out
}

// highest is the highest record of both targets. Of two with one number, from runs that each reached one target, the
// rollback counts.
func (m *model) highest(saw [2]uint32) claim {
	high := m.claims.all[m.sites.all[saw[0]].claim]
	other := m.claims.all[m.sites.all[saw[1]].claim]
	order := cmp.Or(cmp.Compare(other.seq, high.seq), cmp.Compare(other.sub, high.sub))
	if order > 0 || order == 0 && other.aim == plan.Fire {
		return other
	}
	return high
}

// own is what a run does once there is nothing left to heal.
func (m *model) own(s state, i int) {
	r := &s.runs[i]
	snapshot := &m.event(r.seen).State
	if r.then != running {
		m.end(&s, i, r.then)
		m.push(s)
		return
	}
	switch m.jobs[i] {
	case deployC:
		r.at = deployStart
		if snapshot.QuarantineOf(releaseOf(releaseC).ID()) != nil {
			m.end(&s, i, exitRefused)
		}
	case verifyLive:
		r.at = verifyStart
	case rollBack:
		m.chooses(&s, i)
	}
	m.push(s)
}

// chooses is the decision of a rollback by hand.
func (m *model) chooses(s *state, i int) {
	r := &s.runs[i]
	snapshot := &m.event(r.seen).State
	live := snapshot.Live
	took := r.unfinished != 0 && number(live.Release) != releaseC && !live.Restored
	if m.off(othersTookItBack) {
		took = took && r.tookBack
	}
	switch {
	case took: // the deploy that had not ended has gone back: that was it
		r.left = r.unfinished
		m.end(s, i, exitOK)
	case live.Restored:
		m.end(s, i, exitOK)
	case m.entry(live.ID) != r.first && number(live.Release) != r.served && !m.off(noFirstLook):
		m.end(s, i, exitRefused)
	case wayBack(*snapshot) == noRelease:
		m.end(s, i, exitHalfWay)
	default:
		r.at = personStart
	}
}

func (m *model) fresh(s *state, i, t int) bool {
	started := m.event(s.runs[i].started)
	for _, n := range s.sites[t].notes {
		if n != 0 && !slices.Contains(started.State.Adopted, noteID(m.notes.all[n].run)) {
			return true
		}
	}
	return false
}

// doing is the claim of a deploy.
func (m *model) doing(s *state, i int, aim plan.Aim) claim {
	e := m.event(s.runs[i].started)
	in := e.State.Intent
	c := claim{seq: uint16(in.Seq), holder: uint8(i) + 1, aim: aim, wanted: number(in.To), entry: m.entry(in.Entry()), back: number(in.From.Release)}
	if c.back == c.wanted && !m.off(backToItself) { // what is live is deployed once more
		c.back = wayBack(e.State)
	}
	switch aim {
	case plan.Done:
		c.sub = 1
	case plan.Undo:
		c.sub, c.wanted, c.entry, c.restored = 1, number(in.From.Release), m.entry(in.From.ID), in.From.Restored
		c.back = wayBack(e.State)
	}
	return c
}

func (m *model) deploy(s state, i int) {
	r := &s.runs[i]
	undo := func(s state) {
		m.send(&s.runs[i], deployUndo, m.doing(&s, i, plan.Undo))
		m.push(s)
	}
	switch r.at {
	case deployStart:
		newest := m.event(s.ledger)
		switch {
		case r.down:
			m.end(&s, i, exitFailed)
		case s.ledger != r.seen && !m.off(noGuard) || newest.State.Intent != nil:
			m.end(&s, i, exitRefused)
		default:
			m.commit(&s, change{kind: DeployStarted, run: uint8(i), to: releaseC})
			r.started, r.seen, r.saw, r.at = s.ledger, 0, [2]uint32{}, deployClaim0
		}
		m.push(s)
	case deployClaim0, deployClaim1:
		t := int(r.at - deployClaim0)
		id := uint16(m.claims.id(m.doing(&s, i, plan.Do)))
		if r.at++; !m.take(&s, i, t, id, 0) {
			m.finish(&s, i, exitRefused)
		}
		m.push(s)
	case deployNotes0, deployNotes1:
		t := int(r.at - deployNotes0)
		r.at++
		if r.at == deployTurn0 {
			m.send(r, deployTurn0, m.doing(&s, i, plan.Do))
			r.carry = [2]pos{toStage, toStage}
		}
		if m.fresh(&s, i, t) {
			m.finish(&s, i, exitRefused)
		}
		m.push(s)
	case deployTurn0, deployTurn1:
		t := int(r.at - deployTurn0)
		m.carryOn(&s, i, t)
		switch r.carry[t] {
		case fenced:
			m.finish(&s, i, exitRefused)
		case changed:
			if r.at++; t == 1 {
				r.carry, r.claim = [2]pos{}, 0
			}
			late := s
			defer undo(late)
		}
		m.push(s)
	case deployDone0, deployDone1:
		t := int(r.at - deployDone0)
		id := uint16(m.claims.id(m.doing(&s, i, plan.Done)))
		if r.at++; !m.take(&s, i, t, id, 0) {
			m.finish(&s, i, exitRefused)
		} else if m.off(undoAfterDone) {
			late := s
			late.runs[i].carry = [2]pos{}
			undo(late)
		}
		m.push(s)
	case deployFinish:
		switch {
		case r.down:
			m.end(&s, i, exitHalfWay)
		case !m.commit(&s, change{kind: DeployFinished, key: r.started}):
			m.finish(&s, i, exitRefused)
		default:
			m.finish(&s, i, exitOK)
		}
		m.push(s)
	case deployUndo:
		m.carry(s, i, func(s *state, r *run) {
			if r.carry != [2]pos{changed, changed} {
				m.finish(s, i, exitRefused)
				return
			}
			r.at, r.carry, r.claim = deployAbort, [2]pos{}, 0
		})
	case deployAbort:
		in := m.event(r.started).State.Intent
		r.left = m.entry(in.Entry())
		switch {
		case r.down:
			m.end(&s, i, exitHalfWay)
		case !m.commit(&s, change{kind: DeployAborted, key: r.started}):
			m.finish(&s, i, exitRefused)
		default:
			m.finish(&s, i, exitBack)
		}
		m.push(s)
	}
}

func (m *model) verify(s state, i int) {
	r := &s.runs[i]
	var in *Intent
	if r.started != 0 {
		in = m.event(r.started).State.Intent
	}
	switch r.at {
	case verifyStart:
		newest := m.event(s.ledger)
		switch {
		case r.down:
			m.end(&s, i, exitFailed)
		case s.ledger != r.seen && !m.off(noGuard) || newest.State.Intent != nil:
			m.end(&s, i, exitRefused)
		default:
			to := wayBack(m.event(r.seen).State)
			if newest.State.Live.Restored {
				to = noRelease // a rollback is never rolled back
			}
			m.commit(&s, change{kind: VerifyStarted, run: uint8(i), to: to})
			r.started, r.seen, r.saw, r.at = s.ledger, 0, [2]uint32{}, verifyArm0
		}
		m.push(s)
	case verifyArm0, verifyArm1:
		t := int(r.at - verifyArm0)
		c := claim{seq: uint16(in.Seq), holder: uint8(i) + 1, aim: plan.Arm, wanted: number(in.From.Release), entry: m.entry(in.From.ID),
			back: number(in.To), restored: in.From.Restored}
		r.claim = uint16(m.claims.id(c))
		if r.at++; !m.take(&s, i, t, r.claim, 0) {
			m.finish(&s, i, exitRefused)
		}
		m.push(s)
	case verifySee0, verifySee1: // a way back that is cold is started in the same step
		t := int(r.at - verifySee0)
		at := &s.sites[t]
		if r.at++; !m.off(armBlindly) && (m.fresh(&s, i, t) || at.serves != number(in.From.Release)) || !m.owns(at, r.claim) {
			m.finish(&s, i, exitRefused)
		} else if in.To.Digest != "" {
			at.there |= 1 << number(in.To)
		}
		m.push(s)
	case verifyJudge:
		pass := s
		pass.runs[i].at = verifyPass
		m.push(pass)
		unknown := s
		unknown.runs[i].at = verifyDisarm
		m.push(unknown)
		if in.To.Digest == "" {
			r.at = verifyReject
			m.push(s)
			return
		}
		left := number(in.From.Release)
		s.culprits |= 1 << left
		r.note = uint16(m.notes.id(note{run: uint8(i), seq: uint16(in.Seq), sub: 1, left: left, leftEntry: m.entry(in.From.ID), to: number(in.To), condemn: true}))
		m.send(r, verifyFire, claim{seq: uint16(in.Seq), sub: 1, holder: uint8(i) + 1, aim: plan.Fire, wanted: number(in.To), entry: m.entry(noteID(uint8(i))), restored: true})
		m.push(s)
	case verifyFire:
		m.carry(s, i, func(s *state, r *run) {
			if !r.noted {
				m.finish(s, i, exitHalfWay) // refused everywhere
				return
			}
			r.partly = r.carry != [2]pos{changed, changed}
			r.at, r.claim, r.carry, r.wish = verifyWrite, 0, [2]pos{}, [2]uint16{}
		})
	case verifyWrite:
		r.left, r.condemns = m.entry(in.From.ID), true
		if r.down && r.partly {
			m.end(&s, i, exitHalfWay)
		} else if r.down {
			m.end(&s, i, exitBack)
		} else {
			m.commit(&s, change{kind: RollbackFinished, key: r.started, note: r.note})
			m.finish(&s, i, exitBack)
		}
		m.push(s)
	case verifyPass, verifyDisarm, verifyReject:
		kind, e := Verified, exitOK
		switch r.at {
		case verifyDisarm:
			kind = Disarmed
		case verifyReject:
			kind, e = Rejected, exitHalfWay
		}
		switch {
		case r.down:
			m.end(&s, i, exitFailed)
		case !m.commit(&s, change{kind: kind, key: r.started}):
			m.finish(&s, i, exitRefused)
		case kind == Verified:
			live := m.event(s.ledger).State.Live
			r.claim = uint16(m.claims.id(claim{seq: uint16(m.event(s.ledger).Seq), aim: plan.Follow, wanted: number(live.Release), entry: m.entry(live.ID),
				back: wayBack(m.event(s.ledger).State), restored: live.Restored}))
			r.seen, r.at = s.ledger, verifyRetire0
		default:
			m.finish(&s, i, e)
		}
		m.push(s)
	case verifyRetire0, verifyRetire1: // claim and retire in one step: it is what makes the way back cold
		t := int(r.at - verifyRetire0)
		if r.at++; m.take(&s, i, t, r.claim, 0) {
			s.sites[t].there &= 1<<s.sites[t].serves | 1<<number(m.event(r.seen).State.Live.Release)
		}
		if t == 1 {
			m.finish(&s, i, exitOK)
		}
		m.push(s)
	}
}

// startRollback commits the intent of a rollback.
func (m *model) startRollback(s *state, i int) bool {
	r := &s.runs[i]
	newest, seen := &m.event(s.ledger).State, &m.event(r.seen).State
	if newest.Intent != nil && newest.Intent.Kind != VerifyStarted || newest.Live.ID != seen.Live.ID && !m.off(noGuard) {
		return false
	}
	m.commit(s, change{kind: RollbackStarted, run: uint8(i), to: wayBack(*seen)})
	r.started = s.ledger
	return true
}

// goBack sends the traffic back with a note.
func (m *model) goBack(r *run, at pc, i int, n note) {
	n.run = uint8(i)
	r.note, r.left, r.condemns = uint16(m.notes.id(n)), n.leftEntry, n.condemn
	m.send(r, at, claim{seq: n.seq, sub: n.sub, holder: uint8(i) + 1, aim: plan.Fire, wanted: n.to, entry: m.entry(noteID(uint8(i))), restored: true})
}

func (m *model) person(s state, i int) {
	r := &s.runs[i]
	switch r.at {
	case personRead:
		if r.down {
			r.at = bareSee0
			m.push(s)
			return
		}
		r.first, r.at = m.entry(m.event(s.ledger).State.Live.ID), personSee0
		r.seen = s.ledger
		m.push(s)
	case personSee0:
		r.served, r.at = s.sites[0].serves, personSee1
		m.push(s)
	case personSee1:
		if s.sites[1].serves != r.served {
			r.served = noRelease
		}
		seen := m.event(r.seen).State
		if in := seen.Intent; in != nil && in.Kind == DeployStarted {
			r.unfinished = m.entry(in.Entry())
			s.culprits |= 1 << r.served &^ 1
		} else {
			s.culprits |= 1<<number(seen.Live.Release) | 1<<r.served&^1
		}
		m.again(r)
		m.push(s)
	case personStart:
		switch {
		case r.down:
			r.at = personSame0
		case !m.startRollback(&s, i):
			m.end(&s, i, exitRefused)
		default:
			in := m.event(s.ledger).State.Intent
			m.goBack(r, personFire, i, note{seq: uint16(in.Seq), left: number(in.From.Release), leftEntry: m.entry(in.From.ID), to: number(in.To), condemn: true})
			r.seen, r.saw = 0, [2]uint32{}
		}
		m.push(s)
	case personFire:
		m.carry(s, i, func(s *state, r *run) {
			if !r.noted {
				m.finish(s, i, exitRefused)
				return
			}
			r.partly = r.carry != [2]pos{changed, changed}
			r.at, r.claim, r.carry, r.wish = personWrite, 0, [2]pos{}, [2]uint16{}
		})
	case personWrite:
		switch {
		case r.down && r.partly:
			m.end(&s, i, exitHalfWay)
		case r.down:
			m.end(&s, i, exitBack)
		case !m.commit(&s, change{kind: RollbackFinished, key: r.started, note: r.note}):
			m.finish(&s, i, exitRefused)
		default:
			m.finish(&s, i, exitOK)
		}
		m.push(s)
	case personSame0, bareSee0:
		m.see(&s, i, 0)
		r.at++
		m.push(s)
	case personSame1:
		m.see(&s, i, 1)
		high, seen := m.highest(r.saw), m.event(r.seen)
		if uint64(high.seq) > seen.Seq {
			m.end(&s, i, exitRefused)
		} else {
			live := seen.State.Live
			m.goBack(r, bareFire, i, m.bareNumber(high, note{left: number(live.Release), leftEntry: m.entry(live.ID), to: wayBack(seen.State), condemn: true}))
			r.seen, r.saw = 0, [2]uint32{}
		}
		m.push(s)
	case bareSee1:
		m.see(&s, i, 1)
		m.bare(&s, i)
		m.push(s)
	case bareFire:
		m.carry(s, i, func(s *state, r *run) {
			if r.carry != [2]pos{changed, changed} {
				m.end(s, i, exitHalfWay)
				return
			}
			m.end(s, i, exitBack)
		})
	}
}

func (m *model) bareNumber(high claim, n note) note {
	n.seq, n.sub = high.seq, high.sub+1
	if m.off(nextNumberBare) {
		n.seq, n.sub = high.seq+1, 0
	}
	return n
}

// bare is a rollback that goes by the highest record.
func (m *model) bare(s *state, i int) {
	r := &s.runs[i]
	a, b := m.sites.all[r.saw[0]], m.sites.all[r.saw[1]]
	serves := func(release uint8) bool { return a.serves == release && b.serves == release }
	high := m.highest(r.saw)
	n := note{left: high.wanted, leftEntry: high.entry, to: high.back, condemn: true}
	gone, untouched := false, false
	if r.unfinished != 0 && high.entry != r.unfinished && high.wanted != releaseC && !m.off(forgetFirstLook) {
		begun, _ := strconv.Atoi(m.entries.all[r.unfinished])
		gone, untouched = int(high.seq) >= begun, int(high.seq) < begun
	}
	switch {
	case untouched: // by the deploy that the person saw: there is nothing to go back from
		m.end(s, i, exitRefused)
		return
	case gone && serves(high.wanted): // the deploy that the person saw has gone back: that was it
		r.left = r.unfinished
		m.end(s, i, exitOK)
		return
	case r.first != 0 && r.unfinished == 0 && high.entry != r.first && !high.restored && !m.off(forgetFirstLook):
		m.end(s, i, exitRefused) // it is not what the person saw
		return
	case high.restored || high.aim == plan.Fire:
		if serves(high.wanted) {
			m.end(s, i, exitOK)
			return
		}
		n.condemn = false
		n.left, n.leftEntry = noRelease, 0
		var newest note
		for _, t := range []site{a, b} {
			for _, id := range t.notes {
				if o := m.notes.all[id]; id != 0 && cmp.Or(cmp.Compare(o.seq, newest.seq), cmp.Compare(o.sub, newest.sub)) > 0 {
					newest = o
					n.left, n.leftEntry, n.condemn = o.left, o.leftEntry, o.condemn
				}
			}
		}
		n.to = high.wanted
		if m.off(continueOldNote) {
			n = m.bareNumber(high, n)
			m.send(r, bareFire, claim{seq: n.seq, sub: n.sub, holder: uint8(i) + 1, aim: plan.Fire, wanted: n.to, restored: true})
			return
		}
	case high.aim == plan.Undo && !serves(high.wanted):
		// the deploy under way goes back already: it is brought along, and nothing else is left
		n.to, n.condemn = high.wanted, false
		n.left, n.leftEntry = releaseC, m.entry(fmt.Sprint(high.seq))
	default:
		n.condemn = serves(high.wanted) || m.off(condemnUnserved)
	}
	if serves(high.wanted) && (r.first == 0 || r.unfinished != 0 && high.wanted == releaseC) {
		s.culprits |= 1 << high.wanted
	}
	if n.to == noRelease {
		m.end(s, i, exitHalfWay)
		return
	}
	r.saw = [2]uint32{}
	m.goBack(r, bareFire, i, m.bareNumber(high, n))
}

// settle is the run that comes after all others: it heals, undisturbed. It returns what is violated, or "".
func (m *model) settle(s *state, say func(*Event, Action)) string {
	for range 30 { // each round is a remedy
		v := view{s.ledger, [2]uint32{m.sites.id(s.sites[0]), m.sites.id(s.sites[1])}}
		c := m.recover(v)
		e := m.event(s.ledger)
		say(e, c.do)
		switch c.do {
		case Nothing:
			return ""
		case ReadAgain:
			return fmt.Sprintf("a person is needed: a target is ahead of event %d", e.Seq)
		case BringAlong, ForgetNotes:
			live := e.State.Live
			f := claim{seq: uint16(e.Seq), aim: plan.Follow, wanted: number(live.Release), entry: m.entry(live.ID), back: wayBack(e.State), restored: live.Restored}
			if m.off(healersTakeSubs) {
				if high := m.highest(v.sites); high.seq == f.seq {
					f.sub = high.sub + 1
				}
				f.holder = maxRuns + 1
			}
			id := uint16(m.claims.id(f))
			for t := range s.sites {
				at := &s.sites[t]
				if !m.mayClaim(at, id) {
					return fmt.Sprintf("healing is fenced on target %d by claim %v", t, m.claims.all[at.claim])
				}
				if !m.owns(at, id) {
					at.claim = id
					if m.off(claimsRemoveNotes) {
						at.forget(func(uint16) bool { return true })
					}
				}
				if c.do == ForgetNotes {
					at.forget(func(uint16) bool { return true })
					continue
				}
				at.there |= 1 << f.wanted
				at.serves = f.wanted
			}
		default:
			if !m.commit(s, m.change(s.ledger, c)) {
				return "healing cannot write " + string(c.do)
			}
		}
	}
	return "healing does not end"
}

// promises returns what is not true although it has to be once all runs have ended, or "".
func (m *model) promises(s state) string {
	if s.kills == 0 && s.outages == 0 {
		for t := range s.sites {
			if c := m.claims.all[s.sites[t].claim]; c.aim != plan.Do && s.sites[t].serves != c.wanted && c.aim != plan.Done {
				return fmt.Sprintf("all runs ended by themselves, and target %d serves %s while its record wants %s", t, letter(s.sites[t].serves), letter(c.wanted))
			}
		}
	}
	if broken := m.settle(&s, func(*Event, Action) {}); broken != "" {
		return broken
	}
	n := &m.nodes[s.ledger]
	now := &n.e.State
	for t := range s.sites {
		if s.sites[t].serves != number(now.Live.Release) {
			return fmt.Sprintf("target %d serves %s while %s is live", t, letter(s.sites[t].serves), now.Live.Release.Version)
		}
	}
	if now.Intent != nil {
		return "an intent stays open"
	}
	if now.QuarantineOf(now.Live.Release.ID()) != nil && now.LastGood != nil {
		return now.Live.Release.Version + " is live and in quarantine"
	}
	var condemned uint8
	for _, q := range now.Quarantined {
		condemned |= 1 << number(q.Release)
	}
	if wrong := condemned &^ s.culprits; wrong != 0 {
		return letter(uint8(bits.TrailingZeros8(wrong))) + " is condemned, and nobody found it bad"
	}
	for i := range m.jobs {
		r := &s.runs[i]
		switch count := n.adopted[i]; {
		case r.noted && count != 1:
			return fmt.Sprintf("the rollback of run %d is %d times in the history", i, count)
		case !r.noted && count != 0:
			return fmt.Sprintf("run %d moved nothing, and its rollback is in the history", i)
		}
		if r.undone && m.finished(s.ledger, r.started) {
			return fmt.Sprintf("run %d undid its deploy, and the history says that it finished", i)
		}
		if r.left == 0 {
			continue
		}
		if m.entry(now.Live.ID) == r.left && now.Live.Passed <= uint64(r.base) {
			return fmt.Sprintf("run %d ended with %s, and what it left, entry %s, is live again without an event", i, r.exit, now.Live.ID)
		}
		if r.condemns && r.noted && !m.later(s.ledger, r) {
			if left := m.notes.all[r.note].left; now.QuarantineOf(releaseOf(left).ID()) == nil {
				return fmt.Sprintf("run %d ended with %s, and what it left, entry %s, is not in quarantine", i, r.exit, m.entries.all[r.left])
			}
		}
	}
	return ""
}

// finished says whether the history of an event has the end of a deploy that began with another one.
func (m *model) finished(id, started uint32) bool {
	for ; id != started; id = m.nodes[id].parent {
		if in := m.nodes[m.nodes[id].parent].e.State.Intent; m.nodes[id].e.Kind == DeployFinished && in.Key() == m.nodes[started].e.State.Intent.Key() {
			return true
		}
	}
	return false
}

// later says whether what a run has left was passed or deployed again after that.
func (m *model) later(id uint32, r *run) bool {
	for ; id != 0; id = m.nodes[id].parent {
		e := &m.nodes[id].e
		if e.Seq > uint64(r.base) && (e.Kind == Verified || e.Kind == DeployFinished) {
			return true
		}
	}
	return false
}

// found is how a search ended.
type found struct {
	states int
	broken string // "" when everything is true
	whole  bool   // nothing was left out
	trace  []string
}

// search tries everything, the shortest ways first. A state is kept as the way to it from the state before: whoever needs it
// goes that way once more.
func (m *model) search() found {
	type way struct {
		from   int32
		choice uint8
	}
	ways := []way{{from: -1}}
	front, at := []state{m.begin()}, 0
	seed := maphash.MakeSeed()
	known := map[uint64]struct{}{maphash.Comparable(seed, front[0]): {}}
	for len(front) > 0 {
		var fresh []state
		for _, s := range front {
			if m.broken = ""; over(s) {
				m.broken = m.promises(s)
			} else {
				m.steps(s)
			}
			if m.broken != "" {
				out := found{states: len(ways), broken: m.broken}
				var choices []uint8
				for w := ways[at]; w.from >= 0; w = ways[w.from] {
					choices = append(choices, w.choice)
				}
				slices.Reverse(choices)
				out.trace = m.trace(choices)
				return out
			}
			if over(s) {
				at++
				continue
			}
			for choice, next := range m.next {
				h := maphash.Comparable(seed, next)
				if _, ok := known[h]; !ok {
					known[h] = struct{}{}
					ways, fresh = append(ways, way{int32(at), uint8(choice)}), append(fresh, next)
				}
			}
			if at++; m.limits.states > 0 && len(ways) > m.limits.states {
				return found{states: len(ways)}
			}
		}
		front = fresh
	}
	return found{states: len(ways), whole: true}
}

func over(s state) bool {
	return !slices.ContainsFunc(s.runs[:], func(r run) bool { return r.exit == running })
}

// trace is what was done, in words.
func (m *model) trace(choices []uint8) []string {
	var out []string
	s := m.begin()
	for _, choice := range choices {
		m.steps(s)
		next := m.next[choice]
		out = append(out, m.words(s, next))
		s = next
	}
	if over(s) {
		m.settle(&s, func(e *Event, do Action) {
			out = append(out, fmt.Sprintf("healing: event %d %s: %s", e.Seq, e.Kind, do))
		})
	}
	return out
}

// words say which step leads from one state to the next.
func (m *model) words(a, b state) string {
	i := 0
	for a.runs[i] == b.runs[i] {
		i++
	}
	r := &a.runs[i]
	who := fmt.Sprintf("run %d (%s): ", i, m.jobs[i])
	switch {
	case b.kills > a.kills:
		return who + "is killed"
	case b.outages > a.outages && a.ledger == b.ledger:
		return who + "loses the registry"
	}
	said := who + pcWords[r.at]
	switch r.at {
	case atFollow, deployTurn0, deployTurn1, deployUndo, verifyFire, personFire, bareFire:
		t := 0
		if r.at == deployTurn1 || r.carry[0] == b.runs[i].carry[0] || done(r.carry[0]) {
			t = 1
		}
		c := m.claims.all[r.claim]
		said += fmt.Sprintf(", target %d: %s (claim %d.%d %s %s)", t, posWords[r.carry[t]], c.seq, c.sub, c.aim, letter(c.wanted))
	case atSee1:
		saw := r.saw
		saw[1] = m.sites.id(a.sites[1])
		said += ": " + string(m.recover(view{r.seen, saw}).do)
	}
	if e := m.event(b.ledger); b.ledger != a.ledger {
		said += fmt.Sprintf(": event %d %s", e.Seq, e.Kind)
	}
	if b.doubts > a.doubts {
		said += ", the holder is taken for dead"
	}
	if b.outages > a.outages {
		said += ", and the answer is lost"
	}
	if e := b.runs[i].exit; e != running {
		said += ": " + e.String()
	}
	return said
}

var posWords = [...]string{"claim", "stage", "check the claim", "shift", "write the note", "look again", "check the winner's claim", "shift for the winner"}

var pcWords = [...]string{
	atRead: "read the ledger", atSee0: "look at target 0", atSee1: "look at target 1", atHeal: "write the remedy", atFollow: "follow",
	atForget0: "forget notes on target 0", atForget1: "forget notes on target 1",
	deployStart: "start", deployClaim0: "claim target 0", deployClaim1: "claim target 1", deployNotes0: "look for notes on target 0",
	deployNotes1: "look for notes on target 1", deployTurn0: "deploy", deployTurn1: "deploy", deployDone0: "claim done on target 0",
	deployDone1: "claim done on target 1", deployFinish: "finish", deployUndo: "undo", deployAbort: "abort",
	verifyStart: "start", verifyArm0: "arm target 0", verifyArm1: "arm target 1", verifySee0: "look at target 0", verifySee1: "look at target 1",
	verifyJudge: "judge", verifyFire: "fire", verifyWrite: "write the rollback", verifyPass: "pass", verifyDisarm: "disarm",
	verifyReject: "reject", verifyRetire0: "retire on target 0", verifyRetire1: "retire on target 1",
	personRead: "first look at the ledger", personSee0: "first look at target 0", personSee1: "first look at target 1", personStart: "start",
	personSame0: "look at target 0 for the highest number", personSame1: "look at target 1 for the highest number", personFire: "go back",
	personWrite: "write the rollback", bareSee0: "look at target 0 without the registry", bareSee1: "look at target 1 without the registry",
	bareFire: "go back without the registry",
}

// crews are all ways to choose n of the jobs; the order does not matter.
func crews(n int) [][]job {
	if n == 0 {
		return [][]job{nil}
	}
	var out [][]job
	for _, fewer := range crews(n - 1) {
		for j := deployC; j <= rollBackBare; j++ {
			if len(fewer) == 0 || j >= fewer[len(fewer)-1] {
				out = append(out, append(slices.Clone(fewer), j))
			}
		}
	}
	return out
}

// The whole search takes about a quarter of an hour: BACKSTEP_MODEL=long go test -timeout 1h -run TestProtocol ./internal/ledger
func TestProtocol(t *testing.T) {
	type search struct {
		runs int
		limits
	}
	var searches []search
	switch {
	case os.Getenv("BACKSTEP_MODEL") == "long":
		searches = []search{
			{1, limits{kills: 1, outages: 1}},
			{2, limits{kills: 1, outages: 1, doubts: 1}},
			{2, limits{kills: 2, outages: 1, doubts: 1, switches: 4}},
			{2, limits{kills: 1, outages: 1, doubts: 1, switches: 4, cold: true}},
			{3, limits{kills: 1, outages: 1, doubts: 1, switches: 2, inTurn: true}},
			{3, limits{kills: 2, doubts: 1, switches: 2, inTurn: true}},
		}
	case testing.Short():
		searches = []search{
			{1, limits{kills: 1, outages: 1}},
			{2, limits{kills: 1, outages: 1, doubts: 1, switches: 2, inTurn: true}},
		}
	default:
		searches = []search{
			{1, limits{kills: 1, outages: 1}},
			{2, limits{kills: 1}},
			{2, limits{kills: 1, outages: 1, doubts: 1, switches: 3, inTurn: true}},
			{2, limits{kills: 1, doubts: 1, switches: 2, inTurn: true, cold: true}},
			{3, limits{switches: 1, inTurn: true}},
		}
	}
	for _, one := range searches {
		t.Run(fmt.Sprintf("%d runs %+v", one.runs, one.limits), func(t *testing.T) {
			t.Parallel()
			states, begin := 0, time.Now()
			for _, jobs := range crews(one.runs) {
				f := newModel(jobs, 0, one.limits).search()
				states += f.states
				if f.broken != "" {
					t.Errorf("%v: %s\n%s", jobs, f.broken, strings.Join(f.trace, "\n"))
				}
			}
			t.Logf("%d states in %.1f s", states, time.Since(begin).Seconds())
		})
	}
}

// Each rule is needed: without it the search finds what goes wrong. With -v it prints the way there.
func TestProtocolFindsWhatIsMissing(t *testing.T) {
	few := func(kills, outages, doubts uint8) limits {
		return limits{kills: kills, outages: outages, doubts: doubts, switches: 2, inTurn: true}
	}
	for _, missing := range []struct {
		name   string
		rule   plant
		jobs   []job
		limits limits
		broken string
	}{
		{"the note is written with the claim", noteAfterShift, []job{rollBackBare}, few(1, 0, 0), "healing is fenced on target 0"},
		{"a claim removes no note", claimsRemoveNotes, []job{deployC, rollBackBare}, few(0, 0, 0), "the rollback of run 1 is 0 times in the history"},
		{"a run looks again before it ends", noSecondLoop, []job{deployC, rollBackBare}, few(0, 0, 0), "run 0 ends well and alone, and target 0 serves B while C is live"},
		{"weights decide nothing", weightsDecide, []job{deployC}, few(1, 0, 0), "run 0 undid its deploy, and the history says that it finished"},
		{"who follows shares one number", healersTakeSubs, []job{verifyLive, rollBack}, few(0, 0, 0), "run 0 follows, and is fenced on target 0"},
		{"a run looks after its shift", noLookAfterShift, []job{deployC, rollBackBare}, few(0, 0, 0), "all runs ended by themselves, and target 0 serves A while its record wants C"},
		{"an event follows the one that was looked at", noGuard, []job{deployC, rollBack}, few(0, 0, 0), "C is condemned, and nobody found it bad"},
		{"without the registry only the sub rises", nextNumberBare, []job{rollBackBare}, few(0, 0, 0), "a person is needed: a target is ahead of event 10"},
		{"a rollback condemns what it left", condemnWhatIsLive, []job{deployC, rollBackBare}, few(0, 0, 0), "run 1 ended with exit 5, and what it left, entry 11, is not in quarantine"},
		{"a person's first look counts", noFirstLook, []job{deployC, rollBack}, few(0, 0, 0), "C is condemned, and nobody found it bad"},
		{"also when the registry is lost", forgetFirstLook, []job{deployC, rollBack}, few(1, 1, 0), "B is condemned, and nobody found it bad"},
		{"following raises the fence", fenceNotRaised, []job{deployC, rollBackBare}, few(0, 0, 0), "run 1 moves target 0 under event 11, and at event 12 there was nothing left to do"},
		{"verify looks when it has armed", armBlindly, []job{verifyLive, rollBackBare}, few(0, 0, 0), "run 1 ended with exit 5, and what it left, entry 9, is live again without an event"},
		{"done is never undone", undoAfterDone, []job{deployC}, few(1, 0, 0), "run 0 undid its deploy, and the history says that it finished"},
		{"each rollback has a note of its own", continueOldNote, []job{verifyLive, rollBackBare}, few(1, 0, 0), "healing is fenced on target 0"},
		{"others may have taken it back", othersTookItBack, []job{deployC, deployC, rollBack}, few(1, 0, 0), "B is condemned, and nobody found it bad"},
		{"only what serves everywhere is condemned", condemnUnserved, []job{deployC, rollBackBare}, few(0, 0, 0), "C is condemned, and nobody found it bad"},
		{"nothing is its own way back", backToItself, []job{deployC, deployC, rollBackBare}, few(0, 0, 0), "run 2 ended with exit 5, and what it left, entry 13, is not in quarantine"},
		{"a pass counts from its verify", passedByItsEvent, []job{verifyLive, rollBackBare}, few(0, 0, 0), "run 1 ended with exit 5, and what it left, entry 9, is live again without an event"},
		{"a restored entry is no new one", anyOtherEntryIsNewer, []job{deployC, rollBackBare, rollBackBare}, few(1, 1, 0), "is not in quarantine"},
		{"a note is adopted once", adoptTwice, []job{rollBackBare}, few(0, 0, 0), "healing does not end"},
	} {
		t.Run(missing.name, func(t *testing.T) {
			t.Parallel()
			f := newModel(missing.jobs, missing.rule, missing.limits).search()
			if f.broken == "" || !strings.Contains(f.broken, missing.broken) {
				t.Fatalf("%v, %d states: found %q, want %q", missing.jobs, f.states, f.broken, missing.broken)
			}
			t.Logf("%d states: %s\n%s", f.states, f.broken, strings.Join(f.trace, "\n"))
		})
	}
}
