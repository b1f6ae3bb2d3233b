package producers

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// weighEvery is how often the leader looks how large the outbox is.
const weighEvery = 5 * time.Second

const outboxBytesSQL = `SELECT coalesce(sum(pg_total_relation_size(i.inhrelid)), 0)::bigint FROM pg_inherits i WHERE i.inhparent = 'mythic_cache.outbox'::regclass`

// OutboxBytes returns the bytes on disk of the outbox, indexes included. That is
// what waits, and what was sent and is kept for its retention.
func OutboxBytes(ctx context.Context, conn *pgx.Conn) (int64, error) {
	var bytes int64
	if err := conn.QueryRow(ctx, outboxBytesSQL).Scan(&bytes); err != nil {
		return 0, fmt.Errorf("weigh the outbox: %w", err)
	}
	return bytes, nil
}

// weigh notes the outbox's size and, where it passes the limit, tells: once, and
// once more when it is below again. Nothing is done about it: to refuse rows would
// be to refuse the app's writes.
func (l *lead) weigh(ctx context.Context) error {
	if time.Since(l.weighed) < weighEvery {
		return nil
	}
	l.weighed = time.Now()
	bytes, err := OutboxBytes(ctx, l.conn)
	if err != nil {
		return err
	}
	r := l.relay
	r.metrics.outboxBytes.Set(float64(bytes))
	r.set(func(s *RelayState) { s.OutboxBytes = bytes })
	limit := r.o.OutboxWarn
	switch large := limit > 0 && bytes > limit; {
	case large && !r.large:
		r.large = true
		r.o.Log.Warn().Int64("bytes", bytes).Int64("limit", limit).Int64("waiting", r.State().Backlog).
			Msg("the outbox has grown past its limit; writes go on, and the disk fills")
	case !large && r.large:
		r.large = false
		r.o.Log.Info().Int64("bytes", bytes).Int64("limit", limit).Msg("the outbox is below its limit again")
	}
	return nil
}
