package main

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache/version"
	"mythiccache/cache/view"
	"mythiccache/consumers"
	"mythiccache/producers/event"
)

// interleavingShelf is what the harness puts values on: the store with its handlers,
// or a Redis that is used as one would without it.
type interleavingShelf interface {
	// read returns a value that may be served, and whether there is one. With a
	// transaction, only one that has seen it.
	read(ctx context.Context, key string, own uint64) (body []byte, found bool, err error)
	// fill sees to it that there is a value, and returns what must have seen all that
	// required said at some moment: what was accepted, and what answered a question.
	fill(ctx context.Context, key string, required func() []uint64) ([]interleavingAnswer, error)
	// handle does what events ask a group for, and returns an error for each that is not
	// done: none where all are.
	handle(ctx context.Context, group int, events []event.Event) []error
	// ensure is called at every look of the relay, with its snapshot.
	ensure(ctx context.Context, at version.Version) error
}

// interleavingAnswer is a value and what it must have seen.
type interleavingAnswer struct {
	body     []byte
	required []uint64
}

// plainShelf is cache-aside as it is mostly written: what is missing is loaded and SET,
// what has changed is DELeted.
type plainShelf struct {
	client redis.UniversalClient
	view   *view.View
	loader *consumers.Loader
	ttl    time.Duration
	tally  *interleavingTally
}

func (s *plainShelf) read(ctx context.Context, key string, own uint64) ([]byte, bool, error) {
	if own != 0 {
		return nil, false, nil // it cannot tell what it has seen
	}
	body, err := s.client.Get(ctx, key).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, false, nil
	}
	s.tally.hits.Add(1)
	return body, err == nil, err
}

func (s *plainShelf) fill(ctx context.Context, key string, _ func() []uint64) ([]interleavingAnswer, error) {
	if _, found, err := s.read(ctx, key, 0); found || err != nil {
		return nil, err
	}
	loaded, err := s.loader.Load(ctx, s.view, key)
	if err != nil || !loaded.Found {
		return nil, err
	}
	linger(longestInterleavingDelay / 4)
	s.tally.accepted.Add(1)
	return nil, s.client.Set(ctx, key, loaded.Body, s.ttl).Err()
}

func (s *plainShelf) handle(ctx context.Context, group int, events []event.Event) []error {
	if group == toPrecompute {
		return nil
	}
	errs := make([]error, len(events))
	for i, e := range events {
		errs[i] = s.client.Del(ctx, e.Subject).Err()
	}
	return errs
}

func (s *plainShelf) ensure(context.Context, version.Version) error { return nil }
