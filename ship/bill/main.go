// The command bill writes the bill of materials of an image, in CycloneDX: the Go modules that a program was linked from, as the program
// itself says, and the Debian packages of all other files, as dpkg says. It lists every file with its digest, and fails on a file that
// belongs to nobody or is not what its package has.
package main

import (
	"bytes"
	"crypto/md5" // #nosec G501 -- dpkg has no other sums
	"crypto/sha256"
	"debug/buildinfo"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// Ours is the folder of what this repository itself ships beside its program; the bill is there too, and does not list itself.
const (
	ours = "usr/share/backstep/"
	bill = ours + "sbom.cdx.json"
	// certificates is made of all that its package has.
	certificates        = "etc/ssl/certs/ca-certificates.crt"
	certificatesPackage = "ca-certificates"
)

func main() {
	version := flag.String("version", "devel", "the version of what is shipped")
	created := flag.Int64("created", 0, "the time of the bill, in seconds since 1970")
	out := flag.String("out", "", "the file to write")
	flag.Parse()
	if err := run(*version, time.Unix(*created, 0).UTC(), *out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "bill:", err)
		os.Exit(1)
	}
}

func run(version string, created time.Time, out string, roots []string) error {
	files, err := find(roots)
	if err != nil {
		return err
	}
	distribution, err := readDistribution("/etc/os-release")
	if err != nil {
		return err
	}
	b, err := list(version, created, files, dpkg{distribution})
	if err != nil {
		return err
	}
	text, err := encode(b)
	if err != nil {
		return err
	}
	return os.WriteFile(out, text, 0o644) // #nosec G306 -- it is for everybody
}

// encode writes a bill, with a serial number that is of what it says: the same files have the same one.
func encode(b *cdx.BOM) ([]byte, error) {
	write := func() ([]byte, error) {
		var text bytes.Buffer
		err := cdx.NewBOMEncoder(&text, cdx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(b, cdx.SpecVersion1_6)
		return text.Bytes(), err
	}
	text, err := write()
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(text)
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80 // RFC 9562, version 8
	b.SerialNumber = fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:16])
	return write()
}

// find is where each file of an image is, by its name in the image; what stands in a later root hides what stands in an earlier one.
func find(roots []string) (map[string]string, error) {
	files := map[string]string{}
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			inside, err := filepath.Rel(root, path)
			if inside != bill {
				files[filepath.ToSlash(inside)] = path
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}

// packages says which package a file of an image is from; the file has to be as the package has it.
type packages interface {
	owner(inside string, content []byte) (cdx.Component, error)
}

// list is the bill of these files. What has an owner of its own is below it, all else is of this repository.
func list(version string, created time.Time, files map[string]string, known packages) (*cdx.BOM, error) {
	main := cdx.Component{Type: cdx.ComponentTypeApplication, BOMRef: "backstep", Name: "backstep", Version: version,
		PackageURL: "pkg:golang/github.com/backstep/backstep@" + version, Licenses: &cdx.Licenses{{License: &cdx.License{ID: "Apache-2.0"}}}}
	components, held := map[string]cdx.Component{}, map[string][]cdx.Component{}
	var faults []error
	for _, inside := range slices.Sorted(maps.Keys(files)) {
		content, err := os.ReadFile(files[inside])
		if err != nil {
			return nil, err
		}
		owner := main
		if program, err := buildinfo.Read(bytes.NewReader(content)); err == nil {
			for _, module := range modules(program) {
				components[module.BOMRef] = module
			}
		} else if !strings.HasPrefix(inside, ours) {
			if owner, err = known.owner(inside, content); err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", inside, err))
				continue
			}
		}
		components[owner.BOMRef] = owner
		held[owner.BOMRef] = append(held[owner.BOMRef], cdx.Component{Type: cdx.ComponentTypeFile, Name: "/" + inside,
			Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: fmt.Sprintf("%x", sha256.Sum256(content))}}})
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	delete(components, main.BOMRef)
	refs := slices.Sorted(maps.Keys(components))
	all := make([]cdx.Component, 0, len(refs)+1)
	for _, ref := range append([]string{main.BOMRef}, refs...) {
		c, ok := components[ref]
		if !ok {
			c = main
		}
		if below := held[ref]; len(below) > 0 {
			c.Components = &below
		}
		all = append(all, c)
	}
	b := cdx.NewBOM()
	b.Metadata = &cdx.Metadata{Timestamp: created.Format(time.RFC3339),
		Component: &cdx.Component{Type: cdx.ComponentTypeContainer, BOMRef: "image", Name: "ghcr.io/backstep/backstep", Version: version}}
	b.Components = &all
	everything := append([]string{main.BOMRef}, refs...)
	b.Dependencies = &[]cdx.Dependency{{Ref: "image", Dependencies: &everything}}
	return b, nil
}

// modules are those that a program was linked from, and Go's own library.
func modules(program *buildinfo.BuildInfo) []cdx.Component {
	release := strings.TrimPrefix(strings.Fields(program.GoVersion)[0], "go")
	found := []cdx.Component{{Type: cdx.ComponentTypeLibrary, Name: "std", Version: release, PackageURL: "pkg:golang/std@" + release}}
	for _, m := range program.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		found = append(found, cdx.Component{Type: cdx.ComponentTypeLibrary, Name: m.Path, Version: m.Version, PackageURL: "pkg:golang/" + m.Path + "@" + m.Version})
	}
	for i := range found {
		found[i].BOMRef = found[i].PackageURL
	}
	return found
}

// distribution is the system that the packages are of.
type distribution struct{ id, release string }

func readDistribution(path string) (distribution, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return distribution{}, err
	}
	var d distribution
	for _, line := range strings.Split(string(text), "\n") {
		key, value, _ := strings.Cut(line, "=")
		switch value = strings.Trim(value, `"`); key {
		case "ID":
			d.id = value
		case "VERSION_ID":
			d.release = value
		}
	}
	if d.id == "" {
		return d, fmt.Errorf("%s has no ID", path)
	}
	return d, nil
}

// dpkg asks the package database of this machine, from which the files were copied.
type dpkg struct{ distribution distribution }

func (d dpkg) owner(inside string, content []byte) (cdx.Component, error) {
	if inside == certificates {
		return d.certificates(content)
	}
	path, err := filepath.EvalSymlinks("/" + inside)
	if err != nil {
		return cdx.Component{}, err
	}
	// Since the folders were merged, a package can know its file with /usr or without.
	name, place, err := d.search(path, strings.TrimPrefix(path, "/usr"), "/usr"+path)
	if err != nil {
		return cdx.Component{}, err
	}
	sums, err := query("--control-show", name, "md5sums")
	if err != nil {
		return cdx.Component{}, err
	}
	if sum := fmt.Sprintf("%x  %s\n", md5.Sum(content), strings.TrimPrefix(place, "/")); !strings.Contains("\n"+sums, "\n"+sum) { // #nosec G401 -- dpkg has no other sums
		return cdx.Component{}, fmt.Errorf("it is not as package %s has it", name)
	}
	return d.component(name)
}

// search is the package that has one of these paths, and the path.
func (d dpkg) search(paths ...string) (name, place string, err error) {
	for _, path := range paths {
		out, failed := query("--search", path)
		if failed != nil {
			continue
		}
		for _, line := range strings.Split(out, "\n") { // others tell of diversions
			if name, found, _ := strings.Cut(line, ": "); found == path && !strings.ContainsAny(name, ", ") {
				return name, path, nil
			}
		}
	}
	return "", "", errors.New("it belongs to no package")
}

// certificates checks the bundle against the certificates of the package: there is none of this machine's own among them.
func (d dpkg) certificates(content []byte) (cdx.Component, error) {
	out, err := query("--listfiles", certificatesPackage)
	if err != nil {
		return cdx.Component{}, err
	}
	names := strings.Fields(out)
	slices.Sort(names)
	var bundle []byte
	for _, name := range names {
		if !strings.HasPrefix(name, "/usr/share/ca-certificates/") || filepath.Ext(name) != ".crt" {
			continue
		}
		one, err := os.ReadFile(name)
		if err != nil {
			return cdx.Component{}, err
		}
		bundle = append(bundle, append(bytes.TrimRight(one, "\n"), '\n')...)
	}
	if !bytes.Equal(bundle, content) {
		return cdx.Component{}, fmt.Errorf("it is not what the package %s has", certificatesPackage)
	}
	return d.component(certificatesPackage)
}

// component is a package as the database has it, and where its source is.
func (d dpkg) component(name string) (cdx.Component, error) {
	out, err := query("--show", "--showformat", `${Package}\n${Version}\n${Architecture}\n${source:Package}\n${source:Version}\n`, name)
	field := strings.Split(out, "\n")
	if err != nil || len(field) != 6 {
		return cdx.Component{}, fmt.Errorf("read package %s: %q, %w", name, out, err)
	}
	version := strings.NewReplacer(":", "%3A", "+", "%2B").Replace(field[1])
	url := fmt.Sprintf("pkg:deb/%s/%s@%s?arch=%s&distro=%[1]s-%[5]s", d.distribution.id, field[0], version, field[2], d.distribution.release)
	source, err := d.source(field[3], field[4])
	if err != nil {
		return cdx.Component{}, err
	}
	return cdx.Component{Type: cdx.ComponentTypeLibrary, BOMRef: url, Name: field[0], Version: field[1], PackageURL: url,
		ExternalReferences: &[]cdx.ExternalReference{{Type: cdx.ERTypeSourceDistribution, URL: source}}}, nil
}

// source is where the source of a package is.
func (d dpkg) source(name, version string) (string, error) {
	switch {
	case d.distribution.id == "debian":
		return "https://snapshot.debian.org/package/" + name + "/" + version + "/", nil
	case d.distribution.id == "ubuntu" && !strings.Contains(version, "ppa"):
		return "https://launchpad.net/ubuntu/+source/" + name + "/" + version, nil
	case d.distribution.id == "ubuntu" && name == "git": // as GitHub's runners have it
		return "https://launchpad.net/~git-core/+archive/ubuntu/ppa/+packages?field.name_filter=git", nil
	}
	return "", fmt.Errorf("where the source of %s %s is, is not known", name, version)
}

// query is what dpkg-query prints.
func query(args ...string) (string, error) {
	out, err := exec.Command("dpkg-query", args...).Output()
	if err != nil {
		return "", fmt.Errorf("dpkg-query %s: %w", strings.Join(args, " "), err)
	}
	return string(out), nil
}
