package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"mythiccache/producers"
	"mythiccache/producers/event"
)

type publishCommand struct {
	Type    string `arg:"" help:"Type of the event, such as run.progress."`
	Subject string `arg:"" optional:"" help:"What it happened to, such as a run's id."`
	Data    string `arg:"" optional:"" help:"JSON."`
}

// Run writes the event to the outbox and prints its id.
func (e publishCommand) Run(ctx context.Context, p *program) error {
	return p.withDatabase(ctx, func(c *config, conn *pgx.Conn) error {
		id, err := producers.Publish(ctx, conn, event.Event{Type: e.Type, Subject: e.Subject, Data: json.RawMessage(e.Data)})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(p.stdout, id)
		return err
	})
}
