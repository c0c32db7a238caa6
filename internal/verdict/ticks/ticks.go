// Package ticks reads and writes recorded ticks: a CSV that verify records and verdict replay reads.
package ticks

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backstep/backstep/internal/verdict"
)

// Header is how the first line begins. After it come two columns for each bound of latency, which say how many requests took longer: candidate_over_0.25
// and baseline_over_0.25, in seconds; and region, whose sides these are. Others are ignored. Before the header there may be a line for each
// series that says by which rule it was judged.
var Header = []string{"series", "tick", "seconds", "candidate_requests", "candidate_errors", "baseline_requests", "baseline_errors"}

const (
	candidateOver = "candidate_over_"
	baselineOver  = "baseline_over_"
)

// ruled begins a line that says by which rule a series was judged: its name and the setting, as JSON.
const ruled = "#rule "

// judged is such a line.
type judged struct {
	Series string `json:"series"`
	verdict.Setting
}

// Reader reads ticks.
type Reader struct {
	from   *csv.Reader
	lines  int // before the header
	rules  map[string]verdict.Setting
	last   map[place]time.Duration // the ends of the newest ticks
	region int                     // its column, or -1
	over   [][2]int                // the columns of each bound
	slower []verdict.Pair
}

// place is where ticks have an order.
type place struct{ series, region string }

// Rule is what a series was judged by; not ok when the file does not say.
func (r *Reader) Rule(series string) (s verdict.Setting, ok bool) {
	s, ok = r.rules[series]
	return s, ok
}

// Line is one line of the file.
type Line struct {
	Series, Name string // Name is the tick's
	Seconds      float64
	verdict.Tick // Slower is good until the next Read
}

// NewReader reads the header, and what is before it.
func NewReader(in io.Reader) (*Reader, error) {
	r := &Reader{rules: map[string]verdict.Setting{}, last: map[place]time.Duration{}}
	from := bufio.NewReader(in)
	for {
		if next, err := from.Peek(len(ruled)); err != nil || string(next) != ruled {
			break
		}
		line, err := from.ReadString('\n')
		r.lines++
		var j judged
		if err == nil {
			err = json.Unmarshal([]byte(line[len(ruled):]), &j)
		}
		if err == nil {
			_, err = j.New()
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", r.lines, err)
		}
		r.rules[j.Series] = j.Setting
	}
	r.from = csv.NewReader(from)
	r.from.ReuseRecord = true
	first, err := r.from.Read()
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(first) < len(Header) || !slices.Equal(first[:len(Header)], Header) {
		return nil, fmt.Errorf("the header has to begin with %s", strings.Join(Header, ","))
	}
	r.region = slices.Index(first, "region")
	for i, name := range first {
		if bound, ok := strings.CutPrefix(name, candidateOver); ok {
			j := slices.Index(first, baselineOver+bound)
			if j < 0 {
				return nil, fmt.Errorf("there is a column %s and none %s", name, baselineOver+bound)
			}
			r.over = append(r.over, [2]int{i, j})
		}
	}
	r.slower = make([]verdict.Pair, len(r.over))
	return r, nil
}

// Read is the next line, or io.EOF.
func (r *Reader) Read() (Line, error) {
	fields, err := r.from.Read()
	if err != nil {
		return Line{}, err
	}
	l := Line{Series: fields[0], Name: fields[1]}
	if r.region >= 0 {
		l.Region = fields[r.region]
	}
	if l.Seconds, err = strconv.ParseFloat(fields[2], 64); err != nil || !(l.Seconds > -1e9 && l.Seconds < 1e9) {
		return Line{}, r.fault("seconds %q: want a number", fields[2])
	}
	l.Elapsed = time.Duration(math.Round(l.Seconds * float64(time.Second)))
	count := func(i int) (n int) {
		value, bad := strconv.Atoi(fields[i])
		if bad != nil || value < 0 {
			err = r.fault("%q: want a number of requests", fields[i])
		}
		return value
	}
	l.Candidate = verdict.Counts{Requests: count(3), Errors: count(4)}
	l.Baseline = verdict.Counts{Requests: count(5), Errors: count(6)}
	for i, columns := range r.over {
		r.slower[i] = verdict.Pair{Candidate: verdict.Counts{Requests: l.Candidate.Requests, Errors: count(columns[0])},
			Baseline: verdict.Counts{Requests: l.Baseline.Requests, Errors: count(columns[1])}}
		if more(r.slower[i].Candidate) || more(r.slower[i].Baseline) {
			err = r.fault("there are more slow requests than requests")
		}
	}
	if err == nil && (more(l.Candidate) || more(l.Baseline)) {
		err = r.fault("there are more errors than requests")
	}
	l.Slower = r.slower
	at := place{l.Series, l.Region}
	if last, ok := r.last[at]; ok && err == nil && l.Elapsed < last {
		err = r.fault("seconds %s: the tick before it ended at %s; they must be in order", fields[2], seconds(last))
	}
	r.last[at] = l.Elapsed
	return l, err
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

func more(c verdict.Counts) bool { return c.Errors > c.Requests }

func (r *Reader) fault(format string, args ...any) error {
	line, _ := r.from.FieldPos(0)
	return fmt.Errorf("line %d: "+format, append([]any{r.lines + line}, args...)...)
}

// Series is what was recorded of one piece of evidence.
type Series struct {
	Name   string
	Rule   verdict.Setting
	Bounds []float64 // of latency, in seconds
	Ticks  []verdict.Tick
}

// Write writes all series to one file. A series that lacks a bound of another one has no slow requests there.
func Write(to io.Writer, all []Series) error {
	var bounds []float64
	for _, s := range all {
		bounds = append(bounds, s.Bounds...)
	}
	slices.Sort(bounds)
	bounds = slices.Compact(bounds)
	for _, s := range all {
		if s.Rule.Rule == "" {
			continue
		}
		line, err := json.Marshal(judged{s.Name, s.Rule})
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(to, "%s%s\n", ruled, line); err != nil {
			return err
		}
	}
	out := csv.NewWriter(to)
	first := slices.Clone(Header)
	for _, b := range bounds {
		name := strconv.FormatFloat(b, 'f', -1, 64)
		first = append(first, candidateOver+name, baselineOver+name)
	}
	lines := [][]string{first}
	for _, s := range all {
		for i, t := range s.Ticks {
			line := []string{s.Name, strconv.Itoa(i + 1), seconds(t.Elapsed)}
			add := func(n ...int) {
				for _, n := range n {
					line = append(line, strconv.Itoa(n))
				}
			}
			add(t.Candidate.Requests, t.Candidate.Errors, t.Baseline.Requests, t.Baseline.Errors)
			for _, b := range bounds {
				j := slices.Index(s.Bounds, b)
				if j < 0 || j >= len(t.Slower) {
					add(0, 0)
					continue
				}
				add(t.Slower[j].Candidate.Errors, t.Slower[j].Baseline.Errors)
			}
			lines = append(lines, line)
		}
	}
	return out.WriteAll(lines)
}
