package executor

import (
	"context"
	"sync"
	"time"

	"github.com/backstep/backstep/internal/config"
	"github.com/backstep/backstep/internal/probe"
)

// alarm is a watch over all bakes of one run: what was red before the first of them is no evidence in any.
type alarm struct {
	watch config.ProbeConfig
	begin time.Time

	mu   sync.Mutex
	old  map[string]bool // the alerts that were firing when it began
	from time.Time       // when it began, by the clock of who tells of the alerts; zero until it has answered
}

// clockStep is how much later than it seems the clock of a server may be: it tells whole seconds.
const clockStep = time.Second

// watchAlerts says which new alert is firing, once for each watch.
func (x *Executor) watchAlerts(ctx context.Context, running *sync.WaitGroup, of probe.Subject, begin time.Time, said chan<- string) {
	if x.alarms == nil {
		x.alarms = map[string]*alarm{}
	}
	for _, p := range x.Config.Verify.Probes {
		if p.Err != nil || p.Watch == nil {
			continue
		}
		if x.alarms[p.Name] == nil {
			x.alarms[p.Name] = &alarm{watch: p, begin: begin, old: map[string]bool{}}
		}
		a := x.alarms[p.Name]
		running.Go(func() { x.heed(ctx, a, of, said) })
	}
}

// heed asks until there is a new alert. Nobody who answers is no evidence either way, and is told once.
func (x *Executor) heed(ctx context.Context, a *alarm, of probe.Subject, said chan<- string) {
	pace := time.NewTicker(a.watch.Every)
	defer pace.Stop()
	for mute := false; ; {
		one, cancel := context.WithTimeout(ctx, a.watch.Timeout)
		alerts, now, err := a.watch.Watch.Firing(one, of)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if !mute {
				x.log.Warn("no data: whether an alert is firing is not known", "watch", a.watch.Name, "error", err)
			}
			mute = true
		default:
			mute = false
			if reason := x.news(a, alerts, now); reason != "" {
				said <- reason
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
	}
}

// news is the first of the alerts that was not firing before; "" when there is none. What is firing when it is asked at the beginning, and
// what has begun before, is old and stays so: it may fire, end and fire again.
func (x *Executor) news(a *alarm, alerts []probe.Alert, now time.Time) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	first := a.from.IsZero()
	late := time.Since(a.begin)
	if first {
		a.from = now.Add(clockStep - late)
	}
	for _, alert := range alerts {
		if a.old[alert.ID] {
			continue
		}
		if first && late < a.watch.Every+a.watch.Timeout || !alert.Since.IsZero() && alert.Since.Before(a.from) || first && alert.Since.IsZero() {
			a.old[alert.ID] = true
			x.log.Warn("an alert was firing before: it is no evidence", "watch", a.watch.Name, "alert", alert.Text)
			continue
		}
		reason := "the alert " + alert.Text
		if !alert.Since.IsZero() {
			reason += " (firing since " + alert.Since.UTC().Format(time.TimeOnly) + " UTC)"
		}
		return reason
	}
	return ""
}
