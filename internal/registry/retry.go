package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"
)

const (
	firstPause = 50 * time.Millisecond
	longPause  = 5 * time.Second  // between two tries, unless the registry asks for more
	budget     = 30 * time.Second // for all tries of one request, and the longest Retry-After

	tryTimeout    = 5 * time.Second  // for one try of a small request: dial, TLS handshake, headers and body
	headerTimeout = 60 * time.Second // from the end of a big upload until the registry begins to answer
)

// network is the transport under everything. What bounds a small request is the deadline of its try; these limits are
// for uploads and downloads of layers, which may take as long as they move.
func network() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 8
	t.DialContext = (&net.Dialer{Timeout: tryTimeout, KeepAlive: 30 * time.Second}).DialContext
	t.OnProxyConnectResponse = throughProxy
	t.TLSHandshakeTimeout = tryTimeout
	t.ResponseHeaderTimeout = headerTimeout
	// Over HTTP/2 all requests share one connection: without pings a dead one would be used for every new try.
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: tryTimeout, PingTimeout: tryTimeout}
	return t
}

type (
	tryKey  struct{} // of the time.Duration that one try may take
	onceKey struct{} // of true, for requests that are never repeated
)

// small marks the requests under ctx: each try of one has limit, its body included.
func small(ctx context.Context, limit time.Duration) context.Context {
	return context.WithValue(ctx, tryKey{}, limit)
}

// Once makes requests under the context go out once: neither a broken connection nor a busy registry lets one be
// repeated. It is for a write whose late duplicate would do harm.
func Once(ctx context.Context) context.Context { return context.WithValue(ctx, onceKey{}, true) }

func isOnce(ctx context.Context) bool {
	once, _ := ctx.Value(onceKey{}).(bool)
	return once
}

// retrying repeats a request that the registry could not serve, did not answer, or whose connection broke. Only what can be
// repeated is: nearly everything that we write by PUT is named by its content, and the rest goes out under Once.
type retrying struct{ next http.RoundTripper }

func (t retrying) RoundTrip(request *http.Request) (*http.Response, error) {
	end := time.Now().Add(budget)
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		response, err := t.try(request)
		wait := pause/2 + rand.N(pause) // #nosec G404 -- clients only have to differ
		switch {
		case err != nil && !broken(request, err), err == nil && !busy(response.StatusCode), !repeatable(request):
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
	}
}

// try sends the request once, within its deadline if it is a small one.
func (t retrying) try(request *http.Request) (*http.Response, error) {
	ctx, cancel := request.Context(), context.CancelFunc(func() {})
	limit, limited := ctx.Value(tryKey{}).(time.Duration)
	if limited {
		ctx, cancel = context.WithTimeout(ctx, limit)
	}
	sent := request.WithContext(ctx)
	if request.GetBody != nil {
		// Always a fresh body: the authenticating transport above sends a request again as it is, its body used
		// up, when the token has expired.
		body, err := request.GetBody()
		if err != nil {
			cancel()
			return nil, err
		}
		request.Body.Close()
		sent.Body = body
	}
	response, err := t.next.RoundTrip(sent)
	if err != nil {
		if limited && ctx.Err() != nil && request.Context().Err() == nil {
			err = fmt.Errorf("no answer within %s: %w", limit, err)
		}
		cancel()
		return nil, err
	}
	response.Body = &cancelling{response.Body, cancel}
	return response, nil
}

// cancelling is a body that ends the deadline of its try when it is closed.
type cancelling struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (c *cancelling) Close() error {
	defer c.cancel()
	return c.ReadCloser.Close()
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
	return !isOnce(r.Context()) && r.Method != http.MethodPatch && (r.Body == nil || r.Body == http.NoBody || r.GetBody != nil)
}

func busy(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// broken says whether the connection failed, or the try ran out of its own time and not of its caller's.
func broken(request *http.Request, err error) bool {
	return request.Context().Err() == nil && cutOff(err)
}

// cutOff says whether there was a connection, or might have been, that brought no answer. Where nobody listens, or nobody
// knows the name, waiting does not help.
func cutOff(err error) bool {
	var timed net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.As(err, &timed) && timed.Timeout()
}

// retryAfter is how long to wait for the next try, up to the budget; 0 when the registry does not say.
func retryAfter(h http.Header, now time.Time) time.Duration { return min(asksToWait(h, now), budget) }

// asksToWait reads the header of RFC 9110, seconds or a date, and the end of a limit in seconds of Unix time, as GitHub has it; 0
// when there is none.
func asksToWait(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil && seconds > 0 {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now))
	}
	if end, err := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64); err == nil {
		return max(0, time.Unix(end, 0).Sub(now))
	}
	return 0
}
