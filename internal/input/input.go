// Package input declares what a step or a kind can be told: each input once, with its name, help, type,
// default and rules. Flags, environment variables, action.yml, GitLab's spec, the schema of backstep.yml,
// the reference and completion all come from these declarations, and binding is the only way to read a value.
package input

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/secret"
)

// Type is how an input looks to a host and in a schema.
type Type string

// The types. A list is one item a line where a host knows only strings, and a map is KEY=VALUE a line.
const (
	Text    Type = "string"
	Number  Type = "number"
	Boolean Type = "boolean"
	ListOf  Type = "list"
	MapOf   Type = "map"
	// SectionsOf is a map whose values have inputs of their own. A line is NAME.INPUT=VALUE; it is for files only.
	SectionsOf Type = "sections"
)

// Input is one declared input, bound to the variable its value goes to.
type Input struct {
	Name     string   // kebab-case
	Help     string   // one or two sentences
	Type     Type     // what a host or a schema shows
	Default  string   // as a user would write it; "" is none
	Required bool     // has to be given
	Options  []string // the closed set of values, when there is one
	Example  string   // a value as backstep.yml has it, YAML in one line; "" is none
	ByAction string   // what an action of GitHub gives when nothing is given, an expression
	Secret   bool     // masked before anything is logged; only by reference in a file
	Starts   bool     // a release is started with it: it is part of the release's configuration
	Handed   bool     // an earlier step's output of the same name is taken when nothing else is given
	Blank    bool     // an empty value is one of its own, and not the same as none
	Inner    []Input  // of each section
	set      func([]string) error
	key      func(string) error // what a map's keys have to be
}

// Output is one declared output. It is written through the variable that declares it.
type Output struct {
	Name    string // kebab-case
	Help    string
	Foreign bool // it repeats what strangers have said: commits, servers, applications
}

// Bind declares an input that parse writes to *p.
func Bind[T any](p *T, name, help string, parse func(string) (T, error)) Input {
	return Input{Name: name, Help: help, Type: Text, set: func(values []string) error {
		if len(values) != 1 {
			return fmt.Errorf("want one value, got %d", len(values))
		}
		v, err := parse(values[0])
		if err == nil {
			*p = v
		}
		return err
	}}
}

// String declares free text.
func String(p *string, name, help string) Input {
	return Bind(p, name, help, func(s string) (string, error) { return s, nil })
}

// Secret declares a secret text.
func Secret(p *secret.Value, name, help string) Input {
	in := Bind(p, name, help, func(s string) (secret.Value, error) { return secret.New(s), nil })
	in.Secret = true
	return in
}

// Duration declares a length of time above zero, such as 30s or 5m.
func Duration(p *time.Duration, name, help string) Input {
	return Bind(p, name, help, func(s string) (time.Duration, error) {
		d, err := parseDuration(s)
		if err == nil && d == 0 {
			err = fmt.Errorf("%q is no length of time: want for example 30s, 5m or 1h30m", s)
		}
		return d, err
	})
}

// Span declares a length of time that may be zero.
func Span(p *time.Duration, name, help string) Input {
	return Bind(p, name, help, parseDuration)
}

// Time declares a point in time, as RFC 3339 writes it.
func Time(p *time.Time, name, help string) Input {
	return Bind(p, name, help, func(s string) (time.Time, error) {
		at, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return at, fmt.Errorf("%q is no time: want for example 2026-12-01T08:00:00Z", s)
		}
		return at, nil
	})
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is no length of time: want for example 30s, 5m or 1h30m", s)
	}
	return d, nil
}

// Bool declares true or false.
func Bool(p *bool, name, help string) Input {
	in := Bind(p, name, help, func(s string) (bool, error) {
		switch s {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return false, fmt.Errorf("%q is neither true nor false", s)
	})
	in.Type, in.Default = Boolean, "false"
	return in
}

// Int declares a whole number from low to high.
func Int(p *int, name, help string, low, high int) Input {
	in := Bind(p, name, help, func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil || n < low || n > high {
			return 0, fmt.Errorf("%q: want a whole number from %d to %d", s, low, high)
		}
		return n, nil
	})
	in.Type = Number
	return in
}

// Share declares a part of a whole, written as 1% or 0.01, from 0 to 1.
func Share(p *float64, name, help string) Input {
	return Bind(p, name, help, func(s string) (float64, error) {
		number, percent := strings.CutSuffix(s, "%")
		f, err := strconv.ParseFloat(number, 64)
		if percent {
			f /= 100
		}
		if err != nil || !(f >= 0 && f <= 1) {
			return 0, fmt.Errorf("%q is no share: want for example 1%% or 0.01", s)
		}
		return f, nil
	})
}

// List declares any number of texts.
func List(p *[]string, name, help string) Input {
	return Input{Name: name, Help: help, Type: ListOf, set: func(values []string) error {
		*p = values
		return nil
	}}
}

// Map declares keys with values. No fault repeats a value: it can be a secret.
func Map(p *map[string]string, name, help string) Input {
	return keyed(p, name, help, anyKey, func(text string) string { return text })
}

// Secrets declares keys with values that can be secrets.
func Secrets(p *map[string]secret.Value, name, help string) Input {
	return keyed(p, name, help, anyKey, secret.New)
}

// Env declares environment variables with their values, which can be secrets.
func Env(p *map[string]secret.Value, name, help string) Input {
	return keyed(p, name, help, variableKey, secret.New)
}

func keyed[T any](p *map[string]T, name, help string, check func(string) error, made func(string) T) Input {
	return Input{Name: name, Help: help, Type: MapOf, key: check, set: func(values []string) error {
		m := make(map[string]T, len(values))
		for i, line := range values {
			key, value, ok := strings.Cut(line, "=")
			if !ok {
				return fmt.Errorf("line %d has no =: want KEY=VALUE", i+1)
			}
			if err := check(key); err != nil {
				return err
			}
			if _, twice := m[key]; twice {
				return fmt.Errorf("%s is there twice", key)
			}
			m[key] = made(value)
		}
		*p = m
		return nil
	}}
}

// Sections declares named groups of inputs. Inner declares those of one group, bound to its value.
func Sections[T any](p *map[string]T, name, help string, inner func(*T) []Input) Input {
	return Input{Name: name, Help: help, Type: SectionsOf, key: sectionKey, Inner: inner(new(T)), set: func(values []string) error {
		grouped := map[string]map[string][]secret.Value{}
		for _, line := range values {
			key, value, _ := strings.Cut(line, "=")
			section, rest, _ := strings.Cut(key, ".")
			of, sub, mapped := strings.Cut(rest, ".")
			if mapped {
				value = sub + "=" + value
			}
			if grouped[section] == nil {
				grouped[section] = map[string][]secret.Value{}
			}
			if of != "" {
				grouped[section][of] = append(grouped[section][of], secret.New(value))
			}
		}
		all := map[string]T{}
		for section, values := range grouped {
			var one T
			if err := Assign(inner(&one), values); err != nil {
				return fmt.Errorf("%s: %w", section, err)
			}
			all[section] = one
		}
		*p = all
		return nil
	}}
}

var sectionShape = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)

func sectionKey(key string) error {
	if !sectionShape.MatchString(key) {
		return fmt.Errorf("%q: want a name of a-z, 0-9 and -, for example job", key)
	}
	if last := key[strings.LastIndex(key, "-")+1:]; last == "idle" || last == "parked" || strings.Trim(last, "0123456789") == "" {
		return fmt.Errorf("%q: a name must not end in idle, parked or a number: containers are named so", key)
	}
	return nil
}

func anyKey(key string) error {
	switch {
	case key == "":
		return errors.New("a key is empty")
	case strings.Contains(key, "="):
		return fmt.Errorf("%q has a = in it", key)
	}
	return nil
}

// variableKey takes what engines and shells can hand on. Names with dots and dashes exist: frameworks read them.
func variableKey(key string) error {
	if key == "" {
		return anyKey(key)
	}
	odd := func(c rune) bool { return c == '=' || unicode.IsSpace(c) || !unicode.IsPrint(c) }
	if strings.ContainsFunc(key, odd) || !utf8.ValidString(key) {
		return fmt.Errorf("%q cannot be the name of an environment variable", key)
	}
	return nil
}

// CheckKey says what is wrong with a key of a map, before there is a value to it.
func (in Input) CheckKey(key string) error { return in.key(key) }

// Must makes the input required.
func (in Input) Must() Input { in.Required = true; return in }

// Or gives the input a default, written as a user would write it.
func (in Input) Or(value string) Input { in.Default = value; return in }

// FromStep says that an earlier step can hand the value on, as its output of the same name. Without it an output
// never becomes an input: the reason of a verdict is not the reason of a rollback.
func (in Input) FromStep() Input { in.Handed = true; return in }

// And is an input that sets other as well: two steps in one are told the same.
func (in Input) And(other Input) Input {
	set := in.set
	in.set = func(values []string) error {
		if err := set(values); err != nil {
			return err
		}
		return other.set(values)
	}
	return in
}

// MayBeEmpty says that an empty value is one of its own, and not the same as none.
func (in Input) MayBeEmpty() Input { in.Blank = true; return in }

// Empty takes an empty value that was given on purpose, at source: where it means nothing and there is a default, or has to be
// one, it is a fault, since it is most likely a variable that nobody has set.
func (in Input) Empty(source string) error {
	switch {
	case in.Blank:
		return in.Set([]string{""})
	case in.Required:
		return fault.Inputf("it is empty: %s", in.Help).At(source)
	case in.Default != "":
		return fault.Inputf("it is empty").At(source).WithHint("leave it out for the default, %s", in.Default)
	}
	return nil
}

// OfRelease says that a release is started with the value: another value makes another release.
func (in Input) OfRelease() Input { in.Starts = true; return in }

// OneOf closes the set of values.
func (in Input) OneOf(options ...string) Input { in.Options = options; return in }

// Like gives the input an example: a value as backstep.yml has it, YAML in one line.
func (in Input) Like(example string) Input { in.Example = example; return in }

// Matching restricts the value to a shape that example follows. The reference shows the example, except that of a map, whose
// values are keys and values there: Like says how these are written.
func (in Input) Matching(shape *regexp.Regexp, example string) Input {
	switch in.Type {
	case Text:
		in.Example = example
	case ListOf:
		in.Example = "[" + example + "]"
	}
	set := in.set
	in.set = func(values []string) error {
		for _, v := range values {
			if !shape.MatchString(v) {
				return fmt.Errorf("%q: want for example %s", v, example)
			}
		}
		return set(values)
	}
	return in
}

// Multiple says that the input takes several values: a list or a map.
func (in Input) Multiple() bool { return in.Type == ListOf || in.Type == MapOf }

// Set checks values and writes them to what the input is bound to. A scalar takes exactly one.
func (in Input) Set(values []string) error {
	if len(in.Options) > 0 {
		for _, v := range values {
			if !slices.Contains(in.Options, v) {
				return fmt.Errorf("%q is not one of %s", v, strings.Join(in.Options, ", "))
			}
		}
	}
	return in.set(values)
}

// Assign sets every input from the values under its name, else from its default. Names that are not declared are ignored: a
// newer version may have written them.
func Assign(inputs []Input, values map[string][]secret.Value) error {
	var faults []error
	for _, in := range inputs {
		var given []string
		for _, v := range values[in.Name] {
			given = append(given, v.Reveal())
		}
		if len(given) == 0 && in.Default != "" {
			given = []string{in.Default}
		}
		if len(given) == 0 {
			continue
		}
		if err := in.Set(given); err != nil {
			faults = append(faults, fault.Inputf("%s: %w", in.Name, err))
		}
	}
	return errors.Join(faults...)
}

// Lines splits the text of a list or map input: one value a line, blank lines left out.
func Lines(s string) []string {
	var lines []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// Read sets every input from what lookup finds, else from its default, and reports all faults at once.
// An empty value counts as unset, since most hosts cannot tell the two apart; see Empty for what was given on purpose. The place of a fault is the
// source that lookup names, for example "--image" or "INPUT_IMAGE".
func Read(inputs []Input, lookup func(Input) (value, source string)) error {
	var faults []error
	for _, in := range inputs {
		value, source := lookup(in)
		if value == "" {
			if in.Required {
				faults = append(faults, fault.Inputf("input %s is missing: %s", in.Name, in.Help).
					WithHint("give --%s, or set %s", in.Name, Variable(in.Name)))
				continue
			}
			value, source = in.Default, in.Name
		}
		if value == "" {
			continue
		}
		values := []string{value}
		if in.Multiple() {
			values = Lines(value)
		}
		if err := in.Set(values); err != nil {
			faults = append(faults, fault.Inputf("%w", err).At(source))
		}
	}
	return errors.Join(faults...)
}

// Variable is the environment variable of an input on any host: BACKSTEP_ and the name in upper snake case.
func Variable(name string) string {
	return "BACKSTEP_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}
