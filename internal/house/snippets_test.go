package house

import (
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/backstep/backstep/internal/catalog"
	"github.com/backstep/backstep/internal/executor"
	"github.com/backstep/backstep/internal/host"
	"github.com/backstep/backstep/internal/host/plain"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/router/nginx"
	"github.com/backstep/backstep/internal/secret"
	"github.com/backstep/backstep/internal/step"
)

var (
	fence   = regexp.MustCompile("(?ms)^```([a-z-]*)\n(.*?)^```")
	inline  = regexp.MustCompile("`([^`\n]+)`")
	command = regexp.MustCompile(`(?m)(?:^|[\s'"&|([])backstep ([a-z][a-z-]*)((?:\\\n|[^&|;\n\]])*)`)
	flagged = regexp.MustCompile(`--([a-z][a-z-]*)`)
	comment = regexp.MustCompile(`(?m)(^|\s)(#|//) .*$`)
)

// beside are the words that backstep takes where a step stands, and the flags that every step has.
var beside = []string{"help", "completion", "version", "log-format", "log-level"}

// named is the step called name, and whether there is one.
func named(name string) (step.Step, bool) {
	all := catalog.Steps()
	i := slices.IndexFunc(all, func(s step.Step) bool { return s.Name == name })
	if i < 0 {
		return step.Step{}, false
	}
	return all[i], true
}

func takes(s step.Step, name string) bool {
	return slices.Contains(beside, name) || slices.ContainsFunc(s.Inputs, func(in input.Input) bool { return in.Name == name })
}

// misused lists the commands of backstep in a text that there are not, or not with these flags.
func misused(text string) []string {
	var wrong []string
	for _, m := range command.FindAllStringSubmatch(comment.ReplaceAllString(text, ""), -1) {
		if m[2] != "" && !strings.ContainsAny(m[2][:1], " \t\\'\"`)]") {
			continue // a name with more to it, such as that of an image
		}
		s, ok := named(m[1])
		if !ok {
			if !slices.Contains(beside, m[1]) {
				wrong = append(wrong, "backstep "+m[1]+" is no step")
			}
			continue
		}
		for _, f := range flagged.FindAllStringSubmatch(m[2], -1) {
			if !takes(s, f[1]) {
				wrong = append(wrong, "backstep "+m[1]+" has no --"+f[1])
			}
		}
	}
	return wrong
}

// refused is why a configuration is refused, for each of its environments: it is read, and its targets and routers are made.
func refused(t *testing.T, text string) error {
	t.Helper()
	var c struct{ Environments map[string]any }
	if err := yaml.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	file := filepath.Join(t.TempDir(), "backstep.yml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name := range c.Environments {
		var place executor.Place
		if err := input.Assign(place.Inputs(), map[string][]secret.Value{"environment": {secret.New(name)}, "config": {secret.New(file)}}); err != nil {
			return err
		}
		world := executor.World{Log: slog.New(slog.DiscardHandler), Now: time.Now, Getenv: func(string) string { return "set" },
			Host: plain.Kind().New(host.Environment{Getenv: func(string) string { return "" }})}
		x, err := place.Open(world, catalog.Kinds())
		if err != nil {
			return err
		}
		x.Close()
	}
	return nil
}

// whole makes a configuration of a part of one; "" when it is of something else.
func whole(snippet string) string {
	var top map[string]any
	if yaml.Unmarshal([]byte(snippet), &top) != nil {
		return ""
	}
	const head = "service: shop\nrepository: registry.example.com/acme/shop\n"
	switch {
	case top["service"] != nil && top["environments"] != nil:
		return snippet
	case top["environments"] != nil:
		return head + snippet
	case top["target"] != nil, top["verify"] != nil:
		if top["target"] == nil {
			snippet += "target: {kind: docker, port: 8080, publish: \"0.0.0.0:80\"}\n"
		}
		return head + "environments:\n  production:\n    " + strings.ReplaceAll(dedent(snippet), "\n", "\n    ") + "\n"
	}
	return ""
}

func dedent(s string) string {
	margin := len(s) - len(strings.TrimLeft(s, " "))
	return strings.ReplaceAll(strings.TrimPrefix(s, strings.Repeat(" ", margin)), "\n"+strings.Repeat(" ", margin), "\n")
}

// Every snippet of the documentation is right: configurations are taken, commands exist with their flags, HAProxy and nginx take their own.
func TestSnippets(t *testing.T) {
	configurations, commands, proxies := 0, 0, 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".md" || strings.Contains(path, "docs/adr/") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		report := func(snippet string, wrong ...string) {
			for _, w := range wrong {
				t.Errorf("%s: %s\n%s", path, w, snippet)
			}
		}
		for _, m := range fence.FindAllStringSubmatch(string(text), -1) {
			switch language, snippet := m[1], m[2]; language {
			case "yaml":
				c := whole(snippet)
				if c == "" {
					report(snippet, wiring(snippet)...)
					continue
				}
				configurations++
				if err := refused(t, c); err != nil {
					report(snippet, err.Error())
				}
			case "sh":
				commands++
				report(snippet, misused(snippet)...)
			case "haproxy":
				proxies++
				report(snippet, unproxied(t, snippet)...)
			case "nginx":
				proxies++
				report(snippet, unserved(t, snippet)...)
			case "nginx-include":
				if snippet != nginx.First {
					report(snippet, "it is not nginx.First")
				}
			}
		}
		for _, m := range inline.FindAllStringSubmatch(fence.ReplaceAllString(string(text), ""), -1) {
			if strings.HasPrefix(m[1], "backstep ") {
				commands++
				report(m[1], misused(m[1])...)
			}
		}
		return nil
	})
	if err != nil || configurations < 4 || commands < 20 || proxies < 1 {
		t.Errorf("%d configurations, %d commands and %d proxies were read: %v", configurations, commands, proxies, err)
	}
}

// unproxied is what HAProxy has against a configuration; nothing where there is no HAProxy.
func unproxied(t *testing.T, snippet string) []string {
	t.Helper()
	program, err := exec.LookPath("haproxy")
	if err != nil {
		return nil
	}
	file, state := filepath.Join(t.TempDir(), "haproxy.cfg"), filepath.Join(t.TempDir(), "state")
	for name, text := range map[string]string{file: strings.ReplaceAll(snippet, "/var/lib/haproxy/state", state), state: "1\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(program, "-c", "-f", file).CombinedOutput()
	if err != nil || strings.Contains(string(out), "[WARNING]") {
		return []string{fmt.Sprintf("%v: %s", err, out)}
	}
	return nil
}

// unserved is what nginx has against a configuration that includes the first file of a shop; nothing where there is no nginx.
func unserved(t *testing.T, snippet string) []string {
	t.Helper()
	program, err := exec.LookPath("nginx")
	if err != nil || os.Geteuid() != 0 { // it makes folders below /var/lib
		return nil
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "nginx.conf")
	text := "pid " + dir + "/pid;\n" + strings.NewReplacer("/etc/nginx/backstep", dir+"/backstep", "/var/log/nginx", dir).Replace(snippet)
	if err := os.Mkdir(filepath.Join(dir, "backstep"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{file: text, filepath.Join(dir, "backstep", "shop.conf"): nginx.First} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(program, "-e", "stderr", "-t", "-c", file).CombinedOutput()
	if err != nil || strings.Contains(string(out), "[warn]") {
		return []string{fmt.Sprintf("%v: %s", err, out)}
	}
	return nil
}

// wiring lists what a workflow of GitHub, a pipeline of GitLab or the settings of a plugin say to us that we do not take.
func wiring(text string) []string {
	var wrong []string
	var node yaml.Node
	for d := yaml.NewDecoder(strings.NewReader(text)); d.Decode(&node) == nil; {
		walk(&node, func(m map[string]*yaml.Node) {
			from, keys, known := wired(m)
			if known == nil {
				return
			}
			for _, key := range keys {
				if !known[key] {
					wrong = append(wrong, from+" takes no "+key)
				}
			}
		})
	}
	return wrong
}

// wired is what a mapping calls of ours, the names that it gives, and those that are taken; nil when it calls nothing of ours.
func wired(m map[string]*yaml.Node) (from string, keys []string, known map[string]bool) {
	called := regexp.MustCompile(`backstep/backstep/(actions/[a-z-]+|\.github/workflows/[a-z-]+\.yml|[a-z-]+)@`)
	at := func(name string) string {
		if n := m[name]; n != nil && n.Kind == yaml.ScalarNode {
			return n.Value
		}
		return ""
	}
	known = map[string]bool{}
	switch {
	case called.MatchString(at("uses")):
		from = called.FindStringSubmatch(at("uses"))[1]
		file := from
		if strings.HasPrefix(from, "actions/") {
			file += "/action.yml"
		}
		var declared struct {
			Inputs map[string]any
			On     struct {
				Call struct{ Inputs map[string]any } `yaml:"workflow_call"`
			}
		}
		if text, err := os.ReadFile(filepath.Join(root, file)); err != nil || yaml.Unmarshal(text, &declared) != nil {
			return from, []string{"(it does not exist)"}, known
		}
		for k := range declared.Inputs {
			known[k] = true
		}
		for k := range declared.On.Call.Inputs {
			known[k] = true
		}
		return from, keysOf(m["with"]), known
	case called.MatchString(at("component")):
		from = called.FindStringSubmatch(at("component"))[1]
		var declared struct {
			Spec struct{ Inputs map[string]any }
		}
		text, err := os.ReadFile(filepath.Join(root, "templates", from, "template.yml"))
		spec, _, _ := strings.Cut(string(text), "\n---\n")
		if err != nil || yaml.Unmarshal([]byte(spec), &declared) != nil {
			return from, []string{"(it does not exist)"}, known
		}
		for k := range declared.Spec.Inputs {
			known[k] = true
		}
		return from, keysOf(m["inputs"]), known
	case m["settings"] != nil && strings.Contains(at("image"), "backstep"):
		var told struct{ Step string }
		_ = m["settings"].Decode(&told)
		s, ok := named(told.Step)
		for _, key := range keysOf(m["settings"]) {
			name := strings.ReplaceAll(key, "_", "-")
			keys = append(keys, key)
			known[key] = ok && (takes(s, name) || name == "step")
		}
		if !ok {
			keys = append(keys, "(no step)")
		}
		return "the plugin with step " + told.Step, keys, known
	}
	return "", nil, nil
}

func keysOf(n *yaml.Node) []string {
	var keys []string
	if n != nil && n.Kind == yaml.MappingNode {
		for i := 0; i < len(n.Content); i += 2 {
			keys = append(keys, n.Content[i].Value)
		}
	}
	return keys
}

// walk calls see for every mapping below n.
func walk(n *yaml.Node, see func(map[string]*yaml.Node)) {
	if n.Kind == yaml.MappingNode {
		m := map[string]*yaml.Node{}
		for i := 0; i < len(n.Content); i += 2 {
			m[n.Content[i].Value] = n.Content[i+1]
		}
		see(m)
	}
	for _, child := range n.Content {
		walk(child, see)
	}
}

func TestWrongSnippetsAreSeen(t *testing.T) {
	for text, want := range map[string]string{
		"backstep deploi":                         "backstep deploi is no step",
		"x && backstep deploy \\\n  --imge r/x:1": "backstep deploy has no --imge",
		"backstep deploy --image x # --imge":      "",
		"backstep completion bash":                "",
	} {
		if got := strings.Join(misused(text), "; "); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]string{
		"uses: backstep/backstep/actions/deploy@main\nwith: {imag: x, image: y}":                    "actions/deploy takes no imag",
		"uses: backstep/backstep/.github/workflows/chain.yml@main\nwith: {enviroment: x}":           ".github/workflows/chain.yml takes no enviroment",
		"uses: backstep/backstep/actions/nothing@main":                                              "actions/nothing takes no (it does not exist)",
		"- component: $CI_SERVER_FQDN/backstep/backstep/pipeline@main\n  inputs: {registry: x}":     "pipeline takes no registry",
		"image: x/backstep:1\nsettings: {step: rollback, reson: x}":                                 "the plugin with step rollback takes no reson",
		"image: x/backstep:1\nsettings: {reason: x}":                                                "the plugin with step  takes no reason; the plugin with step  takes no (no step)",
		"image: x/backstep:1\nsettings: {step: deploy, image: x, registry_username: y, dry_run: 1}": "",
	} {
		if got := strings.Join(wiring(text), "; "); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	for _, text := range []string{"target: {kind: docker, port: 8080, publish: \"8080\"}", "environments: {production: {target: {kind: nothing}}}", "verify: {bak: 1m}"} {
		if refused(t, whole(text)) == nil {
			t.Errorf("%s is taken", text)
		}
	}
}
