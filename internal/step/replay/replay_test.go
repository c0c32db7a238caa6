package replay

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/verdict"
	"github.com/backstep/backstep/internal/verdict/ticks"
)

// BenchmarkReplay replays 1 000 series of 1 000 ticks, three of which have an error, and none of which ends before its last tick.
func BenchmarkReplay(b *testing.B) {
	const series, each = 1000, 1000
	var file bytes.Buffer
	file.WriteString(strings.Join(ticks.Header, ",") + "\n")
	for s := range series {
		for i := range each {
			errors := 0
			if i%(each/3) == s%(each/3) {
				errors = 1
			}
			fmt.Fprintf(&file, "s%d,%d,%d,10,0,90,%d\n", s, i+1, i+1, errors)
		}
	}
	for b.Loop() {
		err := replay(b.Context(), bytes.NewReader(file.Bytes()), io.Discard, "ticks.csv", verdict.Setting{Rule: verdict.Compared, Options: verdict.Options{
			Bake: 24 * time.Hour, Objective: 0.01, Alpha: 0.01, Beta: 0.01, Harmless: 1, Ratio: 2.5}})
		if err != nil {
			b.Fatal(err)
		}
	}
	rate := series * each * float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(rate/1e6, "of-1-million-ticks/s")
}
