package producers

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"mythiccache/producers/event"
)

// Querier is a connection, a pool or a transaction of pgx.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Publish writes an event of the app's into the outbox and returns the id that it
// got. In a transaction, it is sent when that commits and only then. Only type,
// subject and data travel; the rest of e is the relay's to fill. The error wraps
// event.ErrMalformed where the event is unfit to travel.
func Publish(ctx context.Context, q Querier, e event.Event) (id string, err error) {
	if err := e.Validate(); err != nil {
		return "", fmt.Errorf("publish: %w", err)
	}
	var subject, data *string
	if e.Subject != "" {
		subject = &e.Subject
	}
	if len(e.Data) > 0 {
		text := string(e.Data)
		data = &text
	}
	err = q.QueryRow(ctx, "SELECT mythic_cache.publish($1, $2, $3::text::jsonb)::text", e.Type, subject, data).Scan(&id)
	if err != nil {
		return "", fmt.Errorf("publish %s: %w", e.Type, err)
	}
	return id, nil
}
