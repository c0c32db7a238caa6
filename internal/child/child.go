// Package child says which of our environment variables a program gets that we start. Ours hold the password of the registry, the
// tokens of the CI system and the secrets of the application: none of them is for a child that does not need it.
package child

import (
	"slices"
	"strings"
)

// needed are the variables that any program may need. One that ends in * stands for all that begin so.
var needed = [...]string{"PATH", "HOME", "TMPDIR", "LANG", "LC_*", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"}

// Needed lists the variables that every child gets, for a help text.
func Needed() []string { return slices.Clone(needed[:]) }

// Environment is what a child gets of environ, NAME=VALUE: what every child gets, and more, which is written likewise.
func Environment(environ []string, more ...string) []string {
	var kept []string
	for _, v := range environ {
		name, _, _ := strings.Cut(v, "=")
		if matches(needed[:], name) || matches(more, name) {
			kept = append(kept, v)
		}
	}
	return kept
}

func matches(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool {
		prefix, all := strings.CutSuffix(n, "*")
		return n == name || all && strings.HasPrefix(name, prefix)
	})
}
