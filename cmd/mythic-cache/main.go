package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
)

// programVersion is set at build time with -ldflags "-X main.programVersion=…".
var programVersion = "dev"

// heapGrowth is GOGC where the environment sets none: what lives is small, and what
// passes through at full load is much. To collect at three times what lives instead of
// twice leaves more of the processor to the work, for some 10 MB; 400 would leave
// still more, and pass 80 MB.
const heapGrowth = 200

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(heapGrowth)
	}
	ctx, release := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends ctx and gives the signals back to the system, so
	// that a second one ends the process at once.
	context.AfterFunc(ctx, release)
	err := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	status, quiet := errors.AsType[exitError](err)
	switch {
	case err == nil:
	case quiet:
		os.Exit(int(status))
	default:
		fmt.Fprintln(os.Stderr, "mythic-cache:", err)
		os.Exit(1)
	}
}

// exitError ends the program with a status and without a further word: whoever
// returns it has said what there was to say.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// commands is the command line.
type commands struct {
	Run     runCommand     `cmd:"" help:"Run the worker: capture changes, keep the cache true, answer over HTTP."`
	Migrate migrateCommand `cmd:"" help:"Install, remove or show what mythic-cache keeps in PostgreSQL."`
	Demo    demoCommand    `cmd:"" help:"Mythic's tables with demo rows."`
	Publish publishCommand `cmd:"" help:"Publish an event durably, as SELECT mythic_cache.publish(…) does."`
	DLQ     dlqCommand     `cmd:"" name:"dlq" help:"Look at dead letters, replay or drop them."`
	Inspect inspectCommand `cmd:"" help:"Show a cached entry with its version, lease and lifetime."`
	Purge   purgeCommand   `cmd:"" help:"Drop a cached entry, a whole view, or all that is a user's."`
	Verify  verifyCommand  `cmd:"" help:"Compare cached entries with PostgreSQL now; exit status 1 on a mismatch."`
	Epoch   epochCommand   `cmd:"" help:"The generation of the database that versions belong to."`
	Doctor  doctorCommand  `cmd:"" help:"Say what is misconfigured and how to mend it."`
	Version versionCommand `cmd:"" help:"Print the version."`
}

// run is the whole program.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) error {
	var c commands
	exited := -1
	parser, err := kong.New(&c,
		kong.Name("mythic-cache"),
		kong.Description("Keeps a Redis cache true to a PostgreSQL database. Settings come from the environment; see .env.example."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exited = code }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		return fmt.Errorf("command line: %w", err)
	}
	parsed, err := parser.Parse(args)
	if exited >= 0 { // help was asked for, and printed
		if exited == 0 {
			return nil
		}
		return exitError(exited)
	}
	if err != nil {
		return err
	}
	// What go-redis says of connections goes to nobody, or to the worker's log:
	// commands return what kept them from their work.
	redis.SetLogger(redisLog{zerolog.Nop()})
	p := &program{environ: environ, stdout: stdout, stderr: stderr}
	parsed.BindTo(ctx, (*context.Context)(nil))
	return parsed.Run(p)
}

// program is what every command is given.
type program struct {
	environ        []string
	stdout, stderr io.Writer
}

type versionCommand struct{}

// Run prints the version.
func (versionCommand) Run(p *program) error {
	_, err := fmt.Fprintln(p.stdout, "mythic-cache", programVersion)
	return err
}
