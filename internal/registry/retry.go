package registry

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"syscall"
	"time"
)

const (
	firstPause = 50 * time.Millisecond
	longPause  = 5 * time.Second  // between two tries, unless the registry asks for more
	budget     = 30 * time.Second // for all tries of one request, and the longest Retry-After
)

// retrying repeats a request that the registry could not serve or whose connection broke. Only what can be
// repeated is: everything we write by PUT is named by its content, or is held by a flag.
type retrying struct{ next http.RoundTripper }

func (t retrying) RoundTrip(request *http.Request) (*http.Response, error) {
	end := time.Now().Add(budget)
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		response, err := t.next.RoundTrip(request)
		wait := pause/2 + rand.N(pause)
		switch {
		case err != nil && !broken(err), err == nil && !busy(response.StatusCode), !repeatable(request):
			return response, err
		case err == nil:
			wait = max(wait, retryAfter(response.Header, time.Now()))
		}
		if time.Now().Add(wait).After(end) {
			return response, err
		}
		if err == nil {
			io.Copy(io.Discard, io.LimitReader(response.Body, 1<<16))
			response.Body.Close()
		}
		if err := sleep(request.Context(), wait); err != nil {
			return nil, err
		}
		if request.GetBody != nil {
			body, err := request.GetBody()
			if err != nil {
				return nil, err
			}
			request = request.Clone(request.Context())
			request.Body = body
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// repeatable says whether the request may be sent again: an upload that is started twice does no harm
// either, but its data are sent only once.
func repeatable(r *http.Request) bool {
	return r.Method != http.MethodPatch && (r.Body == nil || r.Body == http.NoBody || r.GetBody != nil)
}

func busy(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

func broken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// retryAfter reads the header of RFC 9110, seconds or a date, up to the budget; 0 when there is none.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil && seconds > 0 {
		return min(time.Duration(seconds)*time.Second, budget)
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(0, at.Sub(now)), budget)
	}
	return 0
}
