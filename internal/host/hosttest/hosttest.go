// Package hosttest has doubles of the APIs that cannot run in a test: GitHub's and GitLab's deployments. They keep
// state and follow the official documentation; GitHub's can check each request against the published OpenAPI.
package hosttest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
)

// Token is the token that the doubles take.
const Token = "t0ken"

// Deployment is one that a double keeps, with its states in their order.
type Deployment struct {
	ID          int64    `json:"id"`
	Environment string   `json:"environment"`
	SHA         string   `json:"sha"`
	Ref         string   `json:"ref"`
	States      []string `json:"-"`
	Statuses    []Status `json:"-"`
}

// Status is one status of a deployment of GitHub's.
type Status struct {
	State          string `json:"state"`
	LogURL         string `json:"log_url"`
	TargetURL      string `json:"target_url"`
	EnvironmentURL string `json:"environment_url"`
}

// Server is a double.
type Server struct {
	URL string // of the API

	mu          sync.Mutex
	deployments []*Deployment
	allowed     bool
}

// All is every deployment, the oldest first.
func (s *Server) All() []Deployment {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Deployment
	for _, d := range s.deployments {
		all = append(all, *d)
	}
	return all
}

// Add puts a deployment there that somebody else has made.
func (s *Server) Add(d Deployment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.ID = int64(len(s.deployments) + 1)
	s.deployments = append(s.deployments, &d)
}

// Forbid makes the token one that may not.
func (s *Server) Forbid() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allowed = false
}

func (s *Server) find(id string) *Deployment {
	n, err := strconv.Atoi(id)
	if err != nil || n < 1 || n > len(s.deployments) {
		return nil
	}
	return s.deployments[n-1]
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func message(text string) map[string]string { return map[string]string{"message": text} }

// GitHub is the deployments of GitHub's REST API, for one repository acme/shop. A request that the OpenAPI
// document in the file spec does not allow fails the test; "" checks none.
func GitHub(t testing.TB, spec string) *Server {
	t.Helper()
	s := &Server{allowed: true}
	mux := http.NewServeMux()
	const base = "/repos/acme/shop/deployments"
	mux.HandleFunc("GET "+base, func(w http.ResponseWriter, r *http.Request) {
		found := []*Deployment{}
		for i := len(s.deployments) - 1; i >= 0; i-- { // the newest first
			d := s.deployments[i]
			if q := r.URL.Query(); d.Environment == q.Get("environment") && d.SHA == q.Get("sha") {
				found = append(found, d)
			}
		}
		answer(w, http.StatusOK, found)
	})
	mux.HandleFunc("POST "+base, func(w http.ResponseWriter, r *http.Request) {
		d := Deployment{ID: int64(len(s.deployments) + 1), Environment: "production"}
		if err := json.NewDecoder(r.Body).Decode(&d); err != nil || d.Ref == "" {
			answer(w, http.StatusUnprocessableEntity, message("Invalid request."))
			return
		}
		d.SHA = d.Ref
		s.deployments = append(s.deployments, &d)
		answer(w, http.StatusCreated, d)
	})
	mux.HandleFunc("GET "+base+"/{id}/statuses", func(w http.ResponseWriter, r *http.Request) {
		d := s.find(r.PathValue("id"))
		if d == nil {
			answer(w, http.StatusNotFound, message("Not Found"))
			return
		}
		answer(w, http.StatusOK, append([]Status{}, d.Statuses...))
	})
	mux.HandleFunc("POST "+base+"/{id}/statuses", func(w http.ResponseWriter, r *http.Request) {
		d := s.find(r.PathValue("id"))
		var status Status
		if err := json.NewDecoder(r.Body).Decode(&status); d == nil || err != nil {
			answer(w, http.StatusUnprocessableEntity, message("Invalid request."))
			return
		}
		if status.State == "success" { // auto_inactive is true by default
			for _, old := range s.deployments {
				if n := len(old.States); old != d && old.Environment == d.Environment && n > 0 && old.States[n-1] == "success" {
					old.States = append(old.States, "inactive")
				}
			}
		}
		d.States, d.Statuses = append(d.States, status.State), append(d.Statuses, status)
		answer(w, http.StatusCreated, status)
	})
	s.serve(t, "Bearer "+Token, "Authorization", document(t, spec), mux)
	return s
}

// GitLab is the deployments of GitLab's API, for the project 42, with a job token.
func GitLab(t testing.TB) *Server {
	t.Helper()
	s := &Server{allowed: true}
	mux := http.NewServeMux()
	const base = "/api/v4/projects/42/deployments"
	type body struct{ Environment, SHA, Ref, Status string }
	states := "created running success failed canceled"
	mux.HandleFunc("POST "+base, func(w http.ResponseWriter, r *http.Request) {
		var in body
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Environment == "" || in.SHA == "" || in.Ref == "" || !strings.Contains(states, in.Status) {
			answer(w, http.StatusBadRequest, message("400 Bad Request"))
			return
		}
		d := &Deployment{ID: int64(len(s.deployments) + 1), Environment: in.Environment, SHA: in.SHA, Ref: in.Ref, States: []string{in.Status}}
		s.deployments = append(s.deployments, d)
		answer(w, http.StatusCreated, map[string]any{"id": d.ID, "status": in.Status})
	})
	mux.HandleFunc("PUT "+base+"/{id}", func(w http.ResponseWriter, r *http.Request) {
		d := s.find(r.PathValue("id"))
		var in body
		if err := json.NewDecoder(r.Body).Decode(&in); d == nil || err != nil || !strings.Contains(states, in.Status) {
			answer(w, http.StatusBadRequest, message("400 Bad Request"))
			return
		}
		d.States = append(d.States, in.Status)
		answer(w, http.StatusOK, map[string]any{"id": d.ID, "status": in.Status})
	})
	s.serve(t, Token, "Job-Token", nil, mux)
	s.URL += "/api/v4"
	return s
}

// serve checks the token and the document, and one request at a time.
func (s *Server) serve(t testing.TB, token, header string, doc routers.Router, mux http.Handler) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if err := allowed(doc, r); err != nil {
			t.Errorf("%s %s is not what the published OpenAPI allows: %v", r.Method, r.URL, err)
		}
		switch {
		case r.Header.Get(header) != token:
			answer(w, http.StatusUnauthorized, message("Bad credentials"))
		case !s.allowed:
			answer(w, http.StatusForbidden, message("Resource not accessible by integration"))
		default:
			mux.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	s.URL = server.URL
}

// document reads an OpenAPI document; nil when there is none to read.
func document(t testing.TB, spec string) routers.Router {
	t.Helper()
	if spec == "" {
		return nil
	}
	doc, err := openapi3.NewLoader().LoadFromFile(spec)
	if err != nil {
		t.Fatal(err)
	}
	doc.Servers = nil // any address
	for path := range doc.Paths.Map() {
		if !strings.Contains(path, "/deployments") {
			doc.Paths.Delete(path) // the rest would only cost time
		}
	}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return router
}

func allowed(doc routers.Router, r *http.Request) error {
	if doc == nil {
		return nil
	}
	route, params, err := doc.FindRoute(r)
	if err != nil {
		return fmt.Errorf("find the operation: %w", err)
	}
	return openapi3filter.ValidateRequest(r.Context(), &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}})
}
