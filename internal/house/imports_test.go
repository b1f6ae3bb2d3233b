package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// pkg is what `go list` tells of a package.
type pkg struct {
	ImportPath   string   `json:"ImportPath"`
	Standard     bool     `json:"Standard"`
	Imports      []string `json:"Imports"`
	TestImports  []string `json:"TestImports"`
	XTestImports []string `json:"XTestImports"`
	Error        *struct {
		Err string `json:"Err"`
	} `json:"Error"`
}

// graph holds this module's packages and everything they import, by path.
func graph(t *testing.T) map[string]*pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-deps", "-json=ImportPath,Standard,Imports,TestImports,XTestImports,Error", module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, &stderr)
	}
	packages := map[string]*pkg{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		if p.Error != nil && p.isOurs() {
			t.Errorf("%s: %s", p.ImportPath, p.Error.Err)
		}
		packages[p.ImportPath] = &p
	}
	return packages
}

func (p *pkg) isOurs() bool { return within(p.ImportPath, module) }

// within reports whether a path is the prefix or below it; a prefix that ends
// with a dollar sign means itself alone.
func within(path, prefix string) bool {
	if exact, ok := strings.CutSuffix(prefix, "$"); ok {
		return path == exact
	}
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

// isOneOf reports whether a path is what one of the table's entries means.
func isOneOf(path string, entries []string) bool {
	return slices.ContainsFunc(entries, func(entry string) bool {
		return entry == "*" || within(path, entry) || within(path, module+"/"+entry)
	})
}

// isMeant is isOneOf for the list of what may be imported, in which a package of
// ours stands for itself alone.
func isMeant(path string, may []string) bool {
	return slices.ContainsFunc(may, func(entry string) bool {
		return entry == "*" || within(path, entry) || path == module+"/"+entry
	})
}

func ruleFor(path string) (rule, bool) {
	for _, r := range rules {
		if own := module + "/" + r.pkg; path == own || r.under && within(path, own) {
			return r, true
		}
	}
	return rule{}, false
}

// brokenBy returns what a package's imports break of its rule.
func (r rule) brokenBy(p *pkg, packages map[string]*pkg) []string {
	var broken []string
	for _, path := range p.Imports {
		imported := packages[path]
		if imported == nil || imported.Standard {
			continue
		}
		if r.plain || !isMeant(path, r.may) && !isOneOf(path, everywhere) {
			broken = append(broken, fmt.Sprintf("%s imports %s, which its rule does not list", p.ImportPath, path))
		}
	}
	for _, road := range roadsTo(p.ImportPath, packages, r.never) {
		broken = append(broken, fmt.Sprintf("%s must never reach %s, and does by %s", p.ImportPath, road[len(road)-1], strings.Join(road, " → ")))
	}
	return broken
}

// roadsTo returns, for each forbidden package that can be reached, the shortest
// road there. Roads do not lead through what everybody may import, nor through
// the standard library.
func roadsTo(from string, packages map[string]*pkg, forbidden []string) [][]string {
	var found [][]string
	seen := map[string]bool{from: true}
	for roads := [][]string{{from}}; len(roads) > 0; roads = roads[1:] {
		road := roads[0]
		for _, path := range packages[road[len(road)-1]].Imports {
			if seen[path] || isOneOf(path, everywhere) {
				continue
			}
			seen[path] = true
			longer := append(slices.Clone(road), path)
			if isOneOf(path, forbidden) {
				found = append(found, longer)
				continue
			}
			if next := packages[path]; next != nil && !next.Standard {
				roads = append(roads, longer)
			}
		}
	}
	return found
}

func TestImportsKeepTheRules(t *testing.T) {
	packages := graph(t)
	for _, p := range packages {
		if !p.isOurs() {
			continue
		}
		r, ok := ruleFor(p.ImportPath)
		if !ok {
			t.Errorf("%s has no rule: say in rules.go what it may import", p.ImportPath)
			continue
		}
		for _, broken := range r.brokenBy(p, packages) {
			t.Error(broken)
		}
	}
}

// A table that no longer matches anything forbids nothing.
func TestRulesNameWhatExists(t *testing.T) {
	packages := graph(t)
	for _, r := range rules {
		own := module + "/" + r.pkg
		if packages[own] == nil && !r.under {
			t.Errorf("the rule for %s is about no package", r.pkg)
		}
		for _, entry := range slices.Concat(r.may, r.never) {
			exists := entry == "*"
			for path := range packages {
				exists = exists || isOneOf(path, []string{entry}) || isOneOf(path, []string{strings.TrimSuffix(entry, "$")})
			}
			if !exists {
				t.Errorf("the rule for %s names %s, which nothing here is or imports", r.pkg, entry)
			}
		}
	}
}

// The graph that forbids is itself tried out on a graph with every fault.
func TestBrokenRulesAreFound(t *testing.T) {
	packages := map[string]*pkg{
		module + "/api":              {ImportPath: module + "/api", Imports: []string{module + "/cache", metrics, "fmt"}},
		module + "/cache":            {ImportPath: module + "/cache", Imports: []string{redis, "example.org/innocent"}},
		module + "/cache/view":       {ImportPath: module + "/cache/view", Imports: []string{module + "/cache"}},
		module + "/cache/version":    {ImportPath: module + "/cache/version", Imports: []string{logging}},
		module + "/producers":        {ImportPath: module + "/producers", Imports: []string{module + "/cache/view"}},
		"example.org/innocent":       {ImportPath: "example.org/innocent", Imports: []string{postgres + "/pgxpool"}},
		postgres + "/pgxpool":        {ImportPath: postgres + "/pgxpool"},
		redis:                        {ImportPath: redis},
		logging:                      {ImportPath: logging, Imports: []string{"net/http"}},
		metrics:                      {ImportPath: metrics, Imports: []string{"net/http"}},
		"fmt":                        {ImportPath: "fmt", Standard: true},
		"net/http":                   {ImportPath: "net/http", Standard: true},
		module + "/producers/stream": {ImportPath: module + "/producers/stream", Imports: []string{redis}},
		module + "/producers/event":  {ImportPath: module + "/producers/event", Imports: []string{"fmt", "net/http"}},
	}
	for name, want := range map[string][]string{
		"api":              {"api must never reach github.com/jackc/pgx/v5/pgxpool, and does by mythiccache/api → mythiccache/cache → example.org/innocent → "},
		"cache":            {"cache imports example.org/innocent, which", "cache must never reach github.com/jackc/pgx/v5/pgxpool"},
		"cache/view":       {"view imports mythiccache/cache, which", "view must never reach mythiccache/cache, "},
		"cache/version":    {"version imports " + logging},
		"producers":        {"producers must never reach mythiccache/cache, and does by mythiccache/producers → mythiccache/cache/view → mythiccache/cache"},
		"producers/stream": nil,
		"producers/event":  {"event must never reach net/http"},
	} {
		r, ok := ruleFor(module + "/" + name)
		if !ok {
			t.Errorf("%s has no rule", name)
			continue
		}
		got := r.brokenBy(packages[module+"/"+name], packages)
		if len(got) < len(want) || want == nil && got != nil {
			t.Errorf("%s: found %q, want %q", name, got, want)
		}
		for _, sentence := range want {
			if !slices.ContainsFunc(got, func(g string) bool { return strings.Contains(g, sentence) }) {
				t.Errorf("%s: %q is not among %q", name, sentence, got)
			}
		}
	}
}

// Test servers are for tests, and commands for nobody.
func TestTestsImportNoCommand(t *testing.T) {
	for _, p := range graph(t) {
		if !p.isOurs() {
			continue
		}
		for _, path := range slices.Concat(p.TestImports, p.XTestImports) {
			if within(path, module+"/cmd") && path != p.ImportPath {
				t.Errorf("%s's tests import %s", p.ImportPath, path)
			}
		}
	}
}
