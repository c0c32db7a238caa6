// Package nginx is the meter that reads nginx's access log.
package nginx

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/probe"
)

// Format is the format of the log that is read: a line for each request, with a list for each server that was tried.
const Format = `log_format backstep escape=json '{"upstream":"$upstream_addr","status":"$upstream_status","seconds":"$upstream_response_time"}';`

const (
	lineLimit = 64 << 10 // bytes
	readLimit = 64 << 20 // bytes of one Read
	silence   = 20       // requests that nginx says it answered while its log says none
)

// Kind is the nginx meter.
func Kind() probe.Kind {
	return probe.Kind{
		Name: "nginx",
		Help: "Counts the requests that nginx sent to a release, by the address of its server in the access log: status 5xx is an error. " +
			"The log needs a format of its own, without a buffer: " + Format + " access_log /var/log/nginx/backstep.log backstep;",
		Every: 200 * time.Millisecond,
		NewMeter: func() ([]input.Input, func() (probe.Meter, error)) {
			m := &meter{}
			var chosen []string
			return []input.Input{
				input.String(&m.path, "log", "The path of the access log.").Must(),
				input.String(&m.status, "status", "The address of stub_status: it shows that the log is the one that nginx writes."),
				input.List(&chosen, "bounds", "Bounds of latency, in seconds: how many requests take longer is compared too."),
			}, func() (probe.Meter, error) { return m.open(chosen) }
		},
	}
}

// meter adds up what it has read of the log.
type meter struct {
	path, status string
	bounds       []float64

	mu       sync.Mutex
	file     *os.File
	rest     []byte // of a line that has not ended
	lines    int
	totals   map[string]*probe.Totals
	answered int // by stub_status, at the start
}

func (m *meter) open(chosen []string) (probe.Meter, error) {
	var err error
	m.bounds, err = probe.ParseBounds(chosen)
	m.totals = map[string]*probe.Totals{}
	return m, err
}

// Close closes the log. A Read after it begins anew, at the end of the log.
func (m *meter) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.file == nil {
		return nil
	}
	err := m.file.Close()
	m.file, m.rest, m.lines, m.totals = nil, nil, 0, map[string]*probe.Totals{}
	return err
}

// Bounds are the bounds of the configuration.
func (m *meter) Bounds() []float64 { return m.bounds }

// Read reads what was written since it was called last; the first call, and the first after Close, begins at the end of the log.
func (m *meter) Read(ctx context.Context, of []probe.Subject) ([]*probe.Totals, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	first := m.file == nil
	if err := m.follow(); err != nil {
		return nil, fmt.Errorf("nginx: %w", err)
	}
	if m.status != "" {
		now, err := m.requests(ctx)
		if err != nil {
			return nil, err
		}
		if first {
			m.answered = now
		}
		if m.lines == 0 && now-m.answered >= silence {
			return nil, fmt.Errorf("nginx: it answered %d requests, and %s has none of them: is it the log, and without a buffer?", now-m.answered, m.path)
		}
	}
	totals := make([]*probe.Totals, len(of))
	for i, s := range of {
		t := probe.Totals{Slower: make([]int, len(m.bounds))}
		for _, at := range s.Fronts {
			known := m.totals[at]
			if known == nil {
				continue
			}
			t.Requests, t.Errors = t.Requests+known.Requests, t.Errors+known.Errors
			for i, n := range known.Slower {
				t.Slower[i] += n
			}
		}
		totals[i] = &t
	}
	return totals, nil
}

// follow reads on, over to a new file when the log was rotated.
func (m *meter) follow() error {
	if m.file == nil {
		f, err := os.Open(m.path)
		if err != nil {
			return err
		}
		if _, err := f.Seek(0, io.SeekEnd); err != nil {
			return errors.Join(err, f.Close())
		}
		m.file = f
		return nil
	}
	if err := m.read(); err != nil {
		return err
	}
	at, err := m.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	was, err := m.file.Stat()
	if err != nil {
		return err
	}
	now, err := os.Stat(m.path)
	switch {
	case errors.Is(err, os.ErrNotExist): // between two files
		return nil
	case err != nil:
		return err
	case os.SameFile(was, now) && now.Size() >= at:
		return nil
	}
	f, err := os.Open(m.path)
	if err != nil {
		return err
	}
	m.file.Close()
	m.file, m.rest = f, nil
	return m.read()
}

func (m *meter) read() error {
	from := bufio.NewReaderSize(io.LimitReader(m.file, readLimit), lineLimit)
	for {
		part, err := from.ReadSlice('\n')
		switch {
		case err == nil:
			m.line(append(m.rest, part...))
			m.rest = m.rest[:0]
		case errors.Is(err, io.EOF):
			m.rest = append(m.rest, part...)
			if len(m.rest) > lineLimit {
				m.rest = m.rest[:0]
			}
			return nil
		case errors.Is(err, bufio.ErrBufferFull): // no line of ours
			m.rest = m.rest[:0]
		default:
			return err
		}
	}
}

// line adds up one line. What is not of our format is let pass: another log may go to the same file.
func (m *meter) line(text []byte) {
	var l struct{ Upstream, Status, Seconds string }
	if json.Unmarshal(bytes.TrimSpace(text), &l) != nil || l.Upstream == "" {
		return
	}
	m.lines++
	// Servers that were tried one after the other are separated by commas, and by colons after an internal redirect.
	split := func(s string) []string { return strings.Split(strings.ReplaceAll(s, " : ", ", "), ", ") }
	statuses, seconds := split(l.Status), split(l.Seconds)
	for i, address := range split(l.Upstream) {
		t := m.totals[address]
		if t == nil {
			if len(m.totals) > 1000 {
				return // addresses from a log that is not ours cost no more memory
			}
			t = &probe.Totals{Slower: make([]int, len(m.bounds))}
			m.totals[address] = t
		}
		t.Requests++
		if i < len(statuses) {
			if status, err := strconv.Atoi(statuses[i]); err != nil || status >= 500 {
				t.Errors++
			}
		}
		for j, bound := range m.bounds {
			if i < len(seconds) {
				if took, err := strconv.ParseFloat(seconds[i], 64); err == nil && took > bound {
					t.Slower[j]++
				}
			}
		}
	}
}

// requests is the third number of stub_status's third line (https://nginx.org/en/docs/http/ngx_http_stub_status_module.html).
func (m *meter) requests(ctx context.Context) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, m.status, nil)
	if err != nil {
		return 0, fmt.Errorf("nginx: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, fmt.Errorf("nginx: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	if err != nil {
		return 0, fmt.Errorf("nginx: %w", err)
	}
	if lines := strings.Split(string(body), "\n"); response.StatusCode == http.StatusOK && len(lines) > 2 {
		if numbers := strings.Fields(lines[2]); len(numbers) == 3 {
			if n, err := strconv.Atoi(numbers[2]); err == nil {
				return n, nil
			}
		}
	}
	return 0, fmt.Errorf("nginx: %s is no stub_status: status %d, %s", m.status, response.StatusCode, probe.Line(string(body)))
}
