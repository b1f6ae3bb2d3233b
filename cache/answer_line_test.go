package cache_test

import (
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

// Questions join the one whose answer is being made at this moment, and nothing else.
func TestAnswerLines(t *testing.T) {
	r := testserver.NewRedis(t)
	s := newStore(t, r, cache.Options{})
	v := answers()
	a := s.NewAnswers(v)
	ctx := t.Context()
	join := func(what, entry string, warm, want bool) {
		t.Helper()
		if got, err := a.Join(ctx, "k", entry, warm, false); err != nil || got != want {
			t.Errorf("%s: joining is %v (%v)", what, got, err)
		}
	}
	lease := func() cache.Lease {
		t.Helper()
		l, err := s.Lease(ctx, v, "k", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	abandon := func(l cache.Lease) {
		t.Helper()
		if err := s.Abandon(ctx, l, "no"); err != nil {
			t.Fatal(err)
		}
	}
	lead := func(l cache.Lease, entry string, warm bool) {
		t.Helper()
		if err := a.Lead(ctx, l, entry, warm); err != nil {
			t.Fatal(err)
		}
	}
	join("nobody is there", "1000-1", false, false)
	first := lease()
	join("a lease for nothing that is known", "1000-1", false, false)
	lead(first, "1000-0", false)
	join("the same that comes again", "1000-0", false, false)
	join("another", "1000-2", false, true)
	join("one for which nobody waits", "1000-1", true, true)
	abandon(first)
	join("it was given up", "1000-3", false, false)

	second := lease()
	join("a lease of the next, who is not ready", "1000-3", false, false)
	lead(second, "900-0", true)
	join("somebody waits, and nobody for the first", "1000-3", false, false)
	join("nobody waits for either", "1000-3", true, true)
	if err := a.Lead(ctx, first, "1000-9", false); err == nil {
		t.Error("who lost the lease leads")
	}
	if n, err := a.Joined(ctx, "k"); n != 1 || err != nil {
		t.Errorf("%d have joined for which somebody waits (%v)", n, err)
	}
	abandon(second)
	if newest, durable, err := a.Line(ctx, "k", "1000-1"); durable || newest.UnixMilli() != 1000 || err != nil {
		t.Errorf("the newest is of %s, durable: %v (%v)", newest, durable, err)
	}

	// The first comes again, after an ai.forget that was between it and who joined it.
	if _, err := a.Forget(ctx, "a", "1000-1"); err != nil {
		t.Fatal(err)
	}
	if wanted, _, err := a.Claim(ctx, "a", "k", "1000-0"); !wanted || err != nil {
		t.Errorf("what joined is lost (%v)", err)
	}
	if wanted, _, err := a.Claim(ctx, "a", "other", "1000-0"); wanted || err != nil {
		t.Errorf("what was forgotten is wanted (%v)", err)
	}
	if ttl := r.Client(t).PTTL(ctx, "mythic:ai_line:{k}").Val(); ttl <= 0 {
		t.Errorf("the line lives for %s", ttl)
	}
	if err := a.Settle(ctx, "a", "k"); err != nil {
		t.Fatal(err)
	}
	if wanted, _, err := a.Claim(ctx, "a", "k", "1000-0"); wanted || err != nil {
		t.Errorf("a line that has ended counts (%v)", err)
	}
}
