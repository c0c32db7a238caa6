package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"
)

// customers ask the proxy in front of a world all the time. A bad release answers them with 500; that nobody answers is an outage.
type customers struct {
	url string

	mu       sync.Mutex
	excused  bool              // something was done to containers or their engine: nobody may answer for a while
	seen     map[string]string // which releases have answered since the last look, and when each did first
	lost     []string          // requests that no release answered
	asked    int
	failed   int       // requests that no release answered while that was excused
	badSince time.Time // of the first bad answer in a row
	longest  time.Duration
	control  *control
	stalled  int // requests that nobody answered while the machine answered nobody
}

// control is a server in this process that is asked beside the customers: when it does not answer either, it is the machine that has stalled,
// and no release.
type control struct {
	server *httptest.Server

	mu     sync.Mutex
	asked  time.Time // when it was asked what it has not answered yet
	stalls []stall   // of the last minute
}

// stall is a time in which the machine did nothing for anybody.
type stall struct{ begin, end time.Time }

// How often the control is asked, and how slow it is when the machine has stalled.
const (
	controlEvery = 100 * time.Millisecond
	stallAfter   = time.Second
	stallsKept   = time.Minute
)

func newControl() *control {
	return &control{server: httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	}))}
}

// run asks until ctx is done.
func (c *control) run(ctx context.Context) {
	defer c.server.Close()
	pace := time.NewTicker(controlEvery)
	defer pace.Stop()
	for ctx.Err() == nil {
		c.begin(time.Now())
		_, _, _ = ask(ctx, c.server.URL)
		c.end(time.Now())
		select {
		case <-ctx.Done():
		case <-pace.C:
		}
	}
}

func (c *control) begin(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = now
}

func (c *control) end(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stalls = slices.DeleteFunc(c.stalls, func(s stall) bool { return now.Sub(s.end) > stallsKept })
	if now.Sub(c.asked) >= stallAfter {
		c.stalls = append(c.stalls, stall{c.asked, now})
	}
	c.asked = time.Time{}
}

// stalled says whether the machine stalled between a time and now.
func (c *control) stalled(since, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.asked.IsZero() && now.Sub(c.asked) >= stallAfter || slices.ContainsFunc(c.stalls, func(s stall) bool { return s.end.After(since) })
}

// asking is the time between two requests of the customers.
const asking = 20 * time.Millisecond

// run asks until ctx is done.
func (c *customers) run(ctx context.Context) {
	c.control = newControl()
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { c.control.run(ctx) })
	pace := time.NewTicker(asking)
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
		begin := time.Now()
		status, serves, err := c.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		c.note(begin, status, serves, err)
	}
}

// visitors ask over a new connection each time: one that is kept goes on asking the old release.
var visitors = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}

// ask is one request: its status, and which release answered, by its version and its colour.
func (c *customers) ask(ctx context.Context) (status int, serves string, err error) {
	return ask(ctx, c.url)
}

func ask(ctx context.Context, url string) (status int, serves string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	answer, err := visitors.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode, shown(string(text)), err
}

// shown is the version and the colour in a page of the shop, or "" when it is none.
func shown(page string) string {
	words := strings.Fields(page)
	if len(words) < 3 || words[0] != "shop" {
		return ""
	}
	return strings.TrimSuffix(words[1], ":") + " " + words[len(words)-1]
}

func (c *customers) note(begin time.Time, status int, serves string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	if c.seen == nil {
		c.seen = map[string]string{}
	}
	now := time.Now()
	switch {
	case serves != "" && c.seen[serves] == "":
		c.seen[serves] = now.Format(clock)
	case serves != "":
	case c.excused:
		c.failed++
	case err != nil && c.control.stalled(begin, now):
		c.stalled++
	case err != nil || status == http.StatusBadGateway || status == http.StatusServiceUnavailable:
		c.lost = append(c.lost, fmt.Sprintf("%s: %d from %q, %v", now.Format(clock), status, serves, err))
	}
	switch {
	case status == http.StatusOK || c.excused:
		c.badSince = time.Time{}
	case c.badSince.IsZero():
		c.badSince = now
	default:
		c.longest = max(c.longest, now.Sub(c.badSince))
	}
}

// outage says which requests no release answered.
func (c *customers) outage() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

// excuse lets requests fail from now on, or no longer.
func (c *customers) excuse(yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.excused = yes
}

// met are the releases that have answered since this was asked last, and when each did first.
func (c *customers) met() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := maps.Clone(c.seen)
	clear(c.seen)
	return all
}
