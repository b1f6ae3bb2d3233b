package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"text/tabwriter"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	var err error
	if len(os.Args) == 2 && os.Args[1] == "bare" {
		err = serveBare(ctx)
	} else {
		err = run(ctx)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures everything, one thing after the other.
func run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "mythic-cache-bench-")
	if err != nil {
		return fmt.Errorf("make a temporary directory: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("open the temporary directory to PostgreSQL's user: %w", err)
	}
	s, err := startSystem(ctx, dir, filepath.Join("bin", "mythic-cache"))
	if err != nil {
		return err
	}
	defer s.stop()
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, measure := range []func(context.Context, *system, *tabwriter.Writer) error{idle, freshness, hits} {
		if err := measure(ctx, s, out); err != nil {
			return err
		}
		if err := out.Flush(); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	return nil
}
