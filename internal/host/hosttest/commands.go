package hosttest

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// The marks of commands of GitHub's runner: at the start of a line, and inside one.
const (
	lineMark = "::"
)

// Commands is what hosts would take for a command in the output of a step, each as its name and what follows. It reads as
// GitHub's runner does (src/Runner.Common/ActionCommand.cs): a line ends at LF, at CR and at both; `::name::` counts at the
// start of a line, behind white space, and `##[name]` anywhere. The comparisons of .NET pass over characters that have no
// width, so they do here. What Azure (`##vso[`), TeamCity (`##teamcity[`) and GitLab (sections, and every escape sequence of a
// terminal) would obey counts too.
func Commands(output string) []string {
	var found []string
	for _, line := range strings.FieldsFunc(output, func(c rune) bool { return c == '\n' || c == '\r' }) {
		seen := strings.Map(func(c rune) rune {
			if ignorable(c) {
				return -1
			}
			return c
		}, line)
		found = append(found, onLine(seen)...)
		if m := inside.FindString(seen); m != "" {
			found = append(found, m)
		}
		if m := terminal.FindString(line); m != "" {
			found = append(found, m)
		}
	}
	if gitlab.MatchString(output) {
		found = append(found, gitlab.FindString(output))
	}
	return slices.Compact(found)
}

// onLine is the command `::name properties::data` of a line, if it is one.
func onLine(line string) []string {
	rest, ok := strings.CutPrefix(strings.TrimLeftFunc(line, unicode.IsSpace), lineMark)
	if !ok {
		return nil
	}
	about, _, ok := strings.Cut(rest, lineMark)
	if !ok {
		return nil
	}
	name, _, _ := strings.Cut(about, " ")
	return []string{lineMark + name}
}

var (
	inside   = regexp.MustCompile(`##([a-zA-Z]+)?\[[^\]]*`)
	terminal = regexp.MustCompile(`[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x{80}-\x{9f}]`)
	gitlab   = regexp.MustCompile(`section_(start|end):[0-9]+:[a-zA-Z0-9_.-]+(\[[^\]]*\])?\r\x1b\[0K`)
)

// ignorable says that a comparison by a culture passes over c.
func ignorable(c rune) bool {
	return c == 0 || unicode.In(c, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}
