package consumers

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/internal/testserver"
)

// "Not found" is cached, then the row comes. However a fill and the row's event run
// into one another, nobody is told "not found" once the event was applied.
func TestInsertWinsOverNotFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	v, n := w.view("thing"), 0
	for _, app := range []bool{false, true} {
		for _, steps := range interleave("LSP", "CE") {
			n++
			key := fmt.Sprintf("row%d", n)
			what := fmt.Sprintf("%s, app's event: %v", steps, app)
			w.fill("thing", key)
			w.wants("thing", key, "absent")
			lease, loaded, at, applied := cache.Lease{}, Loaded{}, version.Version{}, false
			var err error
			for _, step := range steps {
				switch step {
				case 'L':
					lease = w.leaseOnce(v.Name, key)
				case 'S':
					loaded, err = w.loader.Load(w.ctx, v, key)
				case 'P':
					_, err = w.store.Put(w.ctx, lease, cache.Fill{Negative: !loaded.Found, Version: loaded.Version, Snapshot: loaded.Snapshot, Body: loaded.Body})
				case 'C':
					at = w.set(key, n)
				case 'E':
					change := cache.Change{View: v, Key: key, Version: at}
					if app {
						change.Version = version.Version{}
					}
					_, err = w.store.Invalidate(w.ctx, []cache.Change{change})
					applied = true
				}
				if err != nil && !errors.Is(err, cache.ErrRefused) {
					t.Fatalf("%s, %c: %v", what, step, err)
				}
				if got := w.body("thing", key); applied && got == "absent" {
					t.Errorf("%s: after %c a reader is told that there is no such row", what, step)
				}
			}
			w.fill("thing", key)
			w.wants("thing", key, fmt.Sprintf(`{"n":%d}`, n))
		}
	}
	if n != 20 {
		t.Errorf("%d interleavings", n)
	}
}

// leaseOnce takes a lease as soon as the pause after the fill before is over.
func (w *world) leaseOnce(name, key string) (lease cache.Lease) {
	w.Helper()
	testserver.Eventually(w.T, "the pause is over", func() (err error) {
		lease, err = w.store.Lease(w.ctx, w.view(name), key, time.Minute)
		return err
	})
	return lease
}

// interleave returns all ways to run two sequences into one another.
func interleave(a, b string) (all []string) {
	if a == "" || b == "" {
		return []string{a + b}
	}
	for _, rest := range interleave(a[1:], b) {
		all = append(all, a[:1]+rest)
	}
	for _, rest := range interleave(a, b[1:]) {
		all = append(all, b[:1]+rest)
	}
	return all
}
