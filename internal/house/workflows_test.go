package house

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// workflow is what the tests read of one.
type workflow struct {
	On struct {
		Call struct {
			Inputs  map[string]struct{ Default any }
			Secrets map[string]any
		} `yaml:"workflow_call"`
	}
	Permissions map[string]string
	Jobs        map[string]struct {
		Permissions map[string]string
		Env         map[string]string
		Concurrency struct{ Group string }
		Steps       []struct {
			Uses string
			With map[string]string
		}
	}
}

func readYAML(t *testing.T, path string, into any) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err == nil {
		err = yaml.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return string(text)
}

var ourAction = regexp.MustCompile(`^backstep/backstep/actions/([a-z-]+)@`)

// Every input of the five actions is reached from the reusable workflows, nothing that they declare is left unused, and an input
// whose empty value means something keeps its default.
func TestTheWorkflowsReachEveryInput(t *testing.T) {
	reached := 0
	for _, name := range []string{"chain", "rollback"} {
		var w workflow
		text := readYAML(t, ".github/workflows/"+name+".yml", &w)
		given := map[string]bool{"token": true, "verify": true} // ours by default, and a step of its own
		for _, job := range w.Jobs {
			for _, s := range job.Steps {
				for in := range s.With {
					given[in] = true
				}
			}
		}
		for _, job := range w.Jobs {
			for _, s := range job.Steps {
				m := ourAction.FindStringSubmatch(s.Uses)
				if m == nil {
					continue
				}
				reached++
				var action struct {
					Inputs map[string]struct{ Default any }
				}
				readYAML(t, "actions/"+m[1]+"/action.yml", &action)
				for in, declared := range action.Inputs {
					if _, ok := s.With[in]; !ok && (!given[in] || m[1] != "deploy" && in != "token") {
						t.Errorf("%s.yml gives %s no %s", name, m[1], in)
					}
					if ours, ok := w.On.Call.Inputs[in]; ok && declared.Default != nil && ours.Default != declared.Default {
						t.Errorf("%s.yml has %v as the default of %s, the action %v", name, ours.Default, in, declared.Default)
					}
				}
				for in := range s.With {
					if _, ok := action.Inputs[in]; !ok {
						t.Errorf("%s.yml gives %s an input %s, which it has not", name, m[1], in)
					}
				}
			}
		}
		for in := range w.On.Call.Inputs {
			if !strings.Contains(text, "inputs."+in) {
				t.Errorf("%s.yml does not use its input %s", name, in)
			}
		}
		for s := range w.On.Call.Secrets {
			if !strings.Contains(text, "secrets."+s) {
				t.Errorf("%s.yml does not use its secret %s", name, s)
			}
		}
	}
	if reached != 6 {
		t.Errorf("%d steps use our actions", reached)
	}
}

// The token of a called workflow has at most what its caller gives and what it asks for itself: ours ask for nothing less than they
// are given, and who calls them gives what ghcr.io, the ledger and the tags need.
func TestPermissionsSuffice(t *testing.T) {
	for _, name := range []string{"chain", "rollback"} {
		var w workflow
		readYAML(t, ".github/workflows/"+name+".yml", &w)
		for _, job := range w.Jobs {
			if w.Permissions != nil || job.Permissions != nil {
				t.Errorf("%s.yml takes permissions away that its caller gives: %v, %v", name, w.Permissions, job.Permissions)
			}
			if job.Env["GITHUB_TOKEN"] == "" {
				t.Errorf("%s.yml hands no token on: there is no login for ghcr.io", name)
			}
		}
	}
	for path, want := range map[string]map[string]string{
		"examples/shop/.github/workflows/rollback.yml":     {"contents": "read", "packages": "write"},
		"examples/shop/.github/workflows/pull-request.yml": {"contents": "read", "packages": "read"},
		"examples/monorepo/.github/workflows/release.yml":  {"contents": "write", "packages": "write"},
	} {
		var w workflow
		readYAML(t, path, &w)
		for scope, level := range want {
			if w.Permissions[scope] != level || len(w.Permissions) != len(want) {
				t.Errorf("%s has %v, want %v", path, w.Permissions, want)
			}
		}
	}
}

// A release and a rollback of one service and environment queue up behind one another, and those of another service do not.
func TestOneQueueForEachService(t *testing.T) {
	var groups []string
	for _, name := range []string{"chain", "rollback"} {
		var w workflow
		readYAML(t, ".github/workflows/"+name+".yml", &w)
		for _, job := range w.Jobs {
			groups = append(groups, job.Concurrency.Group)
		}
	}
	slices.Sort(groups)
	if groups = slices.Compact(groups); len(groups) != 1 || !strings.Contains(groups[0], "inputs.config") || !strings.Contains(groups[0], "inputs.environment") {
		t.Errorf("the groups are %q", groups)
	}
}

// Nothing is tagged before a dry run of the deploy has found its configuration, its secrets and its image right.
func TestNoTagMovesBeforeTheCheck(t *testing.T) {
	inOrder := func(file, text string, parts ...string) {
		t.Helper()
		at := 0
		for _, part := range parts {
			i := strings.Index(text[at:], part)
			if i < 0 {
				t.Errorf("%s: %q does not come after what goes before it in %q", file, part, parts)
				return
			}
			at += i
		}
	}
	var w workflow
	chain := readYAML(t, ".github/workflows/chain.yml", &w)
	inOrder("chain.yml", chain, "- id: build\n", "- name: application\n", "- id: check", "dry-run: true\n", "- id: tag\n", "- id: deploy\n")
	for _, s := range w.Jobs["chain"].Steps {
		if s.With["dry-run"] == "true" && s.With["registry-audience"] == "" {
			t.Error("chain.yml: the check has not the login of the deploy")
		}
	}
	pipeline, err := os.ReadFile(filepath.Join(root, "templates/pipeline/template.yml"))
	if err != nil {
		t.Fatal(err)
	}
	inOrder("template.yml", string(pipeline), "]]check\":", "action: prepare", "backstep deploy --dry-run", "]]semver-tag\":", "]]check\", artifacts: false}", "]]deploy\":")
	shell, err := os.ReadFile(filepath.Join(root, "examples/shell/release.sh"))
	if err != nil {
		t.Fatal(err)
	}
	inOrder("release.sh", string(shell), "backstep build-image", "backstep deploy --dry-run", "backstep semver-tag", "backstep deploy\n")
}
