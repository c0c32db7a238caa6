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
	"github.com/backstep/backstep/internal/outfile"
)

// Report is a dotenv file. It knows no quotes, so a value that has more than one line goes to
// backstep-outputs.json beside it only; everything else goes to both.
type Report struct {
	Path             string
	Bytes, Variables int    // the most that whoever reads it takes; 0 is any number
	Job              string // as in JSON
}

func (r Report) beside() JSON {
	return JSON{Path: filepath.Join(filepath.Dir(r.Path), "backstep-outputs.json"), Job: r.Job}
}

// Beside writes one output to backstep-outputs.json only.
func (r Report) Beside(name, value string) error {
	if ours, err := r.beside().set(name, value); err != nil || ours {
		return err
	}
	return r.write(nil)
}

// Begin removes the report and what is beside it, unless this job has written them.
func (r Report) Begin() error {
	if r.Job != "" && Get(r.beside().Path, jobKey) == r.Job {
		return nil
	}
	for _, path := range []string{r.Path, r.beside().Path} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("begin the outputs anew: %w", err)
		}
	}
	return nil
}

// Set writes one output as BACKSTEP_NAME=value; a second value replaces the first. A value that would break a
// limit is an error, and so that the others survive, the file stays without it.
func (r Report) Set(name, value string) error {
	ours, err := r.beside().set(name, value)
	if err != nil {
		return err
	}
	var old []byte
	if ours {
		old, err = outfile.Read(r.Path)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	key := input.Variable(name) + "="
	kept := slices.DeleteFunc(lines(string(old)), func(line string) bool { return strings.HasPrefix(line, key) })
	if value == "" || strings.ContainsAny(value, "\r\n") {
		if ours && len(old) == 0 {
			return nil
		}
		return r.write(kept)
	}
	all := append(slices.Clone(kept), key+value)
	if broken := r.broken(all); broken != "" {
		return errors.Join(r.write(kept), fmt.Errorf("%s would have %s are taken: %s is only in backstep-outputs.json beside it", r.Path, broken, name))
	}
	return r.write(all)
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

func (r Report) write(lines []string) error { return outfile.Write(r.Path, text(lines)) }

// lines is the lines of a file that are not empty, as they are: a space can be part of a value.
func lines(text string) []string {
	return strings.FieldsFunc(text, func(c rune) bool { return c == '\n' || c == '\r' })
}

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
	text, err := outfile.Read(path)
	if err != nil {
		return ""
	}
	if strings.HasSuffix(path, ".json") {
		all := map[string]string{}
		_ = json.Unmarshal(text, &all)
		return all[name]
	}
	for _, line := range lines(string(text)) {
		if value, ok := strings.CutPrefix(line, input.Variable(name)+"="); ok {
			return value
		}
	}
	return ""
}

// JSON is a file with one object; a key that is there already is replaced, the others stay.
type JSON struct {
	Path string
	// Job is what only this job can know. Files without it are not ours, and begun anew: somebody may have committed them. ""
	// takes every file for ours.
	Job string
}

// jobKey is where Job stands among the outputs; no output has such a name.
const jobKey = "$job"

// Set writes one output under its own name.
func (j JSON) Set(name, value string) error {
	_, err := j.set(name, value)
	return err
}

// set also says whether what was there before was ours.
func (j JSON) set(name, value string) (ours bool, err error) {
	all := map[string]string{}
	data, err := outfile.Read(j.Path)
	if err == nil {
		err = json.Unmarshal(data, &all)
	}
	if ours = j.Job == "" || all[jobKey] == j.Job; !ours {
		all, err = map[string]string{jobKey: j.Job}, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return ours, fmt.Errorf("read %s: %w", j.Path, err)
	}
	all[name] = value
	if data, err = json.MarshalIndent(all, "", "  "); err != nil {
		return ours, err
	}
	return ours, outfile.Write(j.Path, append(data, '\n'))
}
