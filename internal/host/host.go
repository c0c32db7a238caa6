// Package host is the contract of a CI system: where inputs come from and where outputs, summaries and
// annotations go. What only some hosts can do is an interface of its own.
package host

import (
	"context"
	"slices"
	"strings"

	"github.com/backstep/backstep/internal/input"
)

// Run is the CI run that a step is part of. Any field can be empty.
type Run struct {
	ID         string `json:"id,omitempty"`      // unique for a run; kept by its retries
	Attempt    string `json:"attempt,omitempty"` // counts the retries of a run
	URL        string `json:"url,omitempty"`     // where a person reads it
	Actor      string `json:"actor,omitempty"`   // who started it
	Repository string `json:"repository,omitempty"`
	Commit     string `json:"commit,omitempty"`
	Ref        string `json:"ref,omitempty"`
}

// Host is what every CI system has.
type Host interface {
	// Name is github, gitlab or plain.
	Name() string
	// Secrets names the variables in which the host hands secrets to a job.
	Secrets() []string
	// Run tells the run from the host's own variables.
	Run() Run
	// Output hands a value to later steps. What would not survive the host's format is an error, unless the host
	// has another place for it; the value that was there before never stays.
	Output(name, value string) error
}

// Starter hands outputs on in a file that can be there already, from an earlier job or from the repository.
type Starter interface {
	// Start is called before a step runs: what others have written there is not handed on as the step's own.
	Start() error
}

// Keeper keeps outputs where later steps of the same job find them.
type Keeper interface {
	// Handed is the value that an earlier step has put out under name, and where it was found; "" when none has. It is
	// for inputs that say FromStep: the same name can mean something else in another step.
	Handed(name string) (value, source string)
}

// Besider keeps a text that strangers have a part in where no later job takes it for a variable.
type Besider interface {
	Beside(name, value string) error
}

// Masker keeps a secret out of the host's logs. It is called before anything is done with the secret.
type Masker interface{ Mask(secret string) }

// Summarizer shows Markdown on the run's page.
type Summarizer interface{ Summary(markdown string) error }

// Drawer says whether the run's page draws mermaid; where nobody says so, it is shown as text.
type Drawer interface{ Draws() bool }

// Issuer gives the job's OIDC token for an audience.
type Issuer interface {
	Token(ctx context.Context, audience string) (string, error)
}

// Registrar has a login of the job's own for the registry that belongs to the host.
type Registrar interface {
	// RegistryLogin is the login for the registry called name, host:port; "" and "" when the host has none for it.
	RegistryLogin(name string) (username, password string)
}

// Level is how bad an annotation is.
type Level string

// The levels, worst first.
const (
	Error   Level = "error"
	Warning Level = "warning"
	Notice  Level = "notice"
)

// Annotator marks the run with one message. Place is file:line:column or "".
type Annotator interface {
	Annotate(level Level, place, message string)
}

// Kind is one CI system that can be recognised by its environment variables.
type Kind struct {
	Name   string
	Help   string
	Detect func(getenv func(string) string) bool
	New    func(Environment) Host

	Prefix  string                                    // of the variables by which the host hands a step what it is told, and nothing else
	Beside  []string                                  // inputs that the host itself sets beside those of the step, in kebab-case
	Default bool                                      // the host hands on defaults too: a value that is one counts as not given
	Decode  func(in input.Input, value string) string // how the host writes lists and maps; nil is one a line
}

// Variables are the environment variables that an input is read from, those of the host's own first: what is written at the step
// goes before what stands around it.
func (k Kind) Variables(name string) []string {
	upper := strings.ToUpper(name)
	all := []string{k.Prefix + strings.ReplaceAll(upper, "-", "_"), k.Prefix + upper, input.Variable(name)}
	return slices.Compact(all)
}

// Told is the name of the input that the host hands on in a variable, or "" when the variable is of something else.
func (k Kind) Told(variable string) string {
	name, ok := strings.CutPrefix(variable, k.Prefix)
	if !ok {
		return ""
	}
	return strings.ToLower(strings.ReplaceAll(name, "_", "-"))
}

// Environment is what a host reads and writes: the process's own, or a test's.
type Environment struct {
	Getenv func(string) string
	Stdout func(line string) // prints one line for the reader of values
	// Command tells the host one line that it obeys. What is in it has to be escaped: nothing else does that.
	Command func(line string)
}
