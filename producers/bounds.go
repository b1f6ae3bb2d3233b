package producers

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// answerBounds ends statements that PostgreSQL does not answer. Its own timeouts end
// those that take long there; where the way between was lost without a word (a
// firewall that forgot the connection, a host that is gone) nothing comes back to
// say so, and a relay would wait, leading and ready by its own account, for as long
// as the kernel hopes. The driver closes a connection whose statement it gives up.
type answerBounds struct {
	short time.Duration
	long  time.Duration // of statements that may take as long as statement_timeout allows
}

type boundKey struct{}

// TraceQueryStart implements pgx.QueryTracer.
func (b answerBounds) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	if q.SQL == drainSQL || q.SQL == beginEpochSQL {
		return begun(ctx, b.long)
	}
	return begun(ctx, b.short)
}

// TraceQueryEnd implements pgx.QueryTracer.
func (answerBounds) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryEndData) {
	ended(ctx)
}

// TraceBatchStart implements pgx.BatchTracer.
func (b answerBounds) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return begun(ctx, b.short)
}

// TraceBatchQuery implements pgx.BatchTracer.
func (answerBounds) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

// TraceBatchEnd implements pgx.BatchTracer.
func (answerBounds) TraceBatchEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchEndData) {
	ended(ctx)
}

func begun(ctx context.Context, bound time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(ctx, bound)
	return context.WithValue(ctx, boundKey{}, cancel)
}

func ended(ctx context.Context) {
	if cancel, ok := ctx.Value(boundKey{}).(context.CancelFunc); ok {
		cancel()
	}
}
