package cache_test

import (
	"context"
	"errors"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/internal/testserver"
)

// listen runs waiters until the test ends, and returns once they hear.
func listen(t *testing.T, s *cache.Store) *cache.Waiters {
	t.Helper()
	w := s.NewWaiters()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := w.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	testserver.Eventually(t, "subscribed", w.Ready)
	return w
}

func next(t *testing.T, w *cache.Wait) cache.Filled {
	t.Helper()
	select {
	case f := <-w.C():
		return f
	case <-time.After(30 * time.Second):
		t.Fatal("no announcement came")
		return cache.Filled{}
	}
}

func TestAnnouncementsReachThoseWhoWait(t *testing.T) {
	r := testserver.NewRedis(t)
	s, other := newStore(t, r, cache.Options{}), newStore(t, r, cache.Options{})
	w := listen(t, other)
	ctx := t.Context()
	var waits []*cache.Wait
	for range 100 {
		waits = append(waits, w.Wait("books", "a"))
	}
	elsewhere := w.Wait("books", "b")
	if w.Waiting() != 101 {
		t.Errorf("%d wait", w.Waiting())
	}
	asked := redisTime(t, s)
	l := lease(t, s, books(), "a")
	e, err := s.Put(ctx, l, cache.Fill{Owner: "me", Owned: true, Version: at(20).Version(), Snapshot: at(20), Body: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	for _, wait := range waits {
		f := next(t, wait)
		if f.Outcome != cache.Accepted || string(f.Entry.Body) != "x" || f.Entry.Owner != "me" || f.Entry.ETag != e.ETag ||
			f.Entry.Version != e.Version || f.Entry.Snapshot.String() != e.Snapshot.String() || !f.Taken.Equal(l.Taken) || f.At.Before(l.Taken) {
			t.Fatalf("announced %+v", f)
		}
		if !f.Answers(asked.Add(-time.Second)) || f.Answers(f.At) {
			t.Fatalf("answers what was asked later, or not what was asked before: %+v", f)
		}
		wait.Cancel()
		wait.Cancel()
	}
	select {
	case f := <-elsewhere.C():
		t.Errorf("who waits for another key hears %+v", f)
	default:
	}
	if w.Waiting() != 1 {
		t.Errorf("%d wait", w.Waiting())
	}
}

func TestRefusedAndFailedFillsAreAnnounced(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	w := listen(t, s)
	ctx := t.Context()
	wait := w.Wait("books", "a")
	defer wait.Cancel()

	before := redisTime(t, s).Add(-time.Millisecond) // as an id's milliseconds would have it
	refuse := map[string]func(){
		"key":         func() { invalidate(t, s, "a", at(30).Version()) },
		"lease":       func() { invalidate(t, s, "a", version.Version{}) },
		"whole view":  func() { fence(t, s, at(40).Version()) },
		"another put": func() { put(t, s, "b", at(50), "x") },
	}
	for _, name := range []string{"key", "lease", "whole view"} {
		l := lease(t, s, books(), "a")
		refuse[name]()
		during := redisTime(t, s)
		if _, err := s.Put(ctx, l, fill(at(29), "too old for some")); !errors.Is(err, cache.ErrRefused) {
			t.Fatalf("%s: %v", name, err)
		}
		f := next(t, wait)
		if f.Outcome != cache.Refused || string(f.Entry.Body) != "too old for some" || f.Reason == "" || !f.Taken.Equal(l.Taken) {
			t.Fatalf("%s: %+v", name, f)
		}
		if f.Answers(before) != (name != "lease") || f.Answers(during) || f.Answers(l.Taken) {
			t.Errorf("%s: a value that something newer refused answers whoever asked before its lease and nobody else: %+v", name, f)
		}
	}
	refuse["another put"]()

	l := lease(t, s, books(), "a")
	if err := s.Abandon(ctx, l, "the model is away"); err != nil {
		t.Fatal(err)
	}
	if f := next(t, wait); f.Outcome != cache.Failed || f.Reason != "the model is away" || !f.Taken.Equal(l.Taken) || !f.Answers(redisTime(t, s)) {
		t.Errorf("failed: %+v", f)
	}
	lease(t, s, books(), "a") // it was given back
	if err := s.AnnounceFailure(ctx, "books", "a", &cache.MinXid{Epoch: 3, Xid: 99}, "xid in progress"); err != nil {
		t.Fatal(err)
	}
	if f := next(t, wait); f.Outcome != cache.Failed || f.Reason != "xid in progress" || f.MinXid == nil || *f.MinXid != (cache.MinXid{Epoch: 3, Xid: 99}) {
		t.Errorf("failed: %+v", f)
	}
}

func TestAnnounceWhatIsThere(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	w := listen(t, s)
	wait := w.Wait("books", "a")
	defer wait.Cancel()
	put(t, s, "a", at(20), "x")
	next(t, wait)
	e := expect(t, s, "a", cache.Hit, "", "x").Entry
	asked := redisTime(t, s)
	testserver.Eventually(t, "another millisecond", func() error {
		if redisTime(t, s).Sub(asked) < time.Millisecond {
			return errWrong
		}
		return nil
	})
	if err := s.Announce(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if f := next(t, wait); f.Outcome != cache.Accepted || string(f.Entry.Body) != "x" || !f.Answers(asked.Truncate(time.Millisecond).Add(-time.Millisecond)) {
		t.Errorf("announced %+v", f)
	}
	for name, change := range map[string]func(key string){
		"replaced":    func(key string) { put(t, s, key, at(26), "y") },
		"invalidated": func(key string) { invalidate(t, s, key, at(30).Version()) },
		"removed":     func(key string) { invalidate(t, s, key, version.Version{}) },
		"removed and filled again from an idle database": func(key string) {
			invalidate(t, s, key, version.Version{})
			first := redisTime(t, s)
			eventually(t, "another time", func() bool { return redisTime(t, s).Sub(first) > 2*time.Millisecond })
			put(t, s, key, at(20), "x")
		},
		"fenced with its view": func(string) { fence(t, s, at(25).Version()) },
	} {
		if err := s.Client().Del(t.Context(), "mythic:view:books").Err(); err != nil {
			t.Fatal(err)
		}
		fence(t, s, at(1).Version())
		e := put(t, s, name, at(20), "x")
		if err := s.Announce(t.Context(), e); err != nil {
			t.Fatalf("%s, before: %v", name, err)
		}
		change(name)
		if err := s.Announce(t.Context(), e); !errors.Is(err, cache.ErrRefused) {
			t.Errorf("announce what was %s: %v", name, err)
		}
	}
}

func TestWaitersSurviveARestart(t *testing.T) {
	t.Parallel()
	r := testserver.NewRedis(t, "--appendfsync", "always")
	s := newStore(t, r, cache.Options{})
	w := listen(t, s)
	wait := w.Wait("books", "a")
	defer wait.Cancel()
	r.Kill()
	eventually(t, "the loss is noticed", func() bool { return w.Ready() != nil })
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "subscribed again", w.Ready)
	testserver.Eventually(t, "ping", func() error { return s.Ping(t.Context()) })
	put(t, s, "a", at(20), "x")
	if f := next(t, wait); string(f.Entry.Body) != "x" {
		t.Errorf("announced %+v", f)
	}
}

// A link that swallows everything without closing is given up too.
func TestWaitersNoticeSilence(t *testing.T) {
	t.Parallel()
	r := testserver.NewRedis(t)
	w := listen(t, newStore(t, r, cache.Options{}))
	if err := r.Freeze(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the silence is noticed", func() bool { return w.Ready() != nil })
	if err := r.Thaw(); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "subscribed again", w.Ready)
}

// A subscription by which nothing comes is asked for signs of life, and kept.
func TestAQuietSubscriptionIsKept(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	listen(t, s)
	client := regexp.MustCompile(`id=(\d+) .* age=(\d+) `)
	first := ""
	testserver.Eventually(t, "it is older than a silence may be", func() error {
		list, err := s.Client().Do(t.Context(), "CLIENT", "LIST", "TYPE", "pubsub").Text()
		if err != nil {
			return err
		}
		found := client.FindAllStringSubmatch(list, -1)
		if len(found) != 1 || first != "" && first != found[0][1] {
			t.Fatalf("instead of client %s there are: %s", first, list)
		}
		first = found[0][1]
		if age, err := strconv.Atoi(found[0][2]); err != nil || age < 5 {
			return errors.New("it is young")
		}
		return nil
	})
}

// One who does not look keeps the newest announcements, and holds nobody up.
func TestSlowWaiterKeepsTheNewest(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	w := listen(t, s)
	slow, last := w.Wait("books", "a"), w.Wait("books", "last")
	defer slow.Cancel()
	defer last.Cancel()
	for i := range uint64(20) {
		put(t, s, "a", at(20+i), "x")
	}
	put(t, s, "last", at(50), "x")
	next(t, last)
	var newest cache.Filled
	for range len(slow.C()) {
		newest = next(t, slow)
	}
	if newest.Entry.Version != at(39).Version() {
		t.Errorf("the newest is %s", newest.Entry.Version)
	}
}

func TestNonsenseOnTheChannelIsIgnored(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	w := listen(t, s)
	wait := w.Wait("books", "a")
	defer wait.Cancel()
	for _, nonsense := range []string{"", "1", "2a", "1a\x05books\x01a", "hello, waiters"} {
		if err := s.Client().Publish(t.Context(), "mythic:filled", nonsense).Err(); err != nil {
			t.Fatal(err)
		}
	}
	put(t, s, "a", at(20), "x")
	if f := next(t, wait); string(f.Entry.Body) != "x" {
		t.Errorf("announced %+v", f)
	}
}

func redisTime(t *testing.T, s *cache.Store) time.Time {
	t.Helper()
	now, err := s.Client().Time(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	return now
}
