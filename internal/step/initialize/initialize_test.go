package initialize

import (
	"bytes"
	"os"
	"testing"
)

// The example of the docs, which the tests run, has the very workflow that init writes.
func TestRollbackIsTheExample(t *testing.T) {
	want, err := os.ReadFile("../../../examples/shop/.github/workflows/rollback.yml")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := (&answers{}).render("rollback.yml"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("rollback.yml differs from examples/shop: copy it, %v", err)
	}
}

func TestRemotes(t *testing.T) {
	for remote, want := range map[string][2]string{
		"git@github.com:acme/shop.git":              {"github.com", "acme/shop"},
		"https://github.com/acme/shop":              {"github.com", "acme/shop"},
		"ssh://git@gitlab.com:22/acme/erp/shop.git": {"gitlab.com", "acme/erp/shop"},
		"http://127.0.0.1:3000/acme/shop.git/":      {"127.0.0.1", "acme/shop"},
		"https://ada:token@git.example.com/a/b.git": {"git.example.com", "a/b"},
	} {
		if m := remoteShape.FindStringSubmatch(remote); m == nil || m[1] != want[0] || m[2] != want[1] {
			t.Errorf("%s is %q, want %q", remote, m, want)
		}
	}
}
