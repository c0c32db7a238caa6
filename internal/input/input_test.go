package input_test

import (
	"testing"
	"time"

	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/secret"
)

func TestTime(t *testing.T) {
	var at time.Time
	in := input.Time(&at, "until", "When it ends.")
	if err := in.Set([]string{"2026-12-01T10:00:00+02:00"}); err != nil || !at.Equal(time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)) {
		t.Errorf("got %s, %v", at, err)
	}
	for _, wrong := range []string{"tomorrow", "2026-12-01", "2026-12-01 08:00:00", "2026-12-01T08:00:00", "2026-13-01T08:00:00Z"} {
		want := `"` + wrong + `" is no time: want for example 2026-12-01T08:00:00Z`
		if err := in.Set([]string{wrong}); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// A map can hold secrets: what is wrong with a line is said without the line.
func TestMap(t *testing.T) {
	var labels map[string]string
	var variables map[string]secret.Value
	all, env := input.Map(&labels, "labels", "Labels."), input.Env(&variables, "env", "Variables.")
	for _, c := range []struct {
		in    input.Input
		lines []string
		want  string
	}{
		{all, []string{"A=1", "hunter2"}, "line 2 has no =: want KEY=VALUE"},
		{all, []string{"=hunter2"}, "a key is empty"},
		{all, []string{"A=1", "A=hunter2"}, "A is there twice"},
		{all, []string{"A B=1", "org.example/x=a=b"}, ""},
		{env, []string{"A B=hunter2"}, `"A B" cannot be the name of an environment variable`},
		{env, []string{"A\x00B=hunter2"}, `"A\x00B" cannot be the name of an environment variable`},
		{env, []string{"LOG=a b", "spring.datasource-url=x"}, ""},
	} {
		said := ""
		if err := c.in.Set(c.lines); err != nil {
			said = err.Error()
		}
		if said != c.want {
			t.Errorf("%q: got %q, want %q", c.lines, said, c.want)
		}
	}
}

func TestFromStep(t *testing.T) {
	var image string
	if in := input.String(&image, "image", "The image."); in.Handed || !in.FromStep().Handed {
		t.Error("only an input that says so takes what an earlier step hands on")
	}
}

// Names of sections must not look like what containers are named.
func TestSectionNames(t *testing.T) {
	var got map[string]struct{}
	in := input.Sections(&got, "roles", "Roles.", func(*struct{}) []input.Input { return nil })
	for _, name := range []string{"job", "mail-queue", "idler", "job2"} {
		if err := in.CheckKey(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"", "Job", "idle", "mail-idle", "parked", "job-2", "a.b"} {
		if err := in.CheckKey(name); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
}
