package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"

	"mythiccache/internal/bench/ai"
	"mythiccache/internal/bench/api"
	"mythiccache/internal/bench/capture"
	"mythiccache/internal/bench/store"
	"mythiccache/internal/bench/streams"
	"mythiccache/internal/bench/watch"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := dispatch(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// dispatch does what the first word says; without one it measures the whole program.
func dispatch(ctx context.Context, args []string) error {
	switch {
	case len(args) == 0:
		return inDirectory(func(dir string) error { return whole(ctx, dir) })
	case args[0] == "api":
		return inDirectory(func(dir string) error {
			return api.Run(ctx, api.Options{Dir: dir, Program: program, Others: others, Names: args[1:], Out: os.Stdout, Log: os.Stderr})
		})
	case len(args) == 4 && args[0] == api.BareCommand:
		return api.Bare(ctx, args[1], args[2], args[3])
	case len(args) == 1 && args[0] == api.LoadCommand:
		return api.Load(ctx, os.Stdin, os.Stdout)
	case args[0] == "capture":
		return inDirectory(func(dir string) error {
			return capture.Run(ctx, capture.Options{Dir: dir, Program: program, Names: args[1:], Out: os.Stdout, Log: os.Stderr})
		})
	case args[0] == "ai":
		return inDirectory(func(dir string) error {
			return ai.Run(ctx, ai.Options{Dir: dir, Program: program, Names: args[1:], Out: os.Stdout, Log: os.Stderr})
		})
	case args[0] == "streams":
		return inDirectory(func(dir string) error {
			return streams.Run(ctx, streams.Options{Dir: dir, Program: program, Names: args[1:], Out: os.Stdout, Log: os.Stderr})
		})
	case args[0] == "store":
		return inDirectory(func(dir string) error {
			return store.Run(ctx, store.Options{Dir: dir, Program: program, Names: args[1:], Out: os.Stdout, Log: os.Stderr})
		})
	case len(args) == 1 && args[0] == "watch":
		return inDirectory(func(dir string) error {
			return watch.Run(ctx, watch.Options{Dir: dir, Program: program, Out: os.Stdout, Log: os.Stderr})
		})
	case len(args) == 3 && args[0] == capture.BareCommand:
		return capture.Bare(ctx, args[1], args[2])
	default:
		return fmt.Errorf("%q is not known: give nothing, or ai, api, capture, store or streams and the names of figures, or watch", args)
	}
}

// program is what is measured, as `make build` leaves it.
const program = "bin/mythic-cache"

// others is where the packages of those stand that the API is measured beside.
const others = ".local/bench-api"

// inDirectory gives do a directory that PostgreSQL's user may pass through, and
// removes it.
func inDirectory(do func(dir string) error) error {
	dir, err := os.MkdirTemp("", "mythic-cache-bench-")
	if err != nil {
		return fmt.Errorf("make a temporary directory: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("open the temporary directory to PostgreSQL's user: %w", err)
	}
	return do(dir)
}

// whole measures the whole program, one thing after the other.
func whole(ctx context.Context, dir string) error {
	s, err := startSystem(ctx, dir, program)
	if err != nil {
		return err
	}
	defer s.stop()
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, measure := range []func(context.Context, *system, *tabwriter.Writer) error{idle, freshness} {
		if err := measure(ctx, s, out); err != nil {
			return err
		}
		if err := out.Flush(); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	return nil
}
