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

// The limits of GitLab's dotenv reports: bytes of the file, and the least number of variables that an
// instance allows by default.
const (
	sizeLimit     = 5 << 10
	variableLimit = 20
)

// Report is a dotenv file. It knows no quotes, so a value that has more than one line, or that would not fit,
// goes to backstep-outputs.json beside it.
type Report struct{ Path string }

// Set writes one output as BACKSTEP_NAME=value; a second value replaces the first.
func (r Report) Set(name, value string) error {
	beside := JSON{Path: filepath.Join(filepath.Dir(r.Path), "backstep-outputs.json")}
	if err := beside.Set(name, value); err != nil {
		return err
	}
	if strings.ContainsAny(value, "\r\n") || value == "" {
		return nil
	}
	old, err := os.ReadFile(r.Path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	key := input.Variable(name) + "="
	lines := slices.DeleteFunc(input.Lines(string(old)), func(line string) bool { return strings.HasPrefix(line, key) })
	lines = append(lines, key+value)
	text := strings.Join(lines, "\n") + "\n"
	if len(text) > sizeLimit || len(lines) > variableLimit {
		return nil
	}
	return os.WriteFile(r.Path, []byte(text), 0o644)
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
