package cache_test

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/cache/view"
	"mythiccache/internal/testserver"
)

// leaseAll takes the leases of keys that nobody else has.
func leaseAll(t *testing.T, s *cache.Store, keys ...string) []cache.Lease {
	t.Helper()
	leases, err := s.LeaseAll(t.Context(), books(), keys, time.Minute)
	if err != nil || len(leases) != len(keys) {
		t.Fatalf("%d leases of %d keys, %v", len(leases), len(keys), err)
	}
	return leases
}

// numbered are the keys prefix0, prefix1 and so on.
func numbered(prefix string, n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = prefix + strconv.Itoa(i)
	}
	return keys
}

// Every fourth of many is refused. The batches are cut by number and by size.
func TestPutAllTellsWhichWereRefused(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	for _, size := range []int{10, 300_000} {
		keys := numbered(fmt.Sprintf("%d bytes ", size), 250)
		if size > 10 {
			keys = keys[:10]
		}
		var all []cache.Made
		var changes []cache.Change
		for i, l := range leaseAll(t, s, keys...) {
			all = append(all, cache.Made{Lease: l, Fill: fill(at(20), l.Key+strings.Repeat(".", size))})
			if i%4 == 3 {
				changes = append(changes, cache.Change{View: books(), Key: l.Key, Version: at(21).Version()})
			}
		}
		if n, err := s.Invalidate(t.Context(), changes); err != nil || n != len(changes) {
			t.Fatal(n, err)
		}
		filled, err := s.PutAll(t.Context(), all)
		if err != nil || len(filled) != len(all) {
			t.Fatalf("%d outcomes of %d, %v", len(filled), len(all), err)
		}
		for i, f := range filled {
			body := string(all[i].Fill.Body)
			if f.Entry.Key != keys[i] || string(f.Entry.Body) != body || f.Entry.ETag == "" || !f.Taken.Equal(all[i].Lease.Taken) || f.At.Before(f.Taken) {
				t.Fatalf("outcome %d is %+v", i, f)
			}
			if i%4 == 3 {
				if f.Outcome != cache.Refused || !strings.Contains(f.Reason, "changed since") {
					t.Errorf("%s: %c %s", f.Entry.Key, f.Outcome, f.Reason)
				}
				expect(t, s, f.Entry.Key, cache.Miss, cache.WhyFenced, "")
				lease(t, s, books(), f.Entry.Key) // the refused fill has given its lease back
				continue
			}
			if f.Outcome != cache.Accepted || f.Reason != "" {
				t.Errorf("%s: %c %s", f.Entry.Key, f.Outcome, f.Reason)
			}
			expect(t, s, f.Entry.Key, cache.Hit, "", body)
		}
	}
}

// What PutAll says is what Put says.
func TestPutAllJudgesAsPutDoes(t *testing.T) {
	t.Parallel()
	r := testserver.NewRedis(t, "--appendfsync", "always")
	s := newStore(t, r, cache.Options{})
	fences := func(v version.Version) func(cache.Lease) {
		return func(l cache.Lease) { invalidate(t, s, l.Key, v) }
	}
	for _, c := range []struct {
		name string
		why  string            // it is refused; empty where it is not
		then func(cache.Lease) // between the lease and the put
	}{
		{"undisturbed", "", func(cache.Lease) {}},
		{"older change", "", fences(at(19).Version())},
		{"same change", "", fences(at(20).Version())},
		{"newer change", "changed since", fences(at(21).Version())},
		{"change of a newer epoch", "changed since", fences(version.Snapshot{Epoch: 2, Xmin: 3, Xmax: 3}.Version())},
		{"change without a version", "lease is gone", fences(version.Version{})},
		{"put before", "lease is gone", func(l cache.Lease) {
			if _, err := s.Put(t.Context(), l, fill(at(20), "y")); err != nil {
				t.Fatal(err)
			}
		}},
		{"abandoned", "lease is gone", func(l cache.Lease) {
			if err := s.Abandon(t.Context(), l, "enough"); err != nil {
				t.Fatal(err)
			}
		}},
		{"gone", "lease is gone", func(l cache.Lease) {
			if err := s.Client().Del(t.Context(), "mythic:books:{"+l.Key+"}").Err(); err != nil {
				t.Fatal(err)
			}
		}},
		{"overwritten", "lease is gone", func(l cache.Lease) {
			if err := s.Client().LPush(t.Context(), "mythic:books:{"+l.Key+"} ", "x").Err(); err != nil {
				t.Fatal(err)
			}
			if err := s.Client().Rename(t.Context(), "mythic:books:{"+l.Key+"} ", "mythic:books:{"+l.Key+"}").Err(); err != nil {
				t.Fatal(err)
			}
		}},
		{"view fenced", "whole view has changed", func(cache.Lease) {
			if err := s.Fence(t.Context(), books(), at(21).Version()); err != nil {
				t.Fatal(err)
			}
		}},
		{"view without a key", "no key", func(cache.Lease) {
			if err := s.Client().Del(t.Context(), "mythic:view:books").Err(); err != nil {
				t.Fatal(err)
			}
		}},
		{"restarted", "restarted", func(cache.Lease) {
			if err := s.EnsureViews(t.Context(), []*view.View{books()}, at(1).Version()); err != nil {
				t.Fatal(err)
			}
			restart(t, r, s)
		}},
	} {
		leases := leaseAll(t, s, c.name+" one", c.name+" all", c.name+" before", c.name+" behind")
		c.then(leases[0])
		c.then(leases[1])
		_, one := s.Put(t.Context(), leases[0], fill(at(20), "x"))
		if errors.Is(one, cache.ErrRefused) != (c.why != "") || c.why != "" && !strings.Contains(one.Error(), c.why) {
			t.Fatalf("%s: put: %v; want %q", c.name, one, c.why)
		}
		var all []cache.Made
		for _, l := range []cache.Lease{leases[2], leases[1], leases[3]} {
			all = append(all, cache.Made{Lease: l, Fill: fill(at(20), "x")})
		}
		filled, err := s.PutAll(t.Context(), all)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		want := cache.Filled{Outcome: cache.Accepted}
		if one != nil {
			want = cache.Filled{Outcome: cache.Refused, Reason: one.Error()}
		}
		if got := (cache.Filled{Outcome: filled[1].Outcome, Reason: filled[1].Reason}); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: PutAll says %c %q; Put says %c %q", c.name, got.Outcome, got.Reason, want.Outcome, want.Reason)
		}
	}
}

// A put whose reply was lost finds its own value; any other finds that the lease
// was for one.
func TestPutAllAgain(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	l := lease(t, s, books(), "a")
	s.Client().AddHook(twice{})
	filled, err := s.PutAll(t.Context(), []cache.Made{{Lease: l, Fill: fill(at(20), "x")}, {Lease: l, Fill: fill(at(21), "y")}})
	if err != nil || filled[0].Outcome != cache.Accepted || filled[1].Outcome != cache.Refused {
		t.Fatalf("%+v, %v", filled, err)
	}
	expect(t, s, "a", cache.Hit, "", "x")
}

// Redis may lose the scripts.
func TestPutAllLoadsItsScript(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	l := lease(t, s, books(), "a")
	if err := s.Client().ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutAll(t.Context(), []cache.Made{{Lease: l, Fill: fill(at(20), "x")}}); err != nil {
		t.Fatal(err)
	}
	expect(t, s, "a", cache.Hit, "", "x")
}

func TestPutAllChecksWhatItIsGiven(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	good := cache.Made{Lease: lease(t, s, books(), "a"), Fill: fill(at(20), "x")}
	for name, bad := range map[string]cache.Made{
		"nothing at all":        {},
		"no lease":              {Lease: cache.Lease{View: books(), Key: "a"}, Fill: fill(at(20), "x")},
		"no version":            {Lease: good.Lease},
		"not its snapshot's":    {Lease: good.Lease, Fill: cache.Fill{Version: at(5).Version(), Snapshot: at(6)}},
		"a TTL that is no time": {Lease: good.Lease, Fill: cache.Fill{Version: at(5).Version(), TTL: -time.Second}},
	} {
		if _, err := s.PutAll(t.Context(), []cache.Made{good, bad}); err == nil {
			t.Errorf("%s: put", name)
		}
		expect(t, s, "a", cache.Miss, cache.WhyAbsent, "")
	}
	if filled, err := s.PutAll(t.Context(), nil); filled != nil || err != nil {
		t.Errorf("nothing: %v, %v", filled, err)
	}
}

// Who waits for one of many hears of it, refused or not, and of models' entries too.
func TestPutAllAnnounces(t *testing.T) {
	r := testserver.NewRedis(t)
	s, other := newStore(t, r, cache.Options{}), newStore(t, r, cache.Options{})
	quiet, err := s.PutAll(t.Context(), []cache.Made{{Lease: lease(t, s, books(), "before anybody listens"), Fill: fill(at(20), "x")}})
	if err != nil || quiet[0].Outcome != cache.Accepted {
		t.Fatal(quiet, err)
	}
	w := listen(t, other)
	leases := leaseAll(t, s, "a", "b")
	answer := lease(t, s, answers(), "a")
	invalidate(t, s, "b", at(21).Version())
	waits := []*cache.Wait{w.Wait("books", "a"), w.Wait("books", "b"), w.Wait("answers", "a")}
	filled, err := s.PutAll(t.Context(), []cache.Made{
		{Lease: leases[0], Fill: fill(at(20), "x")}, {Lease: leases[1], Fill: fill(at(20), "y")}, {Lease: answer, Fill: cache.Fill{Body: []byte("42")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []cache.Outcome{cache.Accepted, cache.Refused, cache.Accepted} {
		f := next(t, waits[i])
		if f.Outcome != want || f.Outcome != filled[i].Outcome || f.Reason != filled[i].Reason || !bytes.Equal(f.Entry.Body, filled[i].Entry.Body) ||
			f.Entry.Version != filled[i].Entry.Version || !f.Taken.Equal(filled[i].Taken) || !f.At.Equal(filled[i].At) {
			t.Errorf("announced %+v; want %+v", f, filled[i])
		}
	}
}

func TestLeaseAllLeavesOutWhatOthersHold(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	put(t, s, "c", at(20), "x")
	lease(t, s, books(), "b")
	got, err := s.LeaseAll(t.Context(), books(), []string{"a", "b", "c"}, time.Minute)
	if err != nil || len(got) != 2 || got[0].Key != "a" || got[1].Key != "c" {
		t.Fatalf("%+v, %v", got, err)
	}
	if life := got[0].Until.Sub(got[0].Taken); life < 59*time.Second || life > time.Minute {
		t.Errorf("leased for %s", life)
	}
	expect(t, s, "c", cache.Hit, "", "x")
	for _, key := range []string{"a", "c"} {
		if _, err := s.Lease(t.Context(), books(), key, time.Minute); !errors.Is(err, cache.ErrLeased) {
			t.Errorf("leased %s twice: %v", key, err)
		}
	}
	if _, err := s.Put(t.Context(), got[1], fill(at(21), "y")); err != nil {
		t.Error(err)
	}
	if none, err := s.LeaseAll(t.Context(), books(), nil, time.Minute); none != nil || err != nil {
		t.Errorf("none: %v, %v", none, err)
	}
}

// finishAll puts all that has been loaded, perhaps several fills of one key, and
// of one whose lease has passed to another.
func (w *world) finishAll(t *rapid.T) {
	var loaded []cache.Made
	var rest []pending
	for _, f := range w.fills {
		if !f.loaded {
			rest = append(rest, f)
			continue
		}
		loaded = append(loaded, cache.Made{Lease: f.lease, Fill: fill(f.snapshot, fmt.Sprintf("%d %d", f.snapshot.Xmax, f.removals))})
	}
	w.fills = rest
	if _, err := w.store.PutAll(w.ctx, rapid.Permutation(loaded).Draw(t, "order")); err != nil {
		t.Fatal(err)
	}
}

// The same as TestNothingStaleComesBack, by PutAll.
func TestNothingStaleComesBackByBatches(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{StaleFor: time.Hour})
	ctx := t.Context()
	checks := 0
	rapid.Check(t, func(t *rapid.T) {
		checks++
		if err := s.Client().Del(ctx, "mythic:view:books").Err(); err != nil {
			t.Fatal(err)
		}
		if err := s.Fence(ctx, books(), at(1).Version()); err != nil {
			t.Fatal(err)
		}
		w := &world{store: s, ctx: ctx, run: fmt.Sprintf("%d:", checks), next: 2, keys: map[string]*truth{}}
		t.Repeat(map[string]func(*rapid.T){
			"commit": w.commit, "apply": w.apply, "apply more": w.apply, "remove": w.remove, "fence": w.fenceView,
			"begin": w.begin, "begin another": w.begin, "load": w.load, "load another": w.load, "finish all": w.finishAll,
			"read": w.look, "": w.look,
		})
		w.settle(t)
	})
}
