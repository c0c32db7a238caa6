package command

import (
	"context"
	"maps"
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

// A program gets what programs need, what its probe gives it, and nothing of what our own steps were told.
func TestEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "env")
	for _, name := range []string{"BACKSTEP_REGISTRY_PASSWORD", "INPUT_TOKEN", "GITHUB_TOKEN", "CI_JOB_TOKEN", "AWS_SECRET_ACCESS_KEY"} {
		t.Setenv(name, "hunter2")
	}
	needed := []string{"HOME", "TMPDIR", "LANG", "LC_ALL", "LC_TIME", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR",
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"}
	for _, name := range needed {
		t.Setenv(name, "/needed")
	}
	t.Setenv("PATH", os.Getenv("PATH"))
	r := probetest.Open(t, Kind(), map[string]string{"argv": "sh\n-c\nenv >" + file + `; echo '{"outcome": "pass"}'`, "env": "SHOP_TOKEN=abc\nTZ=Asia/Shanghai"}).
		Check(t.Context(), "127.0.0.1:8080")
	if r.Outcome != probe.Pass {
		t.Fatalf("%+v", r)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		got[name] = value
	}
	want := map[string]string{"PATH": os.Getenv("PATH"), "BACKSTEP_ADDRESS": "127.0.0.1:8080", "SHOP_TOKEN": "abc"}
	for _, name := range needed {
		want[name] = "/needed"
	}
	want["TZ"] = "Asia/Shanghai"
	for _, name := range []string{"PWD", "OLDPWD", "SHLVL", "_"} { // the shell's own
		delete(got, name)
	}
	if !maps.Equal(got, want) {
		t.Errorf("the program has\n%q\nwant\n%q", got, want)
	}
}
