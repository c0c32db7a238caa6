package release_test

import (
	"strings"
	"testing"

	"github.com/backstep/backstep/internal/release"
)

// What is read of a release has the shape of what is written.
func TestCheck(t *testing.T) {
	digest := release.Digest("sha256:" + strings.Repeat("a", 64))
	before := release.ServedBefore(map[string]int{"10.0.0.1:80": 50, "10.0.0.2:80": 50})
	for _, r := range []release.Release{{Digest: digest}, {Digest: digest, Version: "1.0.0 (beta)", Commit: "abc/1", Config: "0123456789abcdef"}, before} {
		if err := r.Check(); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
	moved := before
	moved.Before = "10.6.6.6:80=100"
	for _, r := range []release.Release{{}, {Digest: "sha256:a"}, {Digest: digest, Config: "x"}, {Digest: digest, Version: `1"} * 0`}, {Digest: digest, Version: "1\r::x"},
		{Digest: digest, Version: "`"}, {Digest: digest, Commit: "a\x1b[2J"}, {Digest: digest, Version: strings.Repeat("1", 129)}, {Digest: digest, Version: "1\u202e"}, moved} {
		if r.Check() == nil {
			t.Errorf("%+v is taken for a release", r)
		}
	}
}
