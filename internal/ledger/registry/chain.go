package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/release"
)

// Who can push to the repository can put anything under our names. Each event names the one before it by its digest, and those before
// that by a part of theirs; a target remembers the digest of the event that it was claimed under. So what is read is believed when it
// descends from what is known. That proves who came before, and not who has written it: see SECURITY.md.

// longestWalk bounds how many events are read back, one by one, from the newest to the one that a target knows.
const longestWalk = 200

// trail are the events that count, oldest first, from where a walk through the ledger begins.
type trail struct {
	*Ledger
	from  position
	all   []record // the first is the event of from
	blind bool     // it is not known which event came before the next one
	lost  release.Digest
}

func (l *Ledger) trail(p position) *trail {
	return &trail{Ledger: l, from: p, all: []record{{event: p.event, digest: p.digest, before: p.before}},
		blind: p.event.Seq == 0 && p.top > 0, lost: p.lost}
}

// end is where the ledger ends when top is the last number that is taken.
func (t *trail) end(top uint64) position {
	last := t.all[len(t.all)-1]
	return position{event: last.event, digest: last.digest, before: last.before, top: top, proven: t.from.proven && !t.blind, lost: t.lost}
}

// follow says whether r is an event that descends from one of the trail. Those after that one are void then, and r is the last.
func (t *trail) follow(ctx context.Context, r record) (bool, error) {
	if r.garbage != nil {
		t.report(r.garbage)
	}
	if !r.isEvent() {
		return false, nil
	}
	if t.blind {
		follows, err := t.follows(ctx, r)
		if err != nil || !follows {
			return false, err
		}
		t.all, t.blind, t.from.proven = []record{r}, false, true
		return true, nil
	}
	for i, known := range slices.Backward(t.all) {
		if r.event.Previous == known.digest {
			t.all = append(t.all[:i+1:i+1], r)
			return true, nil
		}
		if known.digest != "" && slices.Contains(r.before, ancestor(known.digest)) {
			// The one before it counts, and its number shows something else.
			t.all, t.lost = append(t.all[:i+1:i+1], r), r.event.Previous
			return true, nil
		}
	}
	common := func(name string) bool { return slices.Contains(t.from.before, name) }
	if !t.from.final() && (slices.ContainsFunc(r.before, common) || r.event.Previous == "" && len(t.from.before) == 0) {
		t.all = []record{r} // where we began did not count in the end
		return true, nil
	}
	t.report(fmt.Errorf("%s is not believed: it does not follow event %d", t.doing(r.event.Seq), t.all[0].event.Seq))
	return false, nil
}

// follows says whether r, of which nothing else is known, names an event before it that is there. When that is gone, the numbers
// before it are looked at.
func (l *Ledger) follows(ctx context.Context, r record) (bool, error) {
	if r.event.Previous == "" {
		return r.event.Seq <= longestGap, nil
	}
	previous, err := l.named(ctx, r.event.Previous)
	if err != nil {
		return false, err
	}
	if previous.there {
		return previous.event.Seq < r.event.Seq && r.event.Seq-previous.event.Seq <= longestGap, nil
	}
	return l.has(ctx, l.name(r.event.Seq-1))
}

// descends says whether r is the event numbered seq with this digest, or names it among those before it, over no gap that no writers leave.
func (r record) descends(seq uint64, digest release.Digest) bool {
	if r.digest == digest {
		return true
	}
	steps := slices.Index(r.before, ancestor(digest)) + 1
	return steps > 0 && r.event.Seq > seq && r.event.Seq-seq <= uint64(steps)*longestGap
}

// After is the newest event that descends from the one with this number and digest.
func (l *Ledger) After(ctx context.Context, seq uint64, digest release.Digest) (ledger.Event, error) {
	var p position
	var err error
	if known := l.recall(); known != nil {
		p = *known
	} else if p, err = l.position(ctx); err != nil {
		return ledger.Event{}, err
	}
	if digest == "" {
		p, err = l.proved(ctx, p)
	} else if !(record{event: p.event, digest: p.digest, before: p.before}).descends(seq, digest) {
		p, err = l.descended(ctx, p, seq, digest)
	}
	if err != nil {
		return ledger.Event{}, err
	}
	p.proven = true
	l.mu.Lock()
	l.known = &p
	l.mu.Unlock()
	return p.newest(), nil
}

// proved is p when its event follows another one, else what the list of tags shows.
func (l *Ledger) proved(ctx context.Context, p position) (position, error) {
	if p.proven || p.top == 0 {
		return p, nil
	}
	follows, err := l.follows(ctx, record{event: p.event, digest: p.digest})
	if err != nil || follows {
		p.proven = err == nil
		return p, err
	}
	held, err := l.listed(ctx)
	if err == nil && held.digest != p.digest {
		l.report(fmt.Errorf("%s is not believed: no event comes before it", l.doing(p.event.Seq)))
	}
	held.proven = true
	return held, err
}

// descended is p when its event descends from the one that a target knows. Else it is where the ledger ends from that one on.
func (l *Ledger) descended(ctx context.Context, p position, seq uint64, digest release.Digest) (position, error) {
	descends, err := l.walk(ctx, p, seq, digest)
	if err != nil || descends {
		return p, err
	}
	known, err := l.named(ctx, digest)
	if err != nil {
		return p, err
	}
	if known.event.Seq != seq {
		return p, fault.Errorf(fault.Refused, "%s: %w: the target has seen event %d with the digest %s, and that is gone", l.doing(p.top), ledger.ErrForged, seq, digest).
			WithHint("find out who can push to %s; backstep adopt takes over what the target knows. If it was a clean-up: %s", l.repository, l.client.CleanUp(l.repository))
	}
	held, err := l.look(ctx, position{event: known.event, digest: digest, before: known.before, top: seq, proven: true})
	if err != nil {
		return p, err
	}
	l.report(fmt.Errorf("%s is not believed: it does not follow event %d as the target has seen it; going on from event %d", l.doing(p.event.Seq), seq, held.event.Seq))
	held.lost = digest
	return held, nil
}

// walk says whether the event of p descends from the one numbered seq. It is an error when that cannot be told: some of the events in
// between are gone.
func (l *Ledger) walk(ctx context.Context, p position, seq uint64, digest release.Digest) (bool, error) {
	at := record{event: p.event, digest: p.digest, before: p.before}
	for range longestWalk {
		switch {
		case at.descends(seq, digest):
			return true, nil
		case at.event.Seq <= seq, len(at.before) < ancestors:
			return false, nil
		}
		previous, err := l.named(ctx, at.event.Previous)
		if err != nil {
			return false, err
		}
		if !previous.there || previous.event.Seq >= at.event.Seq {
			there, err := l.has(ctx, l.name(at.event.Seq-1))
			if err != nil || !there {
				return false, err
			}
			break
		}
		at = previous
	}
	return false, fault.Errorf(fault.Refused, "%s: %w: it cannot be told whether it follows event %d, which the target has seen", l.doing(p.top), ledger.ErrForged, seq).
		WithHint("events of %s were removed: restore them, or take over what the target knows: backstep adopt. If it was a clean-up: %s",
			l.repository, l.client.CleanUp(l.repository))
}

// Before is the event that e names as the one before it.
func (l *Ledger) Before(ctx context.Context, e ledger.Event) (ledger.Event, error) {
	r, err := l.named(ctx, e.Previous)
	if err == nil && !r.there {
		err = fmt.Errorf("read %s@%s: %w", l.repository, e.Previous, ledger.ErrNoEvent)
	}
	r.event.Digest = r.digest
	return r.event, err
}

// restore gives an event that counts its tag again: something else was put there, late or by somebody who should not.
func (l *Ledger) restore(ctx context.Context, lost release.Digest) {
	r, err := l.named(ctx, lost)
	if err != nil || !r.there {
		return // readers can do without it
	}
	if now, err := l.client.Head(ctx, l.repository, l.name(r.event.Seq)); err != nil && !missing(err) || now == lost {
		return
	}
	if err := l.put(ctx, l.name(r.event.Seq), r.body); err == nil {
		l.report(fmt.Errorf("%s was overwritten, and is as it was again", l.doing(r.event.Seq)))
	}
}

// report tells of a finding once.
func (l *Ledger) report(finding error) {
	l.mu.Lock()
	told := l.reported[finding.Error()]
	l.reported[finding.Error()] = true
	l.mu.Unlock()
	if l.Report != nil && !told {
		l.Report(finding)
	}
}

// listed finds the end of the ledger by the list of tags, whose order and paging mean nothing. That there is none is believed only when
// the list could be read.
func (l *Ledger) listed(ctx context.Context) (position, error) {
	tops, err := l.tops(ctx)
	for i, top := range tops {
		p, err := l.look(ctx, position{top: top - 1})
		if err == nil && p.event.Seq > 0 || err != nil && (!errors.Is(err, errNoEvents) || i == len(tops)-1) {
			return p, err
		}
		if r, err := l.read(ctx, l.name(top)); err != nil || len(tops) == 1 && r.isEvent() { // all others were removed
			return position{event: r.event, digest: r.digest, before: r.before, top: top}, err
		}
		if i == len(tops)-1 {
			return p, fault.Errorf(fault.Refused, "%s: %w: no event in the repository follows another", l.doing(top), ledger.ErrForged).
				WithHint("find out who can push to %s; backstep adopt takes over what the target knows", l.repository)
		}
	}
	return position{}, err
}

// tops are the numbers at which the ledger may end, the highest first: the highest that is taken, and those below a gap that no writers
// leave.
func (l *Ledger) tops(ctx context.Context) ([]uint64, error) {
	tags, err := l.client.Tags(ctx, l.repository)
	if err != nil && !missing(err) {
		return nil, err
	}
	var numbers []uint64
	for _, tag := range tags {
		if digits, ok := strings.CutPrefix(tag, l.hint()+"."); ok && len(digits) == 8 {
			if seq, err := strconv.ParseUint(digits, 10, 64); err == nil && seq > 0 {
				numbers = append(numbers, seq)
			}
		}
	}
	slices.Sort(numbers)
	var tops []uint64
	for i, n := range slices.Backward(numbers) {
		if i == len(numbers)-1 || numbers[i+1]-n > longestGap {
			tops = append(tops, n)
		}
	}
	if len(tops) == 0 {
		if ok, err := l.has(ctx, l.name(1)); err != nil {
			return nil, err
		} else if ok {
			tops = []uint64{1} // there is one that the list does not show
		}
	}
	return tops, nil
}
