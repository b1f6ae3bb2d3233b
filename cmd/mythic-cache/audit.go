package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/consumers"
	"mythiccache/producers"
	"mythiccache/producers/stream"
)

// roadOf is how an audit finds out how far changes have come.
func roadOf(store *cache.Store, keys stream.Keys) consumers.Road {
	return consumers.Road{
		Keys: keys, Group: groupInvalidate,
		Sent:  func(ctx context.Context) (version.Snapshot, error) { return producers.Sent(ctx, store.Client(), keys) },
		Leads: (&pulse{store: store}).beatsAfter,
	}
}

// addAuditor adds what compares the cache with PostgreSQL all the time.
func (w *worker) addAuditor(schema *schemaGate, loader *consumers.Loader) error {
	road := roadOf(w.store, w.keys)
	auditor, err := consumers.NewAuditor(w.store, loader, w.views, consumers.AuditorOptions{
		Instance: w.instance, Rate: w.AuditRate, Road: road, Log: w.log, Metrics: w.metrics,
	})
	if err != nil {
		return fmt.Errorf("auditor: %w", err)
	}
	w.consumers.add("auditor", schema.after(auditor.Run))
	w.consumers.add("steadiness of views", schema.after(w.warnOfUnsteady))
	return nil
}

// warnOfUnsteady says once which views no audit can judge.
func (w *worker) warnOfUnsteady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, w.DatabaseURL)
	if err != nil {
		return nil // whoever needs PostgreSQL says that it is away
	}
	defer conn.Close(context.WithoutCancel(ctx))
	unsteady, err := producers.Unsteady(ctx, conn, w.views)
	if err != nil {
		w.log.Debug().Err(err).Msg("loads were not examined")
	}
	for _, u := range unsteady {
		w.log.Warn().Str("view", u.View).Str("why", u.Why).Msg("a load may give another answer without any change, so audits may call its entries wrong")
	}
	return nil
}
