package view_test

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"mythiccache/cache/view"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Each testdata/*.yaml holds files with mistakes, apart by lines of "# ---", and
// the .golden beside it what Parse says to each.
func TestMistakesAreNamedWithTheirPlace(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no testdata", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var said strings.Builder
			for part := range strings.SplitSeq(string(text), "# ---\n") {
				set, err := view.Parse("views.yaml", []byte(part), func(name string) (string, bool) {
					return "soon", name == "SOON"
				})
				if err == nil {
					t.Fatalf("nothing is wrong with\n%s", part)
				}
				if set != nil {
					t.Error("a set came with the error")
				}
				said.WriteString(err.Error() + "\n---\n")
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(said.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if said.String() != string(want) {
				t.Errorf("got\n%s\nwant\n%s", said.String(), want)
			}
		})
	}
}

var place = regexp.MustCompile(`^v\.yaml:[1-9]\d*:[1-9]\d*: .`)

// Whatever the bytes are, Parse returns a set or mistakes with a place.
func FuzzParse(f *testing.F) {
	f.Add(view.Mythic())
	for _, file := range []string{"field", "shape", "fit"} {
		text, err := os.ReadFile("testdata/" + file + ".yaml")
		if err != nil {
			f.Fatal(err)
		}
		for part := range strings.SplitSeq(string(text), "# ---\n") {
			f.Add([]byte(part))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		set, err := view.Parse("v.yaml", text, nil)
		if err != nil {
			if !place.MatchString(err.Error()) {
				t.Fatalf("%q has no place", err)
			}
			return
		}
		for _, v := range set.All() {
			if v.Name == "" || len(v.Key) == 0 || v.TTL <= 0 || v.Negative <= 0 || v.Negative > v.TTL || v.Model != (v.Load == "") || v.Line == 0 {
				t.Fatalf("an unfit view was let through: %+v", v)
			}
		}
	})
}
