package cache

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// Quota bounds what a model may be asked within a window, in all processes together.
// Windows begin at multiples of their length since 1970, by the clock of Redis.
type Quota struct {
	Tokens bool  // it counts tokens, not calls
	Count  int64 // from 1
	Per    time.Duration
}

// name is the field of what was spent.
func (q Quota) name() string {
	unit := "calls"
	if q.Tokens {
		unit = "tokens"
	}
	return unit + "/" + q.Per.String()
}

// Spent is what was taken of a model's quotas, or how long that is to wait.
type Spent struct {
	Wait time.Duration // until enough of it is free again; 0: it was taken

	model   string
	quotas  []Quota
	costs   []int64
	windows []string
}

// aiBudget names what a model has cost in the windows of its quotas.
func (k keys) aiBudget(model string) string { return k.prefix + "ai_budget:{" + model + "}" }

// Spend takes one call and its tokens of all quotas of a model, or nothing. No more
// than a share of each, from 0 to 1, is taken. A call that is expected to cost more
// than there is of a quota is let in where nothing else was.
func (s *Store) Spend(ctx context.Context, model string, quotas []Quota, share float64, tokens int64) (Spent, error) {
	held := Spent{model: model, quotas: quotas}
	args := make([]any, 0, 4*len(quotas))
	for _, q := range quotas {
		limit := int64(float64(q.Count) * share)
		cost := int64(1)
		if q.Tokens {
			cost = min(tokens, limit)
		}
		held.costs = append(held.costs, cost)
		args = append(args, q.name(), q.Per.Milliseconds(), limit, cost)
	}
	reply, err := s.budgets.add.Run(ctx, s.client, []string{s.keys.aiBudget(model)}, args...).StringSlice()
	if err != nil {
		return Spent{}, fmt.Errorf("spend of a budget: %w", err)
	}
	if len(reply) == 2 && reply[0] == "0" {
		ms, err := strconv.ParseInt(reply[1], 10, 64)
		if err != nil {
			return Spent{}, fmt.Errorf("spend of a budget: %w", err)
		}
		return Spent{Wait: time.Duration(ms) * time.Millisecond}, nil
	}
	held.windows = reply
	return held, nil
}

// Correct says how many tokens a call has cost that was spent for.
func (s *Store) Correct(ctx context.Context, held Spent, tokens int64) error {
	return s.correct(ctx, held, func(i int) int64 {
		if !held.quotas[i].Tokens {
			return 0
		}
		return tokens - held.costs[i]
	})
}

// Unspend gives back what was taken for a call that is not made.
func (s *Store) Unspend(ctx context.Context, held Spent) error {
	return s.correct(ctx, held, func(i int) int64 { return -held.costs[i] })
}

func (s *Store) correct(ctx context.Context, held Spent, by func(i int) int64) error {
	var args []any
	for i, window := range held.windows {
		if d := by(i); d != 0 {
			args = append(args, held.quotas[i].name(), window, d)
		}
	}
	if len(args) == 0 {
		return nil
	}
	if err := s.budgets.undo.Run(ctx, s.client, []string{s.keys.aiBudget(held.model)}, args...).Err(); err != nil {
		return fmt.Errorf("correct a budget: %w", err)
	}
	return nil
}

// twoScripts are one that adds to something and one that takes it back. They are run
// rarely enough to be loaded when they are missed.
type twoScripts struct{ add, undo *redis.Script }

func loadTwo(add, undo string) (twoScripts, error) {
	first, err := loadScript(add)
	if err != nil {
		return twoScripts{}, err
	}
	second, err := loadScript(undo)
	if err != nil {
		return twoScripts{}, err
	}
	return twoScripts{redis.NewScript(first.source), redis.NewScript(second.source)}, nil
}
