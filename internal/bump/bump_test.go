package bump

import (
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/Masterminds/semver/v3"
)

func version(t testing.TB, s string) *semver.Version {
	t.Helper()
	if s == "" {
		return nil
	}
	v, err := semver.StrictNewVersion(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func versions(t testing.TB, list ...string) []*semver.Version {
	var all []*semver.Version
	for _, s := range list {
		all = append(all, version(t, s))
	}
	return all
}

func TestLevelOfOneMessage(t *testing.T) {
	for _, c := range []struct {
		text string
		want Level
	}{
		{"feat: add x", Minor},
		{"FEAT(api): add x", Minor},
		{"fix: mend x", Patch},
		{"perf(db): less", Patch},
		{"chore: tidy", None},
		{"chore!: drop Go 1.20", Major},
		{"feat(api)!: new shape", Major},
		{"docs: explain the feat: prefix", None},
		{"revert: feat: add x", None},
		{"Revert \"feat!: add x\"\n\nThis reverts commit 0123456789.", None},
		{"Merge pull request #1 from a/b\n\nfeat: add x", None},
		{"feat:no space", None},
		{"feat add x", None},
		{"fixup! feat: add x", None},
		{"feature: is not in the convention", None},
		{"fix: x\n\nbreaking change: nope", Patch},
		{"fix: x\n\nBREAKING-CHANGE: yes", Major},
		{"fix: x\n\nBREAKING CHANGE: yes", Major},
		{"fix: x\r\n\r\nBREAKING CHANGE: yes\r\n", Major},
		{"fix: x\n\nProse first.\n\nReviewed-by: Z\nBREAKING CHANGE: yes\nRefs: #1", Major},
		{"fix: x\n\nBREAKING CHANGE:\nthe text is on the next line", Major},
		{"fix: x\n\nThere is no BREAKING CHANGE: in this text", Patch},
		{"fix: x\n\nThis is wrapped and is no\nBREAKING CHANGE: really", Patch},
		{"fix: x\n\nBREAKING CHANGE without a colon", Patch},
		{"no convention\n\nBREAKING CHANGE: but it says so", Major},
		{"", None},
		{"\n\nfeat: after empty lines", Minor},
	} {
		if got := Parse("", c.text).Level(); got != c.want {
			t.Errorf("%q: got %s, want %s", c.text, got, c.want)
		}
	}
}

func TestParse(t *testing.T) {
	m := Parse("abc", "feat( api )!: new shape\n\nBREAKING CHANGE: the old one\n  is gone\nRefs: #3")
	if m.Type != "feat" || m.Scope != "api" || m.Subject != "new shape" || !m.Breaking || m.Note != "the old one is gone" {
		t.Errorf("got %+v", m)
	}
}

func TestRevertedCommitsDoNotCount(t *testing.T) {
	const a, b, c = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", "cccccccccccccccccccccccccccccccccccccccc"
	for _, test := range []struct {
		name     string
		messages []Message // newest first
		want     Level
	}{
		{"by hash", []Message{
			Parse(b, "Revert \"feat: x\"\n\nThis reverts commit "+a+"."),
			Parse(a, "feat: x"), Parse(c, "fix: y")}, Patch},
		{"by abbreviated hash in Refs", []Message{
			Parse(b, "revert: let us never again speak of it\n\nRefs: aaaaaaa"), Parse(a, "feat: x")}, None},
		{"by header, as GitHub's button does", []Message{
			Parse(b, "Revert \"feat: x (#1)\" (#2)\n\nReverts o/r#1"), Parse(a, "feat: x (#1)")}, None},
		{"only the newest of that header", []Message{
			Parse(c, "revert: feat: x"), Parse(b, "feat: x"), Parse(a, "feat: x")}, Minor},
		{"revert of a revert", []Message{
			Parse(c, "Reapply \"feat: x\"\n\nThis reverts commit "+b+"."),
			Parse(b, "Revert \"feat: x\"\n\nThis reverts commit "+a+"."), Parse(a, "feat: x")}, Minor},
		{"released before", []Message{Parse(b, "Revert \"feat: x\"\n\nThis reverts commit "+a+".")}, None},
		{"a newer commit is not taken back", []Message{
			Parse(c, "feat: x"), Parse(b, "Revert \"feat: x\"\n\nThis reverts commit "+a+"."), Parse(a, "feat: x")}, Minor},
		{"prose that quotes the phrase in an ordinary commit", []Message{
			Parse(b, "fix: y\n\nThis reverts commit "+a+" in part."), Parse(a, "feat: x")}, Minor},
	} {
		if got := Of(test.messages); got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}

func TestRevertSubjectWithoutItsOriginal(t *testing.T) {
	kept := Kept([]Message{Parse("b", "revert: feat: x"), Parse("a", "feat: x")})
	if len(kept) != 0 {
		t.Errorf("got %+v, want none", kept)
	}
}

func TestTags(t *testing.T) {
	names := []string{"v1.2.3", "vnext", "v1", "v9.9", "api/v7.0.0", "v1.10.0", "v2.0.0-rc.1", "1.99.0", "v1.2.3+b7", "v01.2.3", "v1.2.18446744073709551615"}
	for _, c := range []struct{ prefix, tags, junk string }{
		{"v", "v2.0.0-rc.1 v1.10.0 v1.2.3 v1.2.3+b7", "vnext v1 v9.9 v01.2.3 v1.2.18446744073709551615"},
		{"api/v", "api/v7.0.0", ""},
		{"web/v", "", ""},
		{"", "1.99.0", "v1.2.3 vnext v1 v9.9 api/v7.0.0 v1.10.0 v2.0.0-rc.1 v1.2.3+b7 v01.2.3 v1.2.18446744073709551615"},
	} {
		tags, junk := Tags(names, c.prefix)
		var got []string
		for _, tag := range tags {
			got = append(got, tag.Name)
		}
		if strings.Join(got, " ") != c.tags {
			t.Errorf("prefix %q: got tags %q, want %q", c.prefix, got, c.tags)
		}
		if strings.Join(junk, " ") != c.junk {
			t.Errorf("prefix %q: got junk %q, want %q", c.prefix, junk, c.junk)
		}
	}
}

func TestNext(t *testing.T) {
	for _, c := range []struct {
		name    string
		stable  string
		pre     []string
		known   []string
		level   Level
		channel string
		want    string
	}{
		{name: "nothing", stable: "1.2.3", level: None},
		{name: "patch", stable: "1.2.3", level: Patch, want: "1.2.4"},
		{name: "minor", stable: "1.2.3", level: Minor, want: "1.3.0"},
		{name: "major", stable: "1.2.3", level: Major, want: "2.0.0"},
		{name: "build metadata is dropped", stable: "1.2.3+b7", level: Patch, want: "1.2.4"},
		{name: "first", level: Patch, want: "0.1.0"},
		{name: "first of a channel", level: Minor, channel: "rc", want: "0.1.0-rc.1"},
		{name: "second of a channel before any release", pre: []string{"0.1.0-rc.1"}, level: Patch, channel: "rc", want: "0.1.0-rc.2"},
		{name: "breaking on 0.x", stable: "0.3.0", level: Major, want: "0.4.0"},
		{name: "feature on 0.x", stable: "0.3.1", level: Minor, want: "0.4.0"},
		{name: "fix on 0.x", stable: "0.3.1", level: Patch, want: "0.3.2"},
		{name: "channel opens", stable: "1.2.0", level: Minor, channel: "rc", want: "1.3.0-rc.1"},
		{name: "channel goes on", stable: "1.2.0", pre: []string{"1.3.0-rc.1"}, level: Minor, channel: "rc", want: "1.3.0-rc.2"},
		{name: "numbers, not texts", stable: "1.2.0", pre: []string{"1.3.0-rc.9", "1.3.0-rc.10"}, level: Minor, channel: "rc", want: "1.3.0-rc.11"},
		{name: "a number taken on another branch", stable: "1.2.0", known: []string{"1.3.0-rc.4"}, level: Minor, channel: "rc", want: "1.3.0-rc.5"},
		{name: "another channel counts by itself", stable: "1.2.0", pre: []string{"1.3.0-beta.4"}, level: Minor, channel: "rc", want: "1.3.0-rc.1"},
		{name: "a stable release drops it", stable: "1.2.0", pre: []string{"1.3.0-rc.2"}, level: Minor, want: "1.3.0"},
		{name: "a break while in a channel", stable: "1.2.0", pre: []string{"1.3.0-rc.2"}, level: Major, channel: "rc", want: "2.0.0-rc.1"},
		{name: "fix after a wider prerelease", stable: "1.9.0", pre: []string{"2.0.0-rc.1"}, level: Patch, want: "2.0.0"},
		{name: "fix after a wider prerelease, in its channel", stable: "1.9.0", pre: []string{"2.0.0-rc.1"}, level: Patch, channel: "rc", want: "2.0.0-rc.2"},
		{name: "a prerelease elsewhere does not count", stable: "1.9.0", known: []string{"2.0.0-rc.1"}, level: Patch, want: "1.9.1"},
	} {
		h := History{Stable: version(t, c.stable), Prereleases: versions(t, c.pre...), Known: versions(t, c.known...)}
		level := Applied(h.Stable, c.level)
		got := ""
		if v := Next(h, level, c.channel, version(t, "0.1.0")); v != nil {
			got = v.String()
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// The table that no other tool gets right (facts/build-tag-copy.md, 1.4).
func TestTheTableOfCases(t *testing.T) {
	for _, c := range []struct{ name, tags, text, want string }{
		{"docs about feat", "v1.0.0", "docs: explain the feat: prefix", ""},
		{"revert", "v1.0.0", "revert: feat: add x", ""},
		{"merge with feat in the body", "v1.0.0", "Merge branch 'x'\n\nfeat: add x", ""},
		{"break on v0", "v0.3.0", "feat!: x", "0.4.0"},
		{"lower case footer", "v1.0.0", "fix: x\n\nbreaking change: nope", "1.0.1"},
		{"hyphen footer", "v1.0.0", "fix: x\n\nBREAKING-CHANGE: yes", "2.0.0"},
		{"prose", "v1.0.0", "fix: x\n\nThere is no BREAKING CHANGE: in it", "1.0.1"},
		{"junk tags", "v1.2.3 vnext v1 v9.9", "fix: x", "1.2.4"},
		{"another component", "v1.2.3 api/v7.0.0", "fix: x", "1.2.4"},
		{"build metadata", "v1.2.3+b7", "fix: x", "1.2.4"},
	} {
		tags, _ := Tags(strings.Fields(c.tags), "v")
		h := History{Stable: tags[0].Version}
		got := ""
		if v := Next(h, Applied(h.Stable, Of([]Message{Parse("", c.text)})), "", version(t, "0.1.0")); v != nil {
			got = v.String()
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestFloatingTags(t *testing.T) {
	for _, c := range []struct{ version, existing, want string }{
		{"1.4.2", "", "1.4 1 latest"},
		{"1.4.2", "1.4.1 1.3.9 1.4.2", "1.4 1 latest"},
		{"1.4.2-rc.1", "", ""},
		{"1.4.2", "1.4.3", ""},
		{"1.4.2", "1.5.0", "1.4"},
		{"1.4.2", "2.0.0", "1.4 1"},
		{"1.4.2", "2.0.0-rc.1 1.5.0-rc.1", "1.4 1 latest"},
		{"1.4.2", "1.5.0 2.0.0", "1.4"},
		{"0.3.0", "0.2.0", "0.3 latest"},
		{"0.3.0", "1.0.0", "0.3"},
		{"1.4.2+b7", "1.4.2", "1.4 1 latest"},
	} {
		got := FloatingTags(version(t, c.version), versions(t, strings.Fields(c.existing)...))
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s among %q: got %q, want %q", c.version, c.existing, got, c.want)
		}
	}
}

func TestImageTags(t *testing.T) {
	v := version(t, "1.4.2-rc.1+b.7")
	if got := ImageTag(v); got != "1.4.2-rc.1_b.7" {
		t.Errorf("got %q", got)
	}
	got := ImageVersions([]string{ImageTag(v), "1.4", "latest", "1.4.2", "bs.production", "sha256-00", "v1.0.0"})
	if len(got) != 2 || !got[0].Equal(v) || got[0].Metadata() != "b.7" || got[1].String() != "1.4.2" {
		t.Errorf("got %v", got)
	}
}

func TestParseLevel(t *testing.T) {
	for l := None; l <= Major; l++ {
		if got, err := ParseLevel(l.String()); err != nil || got != l {
			t.Errorf("%s: got %s, %v", l, got, err)
		}
	}
	const want = `bump "huge": want none, patch, minor or major`
	if _, err := ParseLevel("huge"); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestNotes(t *testing.T) {
	got := Notes("1.4.0", []Message{
		Parse("5555555555", "fix(api): mend 1.2-x for @admin <img src=x onerror=alert(1)> [click](http://evil)"),
		Parse("4444444444", "chore: tidy"),
		Parse("3333333333", "Merge branch 'x'"),
		Parse("2222222222", "feat!: y\n\nBREAKING CHANGE: z is\n gone"),
		Parse("1111111111", "feat: 1. see www.evil.com `rm`\x1b[31m\u202e"),
		Parse("0000000000", "perf: faster"),
	})
	const want = `## 1.4.0

### Breaking changes

- y (2222222): z is gone

### Features

- 1\. see www\.evil.com \` + "`rm\\`" + `\[31m (1111111)

### Fixes

- **api**: mend 1.2-x for @&#8203;admin \<img src\=x onerror\=alert(1\)\> \[click\](http\://evil\) (5555555)

### Performance

- faster (0000000)

### Other changes

- tidy (4444444)
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	long := Notes("1.0.0", []Message{Parse("", "feat: "+strings.Repeat("a", 10_000))})
	if n := strings.Count(long, "a"); n > longest+10 {
		t.Errorf("a text of 10000 runes is shown with %d", n)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"feat(api)!: x\n\nBREAKING CHANGE: y\n z", "Revert \"feat: x (#1)\" (#2)\n\nThis reverts commit 0123456.",
		"fix: x\r\n\r\nBREAKING-CHANGE #1", "revert: x\n\nRefs: 0123456, abcdef0", "\n\n: ", "a(: b", "\xff\xfe: \x00", "feat: @x <b>",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m := Parse("0123456789", text)
		if m.Breaking && !strings.Contains(text, "BREAKING") && !strings.Contains(text, "!") {
			t.Errorf("%q is breaking", text)
		}
		if m.Type != strings.ToLower(m.Type) || strings.Contains(m.Subject, "\n") {
			t.Errorf("%q: type %q, subject %q", text, m.Type, m.Subject)
		}
		if m.Revert && m.Level() != None {
			t.Errorf("%q: a revert asks for %s", text, m.Level())
		}
		if again := Parse("0123456789", text+"\n\nSigned-off-by: somebody"); again.Level() < m.Level() {
			t.Errorf("%q: a trailer takes %s to %s", text, m.Level(), again.Level())
		}
		Kept([]Message{m, m})
		notes := Notes("1.0.0", []Message{m})
		for i, r := range notes {
			if unicode.IsControl(r) && r != '\n' || r == '<' && (i == 0 || notes[i-1] != '\\') {
				t.Errorf("%q: notes have a bare %q:\n%s", text, r, notes)
			}
		}
		if lines := strings.Split(strings.TrimSuffix(notes, "\n"), "\n"); !slices.Contains([]int{1, 5}, len(lines)) {
			t.Errorf("%q: notes have %d lines:\n%s", text, len(lines), notes)
		}
	})
}
