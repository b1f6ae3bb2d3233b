package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mythiccache/internal/testserver"
)

// While Redis is away, frozen or stopped, whoever asks for what is warm is answered
// with the copy in memory, and once it is back with what was written meanwhile. Nobody
// is told of it by anything but X-Cache: STALE.
func TestRedisAwayUnderLoad(t *testing.T) {
	t.Parallel()
	s := newSystem(t, map[string]string{"AUTH_MODE": "jwt", "LOG_LEVEL": "info"})
	c := newCallers(s, 200)
	c.warm()
	stop := c.ask(8)
	defer stop()
	for _, way := range []struct {
		name        string
		leave, come func() error
	}{
		{"frozen", s.redis.Freeze, s.redis.Thaw},
		{"stopped", func() error { s.redis.Stop(); return nil }, func() error { return s.redis.Start(t.Context()) }},
	} {
		c.warm() // what has just been made for somebody who asked need not be in memory
		if err := way.leave(); err != nil {
			t.Fatal(err)
		}
		c.everybody("answered with what was kept", func(a seen) bool { return a.mark == "STALE" })
		message := "written while redis was " + way.name
		s.exec(`SELECT mythic_cache.publish('run.progress', 'away_0', jsonb_build_object('message', $1::text))`, message)
		// Long enough for who looks for Redis to have become slow about it.
		c.everybody("answered with what was kept", func(a seen) bool { return a.mark == "STALE" })
		if err := way.come(); err != nil {
			t.Fatal(err)
		}
		c.everybody("answered afresh", func(a seen) bool {
			return a.mark != "STALE" && (a.caller != 0 || bytes.Contains(a.body, []byte(message)))
		})
	}
	stop()
	if n := c.failures.Load(); n > 0 {
		t.Errorf("%d requests failed, the first one thus: %v", n, *c.failure.Load())
	}
}

// callers read a run each, again and again.
type callers struct {
	s        *system
	tokens   []string
	client   http.Client
	seen     chan seen
	failures atomic.Int64
	failure  atomic.Pointer[error] // the first
}

// seen is what one of them was answered.
type seen struct {
	caller int
	asked  time.Time
	mark   string // X-Cache
	near   bool   // it came from memory
	body   []byte
}

func newCallers(s *system, n int) *callers {
	s.t.Helper()
	c := &callers{s: s, seen: make(chan seen, n)}
	c.client.Transport = &http.Transport{MaxIdleConnsPerHost: 64}
	for i := range n {
		c.tokens = append(c.tokens, token(fmt.Sprintf("user_%d", i)))
	}
	s.exec(`SELECT mythic_cache.publish('run.started', 'away_' || n, '{"message":"begun"}') FROM generate_series(0, $1) AS n`, n-1)
	return c
}

// get asks as one of them.
func (c *callers) get(ctx context.Context, caller int) (seen, error) {
	a := seen{caller: caller, asked: time.Now()}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/status/away_%d", c.s.base, caller), http.NoBody)
	if err != nil {
		return a, err
	}
	r.Header.Set("Authorization", "Bearer "+c.tokens[caller])
	w, err := c.client.Do(r)
	if err != nil {
		return a, err
	}
	defer w.Body.Close()
	if a.body, err = io.ReadAll(w.Body); err == nil && w.StatusCode != http.StatusOK {
		err = fmt.Errorf("%d %s", w.StatusCode, a.body)
	}
	a.mark, a.near = w.Header.Get("X-Cache"), strings.HasSuffix(w.Header.Get("Cache-Status"), "detail=near")
	return a, err
}

// warm waits until the process has the runs of all in memory.
func (c *callers) warm() {
	c.s.t.Helper()
	for caller := range c.tokens {
		testserver.Eventually(c.s.t, "warm", func() error {
			a, err := c.get(c.s.t.Context(), caller)
			if err == nil && (a.mark != "HIT" || !a.near) {
				err = errors.New(a.mark)
			}
			return err
		})
	}
}

// ask has all of them ask in turn, so many at a time, until it is stopped.
func (c *callers) ask(atOnce int) (stop func()) {
	ctx, cancel := context.WithCancel(c.s.t.Context())
	var group sync.WaitGroup
	for first := range atOnce {
		group.Go(func() {
			// Others have something to do on this machine, too.
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for caller := first; ctx.Err() == nil; caller = (caller + atOnce) % len(c.tokens) {
				a, err := c.get(ctx, caller)
				switch {
				case err != nil && ctx.Err() == nil:
					c.failures.Add(1)
					c.failure.CompareAndSwap(nil, &err)
				case err == nil:
					select {
					case c.seen <- a:
					default: // nobody looks
					}
				}
				<-tick.C
			}
		})
	}
	return func() { cancel(); group.Wait() }
}

// everybody waits until each has asked from now on and was answered as is wanted.
func (c *callers) everybody(what string, wanted func(seen) bool) {
	c.s.t.Helper()
	begun, good := time.Now(), map[int]bool{}
	deadline := time.After(time.Minute)
	for len(good) < len(c.tokens) {
		select {
		case a := <-c.seen:
			if a.asked.After(begun) {
				good[a.caller] = wanted(a)
				if !good[a.caller] {
					delete(good, a.caller)
				}
			}
		case <-deadline:
			c.s.t.Fatalf("%d of %d are not %s", len(c.tokens)-len(good), len(c.tokens), what)
		}
	}
}
