// Package fault gives an error what a person needs besides its text: the place it is about, a hint that
// helps, and the exit code the process ends with.
package fault

import (
	"errors"
	"fmt"
)

// Code is the exit code of a step. The numbers are an interface: pipelines branch on them.
type Code int

// The exit codes, as the reference documents them.
const (
	Done           Code = 0 // done
	Failed         Code = 1 // failed, and nothing had been changed
	Input          Code = 2 // bad input or configuration
	VerdictFail    Code = 3 // the verdict is fail
	VerdictUnknown Code = 4 // the verdict is unknown
	RolledBack     Code = 5 // failed, and rolled back
	HalfWay        Code = 6 // stopped half-way, or the rollback failed: a person is needed
	Refused        Code = 7 // frozen, quarantined or locked
)

// Codes lists every exit code with its meaning, in order, for the help and the reference.
var Codes = []struct {
	Code  Code
	Means string
}{
	{Done, "done"},
	{Failed, "failed, and nothing had been changed"},
	{Input, "bad input or configuration"},
	{VerdictFail, "verdict fail"},
	{VerdictUnknown, "verdict unknown"},
	{RolledBack, "failed, and rolled back"},
	{HalfWay, "stopped half-way, or the rollback failed: a person is needed"},
	{Refused, "frozen, quarantined or locked"},
}

// Means is what the code says of how a process ended; the system's own when it is not one of ours, such as that of a process that
// a signal has killed.
func (c Code) Means() string {
	for _, known := range Codes {
		if known.Code == c {
			return known.Means
		}
	}
	return "ended by the system"
}

// Error is an error with a code and, when they are known, a place and a hint.
type Error struct {
	Code  Code
	Place string // file:line:column, or the name of an input; "" when there is none
	Hint  string // one sentence that says what would help; "" when there is none
	Err   error
}

var _ error = (*Error)(nil)

// Error is the place and the text, without the hint.
func (e *Error) Error() string {
	if e.Place == "" {
		return e.Err.Error()
	}
	return e.Place + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Errorf is fmt.Errorf with a code.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Err: fmt.Errorf(format, args...)}
}

// Inputf is an Errorf for bad input.
func Inputf(format string, args ...any) *Error { return Errorf(Input, format, args...) }

// At sets the place and returns e.
func (e *Error) At(place string) *Error {
	e.Place = place
	return e
}

// WithHint sets the hint and returns e.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// CodeOf is the exit code err asks for: Done for nil, Failed for an error that names none. Of several
// joined errors the outermost code that can be found first wins.
func CodeOf(err error) Code {
	if err == nil {
		return Done
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Failed
}

// Each lists what has to be told one by one: the members of a joined error, or err itself.
func Each(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, Each(e)...)
		}
		return all
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// HintOf is the hint that the nearest *Error in err carries, or "".
func HintOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}
