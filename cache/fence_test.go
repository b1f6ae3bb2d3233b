package cache_test

import (
	"errors"
	"testing"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/cache/view"
	"mythiccache/internal/testserver"
)

func fence(t *testing.T, s *cache.Store, v version.Version) {
	t.Helper()
	if err := s.Fence(t.Context(), books(), v); err != nil {
		t.Fatal(err)
	}
}

func TestViewFenceHidesWhatIsOlder(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	put(t, s, "old", at(20), "old")
	put(t, s, "equal", at(30), "equal")
	put(t, s, "new", at(31), "new")
	fence(t, s, at(30).Version())
	expect(t, s, "old", cache.Miss, cache.WhyFenced, "")
	expect(t, s, "equal", cache.Hit, "", "equal")
	expect(t, s, "new", cache.Hit, "", "new")

	fence(t, s, at(25).Version()) // a fence never goes down
	expect(t, s, "old", cache.Miss, cache.WhyFenced, "")
	fence(t, s, version.Snapshot{Epoch: 1, Xmin: 30, Xmax: 32, Xip: []uint64{30}}.Version())
	expect(t, s, "new", cache.Miss, cache.WhyFenced, "")

	if _, err := s.Put(t.Context(), lease(t, s, books(), "late"), fill(at(31), "late")); !errors.Is(err, cache.ErrRefused) {
		t.Errorf("put below the view's fence: %v", err)
	}
	expect(t, s, "late", cache.Miss, cache.WhyFenced, "")
	put(t, s, "late", at(32), "fresh")
	expect(t, s, "late", cache.Hit, "", "fresh")
	if err := s.Fence(t.Context(), books(), version.Version{}); err == nil {
		t.Error("a view of PostgreSQL's was fenced without a version")
	}
}

func TestAbsentViewKeyIsAMiss(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	put(t, s, "a", at(20), "x")
	if err := s.Client().Del(t.Context(), "mythic:view:books").Err(); err != nil {
		t.Fatal(err)
	}
	expect(t, s, "a", cache.Miss, cache.WhyFenced, "")
	if _, err := s.Put(t.Context(), lease(t, s, books(), "b"), fill(at(20), "x")); !errors.Is(err, cache.ErrRefused) {
		t.Errorf("put into a view without a key: %v", err)
	}
	if err := s.Client().Set(t.Context(), "mythic:view:books", "what is this", 0).Err(); err != nil {
		t.Fatal(err)
	}
	expect(t, s, "a", cache.Miss, cache.WhyFenced, "")
	if err := s.EnsureViews(t.Context(), []*view.View{books()}, at(25).Version()); err != nil {
		t.Fatal(err)
	}
	expect(t, s, "a", cache.Miss, cache.WhyFenced, "")
	put(t, s, "a", at(25), "y")
	if err := s.EnsureViews(t.Context(), []*view.View{books()}, at(30).Version()); err != nil {
		t.Fatal(err)
	}
	expect(t, s, "a", cache.Hit, "", "y") // the key was there and is left alone
}

// A new epoch begins when PostgreSQL may hand out transaction ids again, so its
// versions are above all old ones although its ids are not.
func TestNewEpoch(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	next := func(xmax uint64) version.Snapshot { return version.Snapshot{Epoch: 2, Xmin: xmax, Xmax: xmax} }
	put(t, s, "a", at(1000), "of the lost timeline")
	put(t, s, "b", at(1000), "of the lost timeline")
	before := lease(t, s, books(), "b")
	model, err := s.Put(t.Context(), lease(t, s, answers(), "k"), cache.Fill{Body: []byte("42")})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.FenceAll(t.Context(), []*view.View{books(), answers()}, next(500).Version()); err != nil {
		t.Fatal(err)
	}
	expect(t, s, "a", cache.Miss, cache.WhyFenced, "")
	put(t, s, "a", next(501), "new")
	expect(t, s, "a", cache.Hit, "", "new")
	if _, err := s.Put(t.Context(), before, fill(at(2000), "of the lost timeline")); !errors.Is(err, cache.ErrRefused) {
		t.Errorf("put of an older epoch: %v", err)
	}
	if n := invalidate(t, s, "a", at(3000).Version()); n != 0 {
		t.Error("a change of the lost timeline was applied")
	}
	// What a model made has no part in PostgreSQL's epochs.
	if r := read(t, s, cache.Query{View: answers(), Key: "k"}); r.Status != cache.Hit || r.Entry.Version != model.Version {
		t.Errorf("read %+v", r)
	}
}

func TestFenceAllMakesAbsentKeys(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	if err := s.Client().FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	views := []*view.View{books(), answers()}
	confirmed, err := s.Confirmed(t.Context(), views)
	if err != nil || len(confirmed) != 0 {
		t.Fatalf("confirmed %v, %v", confirmed, err)
	}
	if err := s.FenceAll(t.Context(), views, at(40).Version()); err != nil {
		t.Fatal(err)
	}
	in, err := s.Inspect(t.Context(), books(), "a")
	if err != nil || in.Fence != at(40).Version() {
		t.Errorf("books: %+v, %v", in, err)
	}
	if in, err = s.Inspect(t.Context(), answers(), "a"); err != nil || !in.Fenced || !in.Fence.IsZero() {
		t.Errorf("answers: %+v, %v", in, err)
	}
	confirmed, err = s.Confirmed(t.Context(), views)
	if err != nil || len(confirmed) != 2 || confirmed["books"] != "" {
		t.Errorf("confirmed %v, %v", confirmed, err)
	}
}
