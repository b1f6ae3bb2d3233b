package capture

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mythiccache/internal/bench/gauge"
)

const (
	idlePeriod = 20 * time.Second
	idleBefore = 5 * time.Second // for what comes after the start to end
)

// idle measures what the relay costs when nothing happens.
func idle(ctx context.Context, b *bed) ([]gauge.Line, error) {
	if err := b.run(ctx); err != nil {
		return nil, err
	}
	if err := b.ours.exec(ctx, "ALTER DATABASE ours SET log_statement = 'all'"); err != nil {
		return nil, err
	}
	if err := b.run(ctx, b.ours); err != nil {
		return nil, err
	}
	if err := b.ours.exec(ctx, "ALTER DATABASE ours RESET log_statement"); err != nil {
		return nil, err
	}
	if err := b.ours.settle(ctx); err != nil {
		return nil, err
	}
	time.Sleep(idleBefore)
	before, err := b.spent(ctx, b.ours)
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	time.Sleep(idlePeriod)
	after, err := b.spent(ctx, b.ours)
	if err != nil {
		return nil, err
	}
	used := after.minus(before)
	asked, err := b.statements(begun, begun.Add(idlePeriod))
	if err != nil {
		return nil, err
	}
	_, rss, err := gauge.Memory(b.ours.process.PID())
	if err != nil {
		return nil, err
	}
	share := func(d time.Duration) float64 { return 100 * d.Seconds() / idlePeriod.Seconds() }
	total, most := 0, 0
	for _, n := range asked {
		total, most = total+n, max(most, n)
	}
	perSecond := func(n int) float64 { return float64(n) / idlePeriod.Seconds() }
	// A period of 20 s may see the 21st beat.
	return []gauge.Line{
		{
			Figure: "idle relay, CPU", Reach: "< 0.5 % of a core", Measured: fmt.Sprintf("%.2f %%", share(used.process)), Reached: share(used.process) < .5,
			Notes: []string{fmt.Sprintf("its session in PostgreSQL %.2f %%, Redis %.2f %%; %d MB at most", share(used.session), share(used.redis), rss>>20)},
		},
		{
			Figure: "idle relay, its most frequent query", Reach: "once a second", Measured: fmt.Sprintf("%.2f/s, all together %.2f/s", perSecond(most), perSecond(total)),
			Reached: most <= int(idlePeriod.Seconds())+1, Notes: told(asked),
		},
	}, nil
}

// told lists statements, the most frequent first.
func told(asked map[string]int) []string {
	var notes []string
	for sql, n := range asked {
		words := strings.Join(strings.Fields(sql), " ")
		notes = append(notes, fmt.Sprintf("%3d in %s: %.100s", n, idlePeriod, words))
	}
	slices.SortFunc(notes, func(a, b string) int { return strings.Compare(b, a) })
	return notes
}

// statements counts, by their text, what was run in our database between two
// moments, from PostgreSQL's log.
func (b *bed) statements(from, to time.Time) (map[string]int, error) {
	files, err := filepath.Glob(filepath.Join(b.postgres.Dir(), "log", "*.json"))
	if err != nil {
		return nil, fmt.Errorf("look for PostgreSQL's log: %w", err)
	}
	asked := map[string]int{}
	for _, file := range files {
		if err := countStatements(file, from, to, asked); err != nil {
			return nil, fmt.Errorf("read PostgreSQL's log: %w", err)
		}
	}
	return asked, nil
}

func countStatements(file string, from, to time.Time, asked map[string]int) error {
	text, err := os.Open(file)
	if err != nil {
		return err
	}
	defer text.Close()
	lines := bufio.NewScanner(text)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var entry struct {
			Timestamp   string `json:"timestamp"`
			Database    string `json:"dbname"`
			Application string `json:"application_name"`
			Message     string `json:"message"`
		}
		if err := json.Unmarshal(lines.Bytes(), &entry); err != nil {
			return err
		}
		at, err := time.Parse("2006-01-02 15:04:05.000 MST", entry.Timestamp)
		if err != nil {
			return err
		}
		kind, sql, _ := strings.Cut(entry.Message, ": ")
		isStatement := kind == "statement" || strings.HasPrefix(kind, "execute ")
		if isStatement && entry.Database == "ours" && entry.Application != applicationName && !at.Before(from) && at.Before(to) {
			asked[sql]++
		}
	}
	return lines.Err()
}
