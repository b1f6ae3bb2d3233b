package consumers

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"mythiccache/cache"
)

// warmShare is the part of a budget that questions for which nobody waits may use.
const warmShare = 0.8

// Budgets are what models may be asked in all, by model.
type Budgets struct {
	models   map[string][]cache.Quota
	fallback []cache.Quota // of each model that has none of its own
	warm     float64       // the part for questions that nobody waits for; 0: warmShare
}

// ParseBudgets reads AI_BUDGETS: items with semicolons between,
//
//	default=60/1m,100000t/1d; gpt-4o=10/1m; warm=80%
//
// where default stands for each model that has no item of its own, 60/1m is sixty
// calls a minute, and 100000t/1d as many tokens a day. Windows are 1s to 31d long and
// begin when the clock says so: a day at midnight UTC. warm is the part that is there
// for questions which nobody waits for. An empty text bounds nothing.
func ParseBudgets(text string) (Budgets, error) {
	b := Budgets{models: map[string][]cache.Quota{}}
	seen := map[string]bool{}
	for item := range strings.SplitSeq(text, ";") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		model, quotas, ok := strings.Cut(item, "=")
		model = strings.TrimSpace(model)
		if !ok || model == "" {
			return Budgets{}, fmt.Errorf("%q is not of the form model=calls/duration", item)
		}
		if seen[model] {
			return Budgets{}, fmt.Errorf("%s has two budgets", model)
		}
		seen[model] = true
		if err := takeBudget(&b, model, quotas); err != nil {
			return Budgets{}, fmt.Errorf("%q %w", item, err)
		}
	}
	return b, nil
}

func takeBudget(b *Budgets, model, text string) error {
	if model == "warm" {
		percent, ok := strings.CutSuffix(strings.TrimSpace(text), "%")
		n, err := strconv.ParseFloat(percent, 64)
		if !ok || err != nil || !(n > 0 && n <= 100) {
			return errors.New("is no share between 0% and 100%")
		}
		b.warm = n / 100
		return nil
	}
	var quotas []cache.Quota
	seen := map[cache.Quota]bool{}
	for one := range strings.SplitSeq(text, ",") {
		q, err := parseQuota(strings.TrimSpace(one))
		if err != nil {
			return err
		}
		kind := cache.Quota{Tokens: q.Tokens, Per: q.Per}
		if seen[kind] {
			return fmt.Errorf("bounds the same twice within %s", q.Per)
		}
		seen[kind] = true
		quotas = append(quotas, q)
	}
	if model == "default" {
		b.fallback = quotas
	} else {
		b.models[model] = quotas
	}
	return nil
}

// parseQuota reads 60/1m or 100000t/1d.
func parseQuota(text string) (cache.Quota, error) {
	count, per, ok := strings.Cut(text, "/")
	if !ok {
		return cache.Quota{}, fmt.Errorf("has %q, which is neither calls/duration nor tokens with a t, as 100000t/1d", text)
	}
	digits, tokens := strings.CutSuffix(strings.TrimSpace(count), "t")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 1 || n > 1e15 {
		return cache.Quota{}, fmt.Errorf("has %q, which is no count of calls, or of tokens with a t", count)
	}
	d, err := parseWindow(strings.TrimSpace(per))
	if err != nil || d < time.Second || d > 31*24*time.Hour {
		return cache.Quota{}, fmt.Errorf("has %q, which is no duration between 1s and 31d", per)
	}
	return cache.Quota{Tokens: tokens, Count: n, Per: d}, nil
}

// parseWindow reads 1m, 12h or 1d.
func parseWindow(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 8)
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(text)
}

// of returns the quotas of a model.
func (b Budgets) of(model string) []cache.Quota {
	if own, ok := b.models[model]; ok {
		return own
	}
	return b.fallback
}

// account returns the name under which is counted what a model was asked. Models that
// nobody has configured share one: callers could else multiply a budget by names that
// they make up.
func (b Budgets) account(model string, models cache.Models) string {
	if _, own := b.models[model]; own || models.Configured(model) {
		return model
	}
	return otherModel
}

// share returns the part for questions that nobody waits for.
func (b Budgets) share() float64 {
	if b.warm == 0 {
		return warmShare
	}
	return b.warm
}

// Names returns the models that have a budget of their own.
func (b Budgets) Names() []string {
	var names []string
	for name := range b.models {
		names = append(names, name)
	}
	return names
}

// expected is what an answer is expected to cost, in tokens, where the request does
// not bound it.
const expected = 1000

// estimate is what a request is expected to cost, in tokens: four bytes of it each,
// and as many again as the answer may have.
func estimate(request json.RawMessage) int64 {
	var asked struct {
		Most       int64 `json:"max_completion_tokens"`
		MostBefore int64 `json:"max_tokens"`
	}
	_ = json.Unmarshal(request, &asked) // a bound of another form is none
	answer := max(asked.Most, asked.MostBefore)
	if answer <= 0 {
		answer = expected
	}
	return int64(len(request))/4 + answer
}
