package registry

import (
	"hash/maphash"
	"os"
	"testing"
)

// The protocol of Commit as a machine whose steps are single requests, run in every order. A writer that dies is one that
// takes no more steps, so deaths need no steps of their own. PUTs of events may be applied late, or never.

const (
	modelNumbers = 6 // as many tags of events there are
	modelWriters = 3
)

type what uint8 // there is in the tag of an event

const (
	nothing what = iota
	anEvent
	isSealed
	isFilled
)

type cell struct {
	what what
	id   uint8
}

// written is an event: number, writer, the event before, and whether it only decides what became of another.
type modelEvent struct {
	seq, writer, before uint8
	decides             bool
}

type pc uint8

const (
	lookUp pc = iota
	lookDown
	putX
	headY
	putY
	look4
	putEvent
	readBack
	await
	putSealed
	readLower
	putFilled
	deleteX
	deleteY
	done
	halted
)

type purpose uint8

const (
	toWrite purpose = iota
	toSeal
)

type writer struct {
	pc                pc
	why               purpose
	last, top         uint8 // the position: last event, last number that is taken
	sealed            bool
	n, k              uint8
	upTop             uint8
	upWhat            what
	upID              uint8
	gotX, gotN, xMine bool // step 4 of the splitter
	nThere            bool
	gotOwn, gotNext   bool // reading back
	ownThere, next    bool
	unknown           bool // the PUT was not answered
	own, unclear      uint8
	skips             uint8
	fast              bool  // half of the grace has not passed since it wrote x
	waitFor           uint8 // set of writers that were fast when it lost
	acked             uint8
}

type world struct {
	x, y   [modelNumbers + 1]uint8
	cells  [modelNumbers + 2]cell
	events [2*modelWriters + 8]modelEvent
	count  uint8
	late   [2 * modelWriters]uint8 // events whose PUT is not applied yet
	w      [modelWriters]writer
}

type model struct {
	t       *testing.T
	writers int
	skips   uint8 // silent owners that one writer skips
	numbers uint8 // writers stop before this one
	broken  string
	seed    maphash.Seed
	seen    map[uint64]struct{} // hashes of worlds
	found   bool
}

func (m *model) explore(first world) {
	stack := []world{first}
	m.seed, m.seen = maphash.MakeSeed(), map[uint64]struct{}{}
	for len(stack) > 0 {
		s := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		m.check(&s)
		if m.found {
			return
		}
		for _, next := range m.steps(s) {
			hash := maphash.Comparable(m.seed, next)
			if _, ok := m.seen[hash]; !ok {
				m.seen[hash] = struct{}{}
				stack = append(stack, next)
			}
		}
	}
}

// newest is what a reader finds: the last event up to the end of the numbers that are taken.
func (s *world) newest() uint8 {
	top := uint8(0)
	for s.cells[top+1].what != nothing {
		top++
	}
	for ; top > 0; top-- {
		if s.cells[top].what == anEvent {
			return s.cells[top].id
		}
	}
	return 0
}

func (m *model) check(s *world) {
	var chain [64]bool
	var of [modelWriters]int
	for id := s.newest(); id != 0; id = s.events[id].before {
		chain[id] = true
		if !s.events[id].decides {
			of[s.events[id].writer]++
		}
	}
	for i := range s.w[:m.writers] {
		if a := s.w[i].acked; a != 0 && !chain[a] {
			m.fail("writer %d: event %d was acknowledged and is lost\n%+v", i, s.events[a].seq, *s)
		}
		if of[i] > 1 {
			m.fail("writer %d: what it wanted was done twice\n%+v", i, *s)
		}
	}
}

func (m *model) fail(format string, args ...any) {
	if m.broken != "" { // a test of the test
		m.found = true
		return
	}
	m.t.Fatalf(format, args...)
}

// steps are all worlds that may come next.
func (m *model) steps(s world) []world {
	var all []world
	for i, id := range s.late { // a late PUT arrives
		if id != 0 {
			next := s
			next.late[i] = 0
			next.cells[s.events[id].seq] = cell{anEvent, id}
			all = append(all, next)
		}
	}
	for i := range s.w[:m.writers] {
		if s.w[i].fast { // time passes
			next := s
			next.w[i].fast = false
			all = append(all, next)
		}
		all = append(all, m.step(s, i)...)
	}
	return all
}

func (m *model) step(s world, i int) []world {
	switch s.w[i].pc {
	case lookUp, lookDown:
		return m.looking(s, i)
	case putX, headY, putY, look4:
		if s.w[i].n >= m.numbers {
			m.halt(&s.w[i])
			return []world{s}
		}
		return m.splitting(s, i)
	case putEvent, readBack:
		return m.writing(s, i)
	case await, putSealed, readLower, putFilled:
		return m.skipping(s, i)
	case deleteX:
		s.x[s.events[s.w[i].acked].seq] = 0
		s.w[i].pc = deleteY
		return []world{s}
	case deleteY:
		s.y[s.events[s.w[i].acked].seq] = 0
		s.w[i] = writer{pc: done, acked: s.w[i].acked}
		return []world{s}
	}
	return nil
}

func (w *writer) begin(why purpose, n uint8) {
	w.why, w.n, w.pc = why, n, putX
	w.k, w.upTop, w.own, w.waitFor = 0, 0, 0, 0
}

func (m *model) halt(w *writer) { *w = writer{pc: halted, acked: w.acked} }

// decide goes on after the end of the ledger was found.
func (m *model) decide(s *world, i int) {
	w := &s.w[i]
	final := w.last == 0 && w.top == 0 || w.last != 0 && s.events[w.last].seq == w.top
	if !final && !w.sealed {
		w.begin(toSeal, w.top+1)
		return
	}
	if final && w.unclear != 0 {
		if m.believed(s, w) {
			w.acked, w.pc = w.unclear, deleteX
			return
		}
		w.unclear = 0
	}
	w.begin(toWrite, w.top+1)
}

// believed follows the digests that an event carries, and not the tags, some of which may be filled.
func (m *model) believed(s *world, w *writer) bool {
	for id := w.last; id != 0; id = s.events[id].before {
		if id == w.unclear {
			return true
		}
	}
	return false
}

func (m *model) looking(s world, i int) []world {
	w := &s.w[i]
	if w.pc == lookUp {
		c := s.cells[w.upTop+1]
		if c.what != nothing {
			w.upTop, w.upWhat, w.upID = w.upTop+1, c.what, c.id
			return []world{s}
		}
		switch w.upWhat {
		case nothing:
			m.decide(&s, i)
		case anEvent:
			w.last, w.top, w.sealed = w.upID, w.upTop, false
			m.decide(&s, i)
		default:
			w.top, w.sealed, w.pc, w.k = w.upTop, w.upWhat == isSealed, lookDown, w.upTop-1
		}
		w.upWhat, w.upID = nothing, 0
		return []world{s}
	}
	if w.k == 0 || w.last != 0 && w.k <= s.events[w.last].seq {
		m.decide(&s, i)
		return []world{s}
	}
	c := s.cells[w.k]
	w.k--
	if c.what == anEvent {
		w.last = c.id
		m.decide(&s, i)
	} else if c.what == nothing {
		w.sealed = false
	}
	return []world{s}
}

func (m *model) lose(s *world, i int) {
	w := &s.w[i]
	w.fast, w.pc, w.waitFor = false, await, 0
	w.gotX, w.gotN, w.xMine, w.nThere = false, false, false, false
	for j := range s.w[:m.writers] {
		if s.w[j].fast && s.w[j].n == w.n {
			w.waitFor |= 1 << j
		}
	}
}

func (m *model) splitting(s world, i int) []world {
	w := &s.w[i]
	switch w.pc {
	case putX:
		s.x[w.n], w.pc = uint8(i+1), headY
		w.fast = w.why == toWrite && m.broken != "clock"
	case headY:
		if s.y[w.n] != 0 {
			m.lose(&s, i)
		} else {
			w.pc = putY
		}
	case putY:
		s.y[w.n], w.pc = 1, look4
		if m.broken == "clock" {
			w.fast = true
		}
	case look4:
		var both []world
		if !w.gotX {
			next := s
			next.w[i].gotX, next.w[i].xMine = true, s.x[w.n] == uint8(i+1)
			both = append(both, m.step4(next, i))
		}
		if !w.gotN {
			next := s
			next.w[i].gotN, next.w[i].nThere = true, s.cells[w.n].what != nothing
			both = append(both, m.step4(next, i))
		}
		return both
	}
	return []world{s}
}

func (m *model) step4(s world, i int) world {
	w := &s.w[i]
	if !w.gotX || !w.gotN {
		return s
	}
	if !w.xMine || w.nThere && m.broken != "look" {
		m.lose(&s, i)
		return s
	}
	w.gotX, w.gotN, w.xMine, w.nThere = false, false, false, false
	if w.why == toSeal {
		w.pc = putSealed
		return s
	}
	s.count++
	s.events[s.count] = modelEvent{w.n, uint8(i), w.last, w.unclear != 0}
	w.own, w.pc = s.count, putEvent
	return s
}

func (m *model) writing(s world, i int) []world {
	w := &s.w[i]
	if w.pc == putEvent {
		unknown := s
		s.cells[w.n] = cell{anEvent, w.own}
		if w.fast {
			short := s
			m.counts(&short, i)
			w.fast = false
			w.pc = readBack
			return []world{short, s, m.lateEvent(unknown, i)}
		}
		w.pc = readBack
		return []world{s, m.lateEvent(unknown, i)}
	}
	var both []world
	if !w.gotOwn {
		next := s
		next.w[i].gotOwn, next.w[i].ownThere = true, s.cells[w.n] == cell{anEvent, w.own}
		both = append(both, m.backRead(next, i))
	}
	if !w.gotNext && (w.gotOwn || !w.unknown || m.broken == "side by side") {
		next := s
		next.w[i].gotNext, next.w[i].next = true, s.cells[w.n+1].what != nothing && m.broken != "next"
		both = append(both, m.backRead(next, i))
	}
	return both
}

func (m *model) lateEvent(s world, i int) world {
	for j := range s.late {
		if s.late[j] == 0 {
			s.late[j] = s.w[i].own
			break
		}
	}
	s.w[i].fast, s.w[i].unknown, s.w[i].pc = false, true, readBack
	return s
}

func (m *model) counts(s *world, i int) {
	w := &s.w[i]
	w.fast = false
	if w.unclear == 0 {
		w.acked, w.pc = w.own, deleteX
		return
	}
	w.last, w.top, w.sealed = w.own, w.n, false
	m.decide(s, i)
}

func (m *model) backRead(s world, i int) world {
	w := &s.w[i]
	if !w.gotOwn || !w.gotNext {
		return s
	}
	stands := w.ownThere && !w.next
	w.gotOwn, w.gotNext, w.ownThere, w.next, w.unknown = false, false, false, false, false
	if stands {
		m.counts(&s, i)
		return s
	}
	if w.unclear == 0 {
		w.unclear = w.own
	}
	m.lose(&s, i)
	return s
}

func (m *model) skipping(s world, i int) []world {
	w := &s.w[i]
	switch w.pc {
	case await:
		if s.cells[w.n].what != nothing {
			m.across(&s, i)
			return []world{s}
		}
		for j := range s.w[:m.writers] {
			if w.waitFor&(1<<j) != 0 && s.w[j].fast && s.w[j].n == w.n {
				return nil // that one began before we lost: the grace is not over
			}
		}
		if w.skips++; w.skips > m.skips {
			m.halt(w)
			return []world{s}
		}
		w.begin(toSeal, w.n+1)
	case putSealed:
		s.cells[w.n] = cell{what: isSealed}
		m.across(&s, i)
	case readLower:
		switch s.cells[w.k].what {
		case anEvent:
			m.lookAgain(w)
		case nothing:
			w.pc = putFilled
		default:
			m.lower(&s, i)
		}
	case putFilled:
		s.cells[w.k] = cell{what: isFilled}
		m.lower(&s, i)
	}
	return []world{s}
}

func (m *model) lookAgain(w *writer) {
	w.pc, w.upTop, w.k, w.waitFor = lookUp, w.top, 0, 0
}

func (m *model) across(s *world, i int) {
	s.w[i].k = s.w[i].n
	if m.broken == "fill" {
		m.lookAgain(&s.w[i])
		return
	}
	m.lower(s, i)
}

func (m *model) lower(s *world, i int) {
	w := &s.w[i]
	w.k--
	lowest := uint8(1)
	if w.last != 0 {
		lowest = s.events[w.last].seq + 1
	}
	if w.sealed {
		lowest = w.top + 1
	}
	if w.k < lowest {
		m.lookAgain(w)
		return
	}
	w.pc = readLower
}

func TestEveryOrderOfRequests(t *testing.T) {
	all := []*model{{writers: 2, numbers: 4, skips: 1}}
	if os.Getenv("BACKSTEP_E2E") != "" { // minutes
		all = append(all, &model{writers: 2, numbers: 6, skips: 2}, &model{writers: 3, numbers: 3, skips: 1})
	}
	for _, m := range all {
		m.t = t
		m.explore(world{})
		t.Logf("%d writers, %d numbers: %d worlds", m.writers, m.numbers-1, len(m.seen))
	}
}

// The machine finds what is wrong with a protocol in which one thing is missing.
func TestTheModelSees(t *testing.T) {
	for _, m := range []*model{
		{broken: "clock", writers: 2, numbers: 4, skips: 1},        // time counts only from the PUT of y
		{broken: "look", writers: 2, numbers: 4, skips: 1},         // the event is not looked for beside x
		{broken: "next", writers: 2, numbers: 4, skips: 1},         // the number after it is not looked at
		{broken: "fill", writers: 3, numbers: 5, skips: 2},         // numbers below one that is given up stay empty
		{broken: "side by side", writers: 2, numbers: 4, skips: 1}, // see stands
	} {
		m.t = t
		m.explore(world{})
		if !m.found {
			t.Errorf("%s: nothing was found in %d worlds", m.broken, len(m.seen))
		}
	}
}
