package house

import (
	"go/ast"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// settings returns the names of the environment that cmd's configuration reads,
// from the struct tags.
func settings(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, tag := range tags(t) {
		if name, _, _ := strings.Cut(tag.Get("env"), ","); name != "" {
			names = append(names, name)
		}
	}
	if len(names) < 10 {
		t.Fatalf("found only the settings %q", names)
	}
	return names
}

// defaults returns what the settings are that nobody sets.
func defaults(t *testing.T) map[string]string {
	t.Helper()
	values := map[string]string{}
	for _, tag := range tags(t) {
		if value := tag.Get("envDefault"); value != "" {
			values[tag.Get("env")] = value
		}
	}
	if len(values) < 10 {
		t.Fatalf("found only the defaults %q", values)
	}
	return values
}

// tags returns the tags of cmd's structs.
func tags(t *testing.T) []reflect.StructTag {
	t.Helper()
	var all []reflect.StructTag
	for _, s := range sources(t) {
		if !within(s.dir, "cmd") {
			continue
		}
		for _, f := range s.files {
			ast.Inspect(f, func(n ast.Node) bool {
				field, ok := n.(*ast.Field)
				if !ok || field.Tag == nil {
					return true
				}
				tag, err := strconv.Unquote(field.Tag.Value)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, reflect.StructTag(tag))
				return true
			})
		}
	}
	return all
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(root + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestEverySettingIsWrittenDown(t *testing.T) {
	readme, example := read(t, "README.md"), read(t, ".env.example")
	for _, name := range settings(t) {
		word := regexp.MustCompile(`\b` + name + `\b`)
		if !word.MatchString(readme) {
			t.Errorf("README.md does not name %s", name)
		}
		if !word.MatchString(example) {
			t.Errorf(".env.example does not name %s", name)
		}
	}
}

// compose is what the tests look at of docker-compose.yaml.
type compose struct {
	Services map[string]struct {
		Image       string            `yaml:"image"`
		Command     any               `yaml:"command"`
		Volumes     []string          `yaml:"volumes"`
		Environment map[string]string `yaml:"environment"`
		Healthcheck struct {
			Test     []string `yaml:"test"`
			Interval string   `yaml:"interval"`
			Timeout  string   `yaml:"timeout"`
			Retries  int      `yaml:"retries"`
		} `yaml:"healthcheck"`
	} `yaml:"services"`
	Volumes map[string]any `yaml:"volumes"`
}

func TestComposeKeepsTheContract(t *testing.T) {
	var c compose
	if err := yaml.Unmarshal([]byte(read(t, "docker-compose.yaml")), &c); err != nil {
		t.Fatal(err)
	}
	redis := c.Services["redis"]
	if redis.Image != "redis:7-alpine" || redis.Command != "redis-server --appendonly yes" || !slices.Contains(redis.Volumes, "redis_data:/data") {
		t.Errorf("redis is %+v", redis)
	}
	check := redis.Healthcheck
	if !slices.Equal(check.Test, []string{"CMD", "redis-cli", "ping"}) || check.Interval != "10s" || check.Timeout != "3s" || check.Retries != 3 {
		t.Errorf("redis is checked by %+v", check)
	}
	if _, ok := c.Volumes["redis_data"]; !ok {
		t.Error("there is no volume redis_data")
	}
	if c.Services["postgres"].Image == "" {
		t.Error("there is no postgres")
	}
	known := settings(t)
	for name := range c.Services["worker"].Environment {
		if !slices.Contains(known, name) {
			t.Errorf("the worker is given %s, which it does not read", name)
		}
	}
	for _, name := range known {
		// These say where things are, and inside the container that is fixed.
		fixed := []string{"DATABASE_LISTEN_URL", "HTTP_ADDR", "VIEWS_FILE", "AI_WARM_FILE"}
		if _, ok := c.Services["worker"].Environment[name]; !ok && !slices.Contains(fixed, name) {
			t.Errorf("%s does not reach the worker", name)
		}
	}
}
