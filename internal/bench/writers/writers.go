package writers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// App is what writes.
type App struct {
	Connections int
	Connect     func(context.Context) (*pgx.Conn, error)
	Statement   string                                                 // prepared on each connection
	Write       func(ctx context.Context, conn *pgx.Conn, n int) error // commits the nth
}

// Run makes so many writes at a rate per second, from connections that are all opened
// beforehand.
func (a App) Run(ctx context.Context, writes, rate int) error {
	due := make(chan int, writes) // a late commit holds up no other
	failed := make([]error, a.Connections)
	var ready, done sync.WaitGroup
	ready.Add(a.Connections)
	for i := range failed {
		done.Go(func() { failed[i] = a.work(ctx, due, ready.Done) })
	}
	ready.Wait()
	begun := time.Now()
	for n := range writes {
		time.Sleep(time.Until(begun.Add(time.Duration(n) * time.Second / time.Duration(rate))))
		due <- n
	}
	close(due)
	done.Wait()
	return errors.Join(failed...)
}

// work makes the writes that are due, on one connection.
func (a App) work(ctx context.Context, due <-chan int, ready func()) error {
	conn, err := a.Connect(ctx)
	if err == nil {
		defer conn.Close(context.WithoutCancel(ctx))
		_, err = conn.Prepare(ctx, a.Statement, a.Statement)
	}
	ready()
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	for n := range due {
		if err := a.Write(ctx, conn, n); err != nil {
			return err
		}
	}
	return nil
}
