package cache_test

import (
	"slices"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

func TestAnswersAreClaimedAndForgotten(t *testing.T) {
	r := testserver.NewRedis(t)
	s := newStore(t, r, cache.Options{})
	a := s.NewAnswers(answers())
	ctx := t.Context()
	claim := func(scope, key, entry string, want bool) {
		t.Helper()
		if got, failed, err := a.Claim(ctx, scope, key, entry); err != nil || got != want || failed != (cache.Failure{}) {
			t.Errorf("claiming %s for %s as of %s is %v, %+v (%v)", key, scope, entry, got, failed, err)
		}
	}
	forget := func(scope, entry string, want ...string) {
		t.Helper()
		got, err := a.Forget(ctx, scope, entry)
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("forgetting %s as of %s finds %q (%v)", scope, entry, got, err)
		}
	}
	claim("a", "k1", "1000-0", true)
	claim("a", "k2", "1000-9", true)
	claim("b", "k3", "1000-0", true)
	forget("nobody", "1000-5")
	forget("a", "1000-5", "k1", "k2")
	// Numbers, not texts: 10 is after 9, and 999 before 1000.
	claim("a", "k1", "1000-5", false)
	claim("a", "k1", "1000-4", false)
	claim("a", "k1", "999-99", false)
	claim("a", "k1", "1000-10", true)
	claim("a", "k1", "10000-0", true)
	claim("b", "k3", "1000-0", true)
	// An older event that comes late takes nothing back.
	forget("a", "10-0", "k1", "k2")
	claim("a", "k1", "1000-4", false)
	// One answer alone.
	if err := a.ForgetKey(ctx, "k3", "2000-0"); err != nil {
		t.Fatal(err)
	}
	claim("b", "k3", "1999-0", false)
	claim("b", "k3", "2000-1", true)
	claim("b", "k4", "1000-0", true)
}

func TestAnswersAskedFor(t *testing.T) {
	r := testserver.NewRedis(t)
	s := newStore(t, r, cache.Options{})
	a := s.NewAnswers(answers())
	ctx := t.Context()
	stands := func(scope string, want cache.Asked) {
		t.Helper()
		if got, err := a.Asked(ctx, scope, "k"); err != nil || got != want {
			t.Errorf("%s is told %+v (%v), not %+v", scope, got, err, want)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	stands("a", cache.Asked{})
	do(a.Ask(ctx, "a", "k"))
	stands("a", cache.Asked{Pending: true})
	stands("b", cache.Asked{})
	do(a.Fail(ctx, "a", "k", cache.Failure{Reason: "busy"}))
	stands("a", cache.Asked{Pending: true})
	do(a.Fail(ctx, "a", "k", cache.Failure{Reason: "no", Final: true}))
	stands("a", cache.Asked{Refused: "no"})
	if _, failed, err := a.Claim(ctx, "a", "k", "1-0"); err != nil || failed != (cache.Failure{Reason: "no", Final: true}) {
		t.Errorf("a worker is told %+v (%v)", failed, err)
	}
	do(a.Ask(ctx, "a", "k")) // whoever asks once more is told, and the model is not asked
	stands("a", cache.Asked{Refused: "no"})
	if _, failed, err := a.Claim(ctx, "a", "k", "1-0"); err != nil || !failed.Final {
		t.Errorf("when it was asked again, a worker is told %+v (%v)", failed, err)
	}
	if err := r.Client(t).Del(ctx, "mythic:ai_failed:{k}").Err(); err != nil { // its time is over
		t.Fatal(err)
	}
	stands("a", cache.Asked{Pending: true})
	do(a.Drop(ctx, "a", "k", time.Hour, "the budget is spent"))
	if got, err := a.Asked(ctx, "a", "k"); err != nil || got.Dropped != "the budget is spent" || got.After > time.Hour || got.After < 59*time.Minute {
		t.Errorf("of what was dropped it is told %+v (%v)", got, err)
	}
	stands("b", cache.Asked{})
	if _, failed, err := a.Claim(ctx, "a", "k", "1-0"); err != nil || failed != (cache.Failure{}) {
		t.Errorf("a worker is told %+v (%v)", failed, err)
	}
	do(a.Erase(ctx, "k"))
	stands("a", cache.Asked{Pending: true})
	do(a.Drop(ctx, "a", "k", time.Hour, "the budget is spent"))
	do(a.Ask(ctx, "a", "k"))
	stands("a", cache.Asked{Pending: true})
	do(a.Settle(ctx, "a", "k"))
	stands("a", cache.Asked{})
	do(a.Ask(ctx, "a", "k"))
	if _, err := a.Forget(ctx, "a", "1-0"); err != nil {
		t.Fatal(err)
	}
	stands("a", cache.Asked{})

	client := r.Client(t)
	for _, key := range client.Keys(ctx, "mythic:ai_*").Val() {
		if ttl := client.PTTL(ctx, key).Val(); ttl <= 0 {
			t.Errorf("%s has no TTL", key)
		}
	}
	if ttl := client.PTTL(ctx, "mythic:ai_scope:{a}").Val(); ttl <= answers().TTL || ttl > answers().TTL+time.Hour {
		t.Errorf("the index lives for %s", ttl)
	}
}

// TestADeferralEndsWithItsQuestion and not with a refresh that did not come about.
func TestADeferralEndsWithItsQuestion(t *testing.T) {
	t.Parallel()
	a := newStore(t, testserver.NewRedis(t), cache.Options{}).NewAnswers(answers())
	ctx := t.Context()
	for _, c := range []struct {
		by    string
		do    func() error
		times int
	}{
		{"leave", func() error { return a.Leave(ctx, "a", "k") }, 3},
		{"settle", func() error { return a.Settle(ctx, "a", "k") }, 0},
		{"erase", func() error { return a.Erase(ctx, "k") }, 0},
	} {
		for _, err := range []error{a.Ask(ctx, "a", "k"), a.Defer(ctx, "k", 3, time.Minute), c.do()} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if d, err := a.Deferred(ctx, "k"); err != nil || d.Times != c.times {
			t.Errorf("after %s: %+v (%v)", c.by, d, err)
		}
		if got, err := a.Asked(ctx, "a", "k"); err != nil || got.Pending != (c.by == "erase") {
			t.Errorf("after %s: %+v (%v)", c.by, got, err)
		}
	}
}
