package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/target"
)

// held is a claim with the note that came with it, as the labels of a volume have them: the engine stores a volume at
// once, lists it, needs no process for it, and of two that are made under one name, there is one.
type held struct {
	name  string // of the volume
	claim plan.Claim
	note  *plan.Note
}

// volume is the name of the one for a claim of this number.
func (d *docker) volume(n plan.Number) string {
	// With a dot, which neither of them has: shop in eu-prod is not shop-eu in prod.
	name := fmt.Sprintf("%s.%s-claim", d.env.Service, d.env.Environment)
	if n.Epoch > 0 {
		name += fmt.Sprintf("-e%d", n.Epoch)
	}
	return fmt.Sprintf("%s-%d-%d", name, n.Seq, n.Sub)
}

// held lists the claims, the highest first. That one is the record; the others are there for their notes, or were left
// behind.
func (d *docker) held(ctx context.Context) ([]held, error) {
	list, err := ask(ctx, d.limit, func(ctx context.Context) (client.VolumeListResult, error) {
		return d.engine.VolumeList(ctx, client.VolumeListOptions{Filters: d.ours().Add("label", labelClaim)})
	})
	if err != nil {
		return nil, err
	}
	all := make([]held, len(list.Items))
	for i, v := range list.Items {
		if all[i], err = d.read(v.Name, v.Labels); err != nil {
			return nil, fault.Errorf(fault.Failed, "docker: volume %s: %w", v.Name, err).
				WithHint("backstep has not written this: look at it with docker volume inspect, and remove it when nobody needs it")
		}
	}
	slices.SortFunc(all, func(a, b held) int { return b.claim.Number.Compare(a.claim.Number) })
	return all, nil
}

// read is the claim in the labels of a volume.
func (d *docker) read(name string, labels map[string]string) (held, error) {
	h := held{name: name}
	if err := json.Unmarshal([]byte(labels[labelClaim]), &h.claim); err != nil {
		return h, fmt.Errorf("label %s: %w", labelClaim, err)
	}
	if text, ok := labels[labelNote]; ok {
		if err := json.Unmarshal([]byte(text), &h.note); err != nil {
			return h, fmt.Errorf("label %s: %w", labelNote, err)
		}
		if h.note == nil || h.note.ID == "" || h.note.Number != h.claim.Number {
			return h, fmt.Errorf("label %s: it is not a note of claim %s", labelNote, h.claim.Number)
		}
	}
	if h.claim.Holder == "" || name != d.volume(h.claim.Number) {
		return h, fmt.Errorf("label %s: it has claim %s of %q", labelClaim, h.claim.Number, h.claim.Holder)
	}
	return h, nil
}

// record is the highest of the claims, or the zero value.
func record(all []held) plan.Claim {
	if len(all) == 0 {
		return plan.Claim{}
	}
	return all[0].claim
}

func (d *docker) Claim(ctx context.Context, c plan.Claim, note *plan.Note) error {
	seen, err := d.held(ctx)
	if err != nil {
		return err
	}
	if err := target.Admit(record(seen), c); err != nil {
		return err
	}
	if record(seen).Token != c.Token {
		if seen, err = d.make(ctx, c, note); err != nil {
			return err
		}
	}
	if note != nil && (seen[0].note == nil || seen[0].note.ID != note.ID) {
		return fmt.Errorf("claim %s is there already, without the note %s", c.Number, note.ID)
	}
	if c.Aim == plan.Fire {
		return nil // customers wait: the next claim tidies up
	}
	for _, h := range seen[1:] {
		if h.note == nil {
			_ = d.drop(ctx, h.name) // what is left, the next claim removes
		}
	}
	return nil
}

// make makes c the record, and returns all claims then.
func (d *docker) make(ctx context.Context, c plan.Claim, note *plan.Note) ([]held, error) {
	labels := d.labels()
	for label, v := range map[string]any{labelClaim: c, labelNote: stamped(note, c.Number)} {
		if v == (*plan.Note)(nil) {
			continue
		}
		text, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		labels[label] = string(text)
	}
	made, err := ask(ctx, d.limit, func(ctx context.Context) (client.VolumeCreateResult, error) {
		return d.engine.VolumeCreate(ctx, client.VolumeCreateOptions{Name: d.volume(c.Number), Labels: labels})
	})
	if err != nil {
		return nil, err
	}
	// One of that name may have been there: then it is that one. And a higher one may have come.
	seen, err := d.held(ctx)
	if err != nil {
		return nil, err
	}
	now := record(seen)
	if err := target.Admit(now, c); err != nil {
		if now.Number.Compare(c.Number) > 0 && made.Volume.Labels[labelClaim] == labels[labelClaim] {
			err = errors.Join(err, d.drop(ctx, made.Volume.Name)) // with its note: this claim was never made
		}
		return nil, err
	}
	if now.Token != c.Token {
		return nil, fmt.Errorf("docker: volume %s was removed while it was made", d.volume(c.Number))
	}
	return seen, nil
}

// stamped is a copy of the note with the number of its claim.
func stamped(note *plan.Note, n plan.Number) *plan.Note {
	if note == nil {
		return nil
	}
	c := *note
	c.Number = n
	return &c
}

// drop removes a volume; one that is gone is no fault.
func (d *docker) drop(ctx context.Context, name string) error {
	_, err := ask(ctx, d.limit, func(ctx context.Context) (client.VolumeRemoveResult, error) {
		return d.engine.VolumeRemove(ctx, name, client.VolumeRemoveOptions{})
	})
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

func (d *docker) Holds(ctx context.Context, by plan.Token) error {
	_, err := d.holding(ctx, by)
	return err
}

// holding lists the claims when by is the token of the record.
func (d *docker) holding(ctx context.Context, by plan.Token) ([]held, error) {
	seen, err := d.held(ctx)
	if err != nil {
		return nil, err
	}
	if now := record(seen); by.Holder == "" || now.Token != by {
		return nil, fmt.Errorf("%w: the target is claimed by number %s", target.ErrFenced, now.Number)
	}
	return seen, nil
}

func (d *docker) Forget(ctx context.Context, by plan.Token, ids []string) error {
	seen, err := d.holding(ctx, by)
	if err != nil {
		return err
	}
	gone := func(h held) bool { return h.note != nil && slices.Contains(ids, h.note.ID) }
	if gone(seen[0]) {
		return fmt.Errorf("note %s came with claim %s, which is still the one on the target", seen[0].note.ID, by.Number)
	}
	for _, h := range seen[1:] {
		if gone(h) {
			if err := d.drop(ctx, h.name); err != nil {
				return err
			}
		}
	}
	return nil
}
