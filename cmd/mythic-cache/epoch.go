package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"mythiccache/producers"
	"mythiccache/producers/stream"
)

type epochCommand struct {
	Bump epochBump `cmd:"" help:"Begin a new epoch, as after starting a cold copy of a cluster: everything cached before is void."`
}

type epochBump struct{}

// Run begins a new epoch and prints it.
func (epochBump) Run(ctx context.Context, p *program) error {
	return p.withDatabase(ctx, func(c *config, conn *pgx.Conn) error {
		client, err := c.redisClient()
		if err != nil {
			return err
		}
		defer client.Close()
		epoch, err := producers.BumpEpoch(ctx, conn, client, stream.NewKeys(c.Prefix))
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(p.stdout, "epoch", epoch)
		return err
	})
}
