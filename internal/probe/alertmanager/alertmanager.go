// Package alertmanager is the watch that asks Prometheus's Alertmanager which alerts are firing, or reads what its webhook has sent.
package alertmanager

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/probe"
	"github.com/backstep/backstep/internal/secret"
)

// Kind is the alertmanager watch.
func Kind() probe.Kind {
	return probe.Kind{
		Name: "alertmanager",
		Help: "An alert that begins to fire during the bake is a fail, at once, with its name and summary as the reason. What was firing when the bake began is named in the log and is no evidence, " +
			"also when it fires again later; nor is an alert that is silenced or inhibited, or an Alertmanager that does not answer. " +
			"In a matcher, $digest and $version are those of the release. It is no evidence for a pass: give it beside a probe or a meter.",
		Every: 5 * time.Second,
		NewWatch: func() ([]input.Input, func() (probe.Watch, error)) {
			var w watch
			return []input.Input{
				input.String(&w.address, "url", "The address of Alertmanager, whose API is /api/v2; or give file."),
				input.String(&w.file, "file", "A file that a webhook receiver writes, in the format of Alertmanager's webhook: one message, or one after the other."),
				input.List(&w.given, "matchers", "Which alerts are about this service, all of them: service=\"shop\", severity=~\"page|critical\". With version=~\"$version|\" those without a version count as well.").Must(),
				input.Secrets(&w.headers, "headers", "Headers of each request, for example Authorization."),
			}, func() (probe.Watch, error) { return w.open() }
		},
	}
}

type watch struct {
	address, file string
	given         []string
	headers       map[string]secret.Value
	matchers      []matcher
	api           *probe.API // nil when there is a file
}

func (w watch) open() (probe.Watch, error) {
	if (w.address == "") == (w.file == "") {
		return nil, fault.Inputf("an alertmanager watch needs url or file")
	}
	if w.file != "" && len(w.headers) > 0 {
		return nil, fault.Inputf("headers go with url")
	}
	if w.address != "" {
		var err error
		if w.api, err = probe.NewAPI(w.address, "http://alertmanager:9093", w.headers); err != nil {
			return nil, err
		}
	}
	for _, s := range w.given {
		m, err := parse(s)
		if err != nil {
			return nil, err
		}
		w.matchers = append(w.matchers, m)
	}
	if len(w.matchers) == 0 {
		return nil, fault.Inputf("matchers is empty: every alert of everybody would count")
	}
	return w, nil
}

// alert is what the API and the webhook say of one.
type alert struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    string            `json:"startsAt"`
	Fingerprint string            `json:"fingerprint"`
}

// Firing gives the alerts that all matchers match.
func (w watch) Firing(ctx context.Context, of probe.Subject) ([]probe.Alert, time.Time, error) {
	all := make([]matcher, len(w.matchers))
	for i, m := range w.matchers {
		all[i] = m.of(of.Release)
	}
	read := w.ask
	if w.file != "" {
		read = w.read
	}
	found, now, err := read(ctx, all)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("alertmanager: %w", err)
	}
	var firing []probe.Alert
	for _, a := range found {
		if matches(all, a.Labels) {
			since, _ := time.Parse(time.RFC3339, a.StartsAt) // what is no time is not known
			firing = append(firing, probe.Alert{ID: a.id(), Since: since, Text: a.text()})
		}
	}
	slices.SortStableFunc(firing, func(a, b probe.Alert) int {
		return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.Text, b.Text))
	})
	return firing, now, nil
}

// id is the fingerprint, or all labels where there is none.
func (a alert) id() string {
	if a.Fingerprint != "" {
		return a.Fingerprint
	}
	labels, _ := json.Marshal(a.Labels) // in the order of their names
	return string(labels)
}

func (a alert) text() string {
	name := cmp.Or(a.Labels["alertname"], "without a name")
	if says := cmp.Or(a.Annotations["summary"], a.Annotations["description"], a.Annotations["message"]); says != "" {
		name += ": " + says
	}
	return probe.Line(name)
}

// ask asks https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml.
func (w watch) ask(ctx context.Context, all []matcher) ([]alert, time.Time, error) {
	query := url.Values{"active": {"true"}, "silenced": {"false"}, "inhibited": {"false"}, "unprocessed": {"false"}}
	for _, m := range all {
		query.Add("filter", m.String())
	}
	answer, err := w.api.Get(ctx, "/api/v2/alerts", query)
	if err != nil {
		return nil, time.Time{}, err
	}
	var said []struct {
		alert
		Status struct {
			State string `json:"state"`
		} `json:"status"`
	}
	if err := json.Unmarshal(answer.Body, &said); err != nil || answer.Status != http.StatusOK {
		return nil, time.Time{}, fmt.Errorf("status %d: %s", answer.Status, probe.Line(string(answer.Body)))
	}
	var active []alert
	for _, s := range said {
		if s.Status.State == "active" {
			active = append(active, s.alert)
		}
	}
	now, err := http.ParseTime(answer.Header.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return active, now, nil
}

// read reads https://prometheus.io/docs/alerting/latest/configuration/#webhook_config. What a later message says of an alert counts.
func (w watch) read(ctx context.Context, _ []matcher) ([]alert, time.Time, error) {
	f, err := os.Open(w.file)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer f.Close()
	body, err := io.ReadAll(io.LimitReader(f, probe.AnswerLimit+1))
	if err == nil && len(body) > probe.AnswerLimit {
		err = fmt.Errorf("%s is larger than %d bytes", w.file, probe.AnswerLimit)
	}
	if err != nil {
		return nil, time.Time{}, err
	}
	var order []string
	firing := map[string]alert{}
	for d := json.NewDecoder(bytes.NewReader(body)); ; {
		var message struct {
			Alerts []struct {
				alert
				Status string `json:"status"`
			} `json:"alerts"`
		}
		if err := d.Decode(&message); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, time.Time{}, fmt.Errorf("%s: %w", w.file, err)
		}
		for _, a := range message.Alerts {
			id := a.id()
			delete(firing, id)
			if a.Status == "firing" {
				firing[id] = a.alert
				order = append(order, id)
			}
		}
	}
	var all []alert
	for _, id := range order {
		if a, ok := firing[id]; ok {
			all = append(all, a)
			delete(firing, id)
		}
	}
	return all, time.Now(), ctx.Err()
}
