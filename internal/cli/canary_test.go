package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/catalog"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/step"
)

// canary is a secret that must be nowhere.
const canary = "canary/&sings?in:the=mine"

// forever are the steps that run until they are ended, and have no secrets.
var forever = map[string]bool{"demo": true, "supervise": true}

// whole is a backstep.yml that takes the canary wherever a kind takes a secret, and cannot be right.
const whole = `service: shop
repository: 127.0.0.1:1/acme/shop
environments:
  production:
    target: {kind: docker, secrets: {token: {env: CANARY}}, roles: {job: {env: {X: {env: CANARY}}}}}
    env: {DSN: {env: CANARY}}
    verify:
      probes:
        - {kind: http, headers: {Authorization: {env: CANARY}}}
        - {kind: sql, url: {env: CANARY}, query: select 1, min: 1}
        - {kind: command, argv: [/bin/sh], env: {X: {env: CANARY}}}
        - {kind: prometheus, url: "canary/&sings?in:the=mine", total: x, errors: y, headers: {X: {env: CANARY}}}
`

// Whatever a step is given, and however it fails, on every host: what it prints, hands on and shows has no secret.
func TestEveryStepKeepsItsSecrets(t *testing.T) {
	steps := 0
	for _, s := range catalog.Steps() {
		if forever[s.Name] {
			continue
		}
		steps++
		for _, host := range []string{"plain", "github", "gitlab"} {
			for _, everything := range []bool{false, true} { // given to all inputs that are text, or to the secret ones only
				files, said := failing(t, s, host, everything)
				for _, form := range []string{canary, url.QueryEscape(canary), base64.StdEncoding.EncodeToString([]byte(canary)), "sings?in"} {
					if strings.Contains(said, form) || strings.Contains(files, form) {
						t.Errorf("%s on %s says %q:\n%s\n%s", s.Name, host, form, said, files)
					}
				}
			}
		}
	}
	if steps < 10 {
		t.Errorf("tried %d steps", steps)
	}
}

// failing runs a step that cannot succeed, and returns what is in the files that it leaves, and what it has printed; what it
// tells the host to hide is left out.
func failing(t *testing.T, s step.Step, host string, everything bool) (files, said string) {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("backstep.yml", []byte(whole), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"BACKSTEP_HOST": host, "CANARY": canary, "GITHUB_OUTPUT": "out", "GITHUB_STEP_SUMMARY": "summary", "BACKSTEP_OUTPUT": "out.env",
		"BACKSTEP_SUMMARY": "summary.md", "CI_JOB_TOKEN": canary, "GITHUB_TOKEN": canary, "CI_NETRC_PASSWORD": canary, "BACKSTEP_ENVIRONMENT": "production"}
	for _, in := range s.Inputs {
		name := input.Variable(in.Name)
		if _, given := env[name]; in.Secret || everything && !given && in.Name != "config" && in.Name != "context" {
			env[name] = canary
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var out, complaints bytes.Buffer
	p := process{args: []string{s.Name, "--log-level", "debug"}, stdout: &out, stderr: &complaints, getenv: func(name string) string { return env[name] }, now: time.Now}
	if code := p.main(ctx, []step.Step{s, {Name: "another"}}); code == 0 && everything {
		t.Errorf("%s on %s succeeded", s.Name, host)
	}
	for line := range strings.Lines(out.String() + complaints.String()) {
		if !strings.HasPrefix(line, "::add-mask::") {
			said += line
		}
	}
	all, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if text, err := os.ReadFile(name); err == nil && filepath.Base(name) != "backstep.yml" {
			files += string(text)
		}
	}
	return files, said
}
