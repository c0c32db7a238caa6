package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/backstep/backstep/internal/ledger"
	ledgerregistry "github.com/backstep/backstep/internal/ledger/registry"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/release"
)

// past is the history of an environment as it was found so far, read without weather. It is a chain: each event names the one
// before it by its digest. Events that the chain does not name came too late and never counted.
type past struct {
	client     *registry.Client
	repository string
	service    string
	env        release.Environment

	events []ledger.Event      // of the chain, oldest first
	digest release.Digest      // of the last of them
	passed map[release.ID]bool // what a verify found good
	voids  int
}

func newPast(repository, service string, env release.Environment) *past {
	return &past{client: registry.New(), repository: repository, service: service, env: env, passed: map[release.ID]bool{}}
}

// link is a number of the ledger, with the digest of what is there.
type link struct {
	ledger.Event
	digest release.Digest
}

// newest is the newest event now.
func (p *past) newest(ctx context.Context) (ledger.Event, error) {
	return ledgerregistry.New(p.client, p.repository, p.service, p.env).Newest(ctx)
}

// read goes on to the end of the ledger, and returns the newest event. Its error says what is wrong with the history. It is for
// when nobody writes.
func (p *past) read(ctx context.Context) (ledger.Event, error) {
	newest, err := p.newest(ctx)
	if err != nil || newest.Seq == 0 {
		return newest, err
	}
	if newest.Seq < p.top() {
		return newest, fmt.Errorf("the ledger ends with event %d, and event %d was there before", newest.Seq, p.top())
	}
	links, err := p.links(ctx, p.top()+1, newest.Seq)
	if err != nil {
		return newest, err
	}
	chain, err := p.chain(links)
	if err != nil {
		return newest, err
	}
	for _, e := range chain {
		if err := p.add(e); err != nil {
			return newest, err
		}
	}
	return newest, nil
}

// top is the number of the last event that is known, or 0.
func (p *past) top() uint64 {
	if len(p.events) == 0 {
		return 0
	}
	return p.events[len(p.events)-1].Seq
}

// links are the numbers from first to last.
func (p *past) links(ctx context.Context, first, last uint64) ([]link, error) {
	reader := ledgerregistry.New(p.client, p.repository, p.service, p.env)
	var links []link
	for n := first; n <= last; n++ {
		e, err := reader.At(ctx, n)
		if errors.Is(err, ledger.ErrNoEvent) {
			return nil, fmt.Errorf("history has a gap: event %d is missing, and there is event %d", n, last)
		}
		if err != nil {
			return nil, err
		}
		digest, err := p.client.Head(ctx, p.repository, fmt.Sprintf("bs.%s.%s.%08d", p.service, p.env, n))
		if err != nil {
			return nil, err
		}
		links = append(links, link{e, digest})
	}
	return links, nil
}

// chain is the events among links that count, oldest first: from the last one down, each is named by the one after it.
// Numbers after the last event that carry none are left for the next time: until an event follows, it is open which is the last.
func (p *past) chain(links []link) ([]link, error) {
	end := len(links)
	for end > 0 && links[end-1].Kind == ledger.Skipped {
		end--
	}
	if end < len(links) || end == 0 {
		return nil, nil
	}
	chain := []link{links[end-1]}
	for i := end - 2; i >= 0; i-- {
		switch wanted := chain[0].Previous; {
		case links[i].Kind == ledger.Skipped:
		case links[i].digest == wanted:
			chain = append([]link{links[i]}, chain...)
		default:
			p.voids++
		}
	}
	if chain[0].Previous != p.digest {
		return nil, fmt.Errorf("the chain is broken: event %d (%s of run %s) names %s as the one before it, and that of event %d, which was the newest, is %s",
			chain[0].Seq, chain[0].Kind, chain[0].Author.Run, chain[0].Previous.Short(), p.top(), p.digest.Short())
	}
	return chain, nil
}

// add puts the next event of the chain to the others, if it may follow them.
func (p *past) add(e link) error {
	var before ledger.Event
	if len(p.events) > 0 {
		before = p.events[len(p.events)-1]
	}
	if e.Kind == ledger.Verified && e.Release != nil {
		p.passed[e.Release.ID()] = true
	}
	p.events, p.digest = append(p.events, e.Event), e.digest
	if err := lawful(before, e.Event); err != nil {
		return fmt.Errorf("event %d (%s) after event %d (%s): %w", e.Seq, e.Kind, before.Seq, before.Kind, err)
	}
	if good := e.State.LastGood; good != nil && !p.passed[good.Release.ID()] {
		return fmt.Errorf("event %d: the last good release, %s, was never found good", e.Seq, good.Release)
	}
	return nil
}

// find is the first event after since that fits; before is the one in front of it.
func (p *past) find(since uint64, fits func(before, e ledger.Event) bool) *ledger.Event {
	for i := range p.events {
		var before ledger.Event
		if i > 0 {
			before = p.events[i-1]
		}
		if p.events[i].Seq > since && fits(before, p.events[i]) {
			return &p.events[i]
		}
	}
	return nil
}

// text is the last events as a table, voids and skipped numbers with them.
func (p *past) text(ctx context.Context, events uint64) (string, error) {
	newest, err := p.newest(ctx)
	if err != nil {
		return "", err
	}
	links, err := p.links(ctx, 1+max(newest.Seq, events)-events, newest.Seq)
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, l := range links {
		about, live := "", "nothing"
		if l.Release != nil {
			about = l.Release.String()
		}
		if l.State.Live != nil {
			live = fmt.Sprint(l.State.Live.Release.Version, " ", colourOf(l.State, l.State.Live.Release))
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\tlive %s\trun %s\t%s\tafter %s\t%.60s\n", l.Seq, l.At.Format(clock), l.Kind, about, live, l.Author.Run,
			l.digest.Short(), l.Previous.Short(), l.Reason)
	}
	w.Flush()
	return b.String(), err
}
