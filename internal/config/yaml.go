package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/secret"
)

// The most that a file may hold. The sizes are checked before it is parsed, so that a hostile one costs little.
const (
	sizeLimit  = 256 << 10 // bytes
	lineLimit  = 16 << 10  // bytes
	depthLimit = 64        // nested levels
)

func readLimited(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, sizeLimit+1))
	if err == nil && len(data) > sizeLimit {
		err = fmt.Errorf("the file is larger than %d KiB", sizeLimit>>10)
	}
	return data, err
}

// parseYAML is the root of the one document in data.
func parseYAML(file string, data []byte) (*yaml.Node, error) {
	if err := bounded(data); err != nil {
		return nil, fault.Inputf("%w", err).At(file)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return nil, fault.Inputf("the file is empty").At(file)
	} else if err != nil {
		return nil, fault.Inputf("%s", strings.TrimPrefix(err.Error(), "yaml: ")).At(file)
	}
	var second yaml.Node
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, fault.Inputf("want one document, without --- in the middle").At(file)
	}
	if n := deeper(document.Content[0], depthLimit); n != nil {
		return nil, fault.Inputf("nested deeper than %d levels", depthLimit).At(fmt.Sprintf("%s:%d:%d", file, n.Line, n.Column))
	}
	return document.Content[0], nil
}

// deeper is the first node that opens more than this many levels, or nil.
func deeper(n *yaml.Node, levels int) *yaml.Node {
	if n.Kind != yaml.MappingNode && n.Kind != yaml.SequenceNode {
		return nil
	}
	if levels == 0 {
		return n
	}
	for _, child := range n.Content {
		if found := deeper(child, levels-1); found != nil {
			return found
		}
	}
	return nil
}

// bounded refuses what would be costly to parse. The parser itself bounds levels and aliases.
func bounded(data []byte) error {
	if len(data) > sizeLimit {
		return fmt.Errorf("the file is larger than %d KiB", sizeLimit>>10)
	}
	number := 0
	for line := range bytes.Lines(data) {
		number++
		if len(line) > lineLimit {
			return fmt.Errorf("line %d is longer than %d KiB", number, lineLimit>>10)
		}
	}
	return nil
}

// reader collects faults and secrets while it walks the nodes.
type reader struct {
	file   string
	getenv func(string) string
	faults []placed
	// The faults of variables that are not set hinder only what needs them.
	unset    []placed // to open a target, a router or a probe
	unfilled []placed // to start a release
	secrets  *secret.Known
	sources  []string // the variables that they are taken from, set or not
}

type placed struct {
	line, column int
	err          *fault.Error
}

// field is one key of a mapping with its value.
type field struct{ key, value *yaml.Node }

func (r *reader) fault(at *yaml.Node, format string, args ...any) {
	r.faults = append(r.faults, r.placed(at, fault.Inputf(format, args...)))
}

func (r *reader) placed(at *yaml.Node, f *fault.Error) placed {
	line, column := 1, 1
	if at != nil {
		line, column = max(at.Line, 1), max(at.Column, 1)
	}
	return placed{line, column, f.At(fmt.Sprintf("%s:%d:%d", r.file, line, column))}
}

// err is all faults, in the order of the file.
func (r *reader) err() error { return inOrder(r.faults) }

// missing is the faults of the variables that were not set since it was called last. They hinder only what
// takes its value from them: the way back of one environment does not need the secrets of another.
func (r *reader) missing() error {
	unset := r.unset
	r.unset = nil
	return inOrder(unset)
}

// startless is missing for what a release is started with.
func (r *reader) startless() error {
	unfilled := r.unfilled
	r.unfilled = nil
	return inOrder(unfilled)
}

func inOrder(faults []placed) error {
	slices.SortStableFunc(faults, func(a, b placed) int { return cmp.Or(a.line-b.line, a.column-b.column) })
	var all []error
	for _, p := range faults {
		all = append(all, p.err)
	}
	return errors.Join(all...)
}

// learn makes all secrets known that n refers to, wherever they stand: a fault must not say what is in one.
func (r *reader) learn(n *yaml.Node) {
	if n.Kind == yaml.MappingNode && len(n.Content) == 2 && n.Content[0].Value == "env" && n.Content[1].Kind == yaml.ScalarNode {
		r.secrets.Learn(r.getenv(n.Content[1].Value))
	}
	for _, child := range n.Content {
		r.learn(child)
	}
}

// mapping is the fields of a node that has to be a mapping.
func (r *reader) mapping(n *yaml.Node, path string) map[string]field {
	fields := map[string]field{}
	if path == "" {
		path = "the file"
	}
	if n.Kind != yaml.MappingNode {
		r.fault(n, "%s is %s: want keys with values", path, shape(n))
		return fields
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch _, twice := fields[key.Value]; {
		case key.Kind != yaml.ScalarNode || key.Tag == "!!merge" || key.Anchor != "" || value.Anchor != "":
			r.fault(key, "anchors, aliases and merge keys are not read: write the value where it belongs")
		case twice:
			r.fault(key, "%s is there twice", key.Value)
		default:
			fields[key.Value] = field{key, value}
		}
	}
	return fields
}

func (r *reader) sequence(n *yaml.Node, path string) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		r.fault(n, "%s is %s: want a list", path, shape(n))
		return nil
	}
	return n.Content
}

func shape(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys with values"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	if n.Tag == "!!null" {
		return "empty"
	}
	return fmt.Sprintf("%q", n.Value)
}

// inputs sets declared inputs from fields. Other names the keys that somebody else reads; what is in neither
// is a fault, and so is what is missing. It returns what a release is started with, without defaults.
func (r *reader) inputs(at *yaml.Node, fields map[string]field, inputs []input.Input, other ...string) release.Configuration {
	known := slices.Clone(other)
	config := release.Configuration{}
	for _, in := range inputs {
		known = append(known, in.Name)
		f, given := fields[in.Name]
		values := []setting{{text: in.Default}}
		switch {
		case given:
			var ok bool
			before := len(r.unset)
			values, ok = r.values(f.value, in)
			if in.Starts && (len(values) != 1 || values[0].key != "" || values[0].from != "" || values[0].text != in.Default) {
				config[in.Name] = configured(values)
			}
			if in.Starts {
				r.unfilled, r.unset = append(r.unfilled, r.unset[before:]...), r.unset[:before]
			}
			if !ok {
				continue
			}
		case in.Required:
			r.fault(at, "%s is missing: %s", in.Name, in.Help)
			continue
		case in.Default == "":
			continue
		}
		if err := in.Set(lines(values)); err != nil {
			r.fault(f.value, "%s: %v", in.Name, err)
		}
	}
	r.unknown(fields, known)
	return config
}

// setting is one value of an input, and where a secret was taken from.
type setting struct{ key, text, from string }

// lines is the settings as an input takes them.
func lines(all []setting) []string {
	texts := make([]string, len(all))
	for i, s := range all {
		if texts[i] = s.text; s.key != "" {
			texts[i] = s.key + "=" + s.text
		}
	}
	return texts
}

// configured is the settings as a release keeps them: a secret by its name only.
func configured(all []setting) []release.Value {
	values := make([]release.Value, len(all))
	for i, s := range all {
		if values[i] = (release.Value{Key: s.key, Text: s.text}); s.from != "" {
			values[i] = release.Value{Key: s.key, Secret: s.from}
		}
	}
	return values
}

// values is what an input is set to by a node; not ok when there is a fault, or a variable that is not set.
func (r *reader) values(n *yaml.Node, in input.Input) ([]setting, bool) {
	switch in.Type {
	case input.MapOf:
		var values []setting
		ok := true
		for name, f := range r.mapping(n, in.Name) {
			if err := in.CheckKey(name); err != nil {
				r.fault(f.key, "%s: %v", in.Name, err)
				ok = false
				continue
			}
			value, known := r.scalar(f.value, in.Name+"."+name, true)
			value.key = name
			values, ok = append(values, value), ok && known
		}
		slices.SortFunc(values, func(a, b setting) int { return strings.Compare(a.key, b.key) })
		return values, ok
	case input.SectionsOf:
		return r.sections(n, in)
	case input.ListOf:
		var values []setting
		ok := true
		for i, item := range r.sequence(n, in.Name) {
			value, known := r.scalar(item, fmt.Sprintf("%s[%d]", in.Name, i), false)
			values, ok = append(values, value), ok && known
		}
		return values, ok
	}
	value, ok := r.scalar(n, in.Name, in.Secret)
	if in.Secret {
		r.secrets.Learn(value.text)
	}
	return []setting{value}, ok
}

// sections is the settings of all sections of an input, with keys as SECTION.INPUT or SECTION.INPUT.KEY.
func (r *reader) sections(n *yaml.Node, in input.Input) ([]setting, bool) {
	var all []setting
	ok := true
	named := r.mapping(n, in.Name)
	for _, name := range slices.Sorted(maps.Keys(named)) {
		f := named[name]
		if err := in.CheckKey(name); err != nil {
			r.fault(f.key, "%s: %v", in.Name, err)
			ok = false
			continue
		}
		fields := r.mapping(f.value, in.Name+"."+name)
		all = append(all, setting{key: name})
		var known []string
		for _, inner := range in.Inner {
			known = append(known, inner.Name)
			one, given := fields[inner.Name]
			if !given {
				continue
			}
			values, fine := r.values(one.value, inner)
			for _, v := range values {
				v.key = strings.TrimSuffix(name+"."+inner.Name+"."+v.key, ".")
				all = append(all, v)
			}
			ok = ok && fine
		}
		r.unknown(fields, known)
	}
	return all, ok
}

// unknown reports the keys that nobody knows, with the nearest that somebody does.
func (r *reader) unknown(fields map[string]field, known []string) {
	slices.Sort(known)
	for name, f := range fields {
		if slices.Contains(known, name) {
			continue
		}
		fault := fault.Inputf("%q is not a key here: want one of %s", name, strings.Join(known, ", "))
		if near := input.Nearest(name, known); near != "" {
			fault = fault.WithHint("did you mean %s?", near)
		}
		r.faults = append(r.faults, r.placed(f.key, fault))
	}
}

// scalar is one value, or, where a reference is allowed, what {env: NAME} refers to.
func (r *reader) scalar(n *yaml.Node, path string, reference bool) (setting, bool) {
	if n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
		return setting{text: n.Value}, true
	}
	if !reference || n.Kind != yaml.MappingNode {
		r.fault(n, "%s is %s: want one value", path, shape(n))
		return setting{}, false
	}
	fields := r.mapping(n, path)
	f, ok := fields["env"]
	if !ok || len(fields) != 1 {
		r.fault(n, "%s is keys with values: want one value, or {env: NAME} for a secret", path)
		return setting{}, false
	}
	if f.value.Kind != yaml.ScalarNode || f.value.Value == "" {
		r.fault(f.value, "%s.env is %s: want the name of an environment variable", path, shape(f.value))
		return setting{}, false
	}
	s := setting{text: r.getenv(f.value.Value), from: f.value.Value}
	r.sources = append(r.sources, s.from)
	if s.text == "" {
		r.unset = append(r.unset, r.placed(f.value, fault.Inputf("%s takes its value from the environment variable %s, which is not set or empty",
			path, f.value.Value).WithHint("set it in the job, or in the secrets of the environment")))
		return s, false
	}
	return s, true
}

// kind is the index of the kind that the field names, or -1 when it names none.
func (r *reader) kind(at field, fields map[string]field, count int, name func(int) string) int {
	var known []string
	f, given := fields["kind"]
	for i := range count {
		if given && f.value.Value == name(i) {
			return i
		}
		known = append(known, name(i))
	}
	if !given {
		r.fault(at.key, "kind is missing: want one of %s", strings.Join(known, ", "))
	} else {
		r.fault(f.value, "kind %q is not one of %s", f.value.Value, strings.Join(known, ", "))
	}
	return -1
}
