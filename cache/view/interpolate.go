package view

import (
	"fmt"
	"regexp"
)

// variable is ${NAME} or ${NAME:default}. What does not look like it stays as it
// is: SQL may hold a dollar and a brace.
var variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)(:[^}]*)?\}`)

// interpolate puts in what lookup knows of each variable. One that is unset or
// empty has its default; without one it is a mistake.
func interpolate(text string, lookup func(string) (string, bool)) (string, error) {
	var missing error
	out := variable.ReplaceAllStringFunc(text, func(found string) string {
		parts := variable.FindStringSubmatch(found)
		name, fallback := parts[1], parts[2]
		if value, ok := lookup(name); ok && value != "" {
			return value
		}
		if fallback == "" && missing == nil {
			missing = fmt.Errorf("%s is not set, and there is no default: write ${%s:default}", name, name)
		}
		return fallback[min(1, len(fallback)):]
	})
	return out, missing
}
