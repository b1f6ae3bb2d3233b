package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// costsFor is how long what scopes have cost is kept: the month, and the next to
	// look at it.
	costsFor = 62 * 24 * time.Hour
	// costsMost bounds the scopes of a month that are told apart; those that cost least
	// give way.
	costsMost = 10_000
)

// ScopeCost is what the answers of one scope have cost and saved in a month.
type ScopeCost struct {
	Scope       string  `json:"scope"` // see HashScope
	TokensSpent int64   `json:"tokens_spent"`
	TokensSaved int64   `json:"tokens_saved"`
	MoneySpent  float64 `json:"money_spent"`
	MoneySaved  float64 `json:"money_saved"`
}

// HashScope is the name under which a scope's costs are kept, so that statistics name
// nobody: the first 16 hexadecimal digits of the SHA-256 of the scope.
func HashScope(scope string) string {
	sum := sha256.Sum256([]byte(scope))
	return hex.EncodeToString(sum[:8])
}

// aiCosts names what scopes have cost in a month: sorted sets, one for each kind, in
// one slot.
func (k keys) aiCosts(month, kind string) string {
	return k.prefix + "ai_costs:{" + month + "}:" + kind
}

// The kinds of costs, and a scope's of each.
var costKinds = [...]struct {
	name string
	of   func(*ScopeCost) float64
}{
	{"tokens_spent", func(c *ScopeCost) float64 { return float64(c.TokensSpent) }},
	{"tokens_saved", func(c *ScopeCost) float64 { return float64(c.TokensSaved) }},
	{"money_spent", func(c *ScopeCost) float64 { return c.MoneySpent }},
	{"money_saved", func(c *ScopeCost) float64 { return c.MoneySaved }},
}

// costsForgotten is how long after a scope was forgotten what it had cost before that may
// still come in, from processes that write it every few seconds.
const costsForgotten = time.Minute

// AddCosts adds to what scopes have cost this month, but for those that have been
// forgotten a moment ago.
func (s *Store) AddCosts(ctx context.Context, costs []ScopeCost) error {
	if len(costs) == 0 {
		return nil
	}
	now := s.peer.now()
	month := now.UTC().Format("2006-01")
	var forgotten *redis.StringSliceCmd
	_, err := s.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		since := strconv.FormatInt(now.Add(-costsForgotten).UnixMilli(), 10)
		forgotten = p.ZRangeByScore(ctx, s.keys.aiCosts(month, "forgotten"), &redis.ZRangeBy{Min: since, Max: "+inf"})
		for _, kind := range costKinds {
			set := s.keys.aiCosts(month, kind.name)
			for i := range costs {
				if by := kind.of(&costs[i]); by > 0 {
					p.ZIncrBy(ctx, set, by, costs[i].Scope)
				}
			}
			p.ZRemRangeByRank(ctx, set, 0, -costsMost-1)
			p.Expire(ctx, set, costsFor)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("add up what answers cost: %w", err)
	}
	return s.removeCosts(ctx, []string{month}, forgotten.Val())
}

// removeCosts removes what scopes have cost in some months.
func (s *Store) removeCosts(ctx context.Context, months, scopes []string) error {
	if len(scopes) == 0 {
		return nil
	}
	_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, month := range months {
			for _, kind := range costKinds {
				p.ZRem(ctx, s.keys.aiCosts(month, kind.name), scopes)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("forget what answers cost: %w", err)
	}
	return nil
}

// TopCosts returns the scopes that have spent the most tokens this month, those with
// the most first.
func (s *Store) TopCosts(ctx context.Context, most int) ([]ScopeCost, error) {
	month := s.peer.now().UTC().Format("2006-01")
	top, err := s.client.ZRevRangeWithScores(ctx, s.keys.aiCosts(month, costKinds[0].name), 0, int64(most)-1).Result()
	if err != nil || len(top) == 0 {
		return nil, err
	}
	scopes := make([]string, len(top))
	costs := make([]ScopeCost, len(top))
	for i, one := range top {
		scopes[i], _ = one.Member.(string)
		costs[i] = ScopeCost{Scope: scopes[i], TokensSpent: int64(one.Score)}
	}
	var saved, spent, spared *redis.FloatSliceCmd
	_, err = s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		saved = p.ZMScore(ctx, s.keys.aiCosts(month, costKinds[1].name), scopes...)
		spent = p.ZMScore(ctx, s.keys.aiCosts(month, costKinds[2].name), scopes...)
		spared = p.ZMScore(ctx, s.keys.aiCosts(month, costKinds[3].name), scopes...)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look at what answers cost: %w", err)
	}
	for i := range costs {
		costs[i].TokensSaved, costs[i].MoneySpent, costs[i].MoneySaved = int64(saved.Val()[i]), spent.Val()[i], spared.Val()[i]
	}
	return costs, nil
}

// ForgetCosts removes what a scope has cost, as far back as that is kept, and what is
// about to be added to it.
func (s *Store) ForgetCosts(ctx context.Context, scope string) error {
	now := s.peer.now().UTC()
	first := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	months := []string{now.Format("2006-01"), first.AddDate(0, -1, 0).Format("2006-01"), first.AddDate(0, -2, 0).Format("2006-01")}
	// The mark first: who adds something looks for it in the same transaction, and so sees
	// it, or has what it adds removed.
	mark := s.keys.aiCosts(months[0], "forgotten")
	_, err := s.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.ZRemRangeByScore(ctx, mark, "-inf", strconv.FormatInt(now.Add(-costsForgotten).UnixMilli(), 10))
		p.ZAdd(ctx, mark, redis.Z{Score: float64(now.UnixMilli()), Member: HashScope(scope)})
		p.Expire(ctx, mark, 2*costsForgotten)
		return nil
	})
	if err != nil {
		return fmt.Errorf("forget what answers cost: %w", err)
	}
	return s.removeCosts(ctx, months, []string{HashScope(scope)})
}
