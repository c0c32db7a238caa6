package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// storm is what happens to containers, or to their engine.
type storm int

const (
	stillness     storm = iota
	crashed             // a container's process ends, and the engine starts it again
	killed              // docker kill, and docker start after a while
	restarted           // docker restart
	reordered           // all are stopped, and started in another order
	stoppedEngine       // and started again
	killedEngine        // with SIGKILL, and started again
	storms              // how many there are, with none
)

func (s storm) String() string {
	return [...]string{"", "a container crashes", "docker kill and start", "docker restart", "all stopped and started in another order", "engine stopped and started", "engine killed and started"}[s]
}

// longestPause is how long an engine or a container is away at the most.
const longestPause = 3 * time.Second

// rage carries the storm out. When it returns, the engine answers, and what was running is started again.
func (h *house) rage(ctx context.Context, s storm, random *rand.Rand) error {
	pause := func() { sleep(ctx, time.Duration(random.Int64N(int64(longestPause)))) }
	for _, w := range h.worlds {
		w.customers.excuse(true)
	}
	all, err := h.engine.boxes(ctx)
	if err != nil {
		return fmt.Errorf("list the containers: %w", err)
	}
	var running []box
	for _, b := range all {
		if b.State.Running && b.State.Pid > 0 { // what is about to be restarted has no process, and 0 would be all of ours
			running = append(running, b)
		}
	}
	random.Shuffle(len(running), func(i, j int) { running[i], running[j] = running[j], running[i] })
	if s == crashed || s == killed || s == restarted {
		running = running[:min(len(running), 1+random.IntN(2))]
	}
	if s == stoppedEngine || s == killedEngine {
		h.engine.end(map[storm]syscall.Signal{stoppedEngine: syscall.SIGTERM, killedEngine: syscall.SIGKILL}[s])
		pause()
		h.restarts++
		if err := h.engine.start(ctx); err != nil {
			return err
		}
	}
	// What a run removes in the meantime cannot be changed any more: faults are no matter here.
	do := func(b box, what string) {
		_ = h.engine.call(ctx, http.MethodPost, "/containers/"+b.ID+"/"+what, nil, nil)
	}
	switch s {
	case crashed:
		for _, b := range running {
			syscall.Kill(b.State.Pid, syscall.SIGKILL)
		}
	case killed:
		for _, b := range running {
			do(b, "kill")
		}
		pause()
	case restarted:
		for _, b := range running {
			do(b, "restart?t=1")
		}
	case reordered:
		var stops sync.WaitGroup
		for _, b := range running {
			stops.Go(func() { do(b, "stop?t=1") })
		}
		stops.Wait()
	}
	byHand := s == killed || s == reordered
	for _, b := range running {
		if err := h.revive(ctx, b.ID, byHand); err != nil {
			return err
		}
	}
	return nil
}

// longestStart is how long a container may take that the engine starts by itself.
const longestStart = 5 * time.Second

// revive waits until a container answers again that was running before, unless a run has put it away since, or removed it. One that was
// stopped by hand is started by hand.
func (h *house) revive(ctx context.Context, id string, byHand bool) error {
	begin := time.Now()
	for ; ctx.Err() == nil; sleep(ctx, 50*time.Millisecond) {
		now, err := h.engine.box(ctx, id)
		if err != nil || now.parked() {
			break
		}
		if _, serves, err := ask(ctx, "http://"+now.front()); now.State.Running && (err == nil && serves != "" || now.front() == "") {
			break
		}
		late := time.Since(begin)
		if !byHand && late > longestStart { // a run has stopped it, and died
			break
		}
		if byHand && !now.State.Running {
			err = h.engine.call(ctx, http.MethodPost, "/containers/"+id+"/start", nil, nil)
		}
		if byHand && late > engineTime {
			return fmt.Errorf("start container %s: %w: %s", now.Name, err, h.engine.said())
		}
	}
	return ctx.Err()
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
