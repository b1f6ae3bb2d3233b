package consumers

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"mythiccache/cache"
)

func TestParsePrices(t *testing.T) {
	t.Parallel()
	p, err := ParsePrices(" gpt-4o-mini=0.15/0.60 ; gpt-4o=2.50/10;")
	if err != nil {
		t.Fatal(err)
	}
	usage := cache.Usage{PromptTokens: 1_000_000, CompletionTokens: 500_000, TotalTokens: 1_500_000}
	for model, want := range map[string]float64{
		"gpt-4o": 7.5, "gpt-4o-2024-08-06": 7.5, "gpt-4o-mini": 0.45, "gpt-4o-mini-2024-07-18": 0.45, "gpt-4o-audio": 0, "gpt-4": 0, "gpt-4o-": 0,
	} {
		if got := p.of(model, usage); math.Abs(got-want) > 1e-9 {
			t.Errorf("%s costs %v, not %v", model, got, want)
		}
	}
	for text, says := range map[string]string{
		"m": "model=in/out", "m=1": "model=in/out", "=1/2": "model=in/out", "m=a/2": "no price", "m=1/-2": "no price", "m=NaN/1": "no price", "m=1/2;m=1/2": "two prices",
	} {
		if _, err := ParsePrices(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("of %q it says %v", text, err)
		}
	}
}

func TestAccountCountsMoney(t *testing.T) {
	t.Parallel()
	prices, err := ParsePrices("gpt-4o=2/8")
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewAccount(AccountOptions{Prices: prices, Models: []string{"house"}})
	if err != nil {
		t.Fatal(err)
	}
	usage := cache.Usage{PromptTokens: 1000, CompletionTokens: 500, TotalTokens: 1500}
	a.called("user_1", "gpt-4o", usage, time.Second, nil)
	a.called("user_2", "whatever a caller writes", usage, time.Second, nil)
	a.called("user_1", "house", cache.Usage{}, time.Second, &ModelError{Status: 500})
	a.HitOf("user_1", "gpt-4o-2024-08-06", usage)
	a.HitOf("", "gpt-4o-2024-08-06", usage)
	want := cache.AIReport{Calls: 3, Hits: 2, Failures: 1, TokensSpent: 3000, TokensSaved: 3000, MoneySpent: 0.006, MoneySaved: 0.012}
	if got := a.Report(); math.Abs(got.MoneySpent-want.MoneySpent) > 1e-9 || math.Abs(got.MoneySaved-want.MoneySaved) > 1e-9 {
		t.Errorf("the money is %+v", got)
	} else if got.MoneySpent, got.MoneySaved = want.MoneySpent, want.MoneySaved; got != want {
		t.Errorf("the account says %+v", got)
	}
	one := a.scopes["user_1"]
	if len(a.scopes) != 2 || one == nil || one.TokensSpent != 1500 || one.TokensSaved != 1500 || one.Scope != cache.HashScope("user_1") {
		t.Errorf("the scopes are %+v", one)
	}
	for model, want := range map[string]float64{"gpt-4o": 1500, "house": 0, otherModel: 1500} {
		if got := valueOf(t, a.tokens.WithLabelValues(model, "spent")); got != want {
			t.Errorf("%s has cost %v tokens", model, got)
		}
	}
}

// What could not be written is written the next time.
func TestAccountWritesScopes(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	a, err := NewAccount(AccountOptions{})
	if err != nil {
		t.Fatal(err)
	}
	usage := cache.Usage{TotalTokens: 10}
	a.called("user_1", "m", usage, time.Second, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.flush(ctx, w.store); err == nil {
		t.Fatal("it was written without a connection")
	}
	a.called("user_1", "m", usage, time.Second, nil)
	if err := a.Run(ctx, w.store); err != nil { // once more at its end
		t.Fatal(err)
	}
	top, err := w.store.TopCosts(t.Context(), 10)
	if err != nil || len(top) != 1 || top[0] != (cache.ScopeCost{Scope: cache.HashScope("user_1"), TokensSpent: 20}) {
		t.Errorf("what is written is %+v (%v)", top, err)
	}
}
