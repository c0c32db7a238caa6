package house

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/backstep/backstep/internal/catalog"
)

// Every example is well-formed, names only steps and inputs that exist, and only images and actions that are released.
func TestExamples(t *testing.T) {
	steps, inputs := []string{}, map[string]bool{}
	for _, s := range catalog.Steps() {
		steps = append(steps, s.Name)
		for _, in := range s.Inputs {
			inputs["BACKSTEP_"+strings.ToUpper(strings.ReplaceAll(in.Name, "-", "_"))] = true
		}
	}
	for _, s := range catalog.Steps() { // what an example reads of the outputs
		for _, out := range s.Outputs {
			inputs["BACKSTEP_"+strings.ToUpper(strings.ReplaceAll(out.Name, "-", "_"))] = true
		}
	}
	inputs["BACKSTEP_OUTPUT"] = true
	command := regexp.MustCompile(`(?:^|[ '"&])backstep ([a-z][a-z-]+)`)
	variable := regexp.MustCompile(`BACKSTEP_[A-Z_]+[A-Z]`)
	count := 0
	for _, dir := range []string{"examples", ".github/workflows", "templates"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) == ".go" || filepath.Ext(path) == ".md" {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			count++
			if filepath.Ext(path) == ".yml" {
				for d := yaml.NewDecoder(strings.NewReader(string(text))); ; {
					var node yaml.Node
					if err := d.Decode(&node); err != nil {
						if err.Error() != "EOF" {
							t.Errorf("%s: %v", path, err)
						}
						break
					}
				}
			}
			for line := range strings.Lines(string(text)) {
				if strings.HasPrefix(strings.TrimSpace(line), "#") || strings.HasPrefix(strings.TrimSpace(line), "//") || strings.Contains(line, "description:") {
					continue
				}
				for _, m := range command.FindAllStringSubmatch(line, -1) {
					if !slices.Contains(steps, m[1]) {
						t.Errorf("%s: backstep %s is no step", path, m[1])
					}
				}
				for _, name := range variable.FindAllString(line, -1) {
					if !inputs[strings.Replace(name, "BACKSTEP_INPUT_", "BACKSTEP_", 1)] {
						t.Errorf("%s: %s is no input", path, name)
					}
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
