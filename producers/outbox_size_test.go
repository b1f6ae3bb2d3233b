package producers

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"mythiccache/internal/testserver"
)

// Redis is away and the outbox grows past its limit: that is told, the app's writes
// go on, and all of it arrives once Redis is back.
func TestAnOutboxThatGrowsIsTold(t *testing.T) {
	b := newBed(t)
	said := &testserver.Log{}
	o := b.options()
	o.OutboxWarn = 1 << 20
	o.Log = zerolog.New(said)
	r, _ := b.relayWith(o)
	b.sync()
	b.redis.Kill()
	testserver.Eventually(t, "the relay says that Redis is away", func() error {
		if r.Ready() == nil {
			return errors.New("it is ready")
		}
		return nil
	})
	for range 20 {
		b.exec(`SELECT count(mythic_cache.publish('run.started', 'r' || n, jsonb_build_object('fill', repeat('x', 200)))) FROM generate_series(1, 500) n`)
	}
	testserver.Eventually(t, "the relay says how much waits", func() error {
		if at := r.State(); at.OutboxBytes <= 1<<20 || valueOf(t, r.metrics.outboxBytes) <= 1<<20 || at.Backlog < 10_000 {
			return fmt.Errorf("the relay says %+v, its metric %v", at, valueOf(t, r.metrics.outboxBytes))
		}
		return nil
	})
	if n := strings.Count(said.String(), "the outbox has grown past its limit"); n != 1 {
		t.Errorf("told %d times", n)
	}
	if err := b.redis.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.balanced()
}

// The limit is told when it is passed, and when it no longer is.
func TestTheOutboxesLimitIsToldOnce(t *testing.T) {
	b := newBed(t)
	s := b.beating()
	weigh := func(limit int64, says string) {
		t.Helper()
		s.log.Reset()
		s.lead.weighed, s.lead.relay.o.OutboxWarn = time.Time{}, limit
		s.beat()
		if said := s.log.String(); (says == "") != (said == "") || !strings.Contains(said, says) {
			t.Errorf("at a limit of %d the relay said %q, not %q", limit, said, says)
		}
	}
	s.beat()
	b.exec(`SELECT count(mythic_cache.publish('run.started', 'r' || n)) FROM generate_series(1, 1000) n`)
	size, err := OutboxBytes(t.Context(), b.conn)
	if err != nil || size < 100_000 {
		t.Errorf("%d bytes, %v", size, err)
	}
	weigh(0, "")
	if got := s.lead.relay.State().OutboxBytes; got != size {
		t.Errorf("the relay says %d bytes, not %d", got, size)
	}
	weigh(size, "")
	weigh(size-1, "the outbox has grown past its limit")
	weigh(size-1, "")
	b.exec(`TRUNCATE mythic_cache.outbox`)
	weigh(size-1, "the outbox is below its limit again")
	weigh(size-1, "")
}
