// Package haproxy is the meter that reads HAProxy's counters of each server.
package haproxy

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/backstep/backstep/internal/haproxysocket"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/probe"
)

// Kind is the haproxy meter.
func Kind() probe.Kind {
	return probe.Kind{
		Name: "haproxy",
		Help: "Counts the requests that HAProxy sent to a release, by the address of its server: status 5xx, a refused connection and a broken or late answer are errors.",
		// Counters in memory: a read costs HAProxy less than a request.
		Every: 100 * time.Millisecond,
		NewMeter: func() ([]input.Input, func() (probe.Meter, error)) {
			var m meter
			return []input.Input{
				input.String(&m.socket, "socket", "The stats socket: a path, or host:port.").Must(),
				input.String(&m.backend, "backend", "The backend with the releases.").Must().
					Matching(regexp.MustCompile(`^[A-Za-z0-9_.:-]+$`), "shop"),
			}, func() (probe.Meter, error) { return m, nil }
		},
	}
}

type meter struct{ socket, backend string }

// Bounds are none: HAProxy keeps averages of latency only.
func (meter) Bounds() []float64 { return nil }

// The counters of https://docs.haproxy.org/2.6/management.html#9.1. A request that got no answer of the server is in econ or
// eresp and in none of the others: HAProxy made up the 502, 503 or 504 itself.
var (
	answered = []string{"hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx", "hrsp_other", "econ", "eresp"}
	failed   = []string{"hrsp_5xx", "econ", "eresp"}
)

// Read reads the counters.
func (m meter) Read(ctx context.Context, of []probe.Subject) ([]*probe.Totals, error) {
	rows, err := haproxysocket.Stats(ctx, m.socket)
	if err != nil {
		return nil, err
	}
	totals, known := make([]*probe.Totals, len(of)), false
	for _, row := range rows {
		if row["pxname"] != m.backend {
			continue
		}
		known = true
		for i, s := range of {
			if !slices.Contains(s.Fronts, row["addr"]) {
				continue
			}
			requests, err := sum(row, answered)
			if err != nil {
				return nil, err
			}
			errors, err := sum(row, failed)
			if err != nil {
				return nil, err
			}
			if totals[i] == nil {
				totals[i] = &probe.Totals{}
			}
			totals[i].Requests += requests
			totals[i].Errors += errors
		}
	}
	if !known {
		return nil, fmt.Errorf("haproxy: no backend %s", m.backend)
	}
	return totals, nil
}

func sum(row haproxysocket.Row, columns []string) (int, error) {
	all := 0
	for _, c := range columns {
		n, err := strconv.Atoi(row[c])
		if err != nil || n < 0 || n > math.MaxInt/len(columns) {
			return 0, fmt.Errorf("haproxy: %s of %s/%s is %q: its mode has to be http", c, row["pxname"], row["svname"], row[c])
		}
		all += n
	}
	return all, nil
}
