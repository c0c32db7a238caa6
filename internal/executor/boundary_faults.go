//go:build faults

package executor

import (
	"context"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/backstep/backstep/internal/ledger"
)

var crossed atomic.Int64

// point kills the process without a word when it is the one that BACKSTEP_KILL counts to, or names. With BACKSTEP_POINTS, a
// file, the names are written there.
func point(name string) {
	if path := os.Getenv("BACKSTEP_POINTS"); path != "" {
		if f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644); err == nil {
			f.WriteString(name + "\n")
			f.Close()
		}
	}
	wanted := strings.ReplaceAll(os.Getenv("BACKSTEP_KILL"), "-", " ")
	n, err := strconv.Atoi(wanted)
	if err == nil && crossed.Add(1) == int64(n) || err != nil && wanted == name {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

// journal has a point before and after each event.
type journal struct{ ledger.Ledger }

func bounded(l ledger.Ledger) ledger.Ledger { return journal{l} }

func (j journal) Commit(ctx context.Context, change func(ledger.Event) (ledger.Event, error)) (ledger.Event, error) {
	point("before event")
	e, err := j.Ledger.Commit(ctx, change)
	point("event " + string(e.Kind))
	return e, err
}
