package house

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each test that the page on security names exists, and no row of what was tried is without one.
func TestThePageOnSecurity(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs/security.md"))
	if err != nil {
		t.Fatal(err)
	}
	declared := map[string]bool{}
	for _, dir := range []string{"internal", "cmd"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllStringSubmatch(string(text), -1) {
				declared[m[1]] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	names := regexp.MustCompile("`((?:Test|Fuzz)[A-Z0-9]\\w+)`")
	for _, m := range names.FindAllStringSubmatch(string(page), -1) {
		if !declared[m[1]] {
			t.Errorf("there is no %s", m[1])
		}
	}
	const tried = 20 // rows of the review
	for i := range tried {
		row := regexp.MustCompile(fmt.Sprintf(`(?m)^\| H%d \|.*$`, i+1)).FindString(string(page))
		if !names.MatchString(row) {
			t.Errorf("H%d has no test: %q", i+1, row)
		}
	}
	if text, err := os.ReadFile(filepath.Join(root, "SECURITY.md")); err != nil || !strings.Contains(string(text), "docs/security.md") {
		t.Errorf("SECURITY.md does not lead to docs/security.md: %v", err)
	}
}
