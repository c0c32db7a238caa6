package cli

import (
	"errors"
	"slices"
	"strings"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/host"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/secret"
	"github.com/backstep/backstep/internal/step"
)

// ours are the variables that are no input of a step.
var ours = []string{"host", "actor", "run", "run-url", "output", "summary", "points", "kill"}

// reading is how one step is told its inputs: by flags, then by the variables of the host, then by those that stand around the
// step, then by an earlier step, then by the default. It is the same order everywhere.
type reading struct {
	process
	kind    host.Kind
	host    host.Host
	secrets *secret.Known
	step    step.Step
	steps   []step.Step       // all that this program has
	flags   map[string]string // as they were given
}

// read sets the inputs, or tells everything that is wrong with them at once.
func (r reading) read(inputs []input.Input) error {
	faults := []error{r.strangers(inputs)}
	inputs = slices.DeleteFunc(slices.Clone(inputs), func(in input.Input) bool {
		source := r.emptied(in)
		if source == "" {
			return false
		}
		faults = append(faults, in.Empty(source))
		return true
	})
	return errors.Join(append(faults, input.Read(inputs, r.lookUp))...)
}

// told says whether the host has handed anything on: then the program is a plugin, and nobody is there to read its help.
func (r reading) told() bool {
	return slices.ContainsFunc(r.environ, func(entry string) bool { return strings.HasPrefix(entry, r.kind.Prefix) })
}

// emptied is where an input was given an empty value on purpose, or "". Only a flag says that beyond doubt: most hosts set a
// variable to nothing when nothing is given. Where an empty value means something, a variable can give it too.
func (r reading) emptied(in input.Input) string {
	if value, ok := r.flags[in.Name]; ok {
		if value == "" {
			return "--" + in.Name
		}
		return ""
	}
	if value, _ := r.lookUp(in); value != "" || !in.Blank {
		return ""
	}
	for _, name := range r.kind.Variables(in.Name) {
		if slices.Contains(r.environ, name+"=") {
			return name
		}
	}
	return ""
}

// lookUp is the value of an input and where it comes from.
func (r reading) lookUp(in input.Input) (value, source string) {
	value, source = r.flags[in.Name], "--"+in.Name
	for _, name := range r.kind.Variables(in.Name) {
		if value == "" {
			value, source = r.variable(in, name), name
		}
	}
	if k, ok := r.host.(host.Keeper); ok && value == "" && in.Handed && !r.step.Operator {
		value, source = k.Handed(in.Name)
	}
	if in.Secret {
		r.secrets.Learn(value)
	}
	return value, source
}

// variable is what the variable called name says of an input, or "".
func (r reading) variable(in input.Input, name string) string {
	value := r.getenv(name)
	if !strings.HasPrefix(name, r.kind.Prefix) {
		return value
	}
	if (r.kind.Default || in.Blank) && value == in.Default {
		return ""
	}
	if r.kind.Decode != nil {
		return r.kind.Decode(in, value)
	}
	return value
}

// strangers finds what was said and nobody listens to: a misspelt name must not be passed over in silence. What the host hands
// to this very step is a fault when it is near to an input; what stands around it may be somebody else's, and is a warning.
func (r reading) strangers(inputs []input.Input) error {
	var faults []error
	known := names(inputs)
	all := append(slices.Clone(ours), r.declared()...)
	for _, entry := range r.environ {
		variable, value, _ := strings.Cut(entry, "=")
		name := r.kind.Told(variable)
		switch {
		case value == "":
		case name != "":
			if slices.Contains(known, name) || slices.Contains(r.kind.Beside, name) {
				continue
			}
			near := input.Nearest(name, known)
			if slices.Contains(all, name) || near == "" {
				r.warn(r.step.Name+" takes no input "+name+": "+variable+" is not read", "")
				continue
			}
			faults = append(faults, fault.Inputf("%s takes no input %s", r.step.Name, name).At(variable).WithHint("did you mean %s?", near))
		case strings.HasPrefix(variable, input.Variable("")) && len(r.steps) > 1:
			name = strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(variable, input.Variable("")), "_", "-"))
			if !slices.Contains(all, name) {
				near := input.Nearest(name, all)
				r.warn(variable+" is not read: no step has such an input", near)
			}
		}
	}
	return errors.Join(faults...)
}

// declared are the names of all inputs and outputs of the program.
func (r reading) declared() []string {
	all := names((&logging{}).inputs())
	for _, s := range r.steps {
		all = append(all, names(s.Inputs)...)
		for _, out := range s.Outputs {
			all = append(all, out.Name)
		}
	}
	return all
}

// warn says what does not stop the step, and marks the run with it. Near is the name that was meant, or "".
func (r reading) warn(text, near string) {
	if near != "" {
		text += "; did you mean " + input.Variable(near) + "?"
	}
	r.print("warning", text)
	if a, ok := r.host.(host.Annotator); ok {
		a.Annotate(host.Warning, "", text)
	}
}

func names(inputs []input.Input) []string {
	var all []string
	for _, in := range inputs {
		all = append(all, in.Name)
	}
	return all
}
