package cache_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/cache/view"
	"mythiccache/internal/testserver"
)

func TestPutAndRead(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	snapshot, err := version.ParseSnapshot(7, "100:120:104,110")
	if err != nil {
		t.Fatal(err)
	}
	body := []byte("{\"a\":\"\x00ü}{\"}")
	put, err := s.Put(t.Context(), lease(t, s, books(), "user}{1:\x00"), cache.Fill{
		Owner: "user_1", Owned: true, Version: snapshot.Version(), Snapshot: snapshot,
		Body: body, LoadTook: 1234 * time.Microsecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	got := read(t, s, cache.Query{View: books(), Key: "user}{1:\x00"})
	e := got.Entry
	if got.Status != cache.Hit || !bytes.Equal(e.Body, body) || e.Owner != "user_1" || !e.Owned || e.Negative ||
		e.Version != snapshot.Version() || e.Snapshot.String() != snapshot.String() || e.Snapshot.Epoch != 7 ||
		e.LoadTook != 1234*time.Microsecond || e.ETag != put.ETag || !e.Saved.Equal(put.Saved) || !e.FreshUntil.Equal(put.FreshUntil) {
		t.Errorf("put %+v\nread %+v", put, got)
	}
	if len(e.ETag) != 18 || !strings.HasPrefix(e.ETag, `"`) || !strings.HasSuffix(e.ETag, `"`) {
		t.Errorf("ETag %s is not strong and quoted", e.ETag)
	}
	if got := read(t, s, cache.Query{View: books(), Key: "user"}); got.Status != cache.Miss {
		t.Errorf("another key's value is read: %+v", got)
	}
}

func TestPutNeedsVersionAndLease(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	if _, err := s.Put(t.Context(), lease(t, s, books(), "a"), cache.Fill{}); err == nil {
		t.Error("a value without a version was put")
	}
	if _, err := s.Put(t.Context(), cache.Lease{View: books(), Key: "b"}, fill(at(5), "1")); err == nil {
		t.Error("a value was put without a lease")
	}
	if _, err := s.Put(t.Context(), lease(t, s, books(), "c"), cache.Fill{Version: at(5).Version(), Snapshot: at(6)}); err == nil {
		t.Error("a version that is not its snapshot's was put")
	}
}

func TestPutOlderThanFenceIsRefused(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	older, open := at(20), version.Snapshot{Epoch: 1, Xmin: 19, Xmax: 20, Xip: []uint64{19}}
	for name, c := range map[string]struct {
		value, fence version.Snapshot
		refused      bool
	}{
		"older":                  {older, at(21), true},
		"older by one in flight": {open, older, true},
		"of an older epoch":      {older, version.Snapshot{Epoch: 2, Xmin: 3, Xmax: 3}, true},
		"equal":                  {older, older, false},
		"newer":                  {older, open, false},
		// Text that a locale with the letters aa, dd or ff orders otherwise.
		"newer by letters": {at(0xf0ff), at(0xf0fe), false},
		"older by letters": {at(0xaa0), at(0xab0), true},
	} {
		t.Run(name, func(t *testing.T) {
			l := lease(t, s, books(), name)
			if n := invalidate(t, s, name, c.fence.Version()); n != 1 {
				t.Fatalf("%d changes were applied", n)
			}
			_, err := s.Put(t.Context(), l, fill(c.value, "x"))
			if errors.Is(err, cache.ErrRefused) != c.refused || err != nil && !c.refused {
				t.Fatalf("put of %s under a fence of %s: %v", c.value, c.fence, err)
			}
			if c.refused {
				expect(t, s, name, cache.Miss, cache.WhyFenced, "")
				lease(t, s, books(), name) // the refused fill has given its lease back
				return
			}
			expect(t, s, name, cache.Hit, "", "x")
		})
	}
}

func TestInvalidateLeavesWhatIsAtItsVersionOrNewer(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	put(t, s, "a", at(20), "x")
	for _, v := range []uint64{3, 19, 20} {
		if n := invalidate(t, s, "a", at(v).Version()); n != 0 {
			t.Errorf("a change at %d was applied to a value at 20", v)
		}
	}
	expect(t, s, "a", cache.Hit, "", "x")
	if n := invalidate(t, s, "a", at(21).Version()); n != 1 {
		t.Error("a change at 21 was not applied to a value at 20")
	}
	expect(t, s, "a", cache.Miss, cache.WhyFenced, "")
	if n := invalidate(t, s, "a", at(21).Version()); n != 0 {
		t.Error("a repeated change was applied")
	}
}

func TestUnversionedChangeRemovesValueAndLease(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	put(t, s, "a", at(20), "x")
	l := lease(t, s, books(), "a")
	if n := invalidate(t, s, "a", version.Version{}); n != 1 {
		t.Fatalf("%d changes were applied", n)
	}
	expect(t, s, "a", cache.Miss, cache.WhyFenced, "")
	if _, err := s.Put(t.Context(), l, fill(at(30), "too old")); !errors.Is(err, cache.ErrRefused) {
		t.Fatalf("put under the lease that was taken away: %v", err)
	}
	if _, err := s.Renew(t.Context(), l, time.Minute); !errors.Is(err, cache.ErrLost) {
		t.Fatalf("renew the lease that was taken away: %v", err)
	}
	if n := invalidate(t, s, "a", version.Version{}); n != 0 {
		t.Error("there was something left to remove")
	}
	// The database may be idle: the next snapshot is the same.
	put(t, s, "a", at(20), "new")
	expect(t, s, "a", cache.Hit, "", "new")
}

func TestLeaseIsExclusiveAndKeepsTheValue(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	body := strings.Repeat("body ", 1000)
	put(t, s, "a", at(20), body)
	l := lease(t, s, books(), "a")
	expect(t, s, "a", cache.Hit, "", body)
	if _, err := s.Lease(t.Context(), books(), "a", time.Minute); !errors.Is(err, cache.ErrLeased) {
		t.Fatalf("second lease: %v", err)
	}
	renewed, err := s.Renew(t.Context(), l, time.Hour)
	if err != nil || !renewed.Until.After(l.Until) || !renewed.Taken.Equal(l.Taken) {
		t.Fatalf("renew %+v: %+v, %v", l, renewed, err)
	}
	expect(t, s, "a", cache.Hit, "", body)
	if err := s.Abandon(t.Context(), renewed, "changed my mind"); err != nil {
		t.Fatal(err)
	}
	expect(t, s, "a", cache.Hit, "", body)
	again := lease(t, s, books(), "a")
	if err := s.Abandon(t.Context(), l, "late"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lease(t.Context(), books(), "a", time.Minute); !errors.Is(err, cache.ErrLeased) {
		t.Fatalf("an old holder gave back the lease of the new one: %v", err)
	}
	if _, err := s.Put(t.Context(), l, fill(at(30), "late")); !errors.Is(err, cache.ErrRefused) {
		t.Fatalf("put under another's lease: %v", err)
	}
	if _, err := s.Put(t.Context(), again, fill(at(30), "next")); err != nil {
		t.Fatal(err)
	}
	expect(t, s, "a", cache.Hit, "", "next")
}

// The key must outlive the lease, or the fence that judges its put is gone.
func TestKeysOutliveLeases(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{FenceTTL: 5 * time.Minute, StaleFor: time.Minute})
	left := func() time.Duration { return s.Client().PTTL(t.Context(), "mythic:books:{a}").Val() }
	f := fill(at(20), "x")
	f.TTL = time.Minute
	if _, err := s.Put(t.Context(), lease(t, s, books(), "a"), f); err != nil {
		t.Fatal(err)
	}
	if left() > 2*time.Minute || left() <= time.Minute {
		t.Fatalf("a value of one minute and another of grace lives for %s", left())
	}
	l := lease(t, s, books(), "a")
	if left() < 5*time.Minute {
		t.Errorf("beside a lease the key lives for %s", left())
	}
	if _, err := s.Renew(t.Context(), l, time.Hour); err != nil {
		t.Fatal(err)
	}
	if left() < 64*time.Minute {
		t.Errorf("beside a lease of an hour the key lives for %s", left())
	}
}

// twice sends every pipeline again, as go-redis does when a reply is lost, and
// hands over the second reply.
type twice struct{ redis.Hook }

func (twice) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (twice) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (twice) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if err := next(ctx, cmds); err != nil {
			return err
		}
		return next(ctx, cmds)
	}
}

func TestLostRepliesDoNoHarm(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	s.Client().AddHook(twice{})
	l := lease(t, s, books(), "a")
	if _, err := s.Renew(t.Context(), l, time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), l, fill(at(20), "x")); err != nil {
		t.Fatal(err)
	}
	expect(t, s, "a", cache.Hit, "", "x")
	invalidate(t, s, "a", at(21).Version())
	expect(t, s, "a", cache.Miss, cache.WhyFenced, "")
	if err := s.Abandon(t.Context(), lease(t, s, books(), "a"), "enough"); err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", at(21), "y")
}

func TestLeaseOfTheDeadPassesOn(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	dead, err := s.Lease(t.Context(), books(), "a", 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	var next cache.Lease
	testserver.Eventually(t, "the lease ends", func() error {
		next, err = s.Lease(t.Context(), books(), "a", time.Minute)
		return err
	})
	if next.Taken.Before(dead.Until) {
		t.Errorf("leased at %s, before %s", next.Taken, dead.Until)
	}
	if _, err := s.Put(t.Context(), dead, fill(at(30), "dead")); !errors.Is(err, cache.ErrRefused) {
		t.Fatalf("put by the dead: %v", err)
	}
	if _, err := s.Put(t.Context(), next, fill(at(20), "next")); err != nil {
		t.Fatal(err)
	}
}

// A negative entry is an entry: it is fenced, refused and replaced as any other.
func TestNegativeEntries(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{StaleFor: time.Hour})
	none := cache.Fill{Negative: true, Version: at(20).Version(), Snapshot: at(20), Body: []byte("ignored")}
	if _, err := s.Put(t.Context(), lease(t, s, books(), "a"), none); err != nil {
		t.Fatal(err)
	}
	r := read(t, s, cache.Query{View: books(), Key: "a"})
	if r.Status != cache.Hit || !r.Entry.Negative || len(r.Entry.Body) != 0 || r.Entry.ETag != "" {
		t.Fatalf("read %+v", r)
	}
	if fresh := r.Entry.FreshUntil.Sub(r.Entry.Saved); fresh > 10*time.Second {
		t.Errorf("fresh for %s", fresh)
	}
	l := lease(t, s, books(), "a")
	invalidate(t, s, "a", at(21).Version())
	expect(t, s, "a", cache.Miss, cache.WhyFenced, "")
	if _, err := s.Put(t.Context(), l, none); !errors.Is(err, cache.ErrRefused) {
		t.Fatalf("an old \"not found\" wins over an insert: %v", err)
	}
	put(t, s, "a", at(21), "found")
	expect(t, s, "a", cache.Hit, "", "found")

	none.TTL = time.Millisecond
	if _, err := s.Put(t.Context(), lease(t, s, books(), "b"), none); err != nil {
		t.Fatal(err)
	}
	lease(t, s, books(), "b") // for its sake the key lives on
	eventually(t, "expired", func() bool { return read(t, s, cache.Query{View: books(), Key: "b"}).Status == cache.Miss })
	if stale := s.Counts()["books"].Stale; stale != 0 {
		t.Errorf("a negative entry was served stale %d times", stale)
	}
}

func TestStaleForABoundedTime(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{StaleFor: 400 * time.Millisecond})
	f := fill(at(20), "x")
	f.TTL = 300 * time.Millisecond
	put, err := s.Put(t.Context(), lease(t, s, books(), "a"), f)
	if err != nil {
		t.Fatal(err)
	}
	lease(t, s, books(), "a") // for its sake the key lives on
	seen := map[cache.Status]bool{}
	eventually(t, "gone", func() bool {
		r := read(t, s, cache.Query{View: books(), Key: "a"})
		seen[r.Status] = true
		late := r.Now.Sub(put.FreshUntil)
		switch {
		case r.Status == cache.Hit && late >= 0, r.Status == cache.Stale && (late < 0 || late >= 400*time.Millisecond):
			t.Fatalf("%s %s after its time", r.Status, late)
		case r.Status == cache.Stale && (r.Why != cache.WhyStale || string(r.Entry.Body) != "x"):
			t.Fatalf("stale: %+v", r)
		}
		return r.Status == cache.Miss
	})
	if !seen[cache.Hit] || !seen[cache.Stale] {
		t.Errorf("saw %v", seen)
	}
}

// A view that says so is never served stale: neither past its time nor after a
// restart that may have lost a change.
func TestViewsThatAreNeverStale(t *testing.T) {
	t.Parallel()
	r := testserver.NewRedis(t, "--appendfsync", "always")
	s := newStore(t, r, cache.Options{StaleFor: time.Hour})
	always := books()
	always.Fresh = true
	f := fill(at(20), "x")
	if _, err := s.Put(t.Context(), lease(t, s, always, "unconfirmed"), f); err != nil {
		t.Fatal(err)
	}
	if kept := s.Client().PTTL(t.Context(), "mythic:books:{unconfirmed}").Val(); kept > always.TTL {
		t.Errorf("kept for %s, to no use", kept)
	}
	f.TTL = time.Millisecond
	if _, err := s.Put(t.Context(), lease(t, s, books(), "old"), f); err != nil { // it lives for an hour
		t.Fatal(err)
	}
	eventually(t, "old", func() bool { return read(t, s, cache.Query{View: books(), Key: "old"}).Status == cache.Stale })
	if got := read(t, s, cache.Query{View: always, Key: "old"}); got.Status != cache.Miss || got.Why != cache.WhyStale {
		t.Errorf("past its time: %s %s", got.Status, got.Why)
	}
	restart(t, r, s)
	for _, c := range []struct {
		view *view.View
		want cache.Status
	}{{always, cache.Miss}, {books(), cache.Stale}} {
		if got := read(t, s, cache.Query{View: c.view, Key: "unconfirmed"}); got.Status != c.want || got.Why != cache.WhyUnconfirmed {
			t.Errorf("after a restart: %s %s, want %s", got.Status, got.Why, c.want)
		}
	}
}

func TestMinXid(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	snapshot, err := version.ParseSnapshot(7, "100:120:104,110")
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", snapshot, "x")
	for _, c := range []struct {
		asked cache.MinXid
		seen  bool
	}{
		{cache.MinXid{Xid: 99}, true}, {cache.MinXid{Xid: 103}, true}, {cache.MinXid{Xid: 104}, false},
		{cache.MinXid{Xid: 110}, false}, {cache.MinXid{Xid: 119}, true}, {cache.MinXid{Xid: 120}, false},
		{cache.MinXid{Epoch: 7, Xid: 99}, true}, {cache.MinXid{Epoch: 6, Xid: 99}, false}, {cache.MinXid{Epoch: 8, Xid: 99}, false},
	} {
		r := read(t, s, cache.Query{View: books(), Key: "a", MinXid: &c.asked})
		if (r.Status == cache.Hit) != c.seen || !c.seen && r.Why != cache.WhyMinXid {
			t.Errorf("%+v: %s %q", c.asked, r.Status, r.Why)
		}
	}
}

func TestModelViewsUseTheLeasesTime(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	v := answers()
	l := lease(t, s, v, "k")
	e, err := s.Put(t.Context(), l, cache.Fill{Body: []byte("42")})
	if err != nil || e.Version != version.At(l.Taken) {
		t.Fatalf("put %+v, %v", e, err)
	}
	if r := read(t, s, cache.Query{View: v, Key: "k", MinXid: &cache.MinXid{Xid: 1 << 60}}); r.Status != cache.Hit {
		t.Errorf("read %+v", r)
	}
	under := lease(t, s, v, "other")
	if err := s.Fence(t.Context(), v, version.Version{}); err != nil {
		t.Fatal(err)
	}
	if r := read(t, s, cache.Query{View: v, Key: "k"}); r.Status != cache.Miss || r.Why != cache.WhyFenced {
		t.Errorf("read %+v", r)
	}
	if _, err := s.Put(t.Context(), under, cache.Fill{Body: []byte("41")}); !errors.Is(err, cache.ErrRefused) {
		t.Errorf("put under a lease from before the fence: %v", err)
	}
	if _, err := s.Put(t.Context(), lease(t, s, v, "k"), cache.Fill{Body: []byte("43")}); err != nil {
		t.Error(err)
	}
}

func TestForeignBytesAreAMissAndMakeWay(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	ctx := t.Context()
	put(t, s, "next schema", at(40), "x") // newer than what will be put, had it any meaning
	if err := s.Client().SetRange(ctx, "mythic:books:{next schema}", 0, "2").Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.Client().Set(ctx, "mythic:books:{text}", "hello", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"list", "list again"} {
		if err := s.Client().RPush(ctx, "mythic:books:{"+key+"}", "x").Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"next schema", "text", "list"} {
		expect(t, s, key, cache.Miss, cache.WhyAbsent, "")
		put(t, s, key, at(30), "ours")
		expect(t, s, key, cache.Hit, "", "ours")
	}
	if n := invalidate(t, s, "list again", at(30).Version()); n != 1 {
		t.Error("a list was not invalidated")
	}
}

func TestInspect(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	look := func(key string) cache.Inspection {
		in, err := s.Inspect(t.Context(), books(), key)
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	if in := look("a"); in.State != "absent" || in.Status != cache.Miss || !in.Fenced || in.Fence != at(1).Version() {
		t.Errorf("absent: %+v", in)
	}
	put(t, s, "a", at(20), "x")
	lease(t, s, books(), "a")
	if in := look("a"); in.State != "value" || in.Status != cache.Hit || in.Version != at(20).Version() || len(in.Holder) != 16 || in.TTL <= 0 || in.Size < 72 {
		t.Errorf("value: %+v", in)
	}
	invalidate(t, s, "a", at(30).Version())
	if in := look("a"); in.State != "fence" || in.Why != cache.WhyFenced || in.Version != at(30).Version() || in.Holder == "" || !in.Deadline.After(in.Now) {
		t.Errorf("fence: %+v", in)
	}
	if err := s.Client().RPush(t.Context(), "mythic:books:{l}", "x").Err(); err != nil {
		t.Fatal(err)
	}
	if in := look("l"); in.State != "unknown" || in.TTL >= 0 {
		t.Errorf("list: %+v", in)
	}
	if counts := s.Counts()["books"]; counts.Hits+counts.Misses != 0 {
		t.Errorf("inspections were counted: %+v", counts)
	}
}
