package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"mythiccache/internal/bench/gauge"
)

// idle measures what the program costs when nothing happens.
func idle(ctx context.Context, s *system, out *tabwriter.Writer) error {
	const period = 15 * time.Second
	pid := s.face.PID()
	before, err := gauge.CPU(pid)
	if err != nil {
		return err
	}
	if err := pause(ctx, period); err != nil {
		return err
	}
	after, err := gauge.CPU(pid)
	if err != nil {
		return err
	}
	rss, _, err := gauge.Memory(pid)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nidle, all roles\tRSS %.1f MB\t%.2f %% of a core\n", float64(rss)/(1<<20), 100*float64(after-before)/float64(period))
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// freshness measures, at a steady rate of writes, how long after the commit
// returned /books/my first answers with what was written.
func freshness(ctx context.Context, s *system, out *tabwriter.Writer) error {
	pool, err := pgxpool.New(ctx, s.Postgres.URL("postgres"))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer pool.Close()
	fmt.Fprintf(out, "\ncommit returned → /books/my fresh\tp50\tp90\tp99\tmax\tsamples\n")
	for _, rate := range []int{50, 200} {
		took, err := s.followWrites(ctx, pool, rate, 15*time.Second)
		if err != nil {
			return err
		}
		ms := func(q float64) string { return fmt.Sprintf("%.2f ms", gauge.Quantile(took, q).Seconds()*1000) }
		fmt.Fprintf(out, "%d writes/s\t%s\t%s\t%s\t%s\t%d\n", rate, ms(.5), ms(.9), ms(.99), ms(1), len(took))
	}
	return nil
}

// followWrites commits at the rate and follows each write until it is seen.
func (s *system) followWrites(ctx context.Context, pool *pgxpool.Pool, rate int, period time.Duration) ([]time.Duration, error) {
	var (
		mu     sync.Mutex
		took   []time.Duration
		failed error
		wg     sync.WaitGroup
	)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	end := time.Now().Add(period)
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for n := 0; time.Now().Before(end) && ctx.Err() == nil; n++ {
		<-tick.C
		wg.Go(func() {
			d, err := s.followWrite(ctx, pool, n)
			mu.Lock()
			defer mu.Unlock()
			if err != nil && failed == nil {
				failed = err
				cancel()
			}
			took = append(took, d)
		})
	}
	wg.Wait()
	return took, failed
}

func (s *system) followWrite(ctx context.Context, pool *pgxpool.Pool, n int) (time.Duration, error) {
	user := fmt.Sprintf("user_%d", 1+rand.IntN(100))
	title := fmt.Sprintf("write %d of %d", n, rand.Int64())
	token, err := s.Token(user)
	if err != nil {
		return 0, err
	}
	// Filled beforehand, so that the write has something to make stale.
	if _, _, err := s.get(ctx, "/books/my", token); err != nil {
		return 0, fmt.Errorf("read: %w", err)
	}
	_, err = pool.Exec(ctx, `INSERT INTO books (user_id, title) SELECT id, $2 FROM users WHERE clerk_user_id = $1`, user, title)
	if err != nil {
		return 0, fmt.Errorf("write: %w", err)
	}
	committed := time.Now()
	for {
		status, body, err := s.get(ctx, "/books/my", token)
		if err != nil {
			return 0, fmt.Errorf("read: %w", err)
		}
		if status == http.StatusOK && strings.Contains(string(body), title) {
			return time.Since(committed), nil
		}
		if time.Since(committed) > 30*time.Second {
			return 0, fmt.Errorf("%s: %q is not seen: %d", user, title, status)
		}
		// Readers who ask in a tight loop would measure their own load.
		if err := pause(ctx, time.Millisecond); err != nil {
			return 0, err
		}
	}
}
