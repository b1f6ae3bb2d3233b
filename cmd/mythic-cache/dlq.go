package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"mythiccache/producers/stream"
)

type dlqCommand struct {
	List   dlqList   `cmd:"" help:"List dead letters, oldest first."`
	Show   dlqShow   `cmd:"" help:"Show one with all its fields."`
	Replay dlqReplay `cmd:"" help:"Give events back to the groups that gave them up."`
	Drop   dlqDrop   `cmd:"" help:"Remove dead letters for good."`
}

// dlqFilter selects dead letters; all that is said must hold.
type dlqFilter struct {
	Topic     *string  `help:"Only of this topic."`
	Type      *string  `help:"Only events of this type."`
	Reason    *string  `help:"Only where the reason holds this text, in capitals or not."`
	OlderThan duration `help:"Only those dead for longer than this: 90s, 30m, or whole seconds."`
}

// stream returns the filter of the dead letters. What is said to be empty is refused:
// it would select everything, and comes from a variable that is not set.
func (f dlqFilter) stream(ids ...string) (stream.Filter, error) {
	selected := stream.Filter{IDs: ids, OlderThan: time.Duration(f.OlderThan)}
	for _, flag := range []struct {
		name string
		said *string
		into *string
	}{{"--topic", f.Topic, &selected.Topic}, {"--type", f.Type, &selected.Type}, {"--reason", f.Reason, &selected.Reason}} {
		if flag.said == nil {
			continue
		}
		if *flag.said == "" {
			return stream.Filter{}, fmt.Errorf("%s is empty: say what it selects, or leave it out", flag.name)
		}
		*flag.into = *flag.said
	}
	return selected, nil
}

type (
	dlqList struct{ dlqFilter }
	dlqShow struct {
		ID string `arg:"" help:"The dead letter's id, as list shows it."`
	}
	dlqReplay struct {
		IDs []string `arg:"" optional:"" name:"id" help:"Only these."`
		dlqFilter
	}
	dlqDrop struct {
		IDs []string `arg:"" optional:"" name:"id" help:"Only these."`
		dlqFilter
		All bool `help:"Do not ask when nothing else is said."`
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

// Run lists dead letters as a table, each in one line.
func (l dlqList) Run(ctx context.Context, p *program) error {
	filter, err := l.stream()
	if err != nil {
		return err
	}
	return p.withDeadLetters(func(dead *stream.DeadLetters) error {
		return writeLetters(p.stdout, func(line func(stream.DeadLetter) error) error {
			return dead.Each(ctx, filter, line)
		})
	})
}

// Run prints one dead letter as JSON.
func (s dlqShow) Run(ctx context.Context, p *program) error {
	return p.withDeadLetters(func(dead *stream.DeadLetters) error {
		letter, err := dead.Show(ctx, s.ID)
		if err != nil {
			return err
		}
		return writeLetter(p.stdout, letter)
	})
}

// Run replays what the filter selects, all where it selects nothing.
func (r dlqReplay) Run(ctx context.Context, p *program) error {
	filter, err := r.stream(r.IDs...)
	if err != nil {
		return err
	}
	return p.withDeadLetters(func(dead *stream.DeadLetters) error {
		n, err := dead.Replay(ctx, filter)
		fmt.Fprintln(p.stdout, tally(n, "replayed", r.IDs))
		return err
	})
}

// Run drops what the filter selects. Where it selects nothing that is all of them,
// after asking who sits at a terminal.
func (d dlqDrop) Run(ctx context.Context, p *program) error {
	filter, err := d.stream(d.IDs...)
	if err != nil {
		return err
	}
	everything := len(d.IDs) == 0 && d.dlqFilter == dlqFilter{}
	return p.withDeadLetters(func(dead *stream.DeadLetters) error {
		if everything && !d.All && terminal(os.Stdin) {
			if err := confirmDrop(ctx, dead, os.Stdin, p.stderr); err != nil {
				return err
			}
		}
		n, err := dead.Drop(ctx, filter)
		fmt.Fprintln(p.stdout, tally(n, "dropped", d.IDs))
		return err
	})
}

// tally says how many letters something was done to.
func tally(n int, done string, ids []string) string {
	named := slices.Clone(ids)
	slices.Sort(named)
	if missing := len(slices.Compact(named)) - n; missing > 0 {
		return fmt.Sprintf("%d %s; %d of the ids not found, or not selected", n, done, missing)
	}
	return fmt.Sprintf("%d %s", n, done)
}

// confirmDrop asks whether all dead letters are to go.
func confirmDrop(ctx context.Context, dead *stream.DeadLetters, in io.Reader, out io.Writer) error {
	counts, err := dead.Count(ctx)
	if err != nil {
		return err
	}
	total := int64(0)
	for _, n := range counts {
		total += n
	}
	fmt.Fprintf(out, "Drop all %d dead letters for good? Type yes: ", total)
	answer, _ := bufio.NewReader(in).ReadString('\n')
	if strings.TrimSpace(answer) != "yes" {
		return errors.New("nothing was dropped: name ids or a filter, or say --all")
	}
	return nil
}

// terminal reports whether somebody can be asked there: it is a character device, and
// not the one without an end.
func terminal(file *os.File) bool {
	at, err := file.Stat()
	if err != nil || at.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(at, null)
}
