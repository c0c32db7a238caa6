package demo

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"
)

// answer is what one customer got.
type answer struct {
	at      time.Time // when the answer came
	release string    // the short digest that answered; "" when none did
	good    bool
}

// traffic is a steady stream of customers, each with a new connection, whatever the answers take.
type traffic struct {
	mu      sync.Mutex
	answers []answer
}

// run sends rate requests a second to url until ctx is done, and returns when all are answered.
func (t *traffic) run(ctx context.Context, url string, rate int) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	var customers sync.WaitGroup
	defer customers.Wait()
	pace := time.NewTicker(time.Second / time.Duration(rate))
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
			customers.Go(func() { t.ask(client, url) })
		}
	}
}

func (t *traffic) ask(client *http.Client, url string) {
	a := answer{}
	response, err := client.Get(url)
	if err == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(response.Body, 1<<16))
		response.Body.Close()
		a.release = response.Header.Get("X-Backstep-Release")
		a.good = err == nil && response.StatusCode < 500
	}
	a.at = time.Now()
	t.mu.Lock()
	t.answers = append(t.answers, a)
	t.mu.Unlock()
}

// tally is the traffic in numbers.
type tally struct {
	requests, failed  int
	firstBad, lastBad time.Time
	goodSince         int // good answers after the last bad one
	bySource          map[string]int
}

// since adds up the answers that came after start.
func (t *traffic) since(start time.Time) tally {
	t.mu.Lock()
	defer t.mu.Unlock()
	sum := tally{bySource: map[string]int{}}
	for _, a := range t.answers {
		if a.at.Before(start) {
			continue
		}
		sum.requests++
		sum.bySource[a.release]++
		if a.good {
			continue
		}
		sum.failed++
		if sum.firstBad.IsZero() || a.at.Before(sum.firstBad) {
			sum.firstBad = a.at
		}
		if a.at.After(sum.lastBad) {
			sum.lastBad = a.at
		}
	}
	for _, a := range t.answers {
		if a.good && a.at.After(sum.lastBad) && !sum.lastBad.IsZero() {
			sum.goodSince++
		}
	}
	return sum
}
