package capture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"mythiccache/internal/bench/gauge"
)

const (
	commitRows   = 20_000
	commitUsers  = 5_000
	commitPeriod = 4 * time.Second
)

// script is a transaction that pgbench repeats.
type script struct {
	name, file, protocol string
	sql                  string
	rounds               int
}

// scripts are a transaction as an app's driver sends it, in pgbench's own protocol,
// and the same update where nothing else costs anything: one statement that was
// prepared before, and no BEGIN.
func scripts() []script {
	book := "UPDATE books SET title = 'title ' || (:r)::text WHERE id = " + idOf(":n") + ";\n"
	session := "UPDATE processing_sessions SET current_stage = 'stage ' || (:r)::text WHERE id = " + idOf(":n") + ";\n"
	return []script{
		{"BEGIN, a book, END", "transaction", "simple", "BEGIN;\n" + book + "END;\n", 5},
		{"a book, prepared", "book", "prepared", book, 3},
		{"a session, prepared", "session", "prepared", session, 3},
	}
}

// commits measures how many one-row updates 32 clients commit, where a mapping
// joins and where it does not.
func commits(ctx context.Context, b *bed) ([]gauge.Line, error) {
	if err := b.fill(ctx, rows{users: commitUsers, books: commitRows, sessions: commitRows}); err != nil {
		return nil, err
	}
	if err := b.run(ctx, b.ours, b.bare); err != nil {
		return nil, err
	}
	var lines []gauge.Line
	for _, s := range scripts() {
		of, err := b.commitsOf(ctx, s)
		if err != nil {
			return nil, err
		}
		lines = append(lines, of...)
	}
	return lines, nil
}

// commitsOf lets the contestants commit in turn.
func (b *bed) commitsOf(ctx context.Context, s script) ([]gauge.Line, error) {
	file := filepath.Join(b.dir, s.file+".pgbench")
	text := fmt.Sprintf("\\set n random(1, %d)\n\\set r random(1, 1000000000)\n%s", commitRows, s.sql)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return nil, fmt.Errorf("write the script: %w", err)
	}
	rates, costs, counts := map[*contestant][]float64{}, map[*contestant]cost{}, map[*contestant]int{}
	all := b.all()
	for round := range s.rounds {
		for i := range all {
			c := all[(round+i)%len(all)]
			r, err := b.pgbench(ctx, c, file, s.protocol)
			if err != nil {
				return nil, err
			}
			rates[c] = append(rates[c], r.rate)
			costs[c] = costs[c].plus(r.cost)
			counts[c] += r.commits
		}
	}
	var notes []string
	for _, c := range all {
		notes = append(notes, fmt.Sprintf("%-4s  %s commits/s; CPU of 1,000: %s", c.name, gauge.Spread("%.0f", rates[c]), costs[c].per(counts[c])))
	}
	none, ours, bare := rates[b.none], rates[b.ours], rates[b.bare]
	name := "commits/s, 32 clients, " + s.name
	return []gauge.Line{
		{
			Figure: name, Reach: "≥ 0.5 of none", Measured: gauge.Spread("%.0f", ours), Baseline: "none " + gauge.Spread("%.0f", none),
			Ratio: fmt.Sprintf("%.2f", gauge.Ratio(ours, none)), Reached: gauge.Ratio(ours, none) >= .5, Notes: notes,
		},
		{
			Figure: name, Reach: "≥ 3 times bare", Measured: gauge.Spread("%.0f", ours), Baseline: "bare " + gauge.Spread("%.0f", bare),
			Ratio: fmt.Sprintf("%.2f", gauge.Ratio(ours, bare)), Reached: gauge.Ratio(ours, bare) >= 3,
		},
	}, nil
}

// carried waits until all of a round is in the streams, makes sure that there is
// something, and clears it away.
func (c *contestant) carried(ctx context.Context) error {
	if !c.captures() {
		return nil
	}
	if err := c.caughtUp(ctx); err != nil {
		return err
	}
	books, err := c.entries(ctx, "books")
	if err != nil {
		return err
	}
	sessions, err := c.entries(ctx, "processing_sessions")
	if err != nil {
		return err
	}
	if books+sessions == 0 {
		return errors.New(c.name + " captured nothing")
	}
	return c.clear(ctx)
}
