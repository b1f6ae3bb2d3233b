package watch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mythiccache/internal/bench/gauge"
	"mythiccache/internal/bench/process"
)

// bed is the program in two processes, with servers of its own.
type bed struct {
	*process.Deployment
	api *process.Face
}

func newBed(ctx context.Context, o gauge.Options) (b *bed, err error) {
	d, err := process.Deploy(ctx, process.Setup{Dir: o.Dir, Program: o.Program, Settings: map[string]string{"fsync": "on"}})
	if err != nil {
		return nil, err
	}
	b = &bed{Deployment: d}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close(ctx))
		}
	}()
	if _, err := b.Run("workers", "relay,workers"); err != nil {
		return b, err
	}
	if b.api, err = b.Serve(ctx, "api", "api"); err != nil {
		return b, err
	}
	err = b.begin(ctx)
	return b, err
}

// begin makes the runs, whose documents have some 700 bytes.
func (b *bed) begin(ctx context.Context) error {
	_, err := b.Conn.Exec(ctx, `SELECT mythic_cache.publish('run.started', 'bench_' || n,
		json_build_object('message', 'begun', 'style', 'classic', 'format', 'a4', 'profile', json_build_object('username', 'somebody', 'biography', repeat('0123456789', 40)))::jsonb)
		FROM generate_series(0, $1) AS n`, watchers/perRun-1)
	if err != nil {
		return fmt.Errorf("begin the runs: %w", err)
	}
	return nil
}

// change changes runs at the rate, each in its turn. The message of a run is the
// number of the change.
func (b *bed) change(ctx context.Context, c *crowd) error {
	begun := time.Now()
	for n := range c.written {
		time.Sleep(time.Until(begun.Add(time.Duration(n) * time.Second / rate)))
		if _, err := b.Conn.Exec(ctx, `SELECT mythic_cache.publish('run.progress', $1, $2)`, runOf(n), fmt.Sprintf(`{"message":"%d"}`, n)); err != nil {
			return fmt.Errorf("change a run: %w", err)
		}
		c.written[n].Store(int64(time.Since(c.begun)))
	}
	return nil
}

// runOf is the run of a change, or of a watcher's number among the runs.
func runOf(n int) string { return fmt.Sprintf("bench_%d", n%(watchers/perRun)) }
