package house

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// built is a program of a module, stripped.
func built(b *testing.B, pkg string) string {
	out := filepath.Join(b.TempDir(), filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Dir = root
	if text, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("build %s: %v: %s", pkg, err, text)
	}
	return out
}

// BenchmarkStart prints how long backstep --version takes, and its ratio to crane version when crane is in PATH.
func BenchmarkStart(b *testing.B) {
	ours := built(b, "./cmd/backstep")
	crane, err := exec.LookPath("crane")
	if err != nil {
		b.Log("crane is not in PATH: no ratio")
	}
	var mine, theirs time.Duration
	for b.Loop() {
		begin := time.Now()
		if err := exec.Command(ours, "--version").Run(); err != nil {
			b.Fatal(err)
		}
		mine += time.Since(begin)
		if crane == "" {
			continue
		}
		begin = time.Now()
		if err := exec.Command(crane, "version").Run(); err != nil {
			b.Fatal(err)
		}
		theirs += time.Since(begin)
	}
	b.ReportMetric(mine.Seconds()*1000/float64(b.N), "ms/backstep")
	if theirs > 0 {
		b.ReportMetric(float64(mine)/float64(theirs), "ratio-to-crane")
	}
}

// argo is the anchor of facts/recovery-measured.md: Argo Rollouts at its tightest, in seconds.
const argo = 1.0

// BenchmarkRecovery prints the seconds from the first bad answer to the last in the demo, and the ratio to Argo.
func BenchmarkRecovery(b *testing.B) {
	ours := built(b, "./cmd/backstep")
	var sum float64
	for b.Loop() {
		out, err := exec.Command(ours, "demo", "--json").Output()
		if err != nil {
			b.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		var r struct {
			Seconds float64 `json:"recovered_seconds"`
		}
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil {
			b.Fatal(err)
		}
		sum += r.Seconds
	}
	b.ReportMetric(sum/float64(b.N), "s/recovery")
	b.ReportMetric(sum/float64(b.N)/argo, "ratio-to-argo")
}
