package docker

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/registry/registrytest"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/target"
)

// A container is ours when its image, name, ledger and number agree with its labels, and with the record.
func TestAContainerIsOursWhenAllOfItAgrees(t *testing.T) {
	d := &docker{env: target.Environment{Service: "shop", Environment: "production", Ledger: "r.example/shop shop production"}}
	digest := release.Digest("sha256:" + strings.Repeat("a", 64))
	r := release.Release{Digest: digest, Repository: "r.example/shop", Version: "1.0.0"}
	record := plan.Claim{Token: plan.Token{Number: plan.Number{Seq: 7}, Holder: "x"}, Ledger: d.env.Ledger, Former: []string{"old"}}
	own := map[string]string{labelDigest: string(digest), labelRepository: "r.example/shop", labelVersion: "1.0.0",
		labelLedger: d.env.Ledger, labelNumber: "6.1", labelReplica: "1"}
	inspect := func(name, image string, changed map[string]string) container.InspectResponse {
		labels := maps.Clone(own)
		maps.Copy(labels, changed)
		return container.InspectResponse{Name: "/" + name, Config: &container.Config{Image: image, Labels: labels}}
	}
	name := d.nameOf(r.ID(), "", 1)
	for what, c := range map[string]container.InspectResponse{
		"it":               inspect(name, r.Reference(), nil),
		"parked":           inspect(name+parkedEnd, r.Reference(), nil),
		"serving":          inspect("shop-production", r.Reference(), nil),
		"a former ledger":  inspect(name, r.Reference(), map[string]string{labelLedger: "old"}),
		"without a commit": inspect(name, r.Reference(), map[string]string{labelCommit: ""}),
	} {
		if err := d.stranger(c, record); err != nil {
			t.Errorf("%s: %v, want ours", what, err)
		}
	}
	for what, c := range map[string]container.InspectResponse{
		"another image":       inspect(name, "evil.example/x:1", nil),
		"another repository":  inspect(name, r.Reference(), map[string]string{labelRepository: "evil.example/x"}),
		"another ledger":      inspect(name, r.Reference(), map[string]string{labelLedger: "theirs"}),
		"no ledger":           inspect(name, r.Reference(), map[string]string{labelLedger: ""}),
		"another name":        inspect("epic_banach", r.Reference(), nil),
		"another replica":     inspect(name, r.Reference(), map[string]string{labelReplica: "2"}),
		"a number to come":    inspect(name, r.Reference(), map[string]string{labelNumber: "8"}),
		"no number":           inspect(name, r.Reference(), map[string]string{labelNumber: ""}),
		"no digest":           inspect(name, r.Reference(), map[string]string{labelDigest: "sha256:1"}),
		"a version of PromQL": inspect(name, r.Reference(), map[string]string{labelVersion: `1"} * 0) #`}),
	} {
		if err := d.stranger(c, record); err == nil {
			t.Errorf("%s: it is taken for ours", what)
		}
	}
}

// A container that somebody started from another image, with labels that its image brings, is not taken for the release.
func TestE2EAStrangersContainerIsNotTheRelease(t *testing.T) {
	registryHost := registrytest.InProcess(t)
	service := unique(t)
	owner := registryHost + "/shop " + service + " production"
	d := engine(t, options{spec: spec{port: 8080, publish: "127.0.0.1:0"}}, target.Environment{Service: service, Environment: "production", Ledger: owner})
	claimed := release.Release{Digest: release.Digest("sha256:" + strings.Repeat("b", 64)), Repository: registryHost + "/shop"}
	labels := d.labels()
	maps.Copy(labels, map[string]string{labelDigest: string(claimed.Digest), labelRepository: claimed.Repository, labelLedger: owner, labelNumber: "1", labelReplica: "1"})
	image := "strange-" + service
	text := "FROM scratch\nCOPY x /x\n"
	for key, value := range labels {
		text += fmt.Sprintf("LABEL %q=%q\n", key, value)
	}
	build := exec.CommandContext(t.Context(), "sh", "-c", `d=$(mktemp -d) && cat > $d/Dockerfile && touch $d/x && docker build -q -t "$0" $d; rm -r $d`, image)
	build.Stdin = strings.NewReader(text)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() {
		_, _ = d.engine.ImageRemove(context.Background(), image, client.ImageRemoveOptions{Force: true})
	})
	must(d.engine.ContainerCreate(t.Context(), client.ContainerCreateOptions{Name: d.nameOf(claimed.ID(), "", 1), Config: &container.Config{Image: image, Cmd: []string{"/x"}}}))
	if in, err := d.Find(t.Context(), claimed.ID()); in != nil || err != nil {
		t.Errorf("the stranger's container is %+v, %v; want none", in, err)
	}
	// And the same image, pushed and asked for by its digest, is not started.
	push := exec.CommandContext(t.Context(), "sh", "-c", `docker tag "$0" "$1" && docker push -q "$1" && docker rmi "$1"`, image, registryHost+"/shop:1")
	if out, err := push.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m := must(registry.New().Get(t.Context(), registryHost+"/shop", "1"))
	r := release.Release{Digest: m.Digest, Repository: registryHost + "/shop"}
	t.Cleanup(func() {
		_, _ = d.engine.ImageRemove(context.Background(), r.Reference(), client.ImageRemoveOptions{Force: true})
	})
	by := plan.Token{Number: plan.Number{Seq: 1}, Holder: "x"}
	if err := d.Claim(t.Context(), plan.Claim{Token: by, Ledger: owner, Aim: plan.Do, Wanted: r}, nil); err != nil {
		t.Fatal(err)
	}
	if err := d.Stage(t.Context(), by, r); fault.CodeOf(err) != fault.Input || !strings.Contains(fmt.Sprint(err), "brings the label \"backstep.") {
		t.Errorf("stage: %v; want a refusal of its labels", err)
	}
}
