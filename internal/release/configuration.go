package release

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/backstep/backstep/internal/secret"
)

// Fingerprint names a configuration: 16 lower-case hexadecimal digits; "" is the one that sets nothing.
type Fingerprint string

// Short is the fingerprint's first six digits, for people.
func (f Fingerprint) Short() string { return string(f)[:min(6, len(f))] }

// Configuration is what a release is started with besides its image, by the names of the inputs in backstep.yml: those of the
// environment, and those of its target that configure a release. What is left out has its default. It holds no secret.
type Configuration map[string][]Value

// Value is a text, or a secret that is taken anew each time the release is started.
type Value struct {
	Key    string `json:"key,omitempty"`    // of an input that is a map
	Text   string `json:"text,omitempty"`   // "" when it is a secret
	Secret string `json:"secret,omitempty"` // the environment variable that it is taken from
	Print  string `json:"print,omitempty"`  // of the secret's value, as Print makes it
}

// Print is a fingerprint of a secret: two values under one key and one place have the same one only when they are the same, and
// without the key nobody can tell a value from it, or try values out. It is HMAC-SHA-256, cut to 64 bits.
func Print(key []byte, place, value string) string {
	h := hmac.New(sha256.New, key)
	fmt.Fprintf(h, "%d %s\n%s", len(place), place, value)
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// Fingerprint is the first 64 bits of the SHA-256 of the configuration as JSON, whose keys are sorted.
func (c Configuration) Fingerprint() Fingerprint {
	if len(c) == 0 {
		return ""
	}
	text, err := json.Marshal(c)
	if err != nil {
		panic(err) // it is made of strings
	}
	sum := sha256.Sum256(text)
	return Fingerprint(hex.EncodeToString(sum[:8]))
}

// Secrets finds today's value of a secret: that of the variable, or of what took its place under the name and the key. It is zero
// when it is not set.
type Secrets func(name, key, variable string) secret.Value

// Fill is the configuration as the inputs take it, with today's secrets. The error names all that are not set.
func (c Configuration) Fill(find Secrets) (map[string][]secret.Value, error) {
	filled := map[string][]secret.Value{}
	var unset []error
	for _, name := range slices.Sorted(maps.Keys(c)) {
		for _, v := range c[name] {
			text := v.Text
			if v.Secret != "" {
				if text = find(name, v.Key, v.Secret).Reveal(); text == "" {
					unset = append(unset, fmt.Errorf("%s takes its value from the environment variable %s, which is not set or empty", v.place(name), v.Secret))
				}
			}
			if v.Key != "" {
				text = v.Key + "=" + text
			}
			filled[name] = append(filled[name], secret.New(text))
		}
	}
	return filled, errors.Join(unset...)
}

// Changed names the environment variables whose secrets are not what they were when the configuration was made. Those that are not
// set now, and those that another key was used for, are left out.
func (c Configuration) Changed(key []byte, find Secrets) []string {
	var changed []string
	for name, values := range c {
		for _, v := range values {
			now := ""
			if v.Secret != "" {
				now = find(name, v.Key, v.Secret).Reveal()
			}
			if now != "" && Print(key, v.place(name), now) != v.Print {
				changed = append(changed, v.Secret)
			}
		}
	}
	slices.Sort(changed)
	return slices.Compact(changed)
}

// Differs says where the configurations differ, as name or name.key, sorted.
func (c Configuration) Differs(other Configuration) []string {
	places := map[string]bool{}
	for _, pair := range [][2]Configuration{{c, other}, {other, c}} {
		for name, values := range pair[0] {
			for _, v := range values {
				if !slices.Contains(pair[1][name], v) {
					places[v.place(name)] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(places))
}

// Prints is one fingerprint of all secrets as they are now.
func (c Configuration) Prints(key []byte, find Secrets) string {
	all := ""
	for _, name := range slices.Sorted(maps.Keys(c)) {
		for _, v := range c[name] {
			if v.Secret != "" {
				all += Print(key, v.place(name), find(name, v.Key, v.Secret).Reveal())
			}
		}
	}
	if all == "" {
		return ""
	}
	return Print(key, "", all)
}

// Sealed is the configuration with the fingerprints of its secrets under the key.
func (c Configuration) Sealed(key []byte, today func(variable string) secret.Value) Configuration {
	sealed := Configuration{}
	for name, values := range c {
		values = slices.Clone(values)
		for i, v := range values {
			if v.Secret != "" {
				values[i].Print = Print(key, v.place(name), today(v.Secret).Reveal())
			}
		}
		sealed[name] = values
	}
	return sealed
}

// place is where the value stands in backstep.yml.
func (v Value) place(name string) string {
	if v.Key == "" {
		return name
	}
	return name + "." + v.Key
}
