package cache_test

import (
	"errors"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/internal/testserver"
)

// After a fill with a pause nobody is given the lease, whatever became of the value
// and however the key changes.
func TestPauseKeepsTheLeaseFromAll(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	paused := fill(at(20), "x")
	paused.Pause = time.Hour
	demand := func(what, key, state string) {
		t.Helper()
		if _, err := s.Lease(t.Context(), books(), key, time.Minute); !errors.Is(err, cache.ErrLeased) {
			t.Errorf("%s: lease: %v", what, err)
		}
		in, err := s.Inspect(t.Context(), books(), key)
		if err != nil || in.State != state || in.Holder != "" || in.NotBefore.Sub(in.Now) < 50*time.Minute {
			t.Errorf("%s: %+v, %v", what, in, err)
		}
	}
	for what, change := range map[string]version.Version{"versioned": at(21).Version(), "app's": {}} {
		if _, err := s.Put(t.Context(), lease(t, s, books(), what), paused); err != nil {
			t.Fatal(err)
		}
		expect(t, s, what, cache.Hit, "", "x")
		demand(what+", filled", what, "value")
		if n := invalidate(t, s, what, change); n != 1 {
			t.Errorf("the %s change was applied %d times", what, n)
		}
		expect(t, s, what, cache.Miss, cache.WhyFenced, "")
		demand(what+", changed", what, "fence")
		if n := invalidate(t, s, what, change); n != 0 {
			t.Errorf("the %s change was applied again", what)
		}
	}
	l := lease(t, s, books(), "refused")
	invalidate(t, s, "refused", at(21).Version())
	if _, err := s.Put(t.Context(), l, paused); !errors.Is(err, cache.ErrRefused) {
		t.Fatal(err)
	}
	demand("refused", "refused", "fence")
	made := []cache.Made{{Lease: lease(t, s, books(), "one of many"), Fill: paused}}
	if _, err := s.PutAll(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	demand("one of many", "one of many", "value")
}

func TestPauseIsOver(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	paused := fill(at(20), "x")
	paused.Pause = 30 * time.Millisecond
	e, err := s.Put(t.Context(), lease(t, s, books(), "a"), paused)
	if err != nil {
		t.Fatal(err)
	}
	var l cache.Lease
	testserver.Eventually(t, "the pause is over", func() (err error) {
		l, err = s.Lease(t.Context(), books(), "a", time.Minute)
		return err
	})
	if l.Taken.Before(e.Saved.Add(paused.Pause)) {
		t.Errorf("leased at %s, where the pause begins at %s", l.Taken, e.Saved)
	}
	if _, err := s.Put(t.Context(), l, fill(at(21), "y")); err != nil {
		t.Fatal(err)
	}
	if in, err := s.Inspect(t.Context(), books(), "a"); err != nil || !in.NotBefore.IsZero() {
		t.Errorf("%+v, %v", in, err)
	}
	lease(t, s, books(), "a") // no pause was asked for
}

// Who has looked at a key takes its lease only if no value was put since.
func TestLeaseSinceALook(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	look := func(key string) cache.Entry {
		in, err := s.Inspect(t.Context(), books(), key)
		if err != nil {
			t.Fatal(err)
		}
		return in.Entry
	}
	take := func(what, key string, seen cache.Entry, want error) {
		t.Helper()
		l, err := s.LeaseSince(t.Context(), books(), key, time.Minute, seen)
		if !errors.Is(err, want) {
			t.Fatalf("%s: %v, want %v", what, err, want)
		}
		if err == nil {
			if err := s.Abandon(t.Context(), l, "a trial"); err != nil {
				t.Fatal(err)
			}
		}
	}
	nothing := look("a")
	take("nothing, as seen", "a", nothing, nil)
	first := put(t, s, "a", at(20), "x")
	take("put since", "a", nothing, cache.ErrOvertaken)
	take("as seen", "a", look("a"), nil)
	eventually(t, "another millisecond", func() bool { return time.Since(first.Saved) > 50*time.Millisecond })
	put(t, s, "a", at(20), "x") // the same version, but another fill
	take("put again since", "a", first, cache.ErrOvertaken)
	seen := look("a")
	invalidate(t, s, "a", at(21).Version())
	take("invalidated since", "a", seen, nil)
	take("a fence, as seen", "a", look("a"), nil)
	put(t, s, "a", at(21), "y")
	l := lease(t, s, books(), "a")
	take("held", "a", look("a"), cache.ErrLeased)
	take("held, and put since", "a", seen, cache.ErrLeased)
	if _, err := s.Put(t.Context(), l, fill(at(22), "z")); err != nil {
		t.Fatal(err)
	}
}

// A client that lost the reply asks again with the same token: it has the lease.
func TestLeaseSinceIsGrantedAgain(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	s.Client().AddHook(twice{})
	e := put(t, s, "a", at(20), "x")
	l, err := s.LeaseSince(t.Context(), books(), "a", time.Minute, e)
	if err != nil {
		t.Fatal(err)
	}
	paused := fill(at(21), "y")
	paused.Pause = time.Hour
	if _, err := s.Put(t.Context(), l, paused); err != nil {
		t.Fatalf("put twice, with a pause: %v", err)
	}
	expect(t, s, "a", cache.Hit, "", "y")
}

// A lease may be given up so that nobody has it for a while, and so that nobody hears
// of it.
func TestLeaseIsGivenUpWithAPauseAndInSilence(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	heard := listen(t, s).Wait("books", "a")
	l := lease(t, s, books(), "a")
	if err := s.GiveUp(t.Context(), l, cache.GivenUp{Reason: "in silence", Quiet: true, Pause: 2 * time.Second}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lease(t.Context(), books(), "a", time.Minute); !errors.Is(err, cache.ErrLeased) {
		t.Fatalf("leased in the pause: %v", err)
	}
	in, err := s.Inspect(t.Context(), books(), "a")
	if err != nil || in.Holder != "" || in.NotBefore.Before(l.Taken.Add(2*time.Second-time.Millisecond)) || in.NotBefore.After(in.Now.Add(2*time.Second)) {
		t.Errorf("%+v, %v", in, err)
	}
	if err := s.GiveUp(t.Context(), l, cache.GivenUp{Reason: "again"}); err != nil { // it is not the holder's any more
		t.Fatal(err)
	}
	if f := next(t, heard); f.Reason != "again" {
		t.Errorf("announced %+v", f)
	}
	testserver.Eventually(t, "the pause is over", func() error {
		l, err = s.Lease(t.Context(), books(), "a", time.Second)
		return err
	})
	if l.Taken.Before(in.NotBefore) {
		t.Errorf("leased at %s, before %s", l.Taken, in.NotBefore)
	}
}
