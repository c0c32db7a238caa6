package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// known are the packages of a machine that has only these files.
type known map[string]string

func (k known) owner(inside string, _ []byte) (cdx.Component, error) {
	name, ok := k[inside]
	if !ok {
		return cdx.Component{}, errors.New("it belongs to no package")
	}
	return cdx.Component{Type: cdx.ComponentTypeLibrary, BOMRef: name, Name: name}, nil
}

// put writes files below a new folder.
func put(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestEveryFileIsListed(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	first := put(t, map[string]string{"bin/backstep": string(program), ours + "LICENSE": "x", bill: "not listed", "lib/z": "old"})
	second := put(t, map[string]string{"lib/z": "new", "bin/git": "g"})
	files, err := find([]string{first, second})
	if err != nil {
		t.Fatal(err)
	}
	b, err := list("1.2.3", time.Unix(0, 0).UTC(), files, known{"lib/z": "zlib", "bin/git": "git"})
	if err != nil {
		t.Fatal(err)
	}
	var got, modules []string
	for _, c := range *b.Components {
		if c.Components == nil {
			modules = append(modules, c.Name)
			continue
		}
		for _, f := range *c.Components {
			got = append(got, c.Name+" "+f.Name+" "+(*f.Hashes)[0].Value[:8])
		}
	}
	for i, want := range []string{"backstep /bin/backstep ", "backstep /usr/share/backstep/LICENSE 2d711642", "git /bin/git cd0aa985", "zlib /lib/z 11507a0e"} {
		if len(got) != 4 || !strings.HasPrefix(got[i], want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
	for _, name := range []string{"std", "github.com/CycloneDX/cyclonedx-go"} {
		if !slices.Contains(modules, name) {
			t.Errorf("the modules are %q, without %s", modules, name)
		}
	}
	if _, err := list("1.2.3", time.Unix(0, 0).UTC(), files, known{"lib/z": "zlib"}); err == nil || err.Error() != "bin/git: it belongs to no package" {
		t.Errorf("a file of nobody: %v", err)
	}
}

// A bill is as CycloneDX wants it, and says the same for the same files.
func TestTheBillIsCycloneDX(t *testing.T) {
	files, err := find([]string{put(t, map[string]string{"bin/git": "g", ours + "LICENSE": "x"})})
	if err != nil {
		t.Fatal(err)
	}
	written := func(content string) []byte {
		b, err := list(content, time.Unix(0, 0).UTC(), files, known{"bin/git": "git"})
		if err != nil {
			t.Fatal(err)
		}
		text, err := encode(b)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	text := written("1.2.3")
	if !bytes.Equal(text, written("1.2.3")) || bytes.Equal(text, written("1.2.4")) {
		t.Error("the same files have two bills, or others the same")
	}
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	for name, file := range map[string]string{"bom-1.6.schema.json": "bom-1.6.schema.json", "spdx.schema.json": "spdx.schema.json", "jsf-0.82.schema.json": "jsf-0.82.schemax.json"} {
		text, err := os.Open(filepath.Join(strings.TrimSpace(string(dir)), "schema", file))
		if err != nil {
			t.Fatal(err)
		}
		defer text.Close()
		schema, err := jsonschema.UnmarshalJSON(text)
		if err == nil {
			err = c.AddResource("http://cyclonedx.org/schema/"+name, schema)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	schema, err := c.Compile("http://cyclonedx.org/schema/bom-1.6.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	for wrong, text := range map[bool][]byte{false: text, true: bytes.Replace(text, []byte(`"SHA-256"`), []byte(`"SHA-255"`), 1)} {
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(value); (err != nil) != wrong {
			t.Errorf("wrong %v: %v", wrong, err)
		}
	}
	if !bytes.Contains(text, []byte(`"serialNumber": "urn:uuid:`)) { // without one actions/attest does not know what it is
		t.Error("it has no serial number")
	}
}

// A file of a package that was changed on the machine, or is no package's, is not passed off as the package's.
func TestOnlyWhatThePackageHas(t *testing.T) {
	if _, err := exec.LookPath("dpkg-query"); err != nil {
		t.Skip("needs a machine with Debian's packages")
	}
	d := dpkg{distribution{"debian", "12"}}
	const inside = "usr/bin/dpkg-query"
	content, err := os.ReadFile("/" + inside)
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.owner(inside, content)
	if err != nil || c.Name != "dpkg" || !strings.HasPrefix(c.PackageURL, "pkg:deb/debian/dpkg@"+strings.ReplaceAll(c.Version, "+", "%2B")) {
		t.Errorf("dpkg-query is of %+v, %v", c, err)
	}
	if refs := c.ExternalReferences; refs == nil || !strings.HasPrefix((*refs)[0].URL, "https://snapshot.debian.org/package/dpkg/") {
		t.Errorf("its source is at %v", refs)
	}
	for at, want := range map[[3]string]string{
		{"debian", "git", "1:2.39.5-0+deb12u2"}:           "https://snapshot.debian.org/package/git/1:2.39.5-0+deb12u2/",
		{"ubuntu", "busybox", "1:1.36.1-6ubuntu3"}:        "https://launchpad.net/ubuntu/+source/busybox/1:1.36.1-6ubuntu3",
		{"ubuntu", "git", "1:2.51.0-0ppa1~ubuntu24.04.1"}: "https://launchpad.net/~git-core/+archive/ubuntu/ppa/+packages?field.name_filter=git",
		{"ubuntu", "curl", "8.9-0ppa1"}:                   "",
		{"alpine", "git", "1"}:                            "",
	} {
		if got, err := (dpkg{distribution{id: at[0]}}).source(at[1], at[2]); got != want || (err == nil) != (want != "") {
			t.Errorf("the source of %q is at %q, %v", at, got, err)
		}
	}
	for name, want := range map[string]string{inside: "it is not as package dpkg has it", "etc/hostname": "it belongs to no package", certificates: "it is not what the package ca-certificates has"} {
		if _, err := d.owner(name, []byte("changed")); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}
