package house

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
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
	{"internal/fault", "internal/secret", "internal/outfile", "internal/child"}, // words
	{"internal/release"},
	{"internal/input"},
	{"internal/bump", "internal/plan", "internal/verdict", "internal/verdict/"},                   // decisions: pure
	{"internal/host", "internal/router", "internal/probe", "internal/ledger", "internal/builder"}, // contracts
	{"internal/target"},
	{"internal/wayback"},
	{"internal/registry", "internal/host/dotenv", "internal/gitrepo", "internal/haproxysocket"}, // what adapters stand on
	{"internal/registry/registrytest", "internal/ledger/ledgertest", "internal/probe/probetest", "internal/target/targettest", "internal/router/routertest", "internal/host/hosttest"},
	{"internal/host/", "internal/target/", "internal/router/", "internal/probe/", "internal/ledger/", "internal/builder/", "internal/config"}, // adapters
	{"internal/executor"},
	{"internal/step", "internal/step/"},
	{"internal/catalog"},
	{"internal/cli", "internal/gen"},
	{"internal/house", "cmd/", "examples/", "bench/", "ship/"},
}

// bans lists modules that only some rooms may use, and why.
var bans = []struct{ module, rooms, why string }{
	{"github.com/google/go-containerregistry", "internal/registry internal/builder/layers internal/step/demo internal/ledger/ledgertest internal/registry/registrytest bench/crash ship/image", "types of a library do not leave their room"},
	{"go.yaml.in/yaml", "internal/config internal/gen", "one parser, one writer"},
	{"github.com/sethvargo/go-githubactions", "internal/host/github", "only one host speaks it"},
	{"github.com/getkin/kin-openapi", "internal/host/hosttest", "a double checks with it, and nothing else"},
	{"gitlab.com/gitlab-org/api/client-go", "internal/host/gitlab", "an SDK does not leave its room"},
	{"os/exec", "internal/gitrepo internal/builder/docker internal/target/process internal/step/demo internal/registry/registrytest internal/router/nginx internal/router/routertest internal/probe/command internal/probe/probetest bench/crash ship/bill", "values from outside must not reach a shell"},
	{"github.com/moby", "internal/builder/docker internal/target/", "an engine's client is heavy"},
	{"github.com/docker/docker", "internal/builder/docker internal/target/", "an engine's client is heavy"},
	{"google.golang.org/grpc", "internal/probe/grpc", "a protocol's library is heavy"},
	{"github.com/jackc/pgx", "internal/probe/sql", "a database's driver is heavy"},
	{"github.com/go-sql-driver/mysql", "internal/probe/sql", "a database's driver is heavy"},
	{"github.com/chromedp", "internal/probe/browser", "a browser's protocol is heavy"},
	{"github.com/theory/jsonpath", "internal/probe/http", "types of a library do not leave their room"},
	{"gonum.org/v1/gonum", "bench/verdict", "distributions are for simulations"},
	{"github.com/CycloneDX", "ship/bill", "a bill of materials is made when an image is"},
	{"k8s.io", "internal/target/kubernetes internal/router/kubernetes", "an orchestrator's client is heavy"},
}

// worldly are the packages that may ask for the time or the environment themselves; in all others both come
// in, so that tests decide them.
var worldly = []string{"cmd/", "bench/crash", "examples/", "internal/cli", "internal/haproxysocket", "internal/step/demo", "internal/executor", "internal/wayback", "internal/gitrepo", "internal/registry",
	"internal/registry/registrytest", "internal/host/", "internal/target/", "internal/router/", "internal/probe", "internal/probe/", "internal/ledger/", "internal/builder/"}

// vague are names of packages that say nothing of what is in them.
var vague = []string{"util", "utils", "common", "types", "helpers", "helper", "pkg", "misc", "shared"}

// in says whether name is in a list of packages, in which / at the end stands for everything below.
func in(list []string, name string) bool {
	return slices.ContainsFunc(list, func(n string) bool {
		return n == name || strings.HasSuffix(n, "/") && strings.HasPrefix(name, n)
	})
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
	// go test repeats a kept result as long as what the test itself has looked at is the same, and it does not
	// see what go list looks at: a new folder has to count.
	for _, dir := range []string{"cmd", "internal"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(_ string, _ fs.DirEntry, err error) error { return err })
		if err != nil {
			t.Fatal(err)
		}
	}
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
	case strings.HasSuffix(imported, "test") && !strings.HasSuffix(name, "test"):
		return name + " imports " + imported + ", which is for tests"
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
		if slices.Contains(vague, path.Base(name)) {
			t.Errorf("%s: the name does not say what is in it", name)
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
		if !in(strings.Fields(b.rooms), name) {
			return fmt.Sprintf("%s imports %s, which is for %s only: %s", name, imported, b.rooms, b.why)
		}
	}
	return ""
}

func TestBreachesAreSeen(t *testing.T) {
	for _, c := range [][3]string{
		{"internal/plan", "internal/executor", "internal/plan (floor 3) imports internal/executor (floor 10)"},
		{"internal/step/deploy", "internal/step/verify", "internal/step/deploy (floor 11) imports internal/step/verify (floor 11)"},
		{"internal/step/deploy", "internal/step", ""},
		{"internal/probe/http", "internal/probe", ""},
		{"internal/util", "internal/fault", "internal/util is on no floor"},
		{"internal/probe/http", "internal/probe/tcp", "internal/probe/http (floor 9) imports internal/probe/tcp (floor 9)"},
		{"internal/step/deploy", "internal/registry/registrytest", "internal/step/deploy imports internal/registry/registrytest, which is for tests"},
		{"internal/ledger/ledgertest", "internal/registry", ""},
	} {
		if got := breach(c[0], c[1]); got != c[2] {
			t.Errorf("breach(%s, %s) = %q, want %q", c[0], c[1], got, c[2])
		}
	}
	for _, c := range []struct {
		name, imported string
		banned         bool
	}{
		{"internal/plan", "os/exec", true},
		{"internal/gitrepo", "os/exec", false},
		{"internal/step/deploy", "github.com/google/go-containerregistry/pkg/name", true},
		{"internal/target/docker", "github.com/moby/moby/client", false},
		{"internal/executor", "github.com/moby/moby/client", true},
		{"internal/target/docker", "k8s.io/api/core/v1", true},
	} {
		if got := banned(c.name, c.imported); (got != "") != c.banned {
			t.Errorf("%s imports %s: %q", c.name, c.imported, got)
		}
	}
}

// direct are the names that go around what makes them safe, and the rooms that may use them.
var direct = []struct{ name, rooms, instead string }{
	{"os.Stdout", "internal/cli internal/step/demo cmd/ bench/ examples/ ship/", "a step prints to its Runtime, which escapes and redacts"},
	{"os.Stderr", "internal/cli cmd/ bench/ examples/ ship/", "a step prints to its Runtime, which escapes and redacts"},
	{"fmt.Print", "cmd/ bench/ examples/", "a step prints to its Runtime, which escapes and redacts"},
	{"fmt.Printf", "cmd/ bench/ examples/", "a step prints to its Runtime, which escapes and redacts"},
	{"fmt.Println", "cmd/ bench/ examples/", "a step prints to its Runtime, which escapes and redacts"},
	{"os.Environ", "internal/gitrepo internal/probe/command internal/router/nginx internal/builder/docker internal/step/demo internal/cli internal/registry/registrytest bench/", "a child gets child.Environment"},
	{"os.WriteFile", "internal/step/demo internal/probe/probetest internal/router/routertest internal/registry/registrytest bench/ ship/", "outfile.Write follows no link"},
	{"os.Create", "bench/", "outfile.Write follows no link"},
}

// around lists where a file uses a name of direct outside of its rooms.
func around(name string, src []byte, room string) (faults []string, err error) {
	file, err := parser.ParseFile(token.NewFileSet(), name, src, 0)
	if err != nil {
		return nil, err
	}
	ast.Inspect(file, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		from, ok := s.X.(*ast.Ident)
		for _, d := range direct {
			if ok && d.name == from.Name+"."+s.Sel.Name && !in(strings.Fields(d.rooms), room) {
				faults = append(faults, fmt.Sprintf("%s: %s: %s", name, d.name, d.instead))
			}
		}
		return true
	})
	return faults, nil
}

// Nothing goes around the printer, the environment of children and the files that follow no link.
func TestNothingGoesAround(t *testing.T) {
	for _, p := range packages(t) {
		for _, name := range p.GoFiles {
			src, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			faults, err := around(p.ImportPath+"/"+name, src, strings.TrimPrefix(p.ImportPath, module))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range faults {
				t.Error(f)
			}
		}
	}
	planted := []byte("package x\nfunc f() { fmt.Println(os.Environ()) }\n")
	if faults, err := around("x.go", planted, "internal/step/deploy"); err != nil || len(faults) != 2 {
		t.Errorf("planted: %q, %v", faults, err)
	}
}

// House law that a parser can see: one package comment, no init, no blank imports, no hidden inputs.
func TestPackages(t *testing.T) {
	for _, p := range packages(t) {
		comments := 0
		for _, name := range p.GoFiles {
			src, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			faults, commented := lawful(t, name, src, in(worldly, strings.TrimPrefix(p.ImportPath, module)))
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

// hidden are the calls that bring something in from outside which nobody handed over.
var hidden = []string{"os.Getenv", "os.LookupEnv", "os.Environ", "time.Now", "time.Since", "time.Until"}

func lawful(t *testing.T, name string, src []byte, worldly bool) (faults []string, commented bool) {
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
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && !worldly {
			if from, ok := s.X.(*ast.Ident); ok && slices.Contains(hidden, from.Name+"."+s.Sel.Name) {
				faults = append(faults, fmt.Sprintf("%s: %s.%s: let it be handed over", name, from.Name, s.Sel.Name))
			}
		}
		return true
	})
	return faults, file.Doc != nil
}

// longest is how many lines a function of the rooms that must be read in an emergency may have.
const longest = 60

// readable are those rooms.
var readable = []string{"internal/executor", "internal/wayback", "internal/ledger", "internal/ledger/", "internal/plan", "internal/target", "internal/target/"}

// long lists the functions with more lines than longest.
func long(name string, src []byte) (names []string, err error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, src, 0)
	if err != nil {
		return nil, err
	}
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok {
			if lines := files.Position(f.End()).Line - files.Position(f.Pos()).Line + 1; lines > longest {
				names = append(names, fmt.Sprintf("%s: %s has %d lines", name, f.Name.Name, lines))
			}
		}
	}
	return names, nil
}

func TestFunctionsAreReadable(t *testing.T) {
	for _, p := range packages(t) {
		room := strings.TrimPrefix(p.ImportPath, module)
		if !in(readable, room) || strings.HasSuffix(room, "test") {
			continue
		}
		for _, name := range p.GoFiles {
			src, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			names, err := long(p.ImportPath+"/"+name, src)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range names {
				t.Errorf("%s, %d are the limit: name its stages", n, longest)
			}
		}
	}
	planted := []byte("package x\nfunc f() {\n" + strings.Repeat("_ = 1\n", longest) + "}\n")
	if names, err := long("x.go", planted); err != nil || len(names) != 1 {
		t.Errorf("planted: %q, %v", names, err)
	}
}

func TestLawIsSeen(t *testing.T) {
	src := []byte("package x\nimport (\n_ \"os\"\n\"time\"\n)\nvar now = time.Now\nfunc init() {}\n")
	faults, commented := lawful(t, "x.go", src, false)
	want := []string{`x.go: blank import of "os"`, "x.go: func init", "x.go: time.Now: let it be handed over"}
	if !slices.Equal(faults, want) || commented {
		t.Errorf("got %q, commented %v", faults, commented)
	}
	if faults, _ := lawful(t, "x.go", src, true); len(faults) != 2 {
		t.Errorf("where the clock is allowed, got %q", faults)
	}
}

// heavy is what a small program does not link.
var heavy = regexp.MustCompile(`(?m)^(github\.com/moby/|github\.com/docker/docker/|k8s\.io/|` + module + `internal/(executor|target)).*$`)

// semver-tag links neither a container engine nor an orchestrator.
func TestSmallPrograms(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "./cmd/semver-tag")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if found := heavy.Find(out); found != nil {
		t.Errorf("cmd/semver-tag links %s", found)
	}
	for _, planted := range []string{"github.com/moby/moby/client", "k8s.io/api/core/v1", module + "internal/target/process"} {
		if !heavy.MatchString("fmt\n" + planted + "\nos") {
			t.Errorf("%s is not seen", planted)
		}
	}
}

// reaching is what can reach a registry, or ask anybody but a target and its router.
var reaching = regexp.MustCompile(`(?m)^(net/http$|github\.com/google/|` + module + `internal/(registry|ledger|probe|host|executor|config|step)).*$`)

// Nothing lies between a verdict and the traffic: what fires can reach no registry.
func TestTheWayBackReachesNoRegistry(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "./internal/wayback")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if found := reaching.Find(out); found != nil {
		t.Errorf("internal/wayback can reach %s", found)
	}
	for _, planted := range []string{"net/http", "github.com/google/go-containerregistry/pkg/name", module + "internal/ledger/registry"} {
		if !reaching.MatchString("fmt\n" + planted + "\nos") {
			t.Errorf("%s is not seen", planted)
		}
	}
}

var use = regexp.MustCompile(`(?m)^[ \t{-]*["']?uses["']?[ \t]*:[ \t]*["']?([^\s"'#},]+)`)

// unpinned lists what a workflow uses from outside by a name that can be moved to something else.
func unpinned(workflow string) []string {
	// Our own actions are pinned by .ci/release.sh, and tested by what it leaves.
	pinned := regexp.MustCompile(`^\./|^backstep/backstep/.*@main$|^docker://ghcr\.io/backstep/backstep:edge$|@[0-9a-f]{40}$|^docker://.+@sha256:[0-9a-f]{64}$`)
	var loose []string
	for _, m := range use.FindAllStringSubmatch(workflow, -1) {
		if !pinned.MatchString(m[1]) {
			loose = append(loose, m[1])
		}
	}
	return loose
}

func TestWorkflowsArePinned(t *testing.T) {
	workflows := 0
	err := filepath.WalkDir(filepath.Join(root, ".github"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		src, err := os.ReadFile(path)
		for _, name := range unpinned(string(src)) {
			t.Errorf("%s uses %s: pin it to the 40 digits of a commit", path, name)
		}
		workflows++
		return err
	})
	if err != nil || workflows == 0 {
		t.Errorf("read %d workflows: %v", workflows, err)
	}
	sha := strings.Repeat("0123456789", 4)
	planted := "steps:\n- uses: actions/checkout@v5\n- name: x\n  uses: \"a/b@" + sha + "\" # v1\n- uses: ./actions/x\n" +
		"- uses: docker://alpine:3\n- {uses: c/d@main}\n# uses: e/f@v1\n"
	if got, want := unpinned(planted), []string{"actions/checkout@v5", "docker://alpine:3", "c/d@main"}; !slices.Equal(got, want) {
		t.Errorf("planted: got %q, want %q", got, want)
	}
}
