package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// fill is a loader at work, by the way of the program or by a slow one.
func (w *interleavingWorld) fill(ctx context.Context) error {
	key := w.someKey()
	ctx, cancel := w.mortal(ctx)
	defer cancel()
	// What a fill fails with is its own affair: it is what it tells that counts.
	answers, _ := w.shelf.fill(ctx, key, func() []uint64 { return w.oracle.required(key) })
	for _, a := range answers {
		if err := judgeInterleaving(a.body, a.required); err != nil {
			return fmt.Errorf("%s was accepted or answered: %w", key, err)
		}
	}
	return nil
}

// read asks for a value, now and then for one that has seen a given transaction.
func (w *interleavingWorld) read(ctx context.Context) error {
	key := w.someKey()
	required := w.oracle.required(key)
	var own uint64
	if over := w.oracle.committedTo(key); len(over) > 0 && oneOf(5) {
		own = over[rand.IntN(len(over))]
		required = append(required, own)
	}
	body, found, err := w.shelf.read(ctx, key, own)
	if err != nil || !found {
		return err
	}
	if err := judgeInterleaving(body, required); err != nil {
		return fmt.Errorf("%s was served: %w", key, err)
	}
	return nil
}

// flush empties Redis, once in a while.
func (w *interleavingWorld) flush(ctx context.Context) error {
	if pause(ctx, 2*rand.N(w.weather.FlushEvery)) {
		w.tally.flushes.Add(1)
		return w.client.FlushAll(ctx).Err()
	}
	return nil
}

// pause reports false when the context ended first.
func pause(ctx context.Context, long time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(long):
		return true
	}
}
