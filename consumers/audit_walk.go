package consumers

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"

	"mythiccache/cache"
	"mythiccache/cache/view"
)

// walk goes over the entries of the views, at its own pace: one SCAN of all that Redis
// holds, beginning anywhere. An entry that is there all the time is met at least
// once between one end of the cursor and the next.
type walk struct {
	store  *cache.Store
	views  *view.Set
	prefix string
	cursor uint64
	whole  bool // it began at the beginning
	found  []place
}

// place is the entry of a key.
type place struct {
	view *view.View
	key  string
}

// scanAtOnce is how many keys of Redis one step looks at: some tens of microseconds.
const scanAtOnce = 250

func newWalk(ctx context.Context, store *cache.Store, views *view.Set) (*walk, error) {
	const some = "a" // the name of an entry is the prefix, the view's name, and the key in braces
	empty, err := store.Inspect(ctx, &view.View{Name: some}, "")
	if err != nil {
		return nil, err
	}
	return &walk{store: store, views: views, prefix: strings.TrimSuffix(empty.Name, some+":{}"), cursor: rand.Uint64()}, nil
}

// next returns an entry, nil where one step found none, and reports whether that step
// was the last of a pass over everything.
func (w *walk) next(ctx context.Context) (p *place, end bool, err error) {
	if len(w.found) == 0 {
		names, cursor, err := w.store.Client().Scan(ctx, w.cursor, escapeGlob(w.prefix)+"*}", scanAtOnce).Result()
		if err != nil {
			return nil, false, fmt.Errorf("walk over the cache: %w", err)
		}
		w.cursor, end = cursor, cursor == 0 && w.whole
		w.whole = w.whole || cursor == 0
		for _, name := range names {
			if p, ok := w.parse(name); ok {
				w.found = append(w.found, p)
			}
		}
	}
	if len(w.found) == 0 {
		return nil, end, nil
	}
	p, w.found = &w.found[0], w.found[1:]
	return p, end, nil
}

// parse takes the name of an entry apart. Other things have other names.
func (w *walk) parse(name string) (place, bool) {
	of, key, ok := strings.Cut(strings.TrimPrefix(name, w.prefix), ":{")
	if !ok || !strings.HasSuffix(key, "}") {
		return place{}, false
	}
	v, ok := w.views.Lookup(of)
	if !ok || v.Model {
		return place{}, false
	}
	return place{v, strings.TrimSuffix(key, "}")}, true
}
