package house

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// documents are those that people read first.
var documents = [...]string{"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"}

// all returns what a pattern's first group finds, each once.
func all(pattern, text string) []string {
	var found []string
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		if !slices.Contains(found, m[1]) {
			found = append(found, m[1])
		}
	}
	return found
}

func TestDocumentsNameCommandsThatThereAre(t *testing.T) {
	makefile := read(t, "Makefile")
	there := all(`(?m)^([a-z-]+):`, makefile)
	for _, name := range documents {
		for _, target := range all("(?m)(?:`|^)make ([a-z-]+)", read(t, name)) {
			if !slices.Contains(there, target) {
				t.Errorf("%s: there is no make %s", name, target)
			}
		}
	}
	contributing := all("`make ([a-z-]+)`", read(t, "CONTRIBUTING.md"))
	for _, target := range all(`(?m)^([a-z-]+):.*##`, makefile) {
		if !slices.Contains(contributing, target) {
			t.Errorf("CONTRIBUTING.md does not tell of make %s", target)
		}
	}
}

func TestDocumentsNameFilesThatThereAre(t *testing.T) {
	for _, name := range documents {
		text := read(t, name)
		for _, path := range slices.Concat(all("`((?:"+strings.Join(topLevel[:8], "|")+`)/[\w./*-]+)`+"`", text), all(`\]\(([^)#:]+)\)`, text)) {
			if found, err := filepath.Glob(root + "/" + path); err != nil || len(found) == 0 {
				t.Errorf("%s: there is no %s", name, path)
			}
		}
	}
}

func TestDocumentsNameMetricsThatThereAre(t *testing.T) {
	var code strings.Builder
	for _, s := range sources(t) {
		for _, name := range s.names {
			if !strings.HasSuffix(name, "_test.go") {
				code.WriteString(read(t, s.dir+"/"+name))
			}
		}
	}
	// Some are put together of a namespace, a subsystem and the rest.
	names := all(`"(?:mythic_cache_)?([a-z][a-z_]+)"`, code.String())
	for _, document := range documents {
		for _, metric := range all(`\bmythic_cache_([a-z_]+[a-z])\b`, read(t, document)) {
			known := func(name string) bool {
				_, rest, _ := strings.Cut(metric, "_")
				return name == metric || name == strings.TrimSuffix(metric, "_bucket") || name == rest
			}
			if !slices.ContainsFunc(names, known) {
				t.Errorf("%s: there is no metric mythic_cache_%s", document, metric)
			}
		}
	}
}

func TestEveryPackageHasAPlaceInTheTable(t *testing.T) {
	_, table, _ := strings.Cut(read(t, "ARCHITECTURE.md"), "## Where things are")
	table, _, _ = strings.Cut(table, "\n## ")
	rows := all("(?m)^\\| `([^`]+)` \\|", table)
	for _, s := range sources(t) {
		if !slices.ContainsFunc(rows, func(row string) bool { return within(s.dir, row) }) {
			t.Errorf("ARCHITECTURE.md does not say where %s belongs", s.dir)
		}
	}
}

// .env.example is also read by a shell, to which some characters mean more.
func TestAShellReadsTheExampleAsComposeDoes(t *testing.T) {
	text := regexp.MustCompile(`(?m)^#([A-Z])`).ReplaceAllString(read(t, ".env.example"), "$1")
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	shell := exec.CommandContext(t.Context(), "sh", "-c", `set -a; . "$0"; env`, file)
	shell.Env = []string{"PATH=" + os.Getenv("PATH")}
	said, err := shell.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	for _, m := range regexp.MustCompile(`(?m)^([A-Z_]+)=(.*)$`).FindAllStringSubmatch(text, -1) {
		if line := m[1] + "=" + strings.Trim(m[2], "'"); !strings.Contains("\n"+string(said), "\n"+line+"\n") {
			t.Errorf("a shell does not read %s", line)
		}
	}
}

func TestDefaultsAreWrittenDown(t *testing.T) {
	readme, example := read(t, "README.md"), read(t, ".env.example")
	for name, value := range defaults(t) {
		cell := all("(?m)^\\|[^|]*`"+name+"`[^|]*\\|([^|]*)\\|", readme)
		if len(cell) != 1 || !strings.Contains(cell[0], "`"+value+"`") {
			t.Errorf("README.md does not say that %s is %s", name, value)
		}
		if !strings.Contains(example, "#"+name+"="+value+"\n") {
			t.Errorf(".env.example does not say that %s is %s", name, value)
		}
	}
}
