package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"mythiccache/producers/stream"
)

type dlqCommand struct {
	List   dlqList   `cmd:"" help:"List dead letters, oldest first."`
	Show   dlqShow   `cmd:"" help:"Show one with all its fields."`
	Replay dlqReplay `cmd:"" help:"Give events back to the groups that gave them up."`
	Drop   dlqDrop   `cmd:"" help:"Remove dead letters for good."`
}

// dlqFilter selects dead letters.
type dlqFilter struct {
	Topic     string   `help:"Only of this topic."`
	Type      string   `help:"Only events of this type."`
	Reason    string   `help:"Only where the reason holds this text."`
	OlderThan duration `help:"Only those dead for longer than this: 90s, 30m, or whole seconds."`
}

func (f dlqFilter) stream(ids ...string) stream.Filter {
	return stream.Filter{IDs: ids, Topic: f.Topic, Type: f.Type, Reason: f.Reason, OlderThan: time.Duration(f.OlderThan)}
}

func (f dlqFilter) empty() bool { return f == dlqFilter{} }

type (
	dlqList struct{ dlqFilter }
	dlqShow struct {
		ID string `arg:"" help:"The dead letter's id, as list shows it."`
	}
	dlqReplay struct {
		IDs []string `arg:"" optional:"" help:"Only these."`
		dlqFilter
	}
	dlqDrop struct {
		IDs []string `arg:"" optional:"" help:"Only these."`
		dlqFilter
		All bool `help:"All of them, when nothing else is said."`
	}
)

// withDeadLetters gives do the dead letters, and closes what it opened.
func (p *program) withDeadLetters(do func(*stream.DeadLetters) error) error {
	c, err := p.config()
	if err != nil {
		return err
	}
	client, err := c.redisClient()
	if err != nil {
		return err
	}
	defer client.Close()
	return do(stream.NewDeadLetters(client, stream.NewKeys(c.Prefix)))
}

// Run lists dead letters as a table.
func (l dlqList) Run(ctx context.Context, p *program) error {
	return p.withDeadLetters(func(dead *stream.DeadLetters) error {
		letters, err := dead.List(ctx, l.stream())
		if err != nil {
			return err
		}
		if len(letters) == 0 {
			_, err := fmt.Fprintln(p.stdout, "no dead letters")
			return err
		}
		return writeTable(p.stdout, letters)
	})
}

func writeTable(out io.Writer, letters []stream.DeadLetter) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tGROUP\tTOPIC\tTYPE\tDELIVERIES\tSINCE\tREASON")
	for _, l := range letters {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", l.ID, l.Group, l.Topic, l.Type, l.Deliveries, l.Last.UTC().Format(time.RFC3339), l.Reason)
	}
	return w.Flush()
}

// Run prints one dead letter as JSON.
func (s dlqShow) Run(ctx context.Context, p *program) error {
	return p.withDeadLetters(func(dead *stream.DeadLetters) error {
		letter, err := dead.Show(ctx, s.ID)
		if err != nil {
			return fmt.Errorf("%s: %w", s.ID, err)
		}
		out := json.NewEncoder(p.stdout)
		out.SetIndent("", "  ")
		return out.Encode(letter)
	})
}

// Run replays what the filter selects, all where it selects nothing.
func (r dlqReplay) Run(ctx context.Context, p *program) error {
	return p.withDeadLetters(func(dead *stream.DeadLetters) error {
		n, err := dead.Replay(ctx, r.stream(r.IDs...))
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(p.stdout, "%d replayed\n", n)
		return err
	})
}

// Run drops what the filter selects; to drop all it must be told so.
func (d dlqDrop) Run(ctx context.Context, p *program) error {
	if len(d.IDs) == 0 && d.empty() && !d.All {
		return errors.New("drop: name ids or a filter, or say --all")
	}
	return p.withDeadLetters(func(dead *stream.DeadLetters) error {
		n, err := dead.Drop(ctx, d.stream(d.IDs...))
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(p.stdout, "%d dropped\n", n)
		return err
	})
}
