package cache_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/internal/testserver"
)

// A script expects of a key what it met at the last: wherever it errs, a batch does
// what its changes do one by one.
func TestABatchOfChangesDoesWhatEachDoes(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{FenceTTL: 2 * time.Minute})
	ctx := t.Context()
	states := map[string]func(key string){
		"absent": func(string) {},
		"older":  func(key string) { put(t, s, key, at(10), "x") },
		"newer":  func(key string) { put(t, s, key, at(40), "x") },
		"held": func(key string) {
			put(t, s, key, at(10), "x")
			lease(t, s, books(), key)
		},
		"leased": func(key string) { lease(t, s, books(), key) },
		"fenced": func(key string) { invalidate(t, s, key, at(15).Version()) },
		"foreign": func(key string) {
			set(t, s, key, "not an entry, though as long as one: seventy-two bytes are the least that it has")
		},
		"list": func(key string) { pushed(t, s, key) },
	}
	versions := []version.Version{at(20).Version(), at(30).Version(), {}}
	var together, apart []cache.Change
	var what []string
	for state, prepare := range states {
		for n, v := range versions {
			for again := range 3 {
				name := fmt.Sprint(state, n, again)
				prepare("together " + name)
				prepare("apart " + name)
				together = append(together, cache.Change{View: books(), Key: "together " + name, Version: v})
				apart = append(apart, cache.Change{View: books(), Key: "apart " + name, Version: v})
				what = append(what, name)
			}
		}
	}
	rand.Shuffle(len(together), func(i, j int) { together[i], together[j] = together[j], together[i] })
	atOnce, err := s.Invalidate(ctx, together)
	if err != nil {
		t.Fatal(err)
	}
	each := 0
	for _, c := range apart {
		each += invalidate(t, s, c.Key, c.Version)
	}
	if atOnce != each || each == 0 {
		t.Errorf("%d of a batch did something; %d one by one", atOnce, each)
	}
	for _, name := range []string{"absent0 0", "older1 1", "foreign0 0", "list1 2"} {
		if got := left(t, s, "apart "+name); !strings.HasPrefix(got.head, "1f") {
			t.Errorf("%s is left %+v; want a fence", name, got)
		}
	}
	for _, name := range what {
		if got, want := left(t, s, "together "+name), left(t, s, "apart "+name); got != want {
			t.Errorf("%s is left %+v by a batch and %+v by itself", name, got, want)
		}
	}
}

// remains are what a change left of a key, but for what differs by chance.
type remains struct {
	head   string // schema, state and version
	leased bool
	length int
	keep   time.Duration // of a fence, to the minute
}

func left(t *testing.T, s *cache.Store, key string) remains {
	t.Helper()
	ctx, key := context.WithoutCancel(t.Context()), "mythic:books:{"+key+"}"
	text, err := s.Client().Get(ctx, key).Result()
	switch {
	case errors.Is(err, redis.Nil):
		return remains{}
	case redis.HasErrorPrefix(err, "WRONGTYPE"):
		return remains{head: "a list"}
	case err != nil:
		t.Fatal(err)
	}
	r := remains{head: text[:38], leased: text[38:46] != string(make([]byte, 8)), length: len(text)}
	if r.head[1] == 'f' { // a value's is jittered
		keep, err := s.Client().PTTL(ctx, key).Result()
		if err != nil {
			t.Fatal(err)
		}
		r.keep = keep.Round(time.Minute)
	}
	return r
}

func set(t *testing.T, s *cache.Store, key, text string) {
	t.Helper()
	if err := s.Client().Set(t.Context(), "mythic:books:{"+key+"}", text, time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
}

func pushed(t *testing.T, s *cache.Store, key string) {
	t.Helper()
	if err := s.Client().RPush(t.Context(), "mythic:books:{"+key+"}", "x").Err(); err != nil {
		t.Fatal(err)
	}
}
