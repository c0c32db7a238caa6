package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
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
}

// asking is the time between two requests of the customers.
const asking = 20 * time.Millisecond

// run asks until ctx is done.
func (c *customers) run(ctx context.Context) {
	pace := time.NewTicker(asking)
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
		status, serves, err := c.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		c.note(status, serves, err)
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

func (c *customers) note(status int, serves string, err error) {
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
