package haproxy

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/backstep/backstep/internal/router/routertest"
)

// answer is what HAProxy 2.6 said to `show servers state shop`, cut after the columns that are read.
const answer = `1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_port srv_fqdn
3 shop 1 release1 172.17.0.2 2 4 100 1 20 8080 release.invalid
3 shop 2 release2 172.17.0.3 0 5 100 1 7 8080 release.invalid
3 shop 3 release3 127.0.0.1 0 5 1 1 90 9 release.invalid
3 shop 4 old 10.0.0.9 2 8 1 1 90 80 -
3 shop 5 older 10.0.0.8 0 5 1 1 999 80 -
`

func TestServers(t *testing.T) {
	got, err := parseServers(answer)
	want := []server{
		{"release1", "172.17.0.2:8080", 100, false, true, 20},
		{"release2", "172.17.0.3:8080", 0, true, true, 7},
		{"release3", "127.0.0.1:9", 0, true, true, 90},
		{"old", "10.0.0.9:80", 0, false, false, 90},   // it drains
		{"older", "10.0.0.8:80", 0, true, false, 999}, // no slot
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "Can't find backend.", "1\n", "2\n# a b\n1 2", strings.Replace(answer, "8080", "", 1),
		strings.Replace(answer, "srv_port", "port", 1), strings.Replace(answer, " 100 ", " many ", 1)} {
		if got, err := parseServers(bad); err == nil {
			t.Errorf("%q was read as %+v", bad, got)
		}
	}
}

func TestCommands(t *testing.T) {
	servers, err := parseServers(answer)
	if err != nil {
		t.Fatal(err)
	}
	f := front{backend: "shop"}
	for name, c := range map[string]struct {
		weights map[string]int
		want    []string
	}{
		"back to the warm one": {map[string]int{"172.17.0.3:8080": 100}, []string{
			"set server shop/release2 weight 100", "set server shop/release2 state ready",
			"set server shop/release1 state maint", "set server shop/old state maint"}},
		"a new one takes the oldest slot": {map[string]int{"172.17.0.2:8080": 90, "172.17.0.4:8080": 10}, []string{
			"set server shop/release1 weight 90", "set server shop/release1 state ready",
			"set server shop/release3 addr 172.17.0.4 port 8080",
			"set server shop/release3 weight 10", "set server shop/release3 state ready",
			"set server shop/old state maint"}},
	} {
		got, err := f.commands(servers, c.weights)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v\n%s", name, err, strings.Join(got, "\n"))
		}
	}
	_, err = f.commands(servers, map[string]int{"10.1.0.1:1": 1, "10.1.0.2:1": 1, "10.1.0.3:1": 98, "10.0.0.8:80": 0})
	if err == nil || err.Error() != "haproxy: backend shop has no free slot: it has 5 servers" {
		t.Errorf("more releases than slots, beside a server that keeps its place: %v", err)
	}
	if _, err := f.commands(servers, map[string]int{"shop;shutdown sessions:1": 100}); err == nil {
		t.Error("an address that is none became a command")
	}
}

// What serves goes on serving when HAProxy starts again with its state file, as docs/docker.md says; without one,
// nobody has any traffic, and the next shift is as good as the first.
func TestE2ERestart(t *testing.T) {
	b := routertest.HAProxy(t, Slots)
	f := front{socket: b.Socket, backend: b.Backend}
	ctx := t.Context()
	want := map[string]int{"127.0.0.1:18081": 90, "127.0.0.1:18082": 10}
	for _, saved := range []bool{true, false} {
		if err := f.Shift(ctx, nil, want); err != nil {
			t.Fatal(err)
		}
		var state string
		if saved {
			var err error
			if state, err = f.ask(ctx, "show servers state"); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(b.State, []byte(state+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		b.Restart()
		got, err := f.Weights(ctx)
		if err != nil || saved != maps.Equal(got, want) || !saved && len(got) > 0 {
			t.Errorf("saved %v: %v, %v", saved, got, err)
		}
	}
}

func TestE2EFaults(t *testing.T) {
	b := routertest.HAProxy(t, "")
	ctx := t.Context()
	err := front{socket: b.Socket, backend: b.Backend}.Shift(ctx, nil, map[string]int{"127.0.0.1:18081": 100})
	if err == nil || err.Error() != "haproxy: backend shop has no free slot: it has 0 servers" {
		t.Errorf("no slots: %v", err)
	}
	if _, err = (front{socket: b.Socket, backend: "nobody"}).Weights(ctx); err == nil || !strings.Contains(err.Error(), "Can't find backend") {
		t.Errorf("no backend: %v", err)
	}
	if _, err = (front{socket: b.Socket + "x", backend: b.Backend}).Weights(ctx); err == nil || !strings.Contains(err.Error(), "the target cannot be reached") {
		t.Errorf("no socket: %v", err)
	}
}
