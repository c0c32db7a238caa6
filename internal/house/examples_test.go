package house

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/backstep/backstep/internal/catalog"
	"github.com/backstep/backstep/internal/input"
)

// Every example is well-formed, runs only steps with flags that they have, sets only inputs that there are, checks the repository
// out where the host does not, and releases, verifies and offers the way back.
func TestExamples(t *testing.T) {
	declared := map[string]bool{"BACKSTEP_OUTPUT": true}
	for _, s := range catalog.Steps() {
		for _, in := range s.Inputs {
			declared[input.Variable(in.Name)] = true
		}
		for _, out := range s.Outputs { // what an example reads
			declared[input.Variable(out.Name)] = true
		}
	}
	variable := regexp.MustCompile(`BACKSTEP_[A-Z_]+[A-Z]`)
	count := 0
	for _, dir := range []string{"examples", ".github/workflows", "templates", "internal/step/initialize/files"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) == ".go" || filepath.Ext(path) == ".md" {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			count++
			if filepath.Ext(path) == ".yml" && !strings.Contains(string(text), "{{.") {
				for _, wrong := range append(unparsed(string(text)), wiring(string(text))...) {
					t.Errorf("%s: %s", path, wrong)
				}
			}
			said := regexp.MustCompile(`(?m)^.*description:.*$`).ReplaceAllString(string(text), "")
			for _, wrong := range misused(said) {
				t.Errorf("%s: %s", path, wrong)
			}
			for _, name := range variable.FindAllString(comment.ReplaceAllString(said, ""), -1) {
				if !declared[strings.Replace(name, "BACKSTEP_INPUT_", "BACKSTEP_", 1)] {
					t.Errorf("%s: %s is no input", path, name)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if count < 15 {
		t.Errorf("read %d files", count)
	}
}

// unparsed is what is wrong with the YAML of a text.
func unparsed(text string) []string {
	for d := yaml.NewDecoder(strings.NewReader(text)); ; {
		var node yaml.Node
		if err := d.Decode(&node); err == io.EOF {
			return nil
		} else if err != nil {
			return []string{err.Error()}
		}
	}
}

// What a complete example has, by its host: the code, a login, a release with a verdict, and a way back by hand.
func TestExamplesAreComplete(t *testing.T) {
	const login, back = "(?i)registry_password", `backstep rollback|step: rollback`
	for file, checkout := range map[string]string{
		"yunxiao/flow.yml":            "sources:",
		"gitee/.workflow/release.yml": "git clone",
		"cnb/.cnb.yml":                "", // these check out by themselves
		"coding/Jenkinsfile":          "",
		"jenkins/Jenkinsfile":         "",
		"drone/.drone.yml":            "",
		"woodpecker/.woodpecker.yml":  "",
	} {
		text, err := os.ReadFile(filepath.Join(root, "examples", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{regexp.QuoteMeta(checkout), login, "backstep build-image", `(?s)backstep deploy --dry-run --allow-older.*backstep semver-tag.*backstep deploy\b`, "backstep verify --on-fail rollback", back} {
			if !regexp.MustCompile(part).Match(text) {
				t.Errorf("examples/%s lacks %s", file, part)
			}
		}
	}
}
