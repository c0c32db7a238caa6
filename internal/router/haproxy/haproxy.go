// Package haproxy is the router that moves traffic with HAProxy's runtime API. The backend of the
// configuration has to hold free slots, servers that are disabled: a release takes one when it first gets traffic.
//
// The commands are those of https://docs.haproxy.org/2.6/management.html#9.3.
package haproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/haproxysocket"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/router"
)

// Slots is the line of a backend that makes free slots. The name is never looked up: it is there because HAProxy
// takes the address of a server from its state file only when the configuration gives a name, not an address.
const Slots = "server-template release 1-6 release.invalid:9 init-addr last,127.0.0.1 disabled"

// Kind is the haproxy router.
func Kind() router.Kind {
	return router.Kind{
		Name: "haproxy",
		Help: "HAProxy, through its runtime API; nothing is reloaded.",
		New: func() ([]input.Input, func() (router.Front, error)) {
			var f front
			return []input.Input{
				input.String(&f.socket, "socket", "The stats socket with level admin: a path, or host:port.").Must(),
				input.String(&f.backend, "backend", "The backend that gets the releases. It needs free slots: "+Slots+".").Must().
					Matching(regexp.MustCompile(`^[A-Za-z0-9_.:-]+$`), "shop"),
			}, func() (router.Front, error) { return f, nil }
		},
	}
}

type front struct{ socket, backend string }

var _ router.Front = front{}

const drainPause = 50 * time.Millisecond

// ask sends commands, which are carried out in their order, and returns what they say.
func (f front) ask(ctx context.Context, commands ...string) (string, error) {
	return haproxysocket.Ask(ctx, f.socket, commands...)
}

// server is one line of `show servers state`.
type server struct {
	name, address string // address is ip:port
	weight        int    // 0 to 256; 0 as well when it is in maintenance or drains
	maintenance   bool
	slot          bool // it was made for a release, by its name: a server of somebody else has an address only
	unchanged     int  // seconds since its state changed
}

// The bits of srv_admin_state that take a server out, see srv_admin in HAProxy's server-t.h: forced and
// inherited maintenance, from the resolver, from a bad host name; and draining.
const (
	maintenanceBits = 0x01 | 0x02 | 0x20 | 0x40
	drainBits       = 0x08 | 0x10
)

func (f front) servers(ctx context.Context) ([]server, error) {
	text, err := f.ask(ctx, "show servers state "+f.backend)
	if err != nil {
		return nil, err
	}
	servers, err := parseServers(text)
	if err != nil {
		return nil, fault.Inputf("haproxy: %w", err).WithHint("is backend %s in HAProxy's configuration?", f.backend)
	}
	return servers, nil
}

// parseServers reads `show servers state`: the version of the format, a line with the names of the columns
// after #, and one line a server.
func parseServers(text string) ([]server, error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 2 || strings.TrimSpace(lines[0]) != "1" || !strings.HasPrefix(lines[1], "#") {
		return nil, fmt.Errorf("unexpected answer to show servers state: %.200q", text)
	}
	columns := strings.Fields(strings.TrimPrefix(lines[1], "#"))
	var servers []server
	for _, line := range lines[2:] {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) != len(columns) {
			return nil, fmt.Errorf("a server with %d fields for %d columns: %.200q", len(fields), len(columns), line)
		}
		var faults []error
		text := func(column string) string {
			i := slices.Index(columns, column)
			if i < 0 {
				faults = append(faults, fmt.Errorf("no column %s", column))
				return ""
			}
			return fields[i]
		}
		number := func(column string) int {
			n, err := strconv.Atoi(text(column))
			if err != nil {
				faults = append(faults, fmt.Errorf("column %s: %w", column, err))
			}
			return n
		}
		admin := number("srv_admin_state")
		s := server{name: text("srv_name"), address: net.JoinHostPort(text("srv_addr"), text("srv_port")),
			weight: number("srv_uweight"), maintenance: admin&maintenanceBits != 0, slot: text("srv_fqdn") != "-", unchanged: number("srv_time_since_last_change")}
		if s.maintenance || admin&drainBits != 0 {
			s.weight = 0
		}
		if err := errors.Join(faults...); err != nil {
			return nil, err
		}
		servers = append(servers, s)
	}
	return servers, nil
}

func (f front) Weights(ctx context.Context) (map[string]int, error) {
	servers, err := f.servers(ctx)
	if err != nil {
		return nil, err
	}
	weights := map[string]int{}
	for _, s := range servers {
		if s.weight > 0 {
			weights[s.address] += s.weight
		}
	}
	return weights, nil
}

// Shift first lets in those that get traffic and then takes out the others, in one line of commands, so that
// there is no moment without a server.
func (f front) Shift(ctx context.Context, _ router.Holds, weights map[string]int) error {
	servers, err := f.servers(ctx)
	if err != nil {
		return err
	}
	commands, err := f.commands(servers, weights)
	if err != nil || len(commands) == 0 {
		return err
	}
	said, err := f.ask(ctx, commands...)
	if err != nil {
		return err
	}
	now, err := f.Weights(ctx)
	if err != nil {
		return err
	}
	for _, address := range append(sortedKeys(weights), sortedKeys(now)...) { // what has no weight is in neither, or zero
		if now[address] != weights[address] {
			return fmt.Errorf("haproxy: %s has a weight of %d instead of %d; it said: %.400s", address, now[address], weights[address], said)
		}
	}
	return nil
}

// freer says whether a release takes the place of s rather than that of t: the slot that has been out the longest, since that of a
// release that is kept warm is the youngest; and the place of somebody else's server only when there is no slot.
func (s server) freer(t server) bool {
	if s.slot != t.slot {
		return s.slot
	}
	return s.unchanged > t.unchanged
}

// commands is what turns servers into weights.
func (f front) commands(servers []server, weights map[string]int) ([]string, error) {
	var in, out []string
	taken := map[string]bool{}
	set := func(name, what string) string { return "set server " + f.backend + "/" + name + " " + what }
	for _, address := range sortedKeys(weights) {
		if weights[address] == 0 {
			continue
		}
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil, fmt.Errorf("address %q: %w", address, err)
		}
		i := slices.IndexFunc(servers, func(s server) bool { return s.address == address })
		if i < 0 {
			for j, s := range servers {
				_, named := weights[s.address]
				if s.maintenance && !taken[s.name] && !named && (i < 0 || s.freer(servers[i])) {
					i = j
				}
			}
			if i < 0 {
				return nil, fault.Inputf("haproxy: backend %s has no free slot: it has %d servers", f.backend, len(servers)).
					WithHint("it needs as many for each of two releases as a release has replicas, and some more: %s, or a higher number there", Slots)
			}
			in = append(in, set(servers[i].name, fmt.Sprintf("addr %s port %d", at.Addr(), at.Port())))
		}
		name := servers[i].name
		taken[name] = true
		in = append(in, set(name, fmt.Sprintf("weight %d", weights[address])), set(name, "state ready"))
	}
	for _, s := range servers {
		if !taken[s.name] && !s.maintenance {
			out = append(out, set(s.name, "state maint"))
		}
	}
	return append(in, out...), nil
}

func (f front) Drain(ctx context.Context, _ router.Holds, address string, drain time.Duration) error {
	servers, err := f.servers(ctx)
	if err != nil {
		return err
	}
	end := time.Now().Add(drain)
	for _, s := range servers {
		if s.address != address {
			continue
		}
		name := f.backend + "/" + s.name
		if _, err := f.ask(ctx, "set server "+name+" state maint"); err != nil {
			return err
		}
		for {
			ours, err := f.stillOut(ctx, s)
			if err != nil || !ours {
				return err // somebody has given it traffic again, or given its place away
			}
			busy, err := f.sessions(ctx, s.name)
			if err != nil {
				return err
			}
			if busy == 0 {
				break
			}
			if time.Now().After(end) {
				if _, err := f.ask(ctx, "shutdown sessions server "+name); err != nil {
					return err
				}
				break
			}
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(drainPause):
			}
		}
	}
	return nil
}

// stillOut says whether a server is out of the backend, at the address that it had.
func (f front) stillOut(ctx context.Context, s server) (bool, error) {
	servers, err := f.servers(ctx)
	if err != nil {
		return false, err
	}
	i := slices.IndexFunc(servers, func(now server) bool { return now.name == s.name })
	return i >= 0 && servers[i].maintenance && servers[i].address == s.address, nil
}

// sessions is how many a server has now.
func (f front) sessions(ctx context.Context, name string) (int, error) {
	rows, err := haproxysocket.Stats(ctx, f.socket)
	if err != nil {
		return 0, err
	}
	for _, row := range rows {
		if row["pxname"] == f.backend && row["svname"] == name {
			return strconv.Atoi(row["scur"])
		}
	}
	return 0, fmt.Errorf("haproxy: show stat has no server %s/%s", f.backend, name)
}

func sortedKeys(m map[string]int) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
