// Package secret holds values that cannot print themselves.
package secret

import (
	"encoding/json"
	"fmt"
	"log/slog"
)

const redacted = "***"

// Value is a secret. Every way of printing or marshalling it gives ***; only Reveal gives the text, so
// that a search for Reveal finds every place where a secret leaves.
type Value struct{ text string }

var (
	_ fmt.Formatter  = Value{}
	_ slog.LogValuer = Value{}
	_ json.Marshaler = Value{}
)

// New makes a secret of text.
func New(text string) Value { return Value{text} }

// Reveal is the text itself.
func (v Value) Reveal() string { return v.text }

// IsZero says that there is no secret.
func (v Value) IsZero() bool { return v.text == "" }

func (v Value) String() string               { return redacted }
func (v Value) GoString() string             { return redacted }
func (v Value) Format(f fmt.State, _ rune)   { fmt.Fprint(f, redacted) }
func (v Value) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (v Value) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
func (v Value) MarshalText() ([]byte, error) { return []byte(redacted), nil }
