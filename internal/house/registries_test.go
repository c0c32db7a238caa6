package house

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/backstep/backstep/internal/registry"
)

// The page on registries has a section for each kind, under the address that the hint gives, with what to paste and the same rows.
func TestThePageOnRegistries(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, registry.CleanUpPage))
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for _, part := range regexp.MustCompile(`(?m)^## `).Split(string(text), -1) {
		title, body, _ := strings.Cut(part, "\n")
		sections[title] = body
	}
	for _, k := range registry.Kinds() {
		body, ok := sections[k.Name]
		if anchor := strings.ReplaceAll(strings.ToLower(k.Name), " ", "-"); !ok || k.Anchor != anchor {
			t.Errorf("%s: section %v, anchor %q; want %q", k.Name, ok, k.Anchor, anchor)
		}
		for _, row := range []string{"| Login |", "| First push |", "| Removes tags |", "| Keep ours |", "| Fixed tags |", "| Limits |", "| Traps |"} {
			if !strings.Contains(body, row) {
				t.Errorf("%s lacks %s", k.Name, row)
			}
		}
		if !strings.Contains(body, k.Tags) {
			t.Errorf("%s does not say what to paste: %s", k.Name, k.Tags)
		}
	}
}
