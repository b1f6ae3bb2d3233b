package consumers

import (
	"context"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// batch collects the errors of messages that are handled together.
type batch struct {
	messages []*message.Message
	errs     []error
	failed   bool
}

func newBatch(messages []*message.Message) *batch {
	return &batch{messages: messages, errs: make([]error, len(messages))}
}

// fail notes an error for the messages of those places; nil changes nothing.
func (b *batch) fail(err error, places ...int) {
	if err == nil {
		return
	}
	b.failed = true
	for _, i := range places {
		b.errs[i] = errors.Join(b.errs[i], err)
	}
}

// result is what a stream.BatchHandler returns.
func (b *batch) result() []error {
	if !b.failed {
		return nil
	}
	return b.errs
}

// events calls do for each message that holds an event; the others are rejected.
func (b *batch) events(do func(place int, e event.Event)) {
	for i, m := range b.messages {
		e, err := stream.EventOf(m)
		if err != nil {
			b.fail(fmt.Errorf("%w: %w", stream.ErrReject, err), i)
			continue
		}
		do(i, e)
	}
}

// together runs do for every item, so many at a time, and waits for all.
func together[T any](ctx context.Context, atATime int, items []T, do func(ctx context.Context, item T) error) []error {
	errs := make([]error, len(items))
	var group errgroup.Group
	group.SetLimit(atATime)
	for i, item := range items {
		group.Go(func() error {
			errs[i] = do(ctx, item)
			return nil
		})
	}
	_ = group.Wait() // the errors are in errs, each in its place
	return errs
}

// paused wraps stream.ErrPause around errors that are no event's fault: either
// server is away. What Redis answers to a command is an event's fault, unless it
// speaks of Redis's own state.
func paused(err error) error {
	if err == nil || errors.Is(err, stream.ErrPause) || errors.Is(err, stream.ErrReject) {
		return err
	}
	var answer redis.Error
	if errors.As(err, &answer) && !redisUnwell(answer.Error()) {
		return err
	}
	return fmt.Errorf("%w: %w", stream.ErrPause, err)
}
