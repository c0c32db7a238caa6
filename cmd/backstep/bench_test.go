package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backstep/backstep/internal/registry/registrytest"
	"github.com/backstep/backstep/internal/router/haproxy"
	"github.com/backstep/backstep/internal/router/routertest"
)

// argo is the anchor of facts/recovery-measured.md: Argo Rollouts at its tightest, in seconds.
const argo = 1.0

// BenchmarkRecoveryDocker prints the seconds from the first bad answer to the last with containers behind HAProxy,
// 50 requests a second and a release that fails all of them, and the ratio to Argo; and how many requests a good
// deploy has lost. deploy and verify are processes of their own, one after the other, as in a job.
func BenchmarkRecoveryDocker(b *testing.B) {
	balancer := routertest.HAProxy(b, haproxy.Slots)
	repository := registrytest.Debian(b) + "/acme/shop"
	dir := b.TempDir()
	program := filepath.Join(dir, "backstep")
	run := func(want int, args ...string) string {
		b.Helper()
		cmd := exec.Command(program, args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "BACKSTEP_HOST=plain")
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != want {
			b.Fatalf("%v: want exit code %d\n%s", args, want, out)
		}
		return string(out)
	}
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	name := service()
	b.Cleanup(func() { remove(name, repository) })
	if err := os.WriteFile(filepath.Join(dir, "backstep.yml"), []byte(docked(name, repository, balancer, 1, "blue-green")), 0o644); err != nil {
		b.Fatal(err)
	}
	for version, does := range map[string]string{"1.0.0": "work", "1.1.0": "work", "1.2.0": "fail"} {
		folder := filepath.Join(dir, version)
		if err := built(folder, version, does); err != nil {
			b.Fatal(err)
		}
		run(0, "build-image", "--repository", repository, "--version", version, "--tags", version, "--context", folder,
			"--files", "shop:/shop", "--entrypoint", "/shop")
	}
	deploy := []string{"deploy", "--environment", "production", "--allow-older", "--image"}
	run(0, append(deploy, repository+":1.0.0")...)
	run(0, "verify", "--environment", "production")
	crowd := customers{url: "http://" + balancer.Address}
	var recovery float64
	var bad, lost int
	for b.Loop() {
		for _, version := range []string{"1.1.0", "1.0.0"} {
			crowd.start()
			run(0, append(deploy, repository+":"+version)...)
			run(0, "verify", "--environment", "production")
			crowd.stop()
			lost += len(crowd.lost)
		}
		crowd.start()
		run(0, append(deploy, repository+":1.2.0")...)
		_, said, _ := strings.Cut(run(5, "verify", "--environment", "production", "--on-fail", "rollback"), "\ndigest=")
		digest, _, _ := strings.Cut(said, "\n")
		crowd.stop()
		bad += len(crowd.lost)
		recovery += crowd.last.Sub(crowd.first).Seconds()
		run(0, "unfreeze", "--environment", "production", "--reason", "measured")
		run(0, "lift", "--environment", "production", "--digest", digest, "--reason", "measured")
	}
	n := float64(b.N)
	b.ReportMetric(recovery/n, "s/recovery")
	b.ReportMetric(recovery/n/argo, "ratio-to-argo")
	b.ReportMetric(float64(bad)/n, "bad/rollback")
	b.ReportMetric(float64(lost)/n/2, "lost/good-deploy")
}
