package cache

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// A line is what becomes of further questions for an answer while it is made: they join
// the question that it is made for, and are done by that, however many they are and in
// whatever processes. It stands in a hash beside the answer's entry, in the same slot:
//
//	t   the token of the lease under which the answer is made
//	by  the event that it is made for, which leads the line
//	w   1 where nobody waits for that one
//	n   the newest event that led or joined
//	c   how many have joined for which somebody waits
//	d   1 where one has joined that is to end in no silence
//
// That nothing is lost:
//
//  1. a question joins while the lease that is in the line is in the entry, too. Its
//     holder has not acknowledged its own event then: that comes again, whatever
//     becomes of the holder, and asks for both;
//  2. whoever waits had registered before it asked, and the answer is announced, or
//     its failure, when that lease ends. So it hears;
//  3. where an ai.forget stands between the two in the stream, the older one counts as
//     being as new as the newer when it comes again (see Claim).
//
// What has joined shares the end of the one that leads, be that a dead letter.
const (
	lineNewest = "n"
	lineJoined = "c"
	lineOwed   = "d"

	// lineFor is how long the line of an answer is remembered whose event is not done:
	// longer than it waits to be tried again, but where the model is away, or the workers
	// are. Every end of a question ends its line, so none is left of what failed for good.
	lineFor = 24 * time.Hour
)

// aiLine names the line of an answer.
func (k keys) aiLine(key string) string { return k.prefix + "ai_line:{" + key + "}" }

// Lead opens the line of an answer that is about to be made under a lease, for the event
// of a stream entry. Call it after Claim. It fails with ErrLost where the lease is
// another's by now.
func (a *Answers) Lead(ctx context.Context, l Lease, entry string, warm bool) error {
	led, err := a.lines.add.Run(ctx, a.store.client, []string{a.store.keys.entry(l.View.Name, l.Key), a.store.keys.aiLine(l.Key)},
		l.token, eventOrder(entry), flag(warm), lineFor.Milliseconds()).Int()
	if err != nil {
		return fmt.Errorf("lead a line: %w", err)
	}
	if led == 0 {
		return fmt.Errorf("lead a line: %w", ErrLost)
	}
	return nil
}

// Join reports whether the question of a stream entry is done by joining the line of its
// answer. One for which somebody waits does not join one for which nobody does. Of one that
// is durable Line tells.
func (a *Answers) Join(ctx context.Context, key, entry string, warm, durable bool) (bool, error) {
	joined, err := a.lines.undo.Run(ctx, a.store.client, []string{a.store.keys.entry(a.view, key), a.store.keys.aiLine(key)},
		eventOrder(entry), flag(warm), flag(durable)).Int()
	if err != nil {
		return false, fmt.Errorf("join a line: %w", err)
	}
	return joined == 1, nil
}

// Joined returns how many questions have joined the line of an answer, for which
// somebody waits. Settle ends the line.
func (a *Answers) Joined(ctx context.Context, key string) (int, error) {
	var joined *redis.StringCmd
	err := a.write(ctx, "count a line", func(p redis.Pipeliner) { joined = p.HGet(ctx, a.store.keys.aiLine(key), lineJoined) })
	if err != nil {
		return 0, err
	}
	n, _ := strconv.Atoi(joined.Val()) // where nobody has joined there is no number
	return n, nil
}

// EndLine ends the line of an answer, where Settle and Drop do not. Call it with the lease
// in hand, or where nobody holds it.
func (a *Answers) EndLine(ctx context.Context, key string) error {
	return a.write(ctx, "end a line", func(p redis.Pipeliner) { p.Del(ctx, a.store.keys.aiLine(key)) })
}

// Line returns when the newest question of an answer's line was asked, or this one, which
// is named by its stream entry, where that is newer; and whether one is durable that has
// joined.
func (a *Answers) Line(ctx context.Context, key, entry string) (newest time.Time, durable bool, err error) {
	var known, owed *redis.StringCmd
	err = a.write(ctx, "look at a line", func(p redis.Pipeliner) {
		known, owed = p.HGet(ctx, a.store.keys.aiLine(key), lineNewest), p.HGet(ctx, a.store.keys.aiLine(key), lineOwed)
	})
	if err != nil {
		return time.Time{}, false, err
	}
	first, _, _ := strings.Cut(max(eventOrder(entry), known.Val()), "-")
	ms, _ := strconv.ParseInt(first, 10, 64) // eventOrder has written it
	return time.UnixMilli(ms), owed.Val() == flag(true), nil
}

func flag(is bool) string {
	if is {
		return "1"
	}
	return "0"
}
