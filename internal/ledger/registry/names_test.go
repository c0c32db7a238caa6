package registry

import (
	"regexp"
	"strings"
	"testing"

	"github.com/backstep/backstep/internal/registry"
)

// What a registry is told to keep is every tag that a ledger writes, and no tag of an image.
func TestExemptionsNameEveryTagOfALedger(t *testing.T) {
	l := New(nil, "registry.example.com/acme/shop", "shop", "production")
	ours := []string{l.hint(), l.name(1), l.x(1), l.y(1), l.beat(), l.fixedBeat(1, 2), l.pin(1), l.pin(1) + ".linux-amd64"}
	for _, k := range registry.Kinds() {
		if !strings.Contains(strings.ReplaceAll(k.Exempt, `\\`, `\`), k.Tags) { // in JSON it is escaped
			t.Errorf("%s: %q does not say %q", k.Name, k.Exempt, k.Tags)
		}
		pattern := k.Tags
		switch wildcard := strings.TrimPrefix(pattern, "!"); {
		case strings.Contains(pattern, `\.`): // GitLab anchors it for us
			pattern = "^(?:" + pattern + ")$"
		case strings.HasSuffix(wildcard, "*"):
			pattern = "^" + regexp.QuoteMeta(strings.TrimRight(wildcard, "*")) + ".*$"
		default:
			pattern = "^" + regexp.QuoteMeta(wildcard)
		}
		matches := regexp.MustCompile(pattern)
		for _, tag := range ours {
			if !matches.MatchString(tag) {
				t.Errorf("%s: %s does not keep %s", k.Name, k.Tags, tag)
			}
		}
		for _, tag := range []string{"1.0.0", "latest", "bsd", "v1.bs.x"} {
			if matches.MatchString(tag) {
				t.Errorf("%s: %s keeps %s", k.Name, k.Tags, tag)
			}
		}
	}
}
