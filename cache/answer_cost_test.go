package cache_test

import (
	"fmt"
	"slices"
	"testing"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

func TestCostsOfScopes(t *testing.T) {
	r := testserver.NewRedis(t)
	s := newStore(t, r, cache.Options{})
	a, b, c := cache.HashScope("user_a"), cache.HashScope("user_b"), cache.HashScope("user_c")
	for range 2 {
		if err := s.AddCosts(t.Context(), []cache.ScopeCost{
			{Scope: a, TokensSpent: 10, MoneySpent: 0.5},
			{Scope: b, TokensSpent: 30, TokensSaved: 7, MoneySaved: 0.25},
			{Scope: c, TokensSpent: 1},
		}); err != nil {
			t.Fatal(err)
		}
	}
	top := func(want ...cache.ScopeCost) {
		t.Helper()
		if got, err := s.TopCosts(t.Context(), 2); err != nil || !slices.Equal(got, want) {
			t.Errorf("the top is %+v (%v)", got, err)
		}
	}
	top(cache.ScopeCost{Scope: b, TokensSpent: 60, TokensSaved: 14, MoneySaved: 0.5}, cache.ScopeCost{Scope: a, TokensSpent: 20, MoneySpent: 1})
	if err := s.ForgetCosts(t.Context(), "user_b"); err != nil {
		t.Fatal(err)
	}
	top(cache.ScopeCost{Scope: a, TokensSpent: 20, MoneySpent: 1}, cache.ScopeCost{Scope: c, TokensSpent: 2})
	// What another process had not written yet does not bring it back.
	if err := s.AddCosts(t.Context(), []cache.ScopeCost{{Scope: b, TokensSpent: 1000}, {Scope: c, TokensSpent: 1}}); err != nil {
		t.Fatal(err)
	}
	top(cache.ScopeCost{Scope: a, TokensSpent: 20, MoneySpent: 1}, cache.ScopeCost{Scope: c, TokensSpent: 3})
	client := r.Client(t)
	for _, key := range client.Keys(t.Context(), "*ai_costs*").Val() {
		if ttl := client.TTL(t.Context(), key).Val(); ttl <= 0 {
			t.Errorf("%s has no TTL", key)
		}
	}
	// However many there are, those that cost least give way.
	many := make([]cache.ScopeCost, 10_050)
	for i := range many {
		many[i] = cache.ScopeCost{Scope: fmt.Sprint(i), TokensSpent: 100}
	}
	if err := s.AddCosts(t.Context(), many); err != nil {
		t.Fatal(err)
	}
	for _, key := range client.Keys(t.Context(), "*tokens_spent").Val() {
		if n := client.ZCard(t.Context(), key).Val(); n != 10_000 {
			t.Errorf("%d scopes are kept", n)
		}
	}
}
