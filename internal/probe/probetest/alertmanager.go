package probetest

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Alertmanager is a double of the API of Prometheus's Alertmanager, written from its OpenAPI description: it keeps the alerts and the
// silences that it is sent, and gives those that are asked for. TestE2EAlertmanager holds the real one to the same.
type Alertmanager struct {
	URL   string
	Close func()

	mu       sync.Mutex
	alerts   map[string]map[string]any // by their fingerprints
	silences [][]silencing
	asked    []string // the queries
	status   int      // instead of an answer; 0 is none
	silent   bool     // requests wait until who asks has enough
}

type silencing struct {
	Name, Value string
	IsRegex     bool
}

// NewAlertmanager starts one.
func NewAlertmanager(t testing.TB) *Alertmanager {
	t.Helper()
	a := &Alertmanager{alerts: map[string]map[string]any{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v2/alerts", a.get)
	mux.HandleFunc("POST /api/v2/alerts", a.post)
	mux.HandleFunc("POST /api/v2/silences", a.silence)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		status, silent := a.status, a.silent
		a.mu.Unlock()
		switch {
		case silent:
			<-r.Context().Done()
		case status != 0:
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			fmt.Fprint(w, `"not now"`)
		default:
			mux.ServeHTTP(w, r)
		}
	}))
	a.URL, a.Close = server.URL, func() {
		server.CloseClientConnections()
		server.Close()
	}
	t.Cleanup(a.Close)
	return a
}

// Fails makes it answer with a status; 0 ends that. Silent is one that never answers.
func (a *Alertmanager) Fails(status int, silent bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status, a.silent = status, silent
}

// Asked are the queries so far.
func (a *Alertmanager) Asked() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.asked)
}

// texts is a labelSet of the description.
func texts(of any) map[string]string {
	all := map[string]string{}
	set, _ := of.(map[string]any)
	for name, value := range set {
		if s, ok := value.(string); ok && s != "" { // an empty label is none
			all[name] = s
		}
	}
	return all
}

func (a *Alertmanager) post(w http.ResponseWriter, r *http.Request) {
	var sent []map[string]any
	if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
		http.Error(w, strconv.Quote(err.Error()), http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now().UTC()
	for _, one := range sent {
		labels := texts(one["labels"])
		key, _ := json.Marshal(labels)
		sum := fnv.New64a()
		sum.Write(key)
		id := fmt.Sprintf("%016x", sum.Sum64())
		starts, ends := now, now.Add(5*time.Minute)
		if s, _ := one["endsAt"].(string); s != "" {
			ends, _ = time.Parse(time.RFC3339, s)
			starts = ends
		}
		if s, _ := one["startsAt"].(string); s != "" {
			starts, _ = time.Parse(time.RFC3339, s)
		} else if known := a.alerts[id]; known != nil && known["endsAt"].(time.Time).After(now) {
			starts = known["startsAt"].(time.Time)
		}
		a.alerts[id] = map[string]any{"labels": labels, "annotations": texts(one["annotations"]), "fingerprint": id, "startsAt": starts, "endsAt": ends,
			"updatedAt": now, "receivers": []any{map[string]string{"name": "default"}}, "generatorURL": ""}
	}
}

func (a *Alertmanager) silence(w http.ResponseWriter, r *http.Request) {
	var sent struct{ Matchers []silencing }
	if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
		http.Error(w, strconv.Quote(err.Error()), http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.silences = append(a.silences, sent.Matchers)
	fmt.Fprint(w, `{"silenceID":"1"}`)
}

func (a *Alertmanager) get(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, r.URL.RawQuery)
	wrong := func(format string, args ...any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, "%q", fmt.Sprintf(format, args...))
	}
	show := map[string]bool{"active": true, "silenced": true, "inhibited": true, "unprocessed": true}
	for name, values := range r.URL.Query() {
		if _, known := show[name]; known {
			b, err := strconv.ParseBool(values[0])
			if err != nil {
				wrong("%s in query must be of type boolean: %q", name, values[0])
				return
			}
			show[name] = b
		}
	}
	given := []map[string]any{}
	for _, one := range a.alerts {
		labels := one["labels"].(map[string]string)
		wanted := one["endsAt"].(time.Time).After(time.Now())
		for _, filter := range r.URL.Query()["filter"] {
			is, err := filtered(filter, labels)
			if err != nil {
				wrong("bad matcher format: %s", filter)
				return
			}
			wanted = wanted && is
		}
		silencedBy := []string{}
		for _, s := range a.silences {
			if !slices.ContainsFunc(s, func(m silencing) bool { return labels[m.Name] != m.Value }) {
				silencedBy = append(silencedBy, "1")
			}
		}
		state := "active"
		if len(silencedBy) > 0 {
			state = "suppressed"
		}
		if !wanted || state == "active" && !show["active"] || state == "suppressed" && !show["silenced"] {
			continue
		}
		shown := map[string]any{"status": map[string]any{"state": state, "silencedBy": silencedBy, "inhibitedBy": []string{}}}
		for k, v := range one {
			shown[k] = v
		}
		given = append(given, shown)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(given) // who does not listen any more has gone
}

// filtered reads a matcher as Alertmanager's classic parser does: in quotes, \\, \" and \n are escapes, and nothing else is.
func filtered(filter string, labels map[string]string) (bool, error) {
	at := strings.IndexAny(filter, "=!")
	if at < 1 || at+1 >= len(filter) {
		return false, fmt.Errorf("no operator")
	}
	name, operator, value := strings.TrimSpace(filter[:at]), filter[at:at+1], filter[at+1:]
	if value[0] == '~' || value[0] == '=' {
		operator, value = operator+value[:1], value[1:]
	}
	value = strings.TrimSpace(value)
	if strings.HasPrefix(value, `"`) {
		var plain strings.Builder
		escaped, ended := false, false
		for _, r := range value[1:] {
			switch {
			case ended:
				return false, fmt.Errorf("text after the quote")
			case escaped:
				escaped = false
				switch r {
				case 'n':
					plain.WriteByte('\n')
				case '"', '\\':
					plain.WriteRune(r)
				default:
					plain.WriteString(`\` + string(r))
				}
			case r == '\\':
				escaped = true
			case r == '"':
				ended = true
			default:
				plain.WriteRune(r)
			}
		}
		if !ended {
			return false, fmt.Errorf("no end of the quote")
		}
		value = plain.String()
	}
	switch operator {
	case "=":
		return labels[name] == value, nil
	case "!=":
		return labels[name] != value, nil
	}
	pattern, err := regexp.Compile("^(?:" + value + ")$")
	if err != nil {
		return false, err
	}
	return pattern.MatchString(labels[name]) == (operator == "=~"), nil
}
