package producers

import (
	"errors"
	"net/url"
	"testing"

	"mythiccache/internal/testserver"
)

// large is an event of some hundred kilobytes, so that few fill a batch.
const large = `SELECT count(mythic_cache.publish('run.started', 'r' || n, to_jsonb((SELECT string_agg(gen_random_uuid()::text, '') FROM generate_series(1, 12000) WHERE n > 0)))) FROM generate_series(1, $1::int) n`

// What a batch has no room for is not read again and again.
func TestLargeRowsAreReadAboutOnce(t *testing.T) {
	b := newBed(t)
	const rows = 150
	b.exec(large, rows)
	waiting := one[int64](b, `SELECT sum(octet_length(data::text)) FROM mythic_cache.outbox`)
	u, err := url.Parse(b.url)
	if err != nil {
		t.Fatal(err)
	}
	way := newSilencer(t, u.Host)
	u.Host = way.addr()
	o := b.options()
	o.ListenURL = u.String()
	b.relayWith(o)
	b.balanced()
	// The first reading takes up all of it, before it is known how large rows are.
	if times := float64(way.bytes()) / float64(waiting); times > 3 {
		t.Errorf("%d bytes came for %d: %.1f times", way.bytes(), waiting, times)
	}
}

// Where even a reading without joined mappings takes longer than a statement may,
// fewer rows are read, and not the same ones over and over.
func TestAReadingThatTakesTooLongIsMadeSmaller(t *testing.T) {
	s := newStepped(t)
	s.exec(large, 200)
	r, err := NewRelay(s.options())
	if err != nil {
		t.Fatal(err)
	}
	l := r.newLead(s.conn, newStreams(s.client, s.keys))
	l.from, l.placed = s.from, s.from
	if err := l.streams.Place(t.Context(), "", l.placed, true); err != nil {
		t.Fatal(err)
	}
	do(t, s.conn, `SET statement_timeout = 100`)
	testserver.Eventually(t, "all of it is sent", func() error {
		_, more, err := l.drain(t.Context())
		l.ahead.wait()
		if err != nil {
			t.Fatal(err)
		}
		if more {
			return errors.New("there is more")
		}
		return nil
	})
	if _, sent := s.ledger(); len(sent) != 200 {
		t.Errorf("%d of 200 are in the streams", len(sent))
	}
	if l.remapKeys >= 0 || l.batchRows >= batchRows {
		t.Errorf("%d keys, %d rows: no reading took too long, so this shows nothing", l.remapKeys, l.batchRows)
	}
}
