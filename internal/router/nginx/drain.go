package nginx

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backstep/backstep/internal/router"
)

const drainPause = 50 * time.Millisecond

// Drain waits for the connections that former workers have with the address. nginx cannot end one of them: what is left after the
// drain ends with the server, or with the worker after worker_shutdown_timeout, and nobody waits for it again. Where the connections
// cannot be counted, since nginx is on another machine or in a container, the whole drain passes.
func (f *front) Drain(ctx context.Context, holds router.Holds, address string, drain time.Duration) error {
	has, err := f.read()
	if err != nil {
		return err
	}
	if has.serves.weights[address] > 0 {
		err := f.change(ctx, holds, func(weights map[string]int) map[string]int {
			left := maps.Clone(weights)
			delete(left, address)
			return left
		})
		if err != nil {
			return err
		}
	}
	now, err := f.ask(ctx)
	if err != nil {
		return err
	}
	f.mu.Lock()
	spent := f.spent[address]
	f.mu.Unlock()
	for end := time.Now().Add(drain); !spent && time.Now().Before(end); {
		if busy, known := connections(now.pid, address); known && busy == 0 {
			return nil
		}
		if has, err := f.read(); err != nil || has.serves.weights[address] > 0 {
			return err // somebody has given it traffic again
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(min(drainPause, time.Until(end))):
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.spent[address] = true
	return nil
}

// The states of a connection that is open, or being opened, in /proc/PID/net/tcp.
var open = []string{"01", "02"}

// connections counts those with an address in the network of the process pid. It is not known where that is no nginx of this machine.
func connections(pid int, address string) (n int, known bool) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return 0, false
	}
	of := fmt.Sprintf("/proc/%d/", pid)
	if name, err := os.ReadFile(of + "comm"); err != nil || strings.TrimSpace(string(name)) != "nginx" {
		return 0, false
	}
	for _, table := range []string{"tcp", "tcp6"} {
		data, err := os.ReadFile(of + "net/" + table)
		if err != nil {
			return 0, false
		}
		n += count(data, at)
	}
	return n, true
}

// count counts the connections with at in a table of the kernel: after a line of names, one a line, with the address of the other
// side third and the state fourth.
func count(table []byte, at netip.AddrPort) (n int) {
	for lines := bufio.NewScanner(bytes.NewReader(table)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > 3 && slices.Contains(open, fields[3]) && remote(fields[2]) == at {
			n++
		}
	}
	return n
}

// remote reads 0100007F:1F90, an address in words of four bytes with the last one first; the zero value when it is none. An address
// of IPv4 in a table of IPv6 is one of IPv4.
func remote(text string) netip.AddrPort {
	words, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(words)
	n, bad := strconv.ParseUint(port, 16, 16)
	if err != nil || bad != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}
	}
	for i := 0; i < len(raw); i += 4 {
		slices.Reverse(raw[i : i+4])
	}
	ip, ok := netip.AddrFromSlice(raw)
	if !ok {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(n))
}
