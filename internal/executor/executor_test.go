package executor

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/registry/registrytest"
	"github.com/backstep/backstep/internal/release"
)

func rel(name, version string) release.Release {
	return release.Release{Digest: release.Digest("sha256:" + strings.Repeat(name, 64)), Version: version}
}

func TestATagThatMovedWhileWeLooked(t *testing.T) {
	repository, client := registrytest.InProcess(t)+"/shop", registry.New()
	body := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"x","digest":"sha256:%s","size":2},"layers":[]}`,
		registry.OCIManifest, strings.Repeat("0", 64))
	now, err := client.Put(t.Context(), repository, "1.0.0", registry.OCIManifest, body)
	if err != nil {
		t.Fatal(err)
	}
	x, ref := Executor{registry: client}, registry.Reference{Repository: repository, Tag: "1.0.0"}
	if err := x.unmoved(t.Context(), ref, release.Release{Repository: repository, Digest: now}); err != nil {
		t.Errorf("a tag that stayed: %v", err)
	}
	then := rel("a", "")
	then.Repository = repository
	err = x.unmoved(t.Context(), ref, then)
	want := fmt.Sprintf("tag 1.0.0 moved from %s to %s while we looked", then.Digest.Short(), now.Short())
	if err == nil || err.Error() != want || fault.CodeOf(err) != fault.Input || fault.HintOf(err) != "give the digest: "+then.Reference() {
		t.Errorf("got %v, hint %q\nwant %s", err, fault.HintOf(err), want)
	}
}

func TestOlder(t *testing.T) {
	for _, c := range []struct {
		image, live string
		refused     bool
	}{{"1.0.0", "1.1.0", true}, {"1.1.0", "1.1.0", false}, {"1.2.0", "1.1.0", false}, {"1.1.0-rc.1", "1.1.0", true}, {"", "1.1.0", false}, {"1.0.0", "", false}} {
		if err := older(rel("a", c.image), rel("b", c.live)); (err != nil) != c.refused {
			t.Errorf("%q on %q: %v, refused should be %v", c.image, c.live, err, c.refused)
		}
	}
}

func TestPartialErrorTellsHowFar(t *testing.T) {
	cause := errors.New("the disk is full")
	err := fmt.Errorf("deploy: %w", &PartialError{Done: plan.Plan{{Do: plan.Stage, Release: rel("a", "1.0.0")}},
		Failed: plan.Operation{Do: plan.Await, Release: rel("a", "1.0.0")}, Err: cause})
	if err.Error() != "deploy: await 1.0.0 (aaaaaaaaaaaa): the disk is full" || !errors.Is(err, cause) || unreached(err) {
		t.Errorf("got %v, unreached %v", err, unreached(err))
	}
	if !unreached(&PartialError{Failed: plan.Operation{Do: plan.Stage}, Err: cause}) {
		t.Error("a stage that failed first counts as a change")
	}
}
