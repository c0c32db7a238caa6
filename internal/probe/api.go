package probe

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/secret"
)

// AnswerLimit bounds what is read of an API's answer, in bytes.
const AnswerLimit = 8 << 20

// API is a service that is asked over HTTP, with headers of the user's own.
type API struct {
	Client  *http.Client
	base    *url.URL
	headers map[string]secret.Value
}

// Answer is what an API has said.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte // its first AnswerLimit bytes
}

// NewAPI is the API at an address. The fault gives an example, and not the address: that can hold a password.
func NewAPI(address, example string, headers map[string]secret.Value) (*API, error) {
	base, err := url.Parse(strings.TrimSuffix(address, "/"))
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, fault.Inputf("url: want for example %s", example)
	}
	return &API{&http.Client{}, base, headers}, nil
}

// Get asks for a path below the address, with its query.
func (a *API) Get(ctx context.Context, path string, query url.Values) (Answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base.String()+path+"?"+query.Encode(), nil)
	if err != nil {
		return Answer{}, err
	}
	return a.do(request)
}

// Post sends a form to a path below the address.
func (a *API) Post(ctx context.Context, path string, form url.Values) (Answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, a.base.String()+path, strings.NewReader(form.Encode()))
	if err != nil {
		return Answer{}, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return a.do(request)
}

func (a *API) do(request *http.Request) (Answer, error) {
	for key, value := range a.headers {
		request.Header.Set(key, value.Reveal())
	}
	response, err := a.Client.Do(request)
	if err != nil {
		return Answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, AnswerLimit))
	return Answer{response.StatusCode, response.Header, body}, err
}
