package nginx

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/backstep/backstep/internal/fault"
)

// serves is who serves, as the map of the file says it and nginx repeats it.
type serves struct {
	upstream string
	serial   int            // of the change that made it; 0 is by hand
	weights  map[string]int // by ip:port, all above zero
	pid      int            // of the worker that has answered; 0 in a file
}

// text is all of it but the pid: shop 12 127.0.0.1:20001=95 127.0.0.1:20002=5.
func (s serves) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d ", s.upstream, s.serial)
	for _, at := range slices.Sorted(maps.Keys(s.weights)) {
		fmt.Fprintf(&b, "%s=%d ", at, s.weights[at])
	}
	return b.String()
}

func (s serves) same(t serves) bool { return s.text() == t.text() }

// pidMark is before the pid of the worker; in a file, the variable for it.
const pidMark = "pid="

// parseServes reads what text has written, and the pid behind it.
func parseServes(upstream, text string) (serves, error) {
	fields := strings.Fields(text)
	if len(fields) < 3 || fields[0] != upstream || !strings.HasPrefix(fields[len(fields)-1], pidMark) {
		return serves{}, fmt.Errorf("%.200q: want for example %q", text, upstream+" 12 127.0.0.1:20001=100 pid=$pid")
	}
	s := serves{upstream: upstream, weights: map[string]int{}}
	var err error
	if s.serial, err = strconv.Atoi(fields[1]); err != nil || s.serial < 0 {
		return serves{}, fmt.Errorf("%.200q: %q is no number of a change", text, fields[1])
	}
	if pid := strings.TrimPrefix(fields[len(fields)-1], pidMark); pid != "$pid" {
		if s.pid, err = strconv.Atoi(pid); err != nil || s.pid < 1 {
			return serves{}, fmt.Errorf("%.200q: %q is no pid", text, pid)
		}
	}
	for _, field := range fields[2 : len(fields)-1] {
		at, weight, _ := strings.Cut(field, "=")
		n, err := strconv.Atoi(weight)
		if _, bad := netip.ParseAddrPort(at); err != nil || bad != nil || n < 1 || s.weights[at] > 0 {
			return serves{}, fmt.Errorf("%.200q: %q is no address with its weight", text, field)
		}
		s.weights[at] = n
	}
	return s, nil
}

// include is the file.
type include struct {
	text   string
	serves serves
	lines  []string
	owned  []int // the lines of servers
	first  int   // the line that servers are put before
	mapped int   // the line of the map
}

var (
	upstreamLine = regexp.MustCompile(`^\s*upstream\s+(\S+)\s*\{\s*$`)
	serverLine   = regexp.MustCompile(`^\s*server\s+([^\s;]+)((?:\s+(?:weight=[0-9]+|max_fails=0|down))*)\s*;\s*$`)
	mapLine      = regexp.MustCompile(`^\s*map\s+""\s+\$(\S+)\s*\{\s*default\s+"([^"]*)"\s*;\s*\}\s*$`)
	foreignLine  = regexp.MustCompile(`^\s*(upstream|server|map)\b.*`)
	weightOption = regexp.MustCompile(`weight=([0-9]+)`)
)

// variable is the name of the variable that says who serves.
func (f *front) variable() string { return "backstep_" + strings.ReplaceAll(f.upstream, "-", "_") }

// read reads the file. What it cannot write again as it stands is a fault, and so are servers that the map does not have: somebody
// has changed them by hand.
func (f *front) read() (include, error) {
	data, err := os.ReadFile(f.file)
	if err != nil {
		told := fault.Inputf("nginx: %w", err)
		if errors.Is(err, fs.ErrNotExist) {
			told = told.WithHint("it is made by hand before the first release:\n%s", strings.ReplaceAll(First, "shop", f.upstream))
		}
		return include{}, told
	}
	return f.parse(string(data))
}

func (f *front) parse(text string) (include, error) {
	wrong := func(line int, format string, args ...any) (include, error) {
		return include{}, fault.Inputf("nginx: "+format, args...).At(fmt.Sprintf("%s:%d", f.file, line+1))
	}
	found := include{text: text, lines: strings.Split(text, "\n"), first: -1, mapped: -1}
	servers := map[string]int{}
	for i, line := range found.lines {
		if m := upstreamLine.FindStringSubmatch(line); m != nil && m[1] == f.upstream && found.first < 0 {
			found.first = i + 1
			continue
		}
		if m := mapLine.FindStringSubmatch(line); m != nil && m[1] == f.variable() && found.mapped < 0 {
			var err error
			if found.serves, err = parseServes(f.upstream, m[2]); err != nil {
				return wrong(i, "the map says %w", err)
			}
			found.mapped = i
			continue
		}
		if m := serverLine.FindStringSubmatch(line); m != nil && found.first >= 0 {
			if _, err := netip.ParseAddrPort(m[1]); err != nil {
				return wrong(i, "server %s: want ip:port", m[1])
			}
			found.owned = append(found.owned, i)
			if _, twice := servers[m[1]]; twice {
				return wrong(i, "server %s is there twice", m[1])
			}
			servers[m[1]] = 1
			if w := weightOption.FindStringSubmatch(m[2]); w != nil {
				servers[m[1]], _ = strconv.Atoi(w[1]) // they are digits
			}
			if strings.Contains(m[2], "down") {
				servers[m[1]] = 0
			}
			continue
		}
		if foreignLine.MatchString(line) {
			return wrong(i, "%q is not backstep's: the file has one upstream, %s, its servers with no more than a weight, and one map, each on a line of its own",
				strings.TrimSpace(line), f.upstream)
		}
	}
	if found.first < 0 || found.mapped < 0 {
		return include{}, fault.Inputf("nginx: want the upstream %s and the map of $%s in it, each on a line of its own", f.upstream, f.variable()).At(f.file).
			WithHint("the file as it is before the first release:\n%s", strings.ReplaceAll(First, "shop", f.upstream))
	}
	maps.DeleteFunc(servers, func(_ string, w int) bool { return w == 0 })
	if !maps.Equal(servers, found.serves.weights) {
		has := serves{upstream: f.upstream, serial: found.serves.serial, weights: servers}
		return include{}, fault.Inputf("nginx: it was changed by hand: the servers are %q, and the map says %q", has.text(), found.serves.text()).
			At(fmt.Sprintf("%s:%d", f.file, found.mapped+1)).WithHint("undo the change, or let the map say the same, and reload nginx")
	}
	return found, nil
}

// with is the text of the file with these servers.
func (in include) with(s serves) string {
	var servers []string
	for _, at := range slices.Sorted(maps.Keys(s.weights)) {
		servers = append(servers, fmt.Sprintf("    server %s weight=%d max_fails=0;", at, s.weights[at]))
	}
	if len(servers) == 0 {
		servers = []string{"    server 127.0.0.1:9 down;"}
	}
	at := in.first
	if len(in.owned) > 0 {
		at = in.owned[0]
	}
	var lines []string
	for i, line := range in.lines {
		if i == at {
			lines = append(lines, servers...)
		}
		switch {
		case slices.Contains(in.owned, i):
		case i == in.mapped:
			name := mapLine.FindStringSubmatch(line)[1]
			lines = append(lines, fmt.Sprintf(`map "" $%s { default "%s%s$pid"; }`, name, s.text(), pidMark))
		default:
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// mode is that of the file: nginx reads it as root, and everybody may know who serves.
const mode = 0o644

// replace writes the file anew, whole or not at all, when it still is what it was.
func (f *front) replace(was, text string) error {
	fresh, err := os.CreateTemp(filepath.Dir(f.file), ".backstep-*")
	if err != nil {
		return fault.Inputf("nginx: %w", err).At(f.file).WithHint("the file is written beside and renamed: its folder has to be writable for %s", whoami())
	}
	defer os.Remove(fresh.Name()) // once it is renamed there is none
	_, err = fresh.WriteString(text)
	if err = errors.Join(err, fresh.Chmod(mode), fresh.Sync(), fresh.Close()); err != nil {
		return fmt.Errorf("nginx: write %s: %w", f.file, err)
	}
	if info, err := os.Lstat(f.file); err != nil || !info.Mode().IsRegular() {
		return errors.Join(fault.Inputf("nginx: it is no file, and is not replaced").At(f.file), err)
	}
	now, err := os.ReadFile(f.file)
	if err != nil {
		return fmt.Errorf("nginx: %w", err)
	}
	if string(now) != was {
		return fault.Errorf(fault.Failed, "nginx: somebody else has changed it meanwhile").At(f.file)
	}
	return os.Rename(fresh.Name(), f.file)
}

// whoami is the user for a hint.
func whoami() string { return "the user with the number " + strconv.Itoa(os.Geteuid()) }
