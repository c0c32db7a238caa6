package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/release"
)

// heal lets one more run end what others have left behind, in calm weather, and then looks whether all that was promised is
// true. One run has to be enough.
func (w *world) heal(ctx context.Context) error {
	newest, err := w.past.newest(ctx)
	if err != nil || newest.State.Live == nil && newest.State.Intent == nil {
		return err
	}
	r := w.named("verify", "--on-fail", "rollback")
	if w.chance(0.3) {
		r = w.deploy(w.some(false))
	}
	defer w.hold(sky{})()
	outcomes, err := w.under(ctx, sky{}, newest, []run{r})
	if err != nil {
		return err
	}
	if o := outcomes[0]; o.code == int(fault.Input) && !o.says("nothing is live") {
		return fmt.Errorf("the run that heals fails\n  %s", o)
	}
	return w.look(ctx)
}

// look checks what has to be true whenever nobody is at work.
func (w *world) look(ctx context.Context) error {
	last, err := w.past.read(ctx)
	if err != nil {
		return err
	}
	told, err := w.status(ctx)
	if err != nil {
		return err
	}
	if told.Seq != last.Seq {
		return fmt.Errorf("status tells of event %d, and %d is the newest", told.Seq, last.Seq)
	}
	err = errors.Join(w.settled(), w.idle(told.State), w.served(ctx, told.State), w.complete(ctx, told.State), w.fair(told.State), w.answering(), w.expected(told.State))
	if w.house != nil {
		err = errors.Join(err, w.house.unharmed(ctx))
	}
	if err == nil {
		w.shaken = false
		w.customers.excuse(false)
	}
	return err
}

// status is what backstep status tells.
func (w *world) status(ctx context.Context) (ledger.Event, error) {
	var e ledger.Event
	o, err := w.start(ctx, w.named("status", "--json"))
	if err != nil || ctx.Err() != nil {
		return e, errors.Join(err, ctx.Err())
	}
	begin := strings.Index(o.said, "{")
	if o.code != 0 || begin < 0 {
		return e, fmt.Errorf("status: exit code %d: %s", o.code, o.said)
	}
	return e, json.NewDecoder(strings.NewReader(o.said[begin:])).Decode(&e)
}

// idle: nothing is under way.
func (w *world) idle(s ledger.Snapshot) error {
	if s.Intent != nil {
		return fmt.Errorf("nobody is at work, and the ledger says that %s of run %s is under way", s.Intent.Kind, s.Intent.Author.Run)
	}
	return nil
}

// looks is how many customers are asked what they get.
const looks = 5

// served: what is live by the ledger is what customers get.
func (w *world) served(ctx context.Context, s ledger.Snapshot) error {
	for range looks {
		status, serves, err := w.customers.ask(ctx)
		switch {
		case err != nil:
			return err
		case s.Live == nil && serves == "":
			return nil
		case s.Live == nil:
			return fmt.Errorf("customers get %q, and the ledger says that nothing is live", serves)
		case serves != shows(s, s.Live.Release):
			return fmt.Errorf("customers get %q, and the ledger says that %s is live, in %s", serves, s.Live.Release, colourOf(s, s.Live.Release))
		case !shopOf(s.Live.Release.Version).bad && status != http.StatusOK:
			return fmt.Errorf("customers get %d of %s", status, s.Live.Release)
		}
	}
	return nil
}

// complete: the last good release is one that some verify found good, and is whole in the registry.
func (w *world) complete(ctx context.Context, s ledger.Snapshot) error {
	if s.LastGood == nil {
		return nil
	}
	if !w.past.passed[s.LastGood.Release.ID()] {
		return fmt.Errorf("the last good release, %s, was never found good", s.LastGood.Release)
	}
	return registry.New().Complete(ctx, s.LastGood.Release)
}

// fair: nobody but a person has put a healthy release into quarantine, and no bad release is good.
func (w *world) fair(s ledger.Snapshot) error {
	for _, q := range s.Quarantined {
		id := fmt.Sprint(q.Release.ID(), q.At)
		if w.shaken { // who can tell
			w.blamed[id] = true
		}
		if !w.blamed[id] && !shopOf(q.Release.Version).bad && !strings.HasPrefix(q.Reason, byHand) {
			return fmt.Errorf("%s is healthy, and in quarantine: %s", q.Release, q.Reason)
		}
	}
	if good := s.LastGood; good != nil && shopOf(good.Release.Version).bad {
		return fmt.Errorf("%s is bad, and the last good release", good.Release)
	}
	return nil
}

// answering: there was a release for every customer.
func (w *world) answering() error {
	if lost := w.customers.outage(); len(lost) > 0 {
		return fmt.Errorf("no release answered %d customers: %s", len(lost), strings.Join(lost[:min(len(lost), 5)], "; "))
	}
	return nil
}

// colourOf is the colour that the ledger says a release was configured with.
func colourOf(s ledger.Snapshot, r release.Release) string {
	for _, v := range s.Configurations[r.Config]["env"] {
		if v.Key == "SHOP_COLOUR" {
			return v.Text
		}
	}
	return "no colour"
}

// shows is what customers of a release see, by what the ledger says.
func shows(s ledger.Snapshot, r release.Release) string { return r.Version + " " + colourOf(s, r) }

// expected: whoever has answered since the last look was live then, or on its way to be.
func (w *world) expected(now ledger.Snapshot) error {
	may := map[string]bool{}
	add := func(s ledger.Snapshot) {
		if s.Live != nil {
			may[shows(s, s.Live.Release)] = true
		}
		if in := s.Intent; in != nil && in.To.Digest != "" {
			may[shows(s, in.To)] = true
		}
	}
	for _, e := range w.past.events[min(w.looked, len(w.past.events)):] {
		add(e.State)
	}
	add(now)
	w.looked = max(0, len(w.past.events)-1) // what is true now is where the next look begins
	for who, since := range w.customers.met() {
		if !may[who] {
			return fmt.Errorf("customers got %q at %s; it was neither live nor on its way to be: %s", who, since, strings.Join(slices.Sorted(maps.Keys(may)), ", "))
		}
	}
	return nil
}
