package command

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/probe"
	"github.com/backstep/backstep/internal/probe/probetest"
)

func TestPrograms(t *testing.T) {
	left := filepath.Join(t.TempDir(), "left")
	for _, c := range []struct {
		argv string
		want probe.Outcome
		got  string
	}{
		{`echo` + "\n" + `{"outcome": "pass"}`, probe.Pass, ""},
		{`echo` + "\n" + `{"outcome": "fail", "got": "12 orders wait"}`, probe.Fail, "12 orders wait"},
		{`echo` + "\n" + `{"outcome": "fail", "got": "$address"}`, probe.Fail, "127.0.0.1:8080"},
		{"sh\n-c\n" + `printf '{"outcome":"fail","got":"%s"}' "$BACKSTEP_ADDRESS"`, probe.Fail, "127.0.0.1:8080"},
		{`echo` + "\n" + `{"outcome": "perhaps"}`, probe.NoData, `outcome \"perhaps\" is neither pass nor fail`},
		{"echo\nall is well", probe.NoData, "the program wrote no JSON: all is well"},
		{"sh\n-c\necho no database >&2; exit 3", probe.NoData, "exit status 3: no database"},
		{"sh\n-c\nyes | head -c 10000000", probe.NoData, "the program wrote no JSON: y"},
		{"sh\n-c\n(sleep 3; touch " + left + ") & sleep 60", probe.NoData, "the program did not end in time"},
	} {
		limit := 10 * time.Second
		if strings.Contains(c.got, "in time") {
			limit = 200 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		r := probetest.Open(t, Kind(), map[string]string{"argv": c.argv}).Check(ctx, "127.0.0.1:8080")
		cancel()
		if r.Outcome != c.want || !strings.Contains(r.Got, c.got) || r.Took > 30*time.Second {
			t.Errorf("%q: outcome %d, got %q after %s; want %d, %q", c.argv, r.Outcome, r.Got, r.Took, c.want, c.got)
		}
	}
	time.Sleep(3500 * time.Millisecond) // what was ended cannot come any more
	if _, err := os.Stat(left); err == nil {
		t.Error("what the program had started went on after its time")
	}
	if got := probetest.Refused(t, Kind(), map[string]string{"argv": "no-such-program"}); !strings.Contains(got, "no-such-program") {
		t.Errorf("no such program: %q", got)
	}
}
