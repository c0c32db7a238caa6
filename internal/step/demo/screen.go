package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/host"
	"github.com/backstep/backstep/internal/step"
)

// screen shows what happens: on a terminal a picture that is drawn anew ten times a second, elsewhere a line
// a transition.
type screen struct {
	mu        sync.Mutex
	out       io.Writer
	shown     bytes.Buffer // what was written, when it is recorded
	live      bool
	start     time.Time
	done      []string // what is over, a line each
	now       string   // the step that runs
	last      string   // its last log line
	names     map[string]string
	customers *traffic
	drawn     int // lines of the last picture
	stop      chan struct{}
	stopped   chan struct{}
	closing   sync.Once
}

// frame is how often the picture is drawn.
const frame = 100 * time.Millisecond

func newScreen(rt *step.Runtime, customers *traffic, record bool) *screen {
	s := &screen{out: rt.Stderr, start: time.Now(), names: map[string]string{}, customers: customers,
		stop: make(chan struct{}), stopped: make(chan struct{})}
	if s.live = rt.Terminal != nil && !record; s.live {
		s.out = rt.Terminal
	}
	if record {
		s.out = io.MultiWriter(s.out, &s.shown)
	}
	go s.run()
	return s
}

func (s *screen) run() {
	defer close(s.stopped)
	if !s.live {
		<-s.stop
		return
	}
	ticker := time.NewTicker(frame)
	defer ticker.Stop()
	for {
		select {
		case <-s.stop:
			s.draw()
			return
		case <-ticker.C:
			s.draw()
		}
	}
}

// close draws the last picture. It can be called again.
func (s *screen) close() {
	s.closing.Do(func() { close(s.stop) })
	<-s.stopped
}

func (s *screen) begin(name string, args []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now, s.last = name+" "+about(args), ""
}

// about is the version or the environment among args.
func about(args []string) string {
	for i, a := range args[:max(0, len(args)-1)] {
		if a == "--version" || a == "--environment" {
			return args[i+1]
		}
	}
	return ""
}

// log takes one line of a step: what the log says, without its time and level.
func (s *screen) log(name, line string) {
	var entry struct {
		Msg, Why, Version, Release string
	}
	if json.Unmarshal([]byte(line), &entry) != nil {
		return // what a step says of its end is in its exit code
	}
	text := entry.Msg
	if entry.Why != "" {
		text += ": " + entry.Why
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if entry.Version != "" && entry.Release != "" {
		s.names[entry.Release] = entry.Version
	}
	s.last = text
	if !s.live {
		fmt.Fprintf(s.out, "%6.2fs  %-12s %s\n", time.Since(s.start).Seconds(), name, text)
	}
}

func (s *screen) end(name string, code fault.Code) {
	s.mu.Lock()
	defer s.mu.Unlock()
	mark := "ok"
	if code != fault.Done {
		mark = code.Means()
	}
	line := fmt.Sprintf("%6.2fs  %-26s %s", time.Since(s.start).Seconds(), s.now, mark)
	s.done, s.now = append(s.done, line), ""
	if !s.live {
		fmt.Fprintln(s.out, line)
	}
}

// draw writes the picture over the last one.
func (s *screen) draw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := append([]string{"", "  backstep demo: a shop, a good release, a bad one"}, "")
	for _, d := range s.done {
		lines = append(lines, "  "+d)
	}
	if s.now != "" {
		lines = append(lines, fmt.Sprintf("  %6.2fs  %-26s %s", time.Since(s.start).Seconds(), s.now, s.last))
	}
	all, recent := s.customers.since(s.start), s.customers.since(time.Now().Add(-time.Second))
	lines = append(lines, "", fmt.Sprintf("  customers  %d served, %d failed", all.requests-all.failed, all.failed))
	for _, release := range slices.Sorted(maps.Keys(recent.bySource)) {
		who, n := release, recent.bySource[release]
		if v := s.names[release]; v != "" {
			who = v
		}
		if who == "" {
			who = "nobody"
		}
		share := n * 100 / recent.requests
		lines = append(lines, fmt.Sprintf("  %-9s  %s %3d %%", who, bar(share), share))
	}
	lines = append(lines, fmt.Sprintf("  errors     %s %d in the last second", bar(100*recent.failed/max(1, recent.requests)), recent.failed))
	var b strings.Builder
	if s.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", s.drawn)
	}
	b.WriteString("\x1b[J")
	for _, line := range lines {
		b.WriteString(host.Escape(line) + "\n")
	}
	s.drawn = len(lines)
	io.WriteString(s.out, b.String())
}

// bar is percent of twenty cells.
func bar(percent int) string {
	full := min(20, percent/5)
	return strings.Repeat("█", full) + strings.Repeat("░", 20-full)
}
