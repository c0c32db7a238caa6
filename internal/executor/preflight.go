package executor

import (
	"context"
	"errors"
	"sync"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/release"
)

// check is one line of the preflight.
type check struct {
	what    string
	release release.Release
	run     func(context.Context) error
}

// preflight proves that the release is complete and that the way back is open. All checks run side by side, each
// finding is one log line, and all faults are returned.
func (x *Executor) preflight(ctx context.Context, ref registry.Reference, r release.Release, now sight) error {
	checks := []check{
		{"image complete", r, func(ctx context.Context) error { return x.registry.Complete(ctx, r) }},
		{"tag unmoved", r, func(ctx context.Context) error { return x.unmoved(ctx, ref, r) }},
	}
	if good := now.newest.State.LastGood; good != nil && good.Release.Digest != r.Digest {
		checks = append(checks, check{"last good release complete", good.Release,
			func(ctx context.Context) error { return x.available(ctx, good.Release) }})
	}
	faults := make([]error, len(checks))
	var all sync.WaitGroup
	for i, c := range checks {
		all.Go(func() { faults[i] = c.run(ctx) })
	}
	all.Wait()
	for i, c := range checks {
		if faults[i] == nil {
			x.log.Info("preflight: "+c.what, "release", c.release.Digest.Short())
			continue
		}
		faults[i] = x.found(c, faults[i])
	}
	return errors.Join(faults...)
}

// found is what a check says. That something is missing is the input's fault; that nobody could be asked is not.
func (x *Executor) found(c check, err error) error {
	var known *fault.Error
	if errors.As(err, &known) && !errors.Is(err, registry.ErrNotFound) {
		return fault.Errorf(known.Code, "preflight: %s: %s: %w", c.what, c.release, err).WithHint("%s", fault.HintOf(err))
	}
	code := fault.Failed
	hint := "try again when the registry answers"
	if errors.Is(err, registry.ErrNotFound) {
		code, hint = fault.Input, "push it again"+x.cleaned(err, c.release)
	}
	return fault.Errorf(code, "preflight: %s: %s: %w", c.what, c.release, err).WithHint("%s", hint)
}

// cleaned adds to a hint what keeps images of r's registry, when a part of r is missing there; else "".
func (x *Executor) cleaned(err error, r release.Release) string {
	if !errors.Is(err, registry.ErrNotFound) {
		return ""
	}
	return ". A registry clean-up may have removed it: " + x.registry.CleanUp(r.Repository)
}

// available says whether r can be started on every target: from its registry, or from what the target has kept.
func (x *Executor) available(ctx context.Context, r release.Release) error {
	if x.kept(ctx, r) {
		return nil
	}
	return x.registry.Complete(ctx, r)
}

// kept says whether every target could start r without its registry.
func (x *Executor) kept(ctx context.Context, r release.Release) bool {
	for _, s := range x.sites {
		if has, err := s.Target.Has(ctx, r); err != nil || !has {
			return false
		}
	}
	return true
}
