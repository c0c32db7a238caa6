package registry_test

import (
	"strings"
	"testing"
	"unicode"

	"github.com/backstep/backstep/internal/registry"
)

// FuzzParseReference looks for a reference that is another one when it is written down, or that could be taken for something else
// on a command line or in a line of text.
func FuzzParseReference(f *testing.F) {
	digest := "sha256:" + strings.Repeat("a", 64)
	for _, seed := range []string{"r.example/shop:1", "127.0.0.1:5000/a/b@" + digest, "r.example/shop:1@" + digest, "\xe4./0:0", "[::1]:5000/x:1", "-x/y:1", "r/x:", "r/x@", "a:b:c/d:e",
		"r.example/shop:\n", "--help/x:1", "r.example//x:1", "r.example/x:1@" + digest + "@" + digest} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ref, err := registry.ParseReference(text)
		if err != nil {
			return
		}
		if strings.ContainsFunc(text, func(c rune) bool { return c > unicode.MaxASCII || c <= ' ' || c == 0x7f }) || strings.HasPrefix(text, "-") {
			t.Errorf("%q is taken for %+v", text, ref)
		}
		again := ref.Repository
		if ref.Tag != "" {
			again += ":" + ref.Tag
		}
		if ref.Digest != "" {
			again += "@" + string(ref.Digest)
		}
		if same, err := registry.ParseReference(again); err != nil || same != ref {
			t.Errorf("%q is %+v, and written as %q %+v, %v", text, ref, again, same, err)
		}
	})
}
