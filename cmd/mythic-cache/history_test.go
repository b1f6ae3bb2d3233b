package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// historyPairs says how many writes TestHistories reads back.
const historyPairs = "PAIRS"

// history is who wrote and read what, when.
type history struct {
	*system
	users []string
	pairs atomic.Int64

	mu    sync.Mutex
	read  map[string]int64 // of each user, the highest count that a read which has ended gave
	marks map[string]int   // how the reads were answered
}

// Many write and read back what they wrote, over the same few keys and more than one
// process of each role: every answer has seen the write that it was asked for, and
// none is older than one that anybody had been given before it was asked for.
func TestHistories(t *testing.T) {
	t.Parallel()
	wanted := int64(number(t, historyPairs, 1000))
	h := &history{system: newSystem(t, map[string]string{"LOG_LEVEL": "info"}), read: map[string]int64{}, marks: map[string]int{}}
	for n := range 6 {
		h.users = append(h.users, fmt.Sprintf("counted%d", n))
	}
	h.counting(h.users...)
	h.awaitReading(h.newWorker())
	started := time.Now()
	h.run(t, 8, wanted)
	took := time.Since(started)
	t.Logf("%d pairs in %s, %.0f a second; answers: %v", h.pairs.Load(), took.Round(time.Millisecond), float64(h.pairs.Load())/took.Seconds(), h.marks)
	h.nothingOfTheFuture(t)
	if h.marks["HIT"] == 0 || h.marks["MISS"] == 0 {
		t.Error("something never happened, so nothing was tried")
	}
}

// run has clients write and read until there were so many pairs, or something is wrong.
func (h *history) run(t *testing.T, clients int, wanted int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	for range clients {
		conn, reader := h.connect(), newCountReader(h.users)
		all.Go(func() {
			defer reader.client.CloseIdleConnections()
			for ctx.Err() == nil && h.pairs.Load() < wanted {
				if err := h.step(ctx, conn, reader); err != nil && ctx.Err() == nil {
					t.Error(err)
					cancel()
				}
			}
		})
	}
	all.Wait()
}

// step is one transaction, what reads it back, and a reader who wrote nothing. Now and
// then the app says, too, that something has changed; that has no version.
func (h *history) step(ctx context.Context, conn *pgx.Conn, reader *countReader) error {
	written, err := countOn(ctx, conn, h.users)
	if err != nil || written == nil {
		return err
	}
	if oneOf(4) {
		if _, err := conn.Exec(ctx, `SELECT mythic_cache.publish('books.changed', $1)`, h.users[rand.IntN(len(h.users))]); err != nil {
			return err
		}
	}
	for user, count := range written.counts {
		if err := h.ask(ctx, reader, user, written.minXid, count); err != nil {
			return fmt.Errorf("after transaction %s: %w", written.minXid, err)
		}
		h.pairs.Add(1)
	}
	return h.ask(ctx, reader, h.users[rand.IntN(len(h.users))], "", 0)
}

// ask asks until there is an answer, and judges it.
func (h *history) ask(ctx context.Context, reader *countReader, user, minXid string, own int64) error {
	for {
		known := h.known(user)
		a, err := reader.read(ctx, h.base, user, minXid)
		if err != nil {
			return err
		}
		h.note(user, a)
		switch {
		case a.status == http.StatusServiceUnavailable: // not made in time: it says so, and is asked again
			continue
		case a.status != http.StatusOK:
			return fmt.Errorf("%s: %d %s", user, a.status, a.said)
		case a.count < own:
			return fmt.Errorf("%s: the answer (%s) is %d, older than the own write of %d", user, a.mark, a.count, own)
		case a.count < known:
			return fmt.Errorf("%s: the answer (%s) is %d, older than the %d that was given before", user, a.mark, a.count, known)
		}
		return nil
	}
}

func (h *history) known(user string) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.read[user]
}

func (h *history) note(user string, a countAnswer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if a.status != http.StatusOK {
		h.marks[fmt.Sprint(a.status)]++
		return
	}
	h.marks[a.mark]++
	h.read[user] = max(h.read[user], a.count)
}

// nothingOfTheFuture demands that no answer was higher than what was ever written.
func (h *history) nothingOfTheFuture(t *testing.T) {
	t.Helper()
	for _, user := range h.users {
		truth := one[int64](h.system, `SELECT title::bigint FROM books WHERE run_id = $1`, user)
		if h.read[user] > truth {
			t.Error(errors.Join(errNeverTrue, fmt.Errorf("%s: %d was read and only %d written", user, h.read[user], truth)))
		}
	}
}
