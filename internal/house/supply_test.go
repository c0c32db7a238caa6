package house

import (
	"io/fs"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Each image of a release is signed twice before anything names it: where it comes from, and what is in it; and it is built again.
func TestTheReleaseIsAttested(t *testing.T) {
	var w workflow
	text := readYAML(t, ".github/workflows/release.yml", &w)
	job := w.Jobs["release"]
	if want := map[string]string{"contents": "write", "packages": "write", "id-token": "write", "attestations": "write"}; !maps.Equal(job.Permissions, want) {
		t.Errorf("the release has %v, want %v", job.Permissions, want)
	}
	var attested []string
	for _, s := range job.Steps {
		if strings.HasPrefix(s.Uses, "actions/attest@") {
			attested = append(attested, s.With["subject-digest"]+" "+s.With["sbom-path"])
			if s.With["push-to-registry"] != "true" || s.With["subject-name"] != "ghcr.io/backstep/backstep" {
				t.Errorf("attested with %v", s.With)
			}
		}
	}
	want := []string{"${{ steps.images.outputs.digest }} ", "${{ steps.images.outputs.digest }} bin/image/sbom.cdx.json",
		"${{ steps.images.outputs.digest-sh }} ", "${{ steps.images.outputs.digest-sh }} bin/image/sbom-sh.cdx.json"}
	if !slices.Equal(attested, want) {
		t.Errorf("attested is %q, want %q", attested, want)
	}
	if strings.LastIndex(text, "actions/attest@") > strings.Index(text, ".ci/release.sh") {
		t.Error("the release is named before it is attested")
	}
	if len(w.Jobs["rebuild"].Steps) == 0 || len(w.Jobs["rebuild"].Permissions) != 0 {
		t.Error("no job without rights builds it again")
	}
}

// A new version of everything that the tree takes from outside is proposed by a bot.
func TestEverythingIsUpdated(t *testing.T) {
	var config struct {
		Updates []struct {
			Ecosystem   string `yaml:"package-ecosystem"`
			Directory   string
			Directories []string
		}
	}
	readYAML(t, ".github/dependabot.yml", &config)
	var watched []string
	for _, u := range config.Updates {
		for _, dir := range append(u.Directories, u.Directory) {
			if dir != "" {
				watched = append(watched, u.Ecosystem+" "+dir)
			}
		}
	}
	there := []string{"github-actions /"}
	out, err := exec.Command("git", "-C", root, "ls-files", "*go.mod", "*package.json", "*Dockerfile").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(string(out)) {
		ecosystem := map[string]string{"go.mod": "gomod", "package.json": "npm", "Dockerfile": "docker"}[filepath.Base(name)]
		there = append(there, ecosystem+" "+filepath.ToSlash(filepath.Join("/", filepath.Dir(name))))
	}
	slices.Sort(watched)
	slices.Sort(there)
	if !slices.Equal(watched, there) {
		t.Errorf("watched is %q, there is %q", watched, there)
	}
}

// What our workflows may do is said in each, and nothing but reading is given to all of its jobs.
func TestWorkflowsHaveFewRights(t *testing.T) {
	err := filepath.WalkDir(filepath.Join(root, ".github/workflows"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "chain.yml" || d.Name() == "rollback.yml" { // those have what their callers give
			return err
		}
		var w struct{ Permissions map[string]string }
		readYAML(t, ".github/workflows/"+d.Name(), &w)
		if !maps.Equal(w.Permissions, map[string]string{"contents": "read"}) {
			t.Errorf("%s gives all of its jobs %v", d.Name(), w.Permissions)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
