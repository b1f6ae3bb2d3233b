package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"

	"mythiccache/internal/bench/ai"
	"mythiccache/internal/bench/api"
	"mythiccache/internal/bench/capture"
	"mythiccache/internal/bench/gauge"
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
	if len(args) == 0 {
		return inDirectory(func(dir string) error { return whole(ctx, dir) })
	}
	name, args := args[0], args[1:]
	all := benchmarks()
	switch run, known := all[name]; {
	case known:
		return inDirectory(func(dir string) error {
			return run(ctx, gauge.Options{Dir: dir, Program: program, Names: args, Out: os.Stdout, Log: os.Stderr})
		})
	// What benchmarks start as processes of their own.
	case name == api.BareCommand && len(args) == 3:
		return api.Bare(ctx, args[0], args[1], args[2])
	case name == api.LoadCommand && len(args) == 0:
		return api.Load(ctx, os.Stdin, os.Stdout)
	case name == capture.BareCommand && len(args) == 2:
		return capture.Bare(ctx, args[0], args[1])
	}
	names := slices.Sorted(maps.Keys(all))
	return fmt.Errorf("%q is not known: give nothing, or one of %s and the names of figures", name, strings.Join(names, ", "))
}

// benchmarks are those of one part each, by the word that runs them.
func benchmarks() map[string]func(context.Context, gauge.Options) error {
	return map[string]func(context.Context, gauge.Options) error{
		"ai": ai.Run, "api": api.Run, "capture": capture.Run, "store": store.Run, "streams": streams.Run, "watch": watch.Run,
	}
}

// program is what is measured, as `make build` leaves it.
const program = "bin/mythic-cache"

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
func whole(ctx context.Context, dir string) (err error) {
	s, err := startSystem(ctx, dir, program)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close(ctx)) }()
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
