package docker

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"

	"github.com/backstep/backstep/internal/plan"
)

// Labels are claims: an image can bring them, and whoever starts a container can set them. What makes a container ours is that
// all that it says agrees: the image that the engine made it from is the one that its labels name, its name is the one that we give
// to that, it belongs to a ledger of ours, and a claim that was made here allows its number.

// stranger says why a container with labels of ours is none of ours, or nil. Record is the highest claim, zero when there is none.
func (d *docker) stranger(c container.InspectResponse, record plan.Claim) error {
	r, labels := releaseOf(c.Config.Labels), c.Config.Labels
	if err := r.Check(); err != nil {
		return err
	}
	if c.Config.Image != r.Reference() {
		return fmt.Errorf("it was made from %q, and its labels say %s", c.Config.Image, r.Reference())
	}
	if owner := labels[labelLedger]; owner != d.env.Ledger && owner != record.Ledger && !slices.Contains(record.Former, owner) {
		return fmt.Errorf("it belongs to the ledger %q", owner)
	}
	number, err := plan.ParseNumber(labels[labelNumber])
	if err != nil {
		return err
	}
	if record.Holder != "" && number.Compare(record.Number) > 0 {
		return fmt.Errorf("it was made under number %s, and no claim here is above %s", number, record.Number)
	}
	own := d.nameOf(r.ID(), roleOf(c), numbered(c))
	plain := strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(c.Name, "/"), idleEnd), parkedEnd)
	if plain != own && !d.serves(c) {
		return fmt.Errorf("it is called %q, and one of ours would be %q", plain, own)
	}
	return nil
}
