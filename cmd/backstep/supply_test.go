package main

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

const billOfMaterials = "usr/share/backstep/sbom.cdx.json"

// saved is what an image of the engine has: the contents of its files, and where its links lead.
func saved(t *testing.T, image string) (files map[string][]byte, links map[string]string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "image.tar")
	if code, said := docker(t, "", "save", "-o", file, image); code != 0 {
		t.Fatal(said)
	}
	tag, err := name.NewTag(image)
	if err != nil {
		t.Fatal(err)
	}
	img, err := tarball.ImageFromPath(file, &tag)
	if err != nil {
		t.Fatal(err)
	}
	flat := mutate.Extract(img)
	defer flat.Close()
	files, links = map[string][]byte{}, map[string]string{}
	for archive := tar.NewReader(flat); ; {
		h, err := archive.Next()
		if err == io.EOF {
			return files, links
		} else if err != nil {
			t.Fatal(err)
		}
		at := strings.Trim(path.Clean(h.Name), "/")
		switch h.Typeflag {
		case tar.TypeReg:
			if files[at], err = io.ReadAll(archive); err != nil {
				t.Fatal(err)
			}
		case tar.TypeSymlink:
			links[at] = path.Join(path.Dir(at), h.Linkname)
		case tar.TypeDir:
		default:
			t.Errorf("%s has type %c", h.Name, h.Typeflag)
		}
	}
}

// unlisted is what is wrong with a bill of materials for these files.
func unlisted(t *testing.T, files map[string][]byte) (wrong []string) {
	t.Helper()
	type component struct {
		Type, Name, Version, Purl string
		Hashes                    []struct{ Content string }
		Components                []component
	}
	var bill struct{ Components []component }
	if err := json.Unmarshal(files[billOfMaterials], &bill); err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for _, c := range bill.Components {
		if c.Version == "" || !strings.HasPrefix(c.Purl, "pkg:") {
			wrong = append(wrong, fmt.Sprintf("%s has the version %q and the address %q", c.Name, c.Version, c.Purl))
		}
		for _, f := range c.Components {
			listed[strings.TrimPrefix(f.Name, "/")] = f.Hashes[0].Content
		}
	}
	for _, at := range slices.Sorted(maps.Keys(files)) {
		if sum := fmt.Sprintf("%x", sha256.Sum256(files[at])); at != billOfMaterials && listed[at] != sum {
			wrong = append(wrong, fmt.Sprintf("%s is listed as %q", at, listed[at]))
		}
		delete(listed, at)
	}
	for at := range listed {
		wrong = append(wrong, at+" is listed and not there")
	}
	return wrong
}

// Every file of an image belongs to something with a name and a version that its bill of materials lists, and is just that file.
func TestE2EEveryFileOfTheImagesIsListed(t *testing.T) {
	for _, sh := range []bool{false, true} {
		files, links := saved(t, image(t, sh))
		for _, wrong := range unlisted(t, files) {
			t.Errorf("sh %v: %s", sh, wrong)
		}
		for from, to := range links {
			if _, there := files[to]; !there && links[to] == "" {
				t.Errorf("sh %v: the link %s leads to %s, which is not there", sh, from, to)
			}
		}
		want := []string{"usr/local/bin/backstep", "etc/ssl/certs/ca-certificates.crt", "usr/share/backstep/THIRD_PARTY.txt", "usr/share/doc/ca-certificates/copyright"}
		if sh {
			want = append(want, "bin/busybox", "usr/bin/git", "usr/share/doc/git/copyright", "usr/share/doc/busybox-static/copyright")
		}
		for _, name := range want {
			if len(files[name]) == 0 {
				t.Errorf("sh %v: there is no %s", sh, name)
			}
		}
		files["usr/bin/planted"] = []byte("x")
		files["usr/local/bin/backstep"] = append(files["usr/local/bin/backstep"], 'x')
		if wrong := unlisted(t, files); len(wrong) != 2 {
			t.Errorf("sh %v: of two planted files these were seen: %q", sh, wrong)
		}
	}
}

// The same commit is the same image to the byte, whoever builds it, where, when, with which umask.
func TestE2EImagesAreReproducible(t *testing.T) {
	image(t, true)
	const built = "../../bin/image/"
	text, err := os.ReadFile(built + "sbom.cdx.json")
	if err != nil {
		t.Fatal(err)
	}
	var bill struct {
		Metadata struct{ Component struct{ Version string } }
	}
	if err := json.Unmarshal(text, &bill); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "elsewhere")
	for _, command := range [][]string{
		{"git", "clone", "-q", "../..", dir},
		{"sh", "-c", "cd ../.. && git ls-files -z --deduplicate | xargs -0 -I {} sh -c 'test ! -e {} || cp --parents {} " + dir + "'"}, // what is not committed
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", command, err, out)
		}
	}
	err = filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.Mode()&os.ModeSymlink != 0 {
			return err
		}
		return os.Chtimes(path, time.Unix(1e9, 0), time.Unix(1e9, 0))
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "umask 077 && bash .ci/image.sh elsewhere:1 "+bill.Metadata.Component.Version+" keep")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "TZ=Asia/Shanghai", "LC_ALL=C.UTF-8")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, file := range []string{"digest", "digest-sh"} {
		one, err := os.ReadFile(built + file)
		if err != nil {
			t.Fatal(err)
		}
		two, err := os.ReadFile(filepath.Join(dir, "bin/image", file))
		if err != nil {
			t.Fatal(err)
		}
		if string(one) != string(two) || len(one) == 0 {
			t.Errorf("%s: %s and, built again, %s", file, one, two)
		}
	}
}
