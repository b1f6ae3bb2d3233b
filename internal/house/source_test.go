package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// root is the module's first directory, seen from this package.
const root = "../.."

// source is one package's directory: its files that ship, parsed.
type source struct {
	dir   string // below root
	fset  *token.FileSet
	files []*ast.File
	names []string // all files, the tests too
}

// sources parses every directory that holds Go.
func sources(t *testing.T) []*source {
	t.Helper()
	byDir := map[string]*source{}
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != root && (strings.HasPrefix(name, ".") && name != ".." || name == "testdata" || isIgnored(name)) {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		s := byDir[dir]
		if s == nil {
			s = &source{dir: filepath.ToSlash(dir), fset: token.NewFileSet()}
			byDir[dir] = s
		}
		s.names = append(s.names, name)
		if strings.HasSuffix(name, "_test.go") {
			return nil
		}
		return s.parse(path, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	var all []*source
	for _, s := range byDir {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *source) int { return strings.Compare(a.dir, b.dir) })
	return all
}

func (s *source) parse(path string, text any) error {
	f, err := parser.ParseFile(s.fset, path, text, parser.ParseComments|parser.SkipObjectResolution)
	s.files = append(s.files, f)
	return err
}

func (s *source) at(n ast.Node) string {
	p := s.fset.Position(n.Pos())
	return s.dir + "/" + filepath.Base(p.Filename) + ":" + strconv.Itoa(p.Line)
}

func isIgnored(name string) bool {
	return slices.ContainsFunc(ignored, func(pattern string) bool {
		matched, _ := filepath.Match(pattern, name)
		return matched
	})
}

func TestEveryPackageOpensWithItsPromise(t *testing.T) {
	for _, s := range sources(t) {
		if !slices.Contains(s.names, "doc.go") {
			t.Errorf("%s has no doc.go", s.dir)
		}
		for _, f := range s.files {
			isDoc := filepath.Base(s.fset.Position(f.Package).Filename) == "doc.go"
			if isDoc && (f.Doc == nil || len(strings.Fields(f.Doc.Text())) < 15) {
				t.Errorf("%s: doc.go promises nothing", s.dir)
			}
			if !isDoc && f.Doc != nil {
				t.Errorf("%s: the package is described here and not in doc.go", s.at(f))
			}
		}
	}
}

func TestTopLevelHoldsWhatItShould(t *testing.T) {
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := e.Name(); !strings.HasPrefix(name, ".") && !slices.Contains(topLevel, name) && !isIgnored(name) {
			t.Errorf("%s does not belong in the first directory", name)
		}
	}
}

func TestEnvironmentIsReadInCommands(t *testing.T) {
	for _, s := range sources(t) {
		if !readsNoEnvironment(s.dir) {
			continue
		}
		for _, at := range s.environmentReads() {
			t.Errorf("%s: the environment is read in cmd alone", at)
		}
	}
}

func readsNoEnvironment(dir string) bool {
	return !within(dir, "cmd") && !within(dir, "internal")
}

// environmentReads returns where a package calls for the environment.
func (s *source) environmentReads() []string {
	var found []string
	reads := []string{"Getenv", "LookupEnv", "Environ", "ExpandEnv"}
	for _, f := range s.files {
		ast.Inspect(f, func(n ast.Node) bool {
			if selector, ok := n.(*ast.SelectorExpr); ok && slices.Contains(reads, selector.Sel.Name) {
				if of, ok := selector.X.(*ast.Ident); ok && (of.Name == "os" || of.Name == "syscall") {
					found = append(found, s.at(n))
				}
			}
			return true
		})
	}
	return found
}

func TestNothingHappensOnImport(t *testing.T) {
	for _, s := range sources(t) {
		for _, found := range s.importEffects() {
			t.Error(found)
		}
	}
}

func TestFaultsOfSourceAreFound(t *testing.T) {
	s := &source{dir: "x", fset: token.NewFileSet()}
	err := s.parse("x.go", `package x

import _ "embed"

var counter int
var byName = map[string]int{"a": 1}
var table = []string{"read only"}
var ErrGone = errors.New("gone")
var pattern = regexp.MustCompile("a")
var registry = make(map[string]int)
var client = redis.NewClient(nil)
var cursor = 1
var lock = sync.Mutex{}
var state = &struct{}{}
var _ Reader = (*File)(nil)

//go:embed x.lua
var script string

func init() { counter++ }

func (T) init() {}

func f(table []string) {
	byName["b"] = 2
	table[0] = "a parameter"
	_ = os.Getenv("HOME")
	p := &cursor
}
`)
	if err != nil {
		t.Fatal(err)
	}
	got := s.importEffects()
	want := []string{"x/x.go:5: counter", "x/x.go:6: byName", "x/x.go:10: registry", "x/x.go:11: client", "x/x.go:12: cursor", "x/x.go:13: lock", "x/x.go:14: state", "x/x.go:20: init"}
	for _, start := range want {
		if !slices.ContainsFunc(got, func(g string) bool { return strings.HasPrefix(g, start+" ") }) {
			t.Errorf("%q is not among %q", start, got)
		}
	}
	if len(got) != len(want) {
		t.Errorf("found %d faults, want %d: %q", len(got), len(want), got)
	}
	if reads := s.environmentReads(); !slices.Equal(reads, []string{"x/x.go:27"}) {
		t.Errorf("the environment is read at %q", reads)
	}
}
