package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/backstep/backstep/internal/catalog"
	"github.com/backstep/backstep/internal/config"
	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/router"
	"github.com/backstep/backstep/internal/secret"
	"github.com/backstep/backstep/internal/target"
)

func getenv(name string) string {
	return map[string]string{"SHOP_DB_URL": "postgres://secret", "PROBE_TOKEN": "Bearer abc",
		"ORDERS_DB_URL": "postgres://shop@db/shop", "PROMETHEUS_AUTHORIZATION": "Bearer abc"}[name]
}

func parse(text string) (*config.Config, error) {
	return config.Parse("backstep.yml", []byte(text), catalog.Kinds(), getenv, nil)
}

const whole = `service: shop
repository: registry.example.com:5000/acme/shop
ledger: registry.example.com/acme/shop-ledger
environments:
  production:
    target: {kind: process, socket: /run/s}
    strategy: canary
    weights: [10, 50]
    env: {LOG: info, DB_URL: {env: SHOP_DB_URL}}
    drain: 5s
    ready-timeout: 2m
    verify:
      bake: 10m
      patience: 1m
      objective: 0.5%
      intolerable: 0.02
      alpha: 1%
      beta: 2%
      probes:
        - {kind: http, path: /health, rate: 20, timeout: 1s, headers: {Authorization: {env: PROBE_TOKEN}}}
        - {kind: tcp}
  staging:
    target: {kind: process, socket: /run/t}
`

func TestWhole(t *testing.T) {
	c, err := parse(whole)
	if err != nil {
		t.Fatal(err)
	}
	p, s := c.Environments["production"], c.Environments["staging"]
	if c.Service != "shop" || c.Ledger != "registry.example.com/acme/shop-ledger" || p.Strategy != plan.Canary || len(p.Weights) != 2 ||
		p.Drain != 5*time.Second || p.ReadyTimeout != 2*time.Minute {
		t.Errorf("production is %+v of %+v", p, c)
	}
	want := release.Configuration{"env": {{Key: "DB_URL", Secret: "SHOP_DB_URL"}, {Key: "LOG", Text: "info"}}}
	if !reflect.DeepEqual(p.Start, want) || p.Unset != nil {
		t.Errorf("production starts releases with %v (%v), want %v", p.Start, p.Unset, want)
	}
	if len(s.Start) != 0 || s.Unset != nil {
		t.Errorf("staging starts releases with %v, %v", s.Start, s.Unset)
	}
	v := p.Verify
	if v.Bake != 10*time.Minute || v.Patience != time.Minute || v.Objective != 0.005 || v.Intolerable != 0.02 || v.Alpha != 0.01 || v.Beta != 0.02 ||
		len(v.Probes) != 2 || v.Probes[0].Name != "http 1" || v.Probes[0].Every != 50*time.Millisecond || v.Probes[1].Every != 100*time.Millisecond || v.Probes[1].Timeout != 2*time.Second {
		t.Errorf("verify is %+v", v)
	}
	if d := s.Verify; s.Strategy != plan.BlueGreen || d.Bake != 5*time.Minute || d.Patience != 25*time.Minute || d.Objective != 0.01 || d.Intolerable != 0.02 {
		t.Errorf("the defaults are %+v, strategy %s", d, s.Strategy)
	}
}

// around puts lines under an environment that is otherwise right.
func around(lines string) string {
	return "service: shop\nrepository: r.example/shop\nenvironments:\n  production:\n    target: {kind: process, socket: s}\n" + lines
}

func TestFaults(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "backstep.yml: the file is empty"},
		{"no mapping", "- a", `backstep.yml:1:1: the file is a list: want keys with values`},
		{"alerts alone", around("    verify: {probes: [{kind: alertmanager, url: \"http://a:9093\", matchers: [service=shop]}]}\n"),
			"backstep.yml:6:14: alerts say only what is bad, and a pass takes evidence of its own: add a probe or a meter"},
		{"nothing", "{}", "backstep.yml:1:1: service is missing: The name of what is deployed.\n" +
			"backstep.yml:1:1: repository is missing: The repository of the images, registry/name. The ledger lives in it too.\n" +
			"backstep.yml:1:1: environments is missing: want at least one environment with a target"},
		{"two documents", around("") + "---\na: 1\n", "backstep.yml: want one document, without --- in the middle"},
		{"twice", around("    drain: 1s\n    drain: 2s\n"), "backstep.yml:7:5: drain is there twice"},
		{"twice, and more", "service: a\nservice: b\nrepository: r.example/s\nenvironments: {p: {}}", "backstep.yml:2:1: service is there twice\n" +
			"backstep.yml:4:16: environments.p has no target: want for example target: {kind: docker, …}"},
		{"anchor", around("    env: &a {A: b}\n"), "backstep.yml:6:5: anchors, aliases and merge keys are not read: write the value where it belongs"},
		{"merge", around("    <<: {drain: 1s}\n"), "backstep.yml:6:5: anchors, aliases and merge keys are not read: write the value where it belongs"},
		{"alias", around("    drain: *x\n"), "backstep.yml: unknown anchor 'x' referenced"},
		{"no YAML", "a: [", "backstep.yml: line 1: did not find expected node content"},
		{"environment's name", "service: s\nrepository: r.example/s\nenvironments: {Prod: {target: {kind: process, socket: s}}}",
			`backstep.yml:3:16: environment "Prod": want 1 to 24 of a-z, 0-9 and -, not starting or ending with -`},
		{"no target", "service: s\nrepository: r.example/s\nenvironments: {p: {}}", "backstep.yml:3:16: environments.p has no target: want for example target: {kind: docker, …}"},
		{"no kind", "service: s\nrepository: r.example/s\nenvironments: {p: {target: {socket: s}}}", "backstep.yml:3:20: kind is missing: want one of docker, process"},
		{"strategy", around("    strategy: big-bang\n"), `backstep.yml:6:15: target process cannot do strategy "big-bang": it can blue-green, canary`},
		{"router of a target without one", around("    router: {kind: haproxy, socket: s, backend: b}\n"), "backstep.yml:6:5: target process takes no router: it brings its own"},
		{"router", "service: s\nrepository: r.example/s\nenvironments: {p: {target: {kind: docker, port: 1}, router: {kind: haproxy, backend: 'a b'}}}",
			"backstep.yml:3:61: socket is missing: The stats socket with level admin: a path, or host:port.\n" +
				"backstep.yml:3:86: backend: \"a b\": want for example shop"},
		{"strategy without a router", "service: s\nrepository: r.example/s\nenvironments: {p: {strategy: canary, target: {kind: docker, port: 1}}}",
			`backstep.yml:3:30: target docker without a router cannot do strategy "canary": it can recreate`},
		{"weights without canary", around("    weights: [1]\n"), "backstep.yml:6:5: weights belong to strategy canary, not blue-green"},
		{"weights", around("    strategy: canary\n    weights: [50, 10]\n"), "backstep.yml:7:14: weights 50, 10: want rising whole numbers from 1 to 99"},
		{"secret without a name", around("    env: {A: {env: [B]}, C: {env: ''}}\n"), "backstep.yml:6:20: env.A.env is a list: want the name of an environment variable\n" +
			"backstep.yml:6:35: env.C.env is \"\": want the name of an environment variable"},
		{"names of variables", around("    env: {'A B': hunter2, 'C=D': hunter2, '': {env: SHOP_DB_URL}}\n"), "backstep.yml:6:11: env: \"A B\" cannot be the name of an environment variable\n" +
			"backstep.yml:6:27: env: \"C=D\" cannot be the name of an environment variable\n" +
			"backstep.yml:6:43: env: a key is empty"},
		{"names of headers", around("    verify: {probes: [{kind: http, headers: {'': {env: PROBE_TOKEN}}}]}\n"), "backstep.yml:6:46: headers: a key is empty"},
		{"secret by value", around("    env: {A: {value: x}}\n"), "backstep.yml:6:14: env.A is keys with values: want one value, or {env: NAME} for a secret"},
		{"list for a value", around("    drain: [1s]\n"), "backstep.yml:6:12: drain is a list: want one value"},
		{"empty value", around("    drain:\n"), "backstep.yml:6:11: drain is empty: want one value"},
		{"probe", around("    verify: {probes: [{kind: htpp}, {kind: http, rate: 0, body: '('}]}\n"), "backstep.yml:6:30: kind \"htpp\" is not one of http, tcp, grpc, tls, haproxy, nginx, prometheus, alertmanager, sql, browser, command\n" +
			"backstep.yml:6:56: rate: \"0\": want checks a second, from 0.01 to 1000\nbackstep.yml:6:65: body: error parsing regexp: missing closing ): `(`"},
		{"rates", around("    verify: {objective: 5%, intolerable: 1%}\n"), "backstep.yml:6:5: intolerable 0.01 is not above objective 0.05"},
		{"share", around("    verify: {objective: 150%}\n"), "backstep.yml:6:25: objective: \"150%\" is no share: want for example 1% or 0.01"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parse(c.text)
			if err == nil || err.Error() != c.want || fault.CodeOf(err) != fault.Input {
				t.Errorf("got\n%v\nwant\n%s", err, c.want)
			}
		})
	}
}

// What would be costly to parse is refused before it is.
func TestHostileFiles(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for i := 'b'; i < 'j'; i++ {
		bomb += string(i) + ": &" + string(i) + " [" + strings.TrimSuffix(strings.Repeat("*"+string(i-1)+",", 9), ",") + "]\n"
	}
	for _, c := range []struct{ name, text, want string }{
		{"levels in a line", strings.Repeat("[", 5000) + strings.Repeat("]", 5000), "backstep.yml:1:65: nested deeper than 64 levels"},
		{"levels by lines", strings.Repeat("[\n", 5000) + strings.Repeat("]\n", 5000), "backstep.yml:65:1: nested deeper than 64 levels"},
		{"levels without an end", strings.Repeat("[\n", 100_000), "backstep.yml: line 10001: exceeded max depth of 10000"},
		{"levels by indentation", nested(10_000), "backstep.yml: the file is larger than 256 KiB"},
		{"levels by less indentation", nested(300), "backstep.yml:65:65: nested deeper than 64 levels"},
		{"lists in lists", strings.Repeat("- ", 5000), "backstep.yml:1:129: nested deeper than 64 levels"},
		{"1 MB line", "a: " + strings.Repeat("x", 1<<20), "backstep.yml: the file is larger than 256 KiB"},
		{"long line", "a: " + strings.Repeat("x", 20<<10), "backstep.yml: line 1 is longer than 16 KiB"},
		{"bomb", bomb, "backstep.yml:1:1: anchors, aliases and merge keys are not read: write the value where it belongs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parse(c.text)
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got %.300v\nwant %s", err, c.want)
			}
		})
	}
}

// Brackets in texts and comments open no level.
func TestBracketsInTexts(t *testing.T) {
	lines := "    env:\n"
	for i := range 100 {
		lines += fmt.Sprintf("      A%d: 'see [1' # and {2, [3\n", i)
	}
	if _, err := parse(around(lines)); err != nil {
		t.Error(err)
	}
}

// A secret is known, and so hidden in the log, before a fault can say anything of it; and no fault repeats one, known or not.
func TestFaultsRepeatNoSecret(t *testing.T) {
	const hunter = "hunter2-and-more"
	for _, lines := range []string{
		"verify: {probes: [{kind: http, headers: {\"\": {env: X}}}]}", "env: {\"\": {env: X}}", "env: {A=B: {env: X}}", "env: {\"\": {env: X}, A: [" + hunter + "x]}",
		"verify: {probes: [{kind: sql, url: {env: X}, query: select 1, min: 1}]}", "verify: {probes: [{kind: sql, url: \"" + hunter + "\", query: select 1, min: 1}]}",
		"verify: {probes: [{kind: sql, url: \"postgres://app:" + hunter + "@db:port/x\", query: select 1, min: 1}]}",
		"verify: {probes: [{kind: prometheus, url: \"ada:" + hunter + "@prometheus:9090\", errors: x, total: y}]}",
		"verify: {probes: [{kind: prometheus, url: \"https://ada:" + hunter + "%zz@prometheus:9090\", errors: x, total: y}]}",
		"verify: {probes: [{kind: prometheus, url: \"ftp://ada:" + hunter + "@prometheus:9090\", errors: x, total: y}]}",
	} {
		var told []string
		known := secret.NewKnown(func(text string) { told = append(told, text) })
		_, err := config.Parse("backstep.yml", []byte(around("    "+lines)), catalog.Kinds(), func(string) string { return "mysql:" + hunter }, known)
		if err == nil {
			t.Errorf("%s is fine", lines)
			continue
		}
		if strings.Contains(known.Redact(err.Error()), hunter) {
			t.Errorf("%s: %v", lines, err)
		}
		if strings.Contains(lines, "env: X") && !slices.Contains(told, "mysql:"+hunter) {
			t.Errorf("%s: the host was told %q", lines, told)
		}
	}
}

// What an environment does not need cannot hinder it: a variable that is not set is a fault of what takes its value.
func TestUnsetVariables(t *testing.T) {
	c, err := parse("service: shop\nrepository: r.example/shop\nenvironments:\n" +
		"  production:\n    target: {kind: process, socket: s}\n    env: {DB_URL: {env: SHOP_DB_URL}}\n" +
		"    verify:\n      probes:\n        - {kind: http, headers: {Authorization: {env: NOBODY}, Cookie: {env: NOTHING}}}\n" +
		"        - {kind: sql, url: {env: NOBODY}, query: select 1, min: 1}\n        - {kind: tcp}\n" +
		"  staging:\n    target: {kind: process, socket: t}\n    env: {LOG: info, TOKEN: {env: NOBODY}, DB_URL: {env: NOTHING}}\n")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Environments["production"].Unset; err != nil {
		t.Errorf("production lacks %v", err)
	}
	if want := []string{"NOBODY", "NOTHING", "SHOP_DB_URL"}; !slices.Equal(slices.Compact(slices.Sorted(slices.Values(c.Sources))), want) {
		t.Errorf("secrets come from %q, want %q", c.Sources, want)
	}
	unset := func(err error, want string) {
		t.Helper()
		if err == nil || err.Error() != want || fault.CodeOf(err) != fault.Input {
			t.Errorf("got\n%v\nwant\n%s", err, want)
		}
		for _, e := range fault.Each(err) {
			if hint := fault.HintOf(e); hint != "set it in the job, or in the secrets of the environment" {
				t.Errorf("hint %q", hint)
			}
		}
	}
	unset(c.Environments["staging"].Unset, "backstep.yml:14:35: env.TOKEN takes its value from the environment variable NOBODY, which is not set or empty\n"+
		"backstep.yml:14:58: env.DB_URL takes its value from the environment variable NOTHING, which is not set or empty")
	probes := c.Environments["production"].Verify.Probes
	if len(probes) != 3 || probes[0].Name != "http 1" || probes[0].Probe != nil || probes[1].Probe != nil || probes[2].Probe == nil || probes[2].Err != nil {
		t.Fatalf("the probes are %+v", probes)
	}
	unset(probes[0].Err, "backstep.yml:9:55: headers.Authorization takes its value from the environment variable NOBODY, which is not set or empty\n"+
		"backstep.yml:9:78: headers.Cookie takes its value from the environment variable NOTHING, which is not set or empty")
	unset(probes[1].Err, "backstep.yml:10:34: url takes its value from the environment variable NOBODY, which is not set or empty")
}

// No target or router has a secret yet: this one of each does.
func TestUnsetVariablesOfTargetAndRouter(t *testing.T) {
	var token, password secret.Value
	opened := 0
	kinds := config.Kinds{
		Targets: []target.Kind{{Name: "cloud", Routed: []plan.Strategy{plan.BlueGreen}, New: func() ([]input.Input, func(target.Environment) (target.Target, router.Router, error)) {
			return []input.Input{input.Secret(&token, "token", "The token.").Must()}, func(target.Environment) (target.Target, router.Router, error) {
				opened++
				return nil, nil, nil
			}
		}}},
		Routers: []router.Kind{{Name: "edge", New: func() ([]input.Input, func() (router.Front, error)) {
			return []input.Input{input.Secret(&password, "password", "The password.").Must()}, func() (router.Front, error) {
				opened++
				return nil, nil
			}
		}}},
	}
	text := []byte("service: s\nrepository: r.example/s\nenvironments: {p: {target: {kind: cloud, token: {env: A}}, router: {kind: edge, password: {env: B}}}}")
	c, err := config.Parse("backstep.yml", text, kinds, func(string) string { return "" }, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := c.Environments["p"]
	_, _, err = p.Target.Open(target.Environment{})
	if want := "backstep.yml:3:55: token takes its value from the environment variable A, which is not set or empty"; err == nil || err.Error() != want {
		t.Errorf("the target: got %v, want %s", err, want)
	}
	_, err = p.Router()
	if want := "backstep.yml:3:97: password takes its value from the environment variable B, which is not set or empty"; err == nil || err.Error() != want {
		t.Errorf("the router: got %v, want %s", err, want)
	}
	if opened > 0 {
		t.Errorf("%d were opened all the same", opened)
	}
	if c, err = config.Parse("backstep.yml", text, kinds, func(name string) string { return "of " + name }, nil); err != nil {
		t.Fatal(err)
	}
	_, _, err = c.Environments["p"].Target.Open(target.Environment{})
	if _, other := c.Environments["p"].Router(); err != nil || other != nil || opened != 2 || token.Reveal() != "of A" || password.Reveal() != "of B" {
		t.Errorf("with both set: %v, %v, %d opened", err, other, opened)
	}
}

func nested(levels int) string {
	var b strings.Builder
	for i := range levels {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

func FuzzParse(f *testing.F) {
	f.Add(whole)
	f.Add(around("    env: {A: {env: B}}\n"))
	f.Add("a: &a [*a]")
	f.Add("? [a]\n: b")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := parse(text); err != nil && fault.CodeOf(err) != fault.Input {
			t.Errorf("not an input fault: %v", err)
		}
	})
}

func TestNoFile(t *testing.T) {
	_, err := config.Load(filepath.Join(t.TempDir(), "backstep.yml"), catalog.Kinds(), getenv, nil)
	if err == nil || !strings.HasPrefix(err.Error(), "there is no ") || fault.HintOf(err) != "write it, or name another one with --config" {
		t.Errorf("got %v, hint %q", err, fault.HintOf(err))
	}
}

// schema is what the schema says of a text.
func schema(t *testing.T) func(text string) error {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(config.Schema(catalog.Kinds())))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("schema.json", document); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return func(text string) error {
		var v any
		if err := yaml.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		return schema.Validate(instance)
	}
}

// The schema takes what the parser takes, the examples of the README included, and refuses what is misspelt.
func TestSchema(t *testing.T) {
	valid := schema(t)
	examples := []string{whole}
	for _, page := range []string{"../../README.md", "../../docs/verdict.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile("(?s)```yaml\n(service:.*?)```").FindAllStringSubmatch(string(text), -1)
		if len(found) == 0 {
			t.Errorf("%s has no example of a configuration", page)
		}
		for _, m := range found {
			examples = append(examples, m[1])
		}
	}
	var files []string
	for _, pattern := range []string{"../../examples/*/backstep.yml", "../../examples/*/*/backstep.yml"} {
		some, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, some...)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		examples = append(examples, string(text))
	}
	for _, k := range catalog.Kinds().Probes {
		if !strings.Contains(strings.Join(examples[1:], ""), "kind: "+k.Name) {
			t.Errorf("no example has a probe of kind %s", k.Name)
		}
	}
	for _, e := range examples {
		if err := valid(e); err != nil {
			t.Errorf("%s\n%v", e, err)
		}
		if _, err := parse(e); err != nil {
			t.Errorf("%s\n%v", e, err)
		}
	}
	for _, wrong := range []string{around("    drian: 1s\n"), around("    verify: {probes: [{kind: htpp}]}\n"), "service: x"} {
		if valid(wrong) == nil {
			t.Errorf("the schema takes\n%s", wrong)
		}
	}
}

// Every example of the reference is right where it stands: the parser, the schema and the target take it. Every option of an
// environment, and of the docker target, has one.
func TestExamplesOfTheReference(t *testing.T) {
	valid := schema(t)
	const head = "service: shop\nrepository: r.example/shop\nenvironments:\n  production:\n"
	const router = "    router: {kind: haproxy, socket: /run/haproxy/admin.sock, backend: shop}\n"
	const docker = head + router + "    target: {kind: docker, port: 8080}\n"
	replace := func(old, new string) func(string) string {
		return func(line string) string { return strings.Replace(docker, old, fmt.Sprintf(new, line), 1) }
	}
	probe := func(rest string) func(string) string {
		return func(line string) string { return docker + "    verify: {probes: [{" + line + rest + "}]}\n" }
	}
	places := map[string]func(line string) string{
		"The file": func(line string) string {
			key, _, _ := strings.Cut(line, ":")
			return line + "\n" + regexp.MustCompile("(?m)^"+key+": .*\n").ReplaceAllString(docker, "")
		},
		"verify":                          replace(router, router+"    verify: {%s}\n"),
		"environments.NAME":               replace(router, router+"    %s\n"),
		"target: {kind: docker}":          replace("port: 8080", "%s"),
		"roles of target: {kind: docker}": replace("port: 8080", "port: 8080, roles: {job: {%s}}"),
		"router: {kind: haproxy}":         replace("backend: shop", "%s"),
		"router: {kind: nginx}": func(line string) string {
			options := map[string]string{"file": "file: /shop.conf", "upstream": "upstream: shop", "status": "status: http://127.0.0.1:8090"}
			key, _, _ := strings.Cut(line, ":")
			options[key] = line
			return strings.Replace(docker, router, "    router: {kind: nginx, "+strings.Join(slices.Sorted(maps.Values(options)), ", ")+"}\n", 1)
		},
		"probes: [{kind: http}]":    probe(", kind: http"),
		"probes: [{kind: haproxy}]": probe(", kind: haproxy, socket: /run/haproxy/admin.sock"),
	}
	every := map[string]bool{"environments.NAME": true, "target: {kind: docker}": true, "roles of target: {kind: docker}": true}
	seen := 0
	for _, s := range config.Sections(catalog.Kinds()) {
		if every[s.Title] {
			seen++
		}
		for _, in := range s.Inputs {
			if in.Example == "" {
				if every[s.Title] {
					t.Errorf("%s: %s has no example", s.Title, in.Name)
				}
				continue
			}
			place := places[s.Title]
			if place == nil {
				t.Errorf("%s: %s has an example, and the test does not know where it stands", s.Title, in.Name)
				continue
			}
			line := in.Name + ": " + in.Example
			switch {
			case s.Title == "target: {kind: docker}" && in.Name != "port":
				line = "port: 8080, " + line
			case s.Title == "environments.NAME" && in.Name == "weights":
				line = "strategy: canary\n    " + line
			}
			text := place(line)
			if err := valid(text); err != nil {
				t.Errorf("%s\n%v", text, err)
			}
			c, err := config.Parse("backstep.yml", []byte(text), catalog.Kinds(), func(name string) string { return "of " + name }, nil)
			if err != nil {
				t.Errorf("%s\n%v", text, err)
				continue
			}
			if in.Starts && len(c.Environments["production"].Start) == 0 {
				t.Errorf("%s\nthe example says nothing that a release is started with", text)
			}
			if _, _, err := c.Environments["production"].Target.Open(target.Environment{Routed: true}); err != nil {
				t.Errorf("%s\n%v", text, err)
			}
		}
	}
	if seen != len(every) {
		t.Errorf("saw %d of the sections whose options all have an example, want %d", seen, len(every))
	}
}

// A key that nobody knows is answered with the nearest that somebody does, also within a section.
func TestNearestKey(t *testing.T) {
	for key, want := range map[string]string{"ulimit: {nofile: 1}": "did you mean ulimits?", "secret: {a: {env: B}}": "did you mean secrets?",
		"roles: {job: {comand: [work]}}": "did you mean command?", "zzzzzzzzzz: 1": ""} {
		_, err := parse("service: s\nrepository: r.example/s\nenvironments: {p: {target: {kind: docker, port: 80, publish: \"1.2.3.4:80\", " + key + "}}}")
		if err == nil || fault.HintOf(err) != want && !(len(fault.Each(err)) > 0 && fault.HintOf(fault.Each(err)[0]) == want) {
			t.Errorf("%s: %v, hint %q, want %q", key, err, fault.HintOf(err), want)
		}
	}
}
