package cache_test

import (
	"strings"
	"testing"

	"mythiccache/cache"
	"mythiccache/cache/view"
)

// An entry's key begins with its view's name, so no view may be called as a key of
// another kind begins.
func TestNoViewHasAKeyOfOurs(t *testing.T) {
	t.Parallel()
	for _, key := range cache.KeysOfOurs() {
		if name, _, _ := strings.Cut(key, ":"); view.ValidName(name) {
			t.Errorf("a view may be called %s", name)
		}
	}
}
