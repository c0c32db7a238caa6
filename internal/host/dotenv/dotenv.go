// Package dotenv writes outputs to files: KEY=VALUE a line, as GitLab's dotenv reports want it, or JSON.
package dotenv

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/backstep/backstep/internal/input"
)

// Report is a dotenv file. It knows no quotes, so a value that has more than one line goes to
// backstep-outputs.json beside it only; everything else goes to both.
type Report struct {
	Path             string
	Bytes, Variables int // the most that whoever reads it takes; 0 is any number
}

// Beside is the JSON file that goes with the report at path.
func Beside(path string) string { return filepath.Join(filepath.Dir(path), "backstep-outputs.json") }

// Set writes one output as BACKSTEP_NAME=value; a second value replaces the first. A value that would break a
// limit is an error, and so that the others survive, the file stays without it.
func (r Report) Set(name, value string) error {
	beside := JSON{Path: Beside(r.Path)}
	if err := beside.Set(name, value); err != nil {
		return err
	}
	old, err := os.ReadFile(r.Path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	key := input.Variable(name) + "="
	kept := slices.DeleteFunc(input.Lines(string(old)), func(line string) bool { return strings.HasPrefix(line, key) })
	if value == "" || strings.ContainsAny(value, "\r\n") {
		if len(old) == 0 {
			return nil
		}
		return r.write(kept)
	}
	lines := append(slices.Clone(kept), key+value)
	if broken := r.broken(lines); broken != "" {
		return errors.Join(r.write(kept), fmt.Errorf("%s would have %s are taken: %s is only in backstep-outputs.json beside it", r.Path, broken, name))
	}
	return r.write(lines)
}

// broken says which limit the lines break, or "".
func (r Report) broken(lines []string) string {
	switch size := len(text(lines)); {
	case r.Variables > 0 && len(lines) > r.Variables:
		return fmt.Sprintf("%d variables, and at most %d", len(lines), r.Variables)
	case r.Bytes > 0 && size > r.Bytes:
		return fmt.Sprintf("%d bytes, and at most %d", size, r.Bytes)
	}
	return ""
}

func (r Report) write(lines []string) error { return os.WriteFile(r.Path, text(lines), 0o644) }

func text(lines []string) []byte {
	var b strings.Builder
	for _, line := range lines {
		b.WriteString(line + "\n")
	}
	return []byte(b.String())
}

// Get is what an earlier step has set under name in the file at path, a JSON object when its name ends in .json;
// "" when there is none.
func Get(path, name string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	if strings.HasSuffix(path, ".json") {
		all := map[string]string{}
		_ = json.Unmarshal(text, &all)
		return all[name]
	}
	for _, line := range input.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, input.Variable(name)+"="); ok {
			return value
		}
	}
	return ""
}

// JSON is a file with one object; a key that is there already is replaced, the others stay.
type JSON struct{ Path string }

// Set writes one output under its own name.
func (j JSON) Set(name, value string) error {
	all := map[string]string{}
	data, err := os.ReadFile(j.Path)
	if err == nil {
		err = json.Unmarshal(data, &all)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read %s: %w", j.Path, err)
	}
	all[name] = value
	if data, err = json.MarshalIndent(all, "", "  "); err != nil {
		return err
	}
	return os.WriteFile(j.Path, append(data, '\n'), 0o644)
}
