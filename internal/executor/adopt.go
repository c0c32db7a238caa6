package executor

import (
	"context"
	"errors"
	"slices"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/target"
)

// Adoption is what a ledger takes over from the targets.
type Adoption struct {
	ledger.Estate
	Newest ledger.Event // before it was written, or the event that says so
}

// Adopt writes into the ledger what the targets know: the registry has moved, or was lost. Show is called with it before anything is
// written. A dry run only looks.
func (x *Executor) Adopt(ctx context.Context, reason string, dryRun bool, show func(Adoption)) (Adoption, error) {
	newest, err := x.Ledger.Newest(ctx)
	if err != nil {
		return Adoption{}, err
	}
	now, err := x.observe(ctx, newest)
	if err != nil {
		return Adoption{}, err
	}
	x.configs.learn(newest.State, now.fleet)
	if len(now.fleet) < len(x.sites) {
		return Adoption{}, fault.Errorf(fault.Refused, "a target cannot be reached: what it knows would be lost").WithHint("run it again when all of them answer")
	}
	out := Adoption{Newest: newest}
	if out.Estate, err = x.estate(now); err != nil {
		return out, err
	}
	if show(out); dryRun {
		return out, nil
	}
	out.Newest, err = x.Ledger.Commit(ctx, func(e ledger.Event) (ledger.Event, error) {
		if e.Seq != newest.Seq {
			return ledger.Event{}, fault.Errorf(fault.Refused, "event %d of %s came in between", e.Seq, e.Author).WithHint("run it again")
		}
		e.State.Recent = slices.DeleteFunc(slices.Clone(e.State.Recent), func(r ledger.Entry) bool { return x.own(now, r.Release) != nil })
		return ledger.Adopt(e, out.Estate, reason, x.Stamp())
	})
	if err != nil {
		return out, err
	}
	if err := x.Ledger.Pin(ctx, out.Newest.Seq, out.Live.Release); err != nil {
		x.log.Warn("the registry does not have what is live: only the target does", "release", out.Live.Release.Digest.Short(), "error", err)
	}
	_, err = x.heal(ctx, &out.Newest, policy{})
	return out, err
}

// estate is what the targets know, by the highest claim on any of them.
func (x *Executor) estate(now sight) (ledger.Estate, error) {
	var e ledger.Estate
	var highest plan.Claim
	for _, s := range now.fleet {
		if s.Claim.Ledger != "" && s.Claim.Number.Compare(highest.Number) >= 0 {
			highest = s.Claim
		}
		if s.Claim.Ledger != "" && s.Claim.Ledger != x.Owner && !slices.Contains(e.Former, s.Claim.Ledger) {
			e.Former = append(e.Former, s.Claim.Ledger)
		}
		e.Former = append(e.Former, slices.DeleteFunc(slices.Clone(s.Claim.Former), func(l string) bool { return slices.Contains(e.Former, l) })...)
		for _, n := range s.Notes {
			if !now.newest.State.HasAdopted(n.ID) {
				e.Notes = append(e.Notes, n)
			}
		}
	}
	switch {
	case highest.Ledger == "":
		return e, fault.Inputf("the target knows of no ledger: there is nothing to adopt").WithHint("deploy: backstep deploy --environment %s --image …", x.Name)
	case x.lawful(now) == nil && highest.Number.Compare(plan.Number{Epoch: now.newest.State.Epoch, Seq: now.newest.Seq + 1}) < 0:
		return e, fault.Inputf("the target belongs to this ledger already: there is nothing to adopt")
	}
	e.Epoch = highest.Number.Epoch + 1
	e.Live = ledger.Entry{Release: highest.Wanted, ID: highest.Entry, Good: highest.Good, Restored: highest.Restored}
	for _, s := range now.fleet {
		in := s.Serving()
		if s.Claim.Number == highest.Number && in != nil && in.Release.ID() != highest.Wanted.ID() && highest.Aim == plan.Do {
			e.Live = ledger.Entry{Release: in.Release, Good: highest.Back != nil && highest.Back.ID() == in.Release.ID()}
		}
	}
	if e.Live.Release.Digest == "" {
		return e, fault.Inputf("the target knows of no release: there is nothing to adopt")
	}
	e.Good = good(now, highest, e.Live)
	return e, nil
}

// good are the releases that can be gone back to, besides what is live: the one that the claim names, and those that are parked, as
// only good ones are.
func good(now sight, highest plan.Claim, live ledger.Entry) []ledger.Entry {
	var all []ledger.Entry
	add := func(e ledger.Entry) {
		if e.Release.ID() != live.Release.ID() && !slices.ContainsFunc(all, func(o ledger.Entry) bool { return o.Release.ID() == e.Release.ID() }) {
			all = append(all, e)
		}
	}
	if highest.Back != nil {
		add(ledger.Entry{Release: *highest.Back, Good: true})
	}
	for _, s := range now.fleet {
		for _, in := range s.Instances {
			if in.Phase == plan.Parked {
				add(ledger.Entry{Release: in.Release, Good: true})
			}
		}
	}
	return all
}

// lawful says why what is on the targets is not for this ledger to change, or nil.
func (x *Executor) lawful(now sight) error {
	var faults []error
	for _, s := range now.fleet {
		if owner := s.Claim.Ledger; owner != "" && owner != x.Owner && !slices.Contains(now.newest.State.Former, owner) {
			faults = append(faults, target.ForeignError(owner, x.Owner))
		}
	}
	return errors.Join(append(faults, x.strange(now))...)
}

// strange says which release that the ledger names can be none of ours, or nil: it is in another repository than that of the
// configuration, and no target knows it from there.
func (x *Executor) strange(now sight) error {
	s := now.newest.State
	var named []release.Release
	for _, e := range []*ledger.Entry{s.Live, s.LastGood} {
		if e != nil {
			named = append(named, e.Release)
		}
	}
	if in := s.Intent; in != nil {
		named = append(named, in.To)
	}
	if to := back(s); to != nil {
		named = append(named, *to)
	}
	for _, r := range named {
		if err := x.own(now, r); err != nil {
			return err
		}
	}
	return nil
}

// own says why r is none of ours, or nil.
func (x *Executor) own(now sight, r release.Release) error {
	if r.Repository == "" || r.Repository == x.image {
		return nil
	}
	for _, s := range now.fleet {
		c := s.Claim
		known := c.Wanted == r || c.Back != nil && *c.Back == r
		for _, in := range s.Instances {
			known = known || in.Release.ID() == r.ID() && in.Release.Repository == r.Repository
		}
		if known {
			return nil
		}
	}
	return fault.Errorf(fault.Refused, "event %d names %s of %s: %w: the configuration has the repository %s, and no target knows it from there",
		now.newest.Seq, r, r.Repository, ledger.ErrForged, x.image).
		WithHint("find out who can push to the repository of the ledger; backstep adopt goes on from what the target knows")
}
