package capture

import (
	"context"
	"fmt"
	"slices"
	"time"

	"mythiccache/internal/bench/gauge"
)

const (
	updateRows  = 100_000
	updateUsers = 200
	updatePairs = 7
)

// update measures one statement that changes very many rows of few keys.
func update(ctx context.Context, b *bed) ([]gauge.Line, error) {
	if err := b.fill(ctx, rows{users: updateUsers, books: updateRows, sessions: updateUsers}); err != nil {
		return nil, err
	}
	if err := b.run(ctx, b.ours); err != nil {
		return nil, err
	}
	took := map[*contestant][]float64{}
	entries := int64(0)
	for pair := range updatePairs {
		turn := []*contestant{b.none, b.ours}
		if pair%2 == 1 {
			slices.Reverse(turn)
		}
		for _, c := range turn {
			d, n, err := c.updateAll(ctx, pair)
			if err != nil {
				return nil, err
			}
			took[c] = append(took[c], d.Seconds())
			entries = max(entries, n)
			if c == b.ours && n != updateUsers {
				b.sayf("one update made %d entries", n)
			}
		}
	}
	ours, none := took[b.ours], took[b.none]
	name := fmt.Sprintf("UPDATE of %d rows of %d users", updateRows, updateUsers)
	return []gauge.Line{
		{
			Figure: name, Reach: "≤ 1.1 times none", Measured: gauge.Spread("%.3f s", ours), Baseline: "none " + gauge.Spread("%.3f s", none),
			Ratio: fmt.Sprintf("%.2f", gauge.Ratio(ours, none)), Reached: gauge.Ratio(ours, none) <= 1.1,
		},
		{
			Figure: name, Reach: fmt.Sprintf("%d entries", updateUsers), Measured: fmt.Sprint(entries), Reached: entries == updateUsers,
		},
	}, nil
}

// updateAll updates every book, of a table that was written afresh, and returns
// how long it took and how many entries it made.
func (c *contestant) updateAll(ctx context.Context, n int) (took time.Duration, entries int64, err error) {
	err = c.exec(ctx, "VACUUM (FULL, ANALYZE) books", "CHECKPOINT", "SELECT count(*), sum(length(title)) FROM books")
	if err != nil {
		return 0, 0, err
	}
	begun := time.Now()
	if _, err := c.conn.Exec(ctx, "UPDATE books SET title = 'again ' || $1::int", n); err != nil {
		return 0, 0, fmt.Errorf("update of %s: %w", c.name, err)
	}
	took = time.Since(begun)
	if !c.captures() {
		return took, 0, nil
	}
	if err := c.caughtUp(ctx); err != nil {
		return 0, 0, err
	}
	if entries, err = c.entries(ctx, "books"); err != nil {
		return 0, 0, err
	}
	return took, entries, c.clear(ctx)
}
