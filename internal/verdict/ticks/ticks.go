// Package ticks reads and writes recorded ticks: a CSV that verify records and verdict replay reads.
package ticks

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backstep/backstep/internal/verdict"
)

// Header is how the first line begins. After it come two columns for each bound of latency, which say how many requests took longer: candidate_over_0.25
// and baseline_over_0.25, in seconds; and region, whose sides these are. Others are let pass.
var Header = []string{"series", "tick", "seconds", "candidate_requests", "candidate_errors", "baseline_requests", "baseline_errors"}

const (
	candidateOver = "candidate_over_"
	baselineOver  = "baseline_over_"
)

// Reader reads ticks.
type Reader struct {
	from   *csv.Reader
	region int      // its column, or -1
	over   [][2]int // the columns of each bound
	slower []verdict.Pair
}

// Line is one line of the file.
type Line struct {
	Series, Name string // Name is the tick's
	Seconds      float64
	verdict.Tick // Slower is good until the next Read
}

// NewReader reads the header.
func NewReader(from io.Reader) (*Reader, error) {
	r := &Reader{from: csv.NewReader(from)}
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
	l.Elapsed = time.Duration(l.Seconds * float64(time.Second))
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
	return l, err
}

func more(c verdict.Counts) bool { return c.Errors > c.Requests }

func (r *Reader) fault(format string, args ...any) error {
	line, _ := r.from.FieldPos(0)
	return fmt.Errorf("line %d: "+format, append([]any{line}, args...)...)
}

// Series is what was recorded of one piece of evidence.
type Series struct {
	Name   string
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
	out := csv.NewWriter(to)
	first := slices.Clone(Header)
	for _, b := range bounds {
		name := strconv.FormatFloat(b, 'f', -1, 64)
		first = append(first, candidateOver+name, baselineOver+name)
	}
	lines := [][]string{first}
	for _, s := range all {
		for i, t := range s.Ticks {
			line := []string{s.Name, strconv.Itoa(i + 1), strconv.FormatFloat(t.Elapsed.Seconds(), 'f', 3, 64)}
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
