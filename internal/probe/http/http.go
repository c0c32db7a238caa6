// Package http is the probe that asks a release over HTTP.
package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/probe"
)

const (
	bodyLimit   = 64 << 10 // bytes read of an answer
	headerLimit = 64 << 10
	gotLimit    = 200 // bytes of Result.Got
)

// Kind is the http probe.
func Kind() probe.Kind {
	return probe.Kind{
		Name: "http",
		Help: "Passes when a request gets a status in a range and, if asked for, a body that matches.",
		New: func() ([]input.Input, func() (probe.Probe, error)) {
			var p question
			return []input.Input{
				input.String(&p.path, "path", "The path to ask for, with its query.").Or("/").
					Matching(regexp.MustCompile(`^/[^\x00-\x20\x7f]*$`), "/health"),
				input.String(&p.method, "method", "The method.").OneOf("GET", "HEAD").Or("GET"),
				input.Bind(&p.status, "status", "The status codes of a healthy answer. A redirect is an answer like any other.", parseSpan).Or("200-399"),
				input.Bind(&p.body, "body", "A regular expression (RE2) that the first 64 KiB of the body have to match.", regexp.Compile),
				input.Map(&p.headers, "headers", "Headers of the request."),
				input.String(&p.host, "host", "The host to ask for; empty is the address of the release."),
			}, func() (probe.Probe, error) { return p.open() }
		},
	}
}

// question is a configured probe.
type question struct {
	path, method, host string
	status             span
	body               *regexp.Regexp
	headers            map[string]string
	client             *http.Client
}

// span is a range of status codes, both ends included.
type span struct{ low, high int }

func parseSpan(s string) (span, error) {
	low, high, two := strings.Cut(s, "-")
	if !two {
		high = low
	}
	a, errA := strconv.Atoi(low)
	b, errB := strconv.Atoi(high)
	if errA != nil || errB != nil || a < 100 || b > 599 || a > b {
		return span{}, fmt.Errorf("%q is no range of status codes: want for example 200 or 200-399", s)
	}
	return span{a, b}, nil
}

func (p question) open() (probe.Probe, error) {
	p.client = &http.Client{
		Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: headerLimit},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
	return p, nil
}

// Check asks once.
func (p question) Check(ctx context.Context, address string) probe.Result {
	begin := time.Now()
	outcome, got := p.ask(ctx, address)
	return probe.Result{Outcome: outcome, Got: got, Took: time.Since(begin)}
}

func (p question) ask(ctx context.Context, address string) (probe.Outcome, string) {
	at, err := url.Parse("http://" + address + p.path)
	if err != nil {
		return probe.NoData, quote(err.Error())
	}
	request, err := http.NewRequestWithContext(ctx, p.method, at.String(), nil)
	if err != nil {
		return probe.NoData, quote(err.Error())
	}
	for key, value := range p.headers {
		request.Header.Set(key, value)
	}
	request.Host = p.host
	response, err := p.client.Do(request)
	if err != nil {
		return unanswered(ctx, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, bodyLimit))
	switch {
	case response.StatusCode < p.status.low || response.StatusCode > p.status.high:
		return probe.Fail, quote(fmt.Sprintf("status %d: %s", response.StatusCode, body))
	case err != nil:
		return unanswered(ctx, err)
	case p.body != nil && !p.body.Match(body):
		return probe.Fail, quote("body " + string(body))
	}
	return probe.Pass, ""
}

// unanswered tells a release that does not answer from a question that could not be asked.
func unanswered(ctx context.Context, err error) (probe.Outcome, string) {
	if errors.Is(ctx.Err(), context.Canceled) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
		errors.Is(err, syscall.EADDRNOTAVAIL) {
		return probe.NoData, quote(err.Error())
	}
	var timeout net.Error
	if errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		return probe.Fail, "no answer in time"
	}
	var refused *url.Error
	if errors.As(err, &refused) {
		err = refused.Err
	}
	return probe.Fail, quote(err.Error())
}

// quote makes one printable line of what a server said.
func quote(s string) string {
	s = strconv.Quote(strings.TrimSpace(s[:min(len(s), gotLimit)]))
	s = s[1 : len(s)-1]
	return s[:min(len(s), gotLimit)]
}
