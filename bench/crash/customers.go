package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// customers ask the proxy of a target all the time. A bad release answers them with 500; that nobody answers is an outage.
type customers struct {
	url string

	mu       sync.Mutex
	lost     []string  // requests that no release answered
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

// ask is one request: its status, and which release answered, as the first digits of its digest.
func (c *customers) ask(ctx context.Context) (status int, serves string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, nil)
	if err != nil {
		return 0, "", err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, answer.Header.Get("X-Backstep-Release"), err
}

func (c *customers) note(status int, serves string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil || status == http.StatusBadGateway || status == http.StatusServiceUnavailable {
		c.lost = append(c.lost, fmt.Sprintf("%s: %d from %q, %v", time.Now().Format(clock), status, serves, err))
	}
	switch {
	case status == http.StatusOK:
		c.badSince = time.Time{}
	case c.badSince.IsZero():
		c.badSince = time.Now()
	default:
		c.longest = max(c.longest, time.Since(c.badSince))
	}
}

// outage says which requests no release answered.
func (c *customers) outage() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}
