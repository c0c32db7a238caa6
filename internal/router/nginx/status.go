package nginx

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/target"
)

const (
	answerLimit  = 16 << 10        // bytes of the status
	answerWithin = 5 * time.Second // for one answer
)

// ask is what nginx has loaded, asked on a connection of its own: a kept one would go on asking a worker that is on its way out.
func (f *front) ask(ctx context.Context) (serves, error) {
	conn, now, _, err := f.open(ctx)
	if err != nil {
		return serves{}, err
	}
	conn.Close()
	return now, nil
}

// open asks on a new connection, and says whether nginx keeps it.
func (f *front) open(ctx context.Context) (conn net.Conn, now serves, kept bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	at, err := url.Parse(f.status)
	if err != nil {
		return nil, serves{}, false, fault.Inputf("nginx: status: %w", err)
	}
	address := at.Host
	if at.Port() == "" {
		address = net.JoinHostPort(at.Hostname(), "80")
	}
	conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, serves{}, false, fault.Errorf(fault.Failed, "nginx: %w: %w", target.ErrUnreachable, err).
			WithHint("is nginx running, with a server that listens on %s and says: return 200 $%s", address, f.variable())
	}
	now, kept, err = f.said(ctx, conn)
	if err != nil {
		return nil, serves{}, false, errors.Join(err, conn.Close())
	}
	return conn, now, kept, nil
}

// said asks on a connection.
func (f *front) said(ctx context.Context, conn net.Conn) (now serves, kept bool, err error) {
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, f.status, nil)
	if err != nil {
		return serves{}, false, fault.Inputf("nginx: status: %w", err)
	}
	if err := request.Write(conn); err != nil {
		return serves{}, false, fmt.Errorf("nginx: %w: %w", target.ErrUnreachable, err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		return serves{}, false, fmt.Errorf("nginx: %w: %w", target.ErrUnreachable, err)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, answerLimit))
	if err != nil {
		return serves{}, false, fmt.Errorf("nginx: %w: %w", target.ErrUnreachable, err)
	}
	text := strings.TrimSpace(string(body))
	if answer.StatusCode == http.StatusOK {
		now, err = parseServes(f.upstream, text)
	} else {
		err = fmt.Errorf("status %d", answer.StatusCode)
	}
	if err != nil {
		return serves{}, false, fault.Inputf("nginx: %s does not say who serves: %w", f.status, err).
			WithHint("its location needs the line: return 200 $%s; and nginx has to include %s", f.variable(), f.file)
	}
	return now, !answer.Close, nil
}

// holds is how many connections are held while nginx reloads. Which workers take them is chance; all workers are told to leave at the
// same moment.
const holds = 8

// unheldFor is how long only new workers have to answer where nginx keeps no connections.
const unheldFor = 300 * time.Millisecond

// held are idle connections with the workers of before a reload. A worker that is told to leave stops listening first, and then
// closes its idle connections (ngx_worker_process_cycle): once these end, no former worker takes another one.
type held struct {
	conns []net.Conn
	gone  []chan struct{}
	since time.Time // when nothing is held
}

func (f *front) hold(ctx context.Context) (held, error) {
	var h held
	for range holds {
		conn, _, kept, err := f.open(ctx)
		if err != nil {
			h.close()
			return held{}, err
		}
		if !kept {
			conn.Close()
			continue
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = conn.Read(make([]byte, 1)) // nothing comes but the end
		}()
		h.conns, h.gone = append(h.conns, conn), append(h.gone, ended)
	}
	return h, nil
}

// ended says whether all of them have ended; it is asked after nginx has said that it has loaded the file.
func (h *held) ended() bool {
	if len(h.gone) == 0 {
		if h.since.IsZero() {
			h.since = time.Now()
		}
		return time.Since(h.since) >= unheldFor
	}
	for _, gone := range h.gone {
		select {
		case <-gone:
		default:
			return false
		}
	}
	return true
}

func (h *held) close() {
	for i, conn := range h.conns {
		conn.Close()
		<-h.gone[i]
	}
}
