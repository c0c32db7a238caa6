package alertmanager

import (
	"regexp"
	"strings"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/release"
)

// matcher is one of https://prometheus.io/docs/alerting/latest/configuration/#matcher. A label that is not there is "".
type matcher struct {
	label, operator, value string
	pattern                *regexp.Regexp // for =~ and !~
}

var matcherShape = regexp.MustCompile(`^\s*([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(=~|!~|!=|=)\s*(?:"((?:[^"\\]|\\.)*)"|([^"\\{}, ]*))\s*$`)

// parse reads one.
func parse(s string) (matcher, error) {
	parts := matcherShape.FindStringSubmatch(s)
	if parts == nil {
		return matcher{}, fault.Inputf("matcher %q: want for example service=\"shop\"", s)
	}
	m := matcher{label: parts[1], operator: parts[2], value: strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\n`, "\n").Replace(parts[3]) + parts[4]}
	if strings.HasSuffix(m.operator, "~") {
		if _, err := regexp.Compile(m.of(release.Release{}).value); err != nil {
			return matcher{}, fault.Inputf("matcher %q: %w", s, err)
		}
	}
	return m, nil
}

// of is the matcher for a release. What a release is called is text: no pattern, and no end of a value.
func (m matcher) of(r release.Release) matcher {
	version, digest := r.Version, string(r.Digest)
	if strings.HasSuffix(m.operator, "~") {
		version, digest = regexp.QuoteMeta(version), regexp.QuoteMeta(digest)
	}
	m.value = strings.NewReplacer("$digest", digest, "$version", version).Replace(m.value)
	if strings.HasSuffix(m.operator, "~") {
		m.pattern, _ = regexp.Compile("^(?:" + m.value + ")$") // it was tried when it was parsed
	}
	return m
}

// String is the matcher as Alertmanager reads it. Nothing else has a meaning within quotes in both of its parsers.
func (m matcher) String() string {
	return m.label + m.operator + `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(m.value) + `"`
}

// matches says whether all of them match.
func matches(all []matcher, labels map[string]string) bool {
	for _, m := range all {
		value := labels[m.label]
		is := value == m.value
		if strings.HasSuffix(m.operator, "~") {
			is = m.pattern != nil && m.pattern.MatchString(value)
		}
		if is == strings.HasPrefix(m.operator, "!") {
			return false
		}
	}
	return true
}
