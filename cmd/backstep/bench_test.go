package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/registry"
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
	if err := os.WriteFile(filepath.Join(dir, "backstep.yml"), []byte(behindHAProxy(name, repository, balancer, "blue-green")), 0o644); err != nil {
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

// limit is the aim for the seconds from a verdict to the traffic.
const limit = 0.05

var tookBack = regexp.MustCompile(`(?m)^rollback-seconds=([0-9.]+)$`)

// BenchmarkWayBack prints the seconds from a fail verdict until the old release has all the traffic, at several latencies of the
// registry and with the registry gone since the way back was armed, and the ratio to the limit; and how many requests a whole
// verify that rolls back has sent, and how many of them lay between the verdict and the traffic.
func BenchmarkWayBack(b *testing.B) {
	for _, c := range []struct {
		name    string
		latency time.Duration
		mode    registrytest.Mode
	}{{"0ms", 0, registrytest.Healthy}, {"100ms", 100 * time.Millisecond, registrytest.Healthy},
		{"300ms", 300 * time.Millisecond, registrytest.Healthy}, {"gone", 0, registrytest.Stopped}, {"silent", 0, registrytest.Silent}} {
		b.Run(c.name, func(b *testing.B) {
			between := registrytest.NewSwitch(b, registrytest.InProcess(b))
			w := newWorldAt(b, between.Host())
			w.want(0, 0, "deploy", "--image", w.registry+":1.0.0")
			w.want(0, 0, "verify")
			var seconds float64
			var requests int64
			for b.Loop() {
				w.want(0, 0, "deploy", "--image", w.registry+":4.0.0")
				between.Latency(c.latency)
				before := between.Requests()
				if c.mode != registrytest.Healthy {
					go w.whenArmed(func() { between.Set(c.mode) })
				}
				code, out := w.run(0, "verify", "--config", "watch.yml", "--on-fail", "rollback")
				requests += between.Requests() - before
				between.Set(registrytest.Healthy)
				between.Latency(0)
				found := tookBack.FindStringSubmatch(out)
				if code != 5 || found == nil {
					b.Fatalf("exit code %d\n%s", code, out)
				}
				took, err := strconv.ParseFloat(found[1], 64)
				if err != nil {
					b.Fatal(err)
				}
				seconds += took
				w.want(0, 0, "verify")
				quarantined := w.state().Quarantined
				w.want(0, 0, "unfreeze", "--reason", "measured")
				w.want(0, 0, "lift", "--reason", "measured", "--digest", string(quarantined[0].Release.Digest))
			}
			n := float64(b.N)
			b.ReportMetric(seconds/n, "s/verdict-to-traffic")
			b.ReportMetric(seconds/n/limit, "ratio-to-0.05s")
			b.ReportMetric(float64(requests)/n, "requests/verify+rollback")
		})
	}
}

// whenArmed calls then once the target is claimed for a verify.
func (w *world) whenArmed(then func()) {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if data, err := os.ReadFile(filepath.Join(w.dir, "points")); err == nil && strings.Contains(string(data), "claimed arm") {
			then()
			return
		}
	}
}

// BenchmarkRequests prints how many requests each step sends to the registry, with 10 and with 10 000 foreign tags in pages of
// 100, the ratio to the aim, and the seconds that it takes at 300 ms a request.
func BenchmarkRequests(b *testing.B) {
	aims := map[string]float64{"deploy": 30, "verify": 12, "rollback": 20}
	for _, tags := range []int{10, 10_000} {
		between := registrytest.NewSwitch(b, registrytest.InProcess(b))
		w := newWorldAt(b, between.Host())
		foreign(b, w.registry, tags)
		between.Pages(100)
		w.want(0, 0, "deploy", "--image", w.registry+":1.0.0")
		w.want(0, 0, "verify")
		for _, step := range []struct {
			name string
			args []string
		}{{"deploy", []string{"--image", w.registry + ":2.0.0"}}, {"verify", nil}, {"rollback", []string{"--reason", "measured"}}} {
			b.Run(fmt.Sprintf("%s/%d-tags", step.name, tags), func(b *testing.B) {
				between.Latency(300 * time.Millisecond)
				defer between.Latency(0)
				before, begin := between.Requests(), time.Now()
				w.want(0, 0, append([]string{step.name}, step.args...)...)
				sent := float64(between.Requests() - before)
				b.ReportMetric(sent, "requests")
				b.ReportMetric(sent/aims[step.name], "ratio-to-aim")
				b.ReportMetric(time.Since(begin).Seconds(), "s-at-300ms")
			})
		}
	}
}

// foreign gives a repository tags that are not ours.
func foreign(b *testing.B, repository string, tags int) {
	b.Helper()
	client := registry.New()
	body := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"x","digest":"sha256:%064d","size":2},"layers":[]}`, registry.OCIManifest, 0)
	for i := range tags {
		if _, err := client.Put(b.Context(), repository, fmt.Sprintf("build-%05d", i), registry.OCIManifest, body); err != nil {
			b.Fatal(err)
		}
	}
}
