package house

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/backstep/backstep/"

// floors lists the packages from the ground up. An import goes to a lower floor, or to the importer's own
// parent: a parent holds the contract, its children implement it. A name that ends in / stands for
// everything below it.
var floors = [][]string{
	{"internal/fault", "internal/secret", "internal/release"}, // words
	{"internal/input"},
	{"internal/bump", "internal/plan", "internal/verdict"},                                        // decisions: pure
	{"internal/host", "internal/router", "internal/probe", "internal/ledger", "internal/builder"}, // contracts
	{"internal/target"},
	{"internal/registry", "internal/host/dotenv", "internal/gitrepo"}, // what adapters stand on
	{"internal/registry/registrytest", "internal/ledger/ledgertest"},
	{"internal/host/", "internal/target/", "internal/probe/", "internal/ledger/", "internal/builder/", "internal/config"}, // adapters
	{"internal/executor"},
	{"internal/step", "internal/step/"},
	{"internal/catalog"},
	{"internal/cli", "internal/gen"},
	{"internal/house", "cmd/"},
}

// bans lists modules that only some rooms may use, and why.
var bans = []struct{ module, rooms, why string }{
	{"github.com/google/go-containerregistry", "internal/registry internal/builder/layers internal/step/demo internal/ledger/ledgertest internal/registry/registrytest", "types of a library do not leave their room"},
	{"go.yaml.in/yaml", "internal/config internal/gen", "one parser, one writer"},
	{"github.com/sethvargo/go-githubactions", "internal/host/github", "only one host speaks it"},
	{"os/exec", "internal/gitrepo internal/builder/docker internal/target/process internal/step/demo internal/registry/registrytest", "values from outside must not reach a shell"},
}

// pkg is what go list tells of a package.
type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports", "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// floor is the number of a package's floor, or -1.
func floor(name string) int {
	best, length := -1, -1
	for i, names := range floors {
		for _, n := range names {
			if (n == name || strings.HasSuffix(n, "/") && strings.HasPrefix(name, n)) && len(n) > length {
				best, length = i, len(n)
			}
		}
	}
	return best
}

// breach says why name may not import imported, or "".
func breach(name, imported string) string {
	mine, theirs := floor(name), floor(imported)
	switch {
	case mine < 0:
		return name + " is on no floor"
	case theirs < mine, path.Dir(name) == imported:
		return ""
	}
	return fmt.Sprintf("%s (floor %d) imports %s (floor %d)", name, mine, imported, theirs)
}

func TestFloors(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if floor(name) < 0 {
			t.Errorf("%s is on no floor", name)
		}
		for _, imported := range p.Imports {
			if inside, ok := strings.CutPrefix(imported, module); ok {
				if b := breach(name, inside); b != "" {
					t.Error(b)
				}
			}
			if b := banned(name, imported); b != "" {
				t.Error(b)
			}
		}
	}
}

// banned says why name may not import this package of somebody else's, or "".
func banned(name, imported string) string {
	for _, b := range bans {
		if imported != b.module && !strings.HasPrefix(imported, b.module+"/") {
			continue
		}
		if !slices.Contains(strings.Fields(b.rooms), name) {
			return fmt.Sprintf("%s imports %s, which is for %s only: %s", name, imported, b.rooms, b.why)
		}
	}
	return ""
}

func TestBreachesAreSeen(t *testing.T) {
	for _, c := range [][3]string{
		{"internal/plan", "internal/executor", "internal/plan (floor 2) imports internal/executor (floor 8)"},
		{"internal/step/deploy", "internal/step/verify", "internal/step/deploy (floor 9) imports internal/step/verify (floor 9)"},
		{"internal/step/deploy", "internal/step", ""},
		{"internal/probe/http", "internal/probe", ""},
		{"internal/util", "internal/fault", "internal/util is on no floor"},
	} {
		if got := breach(c[0], c[1]); got != c[2] {
			t.Errorf("breach(%s, %s) = %q, want %q", c[0], c[1], got, c[2])
		}
	}
	if banned("internal/plan", "os/exec") == "" || banned("internal/gitrepo", "os/exec") != "" {
		t.Error("a banned import is not seen, or an allowed one is")
	}
}

// house law that a parser can see: one package comment, no init, no blank imports.
func TestPackages(t *testing.T) {
	for _, p := range packages(t) {
		comments := 0
		for _, name := range p.GoFiles {
			src, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			faults, commented := lawful(t, name, src)
			if commented {
				comments++
			}
			for _, f := range faults {
				t.Errorf("%s/%s", p.ImportPath, f)
			}
		}
		if comments != 1 {
			t.Errorf("%s has %d package comments, want 1", p.ImportPath, comments)
		}
	}
}

func lawful(t *testing.T, name string, src []byte) (faults []string, commented bool) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range file.Imports {
		if i.Name != nil && i.Name.Name == "_" {
			faults = append(faults, name+": blank import of "+i.Path.Value)
		}
	}
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
			faults = append(faults, name+": func init")
		}
	}
	return faults, file.Doc != nil
}

func TestLawIsSeen(t *testing.T) {
	faults, commented := lawful(t, "x.go", []byte("package x\nimport _ \"os\"\nfunc init() {}\n"))
	if len(faults) != 2 || commented {
		t.Errorf("got %q, commented %v", faults, commented)
	}
}

// semver-tag links neither a container engine nor an orchestrator.
func TestSmallPrograms(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "./cmd/semver-tag")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	heavy := regexp.MustCompile(`(?m)^(github\.com/moby/|github\.com/docker/docker/|k8s\.io/|` + module + `internal/(executor|target)).*$`)
	if found := heavy.Find(out); found != nil {
		t.Errorf("cmd/semver-tag links %s", found)
	}
}
