package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"mythiccache/producers/event"
)

// interleavingKey is retired after so many transactions, so that values stay small.
type interleavingKey struct {
	name   string
	writes int
}

const interleavingLife = 60

type interleavingWrite struct {
	xid  uint64
	keys []string
}

func (w *interleavingWorld) newKey() *interleavingKey {
	w.born++
	return &interleavingKey{name: fmt.Sprintf("%d-%d", w.round, w.born)}
}

// someKey is one of the present.
func (w *interleavingWorld) someKey() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.keys[rand.IntN(len(w.keys))].name
}

// write does one transaction over a few keys, short or long, with savepoints, to its end or
// not. What is rolled back must show up nowhere, and is told to nobody.
func (w *interleavingWorld) write(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx) // so that its fate is known
	keys := w.keysToWrite()
	var xid uint64
	err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		var text string
		if err := tx.QueryRow(ctx, `SELECT pg_current_xact_id()::text`).Scan(&text); err != nil {
			return err
		}
		var err error
		if xid, err = strconv.ParseUint(text, 10, 64); err != nil {
			return err
		}
		for _, key := range keys {
			if err := w.touch(ctx, tx, key); err != nil {
				return err
			}
		}
		if oneOf(w.weather.LongEvery) {
			linger(longestInterleavingDelay)
		}
		if oneOf(6) {
			return errRollback
		}
		w.oracle.committing(xid, keys)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.pending = append(w.pending, &interleavingWrite{xid, keys})
		return nil
	})
	if errors.Is(err, errRollback) {
		return nil
	}
	if err == nil {
		w.oracle.committed(xid, keys)
		w.tally.transactions.Add(1)
		if oneOf(8) { // the app tells of it, too, and knows no version
			w.tell(interleavingEvent{Event: event.Event{Type: "touches.forgotten", Subject: keys[0], Time: time.Now()}})
		}
	}
	linger(longestInterleavingDelay / 4)
	return err
}

// touch leaves the transaction's id at a key, and what is of no account behind a savepoint.
func (w *interleavingWorld) touch(ctx context.Context, tx pgx.Tx, key string) error {
	const leave = `INSERT INTO touches (id) VALUES ($1)`
	if !oneOf(3) {
		_, err := tx.Exec(ctx, leave, key)
		return err
	}
	nested, err := tx.Begin(ctx)
	if err != nil {
		return err
	}
	if _, err := nested.Exec(ctx, leave, key); err != nil {
		return err
	}
	if oneOf(2) {
		return nested.Commit(ctx)
	}
	if err := nested.Rollback(ctx); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, leave, key)
	return err
}

// keysToWrite are one to three of the present keys, and retires those that have been
// written often.
func (w *interleavingWorld) keysToWrite() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for range 1 + rand.IntN(3) {
		at := rand.IntN(len(w.keys))
		if w.keys[at].writes++; w.keys[at].writes > interleavingLife {
			w.keys[at] = w.newKey()
		}
		if name := w.keys[at].name; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
