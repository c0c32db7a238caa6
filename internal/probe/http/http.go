// Package http is the probe that asks a release over HTTP.
package http

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/theory/jsonpath"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/probe"
	"github.com/backstep/backstep/internal/secret"
)

const (
	bodyLimit   = 64 << 10 // bytes read of an answer
	headerLimit = 64 << 10
)

// Kind is the http probe.
func Kind() probe.Kind {
	return probe.Kind{
		Name:  "http",
		Help:  "Passes when a request gets a status in a range and, if asked for, a body, values in its JSON, headers and a latency that match.",
		Every: 100 * time.Millisecond,
		New: func() ([]input.Input, func() (probe.Probe, error)) {
			p := &question{}
			return append([]input.Input{
				input.String(&p.path, "path", "The path to ask for, with its query.").Or("/").
					Matching(regexp.MustCompile(`^/[^\x00-\x20\x7f]*$`), "/health"),
				input.String(&p.method, "method", "The method.").OneOf("GET", "HEAD").Or("GET"),
				input.Secrets(&p.headers, "headers", "Headers of the request."),
				input.String(&p.host, "host", "The host to ask for; empty is the address of the release. The connection goes to the release all the same: "+
					"a new release is asked behind the name of the old one."),
				input.String(&p.scheme, "scheme", "http or https.").OneOf("http", "https").Or("http"),
				input.String(&p.version, "version", "The version of HTTP: what the server prefers, 1.1 or 2.").OneOf("any", "1.1", "2").Or("any"),
				input.Bind(&p.status, "status", "The status codes of a healthy answer. A redirect is an answer like any other.", parseSpan).Or("200-399"),
				input.Bind(&p.body, "body", "A regular expression (RE2) that the first 64 KiB of the body have to match.", regexp.Compile),
				input.List(&p.wantJSON, "json", "JSONPaths (RFC 9535) of the body, each with the regular expression that a value there has to match: [$.database ~ ^up$]."),
				input.Map(&p.wantHeaders, "answer-headers", "Headers of the answer with the regular expression that they have to match."),
				input.Duration(&p.within, "within", "The latency of a healthy answer, with the connection; any when it is left out."),
				input.Bool(&p.keep, "keep", "Keep connections open between checks, as browsers do. One that was made to a release goes on asking that release."),
			}, p.tls.Inputs()...), func() (probe.Probe, error) { return p.open() }
		},
	}
}

// question is a configured probe.
type question struct {
	path, method, host, scheme, version string
	status                              span
	body                                *regexp.Regexp
	wantJSON                            []string
	headers                             map[string]secret.Value
	wantHeaders                         map[string]string
	within                              time.Duration
	keep                                bool
	tls                                 probe.TLS

	values  []value // of the body's JSON
	answers []value // of the answer's headers; where is the name
	config  *tls.Config

	mu    sync.Mutex
	kept  map[string]*http.Transport // by address, when connections are kept
	fresh *http.Transport
}

// value is what has to match somewhere.
type value struct {
	where string
	path  *jsonpath.Path
	want  *regexp.Regexp
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

func (p *question) open() (probe.Probe, error) {
	config, err := p.tls.Config()
	if err != nil {
		return nil, err
	}
	if p.scheme == "http" && p.tls.Given() {
		return nil, fault.Inputf("ca, certificate and key need scheme: https")
	}
	p.config = config
	if name, _, err := net.SplitHostPort(p.host); err == nil {
		p.config.ServerName = name
	} else {
		p.config.ServerName = p.host
	}
	for _, line := range p.wantJSON {
		where, pattern, ok := strings.Cut(line, " ~ ")
		if !ok {
			return nil, fault.Inputf("json: %q: want for example $.database ~ ^up$", line)
		}
		path, err := jsonpath.Parse(where)
		if err != nil {
			return nil, fault.Inputf("json: %q: %w", where, err)
		}
		want, err := regexp.Compile(pattern)
		if err != nil {
			return nil, fault.Inputf("json: %s: %w", where, err)
		}
		p.values = append(p.values, value{where, path, want})
	}
	for name, pattern := range p.wantHeaders {
		want, err := regexp.Compile(pattern)
		if err != nil {
			return nil, fault.Inputf("answer-headers: %s: %w", name, err)
		}
		p.answers = append(p.answers, value{where: name, want: want})
	}
	slices.SortFunc(p.answers, func(a, b value) int { return strings.Compare(a.where, b.where) })
	p.kept, p.fresh = map[string]*http.Transport{}, p.transport()
	return p, nil
}

// transport makes connections to whatever address the request's context holds.
func (p *question) transport() *http.Transport {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(p.version != "2")
	protocols.SetHTTP2(p.version != "1.1" && p.scheme == "https")
	protocols.SetUnencryptedHTTP2(p.version == "2" && p.scheme == "http")
	return &http.Transport{DisableKeepAlives: !p.keep, DisableCompression: true, MaxResponseHeaderBytes: headerLimit,
		TLSClientConfig: p.config, Protocols: protocols,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, ctx.Value(addressKey{}).(string))
		}}
}

type addressKey struct{}

// to is the transport for an address.
func (p *question) to(address string) *http.Transport {
	if !p.keep {
		return p.fresh
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept[address] == nil {
		p.kept[address] = p.transport()
	}
	return p.kept[address]
}

// Check asks once.
func (p *question) Check(ctx context.Context, address string) probe.Result {
	result := probe.Checked(func() (probe.Outcome, string) { return p.ask(ctx, address) })
	if result.Outcome == probe.Pass && p.within > 0 && result.Took > p.within {
		result.Outcome, result.Got = probe.Fail, "it took "+result.Took.Round(time.Millisecond).String()
	}
	return result
}

func (p *question) ask(ctx context.Context, address string) (probe.Outcome, string) {
	host := p.host
	if host == "" {
		host = address
	}
	at, err := url.Parse(p.scheme + "://" + host + p.path)
	if err != nil {
		return probe.NoData, probe.Line(err.Error())
	}
	request, err := http.NewRequestWithContext(context.WithValue(ctx, addressKey{}, address), p.method, at.String(), nil)
	if err != nil {
		return probe.NoData, probe.Line(err.Error())
	}
	for key, value := range p.headers {
		request.Header.Set(key, value.Reveal())
	}
	response, err := p.to(address).RoundTrip(request) // a redirect is an answer like any other
	if err != nil {
		return probe.Unanswered(ctx, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, bodyLimit))
	switch {
	case response.StatusCode < p.status.low || response.StatusCode > p.status.high:
		return probe.Fail, probe.Line(fmt.Sprintf("status %d: %s", response.StatusCode, body))
	case err != nil:
		return probe.Unanswered(ctx, err)
	case p.body != nil && !p.body.Match(body):
		return probe.Fail, probe.Line("body " + string(body))
	}
	for _, v := range p.answers {
		if got := response.Header.Get(v.where); !v.want.MatchString(got) {
			return probe.Fail, probe.Line(fmt.Sprintf("header %s: %s", v.where, got))
		}
	}
	if len(p.values) == 0 {
		return probe.Pass, ""
	}
	var document any
	if err := json.Unmarshal(body, &document); err != nil {
		return probe.Fail, probe.Line("no JSON: " + string(body))
	}
	for _, v := range p.values {
		if got := v.path.Select(document); !slices.ContainsFunc(got, func(found any) bool { return v.want.MatchString(text(found)) }) {
			return probe.Fail, probe.Line(fmt.Sprintf("%s is %v", v.where, got))
		}
	}
	return probe.Pass, ""
}

// text is a JSON value as a pattern sees it: a string without its quotes.
func text(found any) string {
	if s, ok := found.(string); ok {
		return s
	}
	written, err := json.Marshal(found)
	if err != nil {
		return fmt.Sprint(found)
	}
	return string(written)
}
