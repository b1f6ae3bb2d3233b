package main

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"mythiccache/internal/testserver"
)

// Every kind of fault, in a random order, under writes and reads: in the end each
// answer is what SQL says, from the cache too, and an audit of all that is cached
// finds nothing wrong.
func TestNemesis(t *testing.T) {
	t.Parallel()
	s := newSystemOn(t, testserver.NewPostgres(t, nil), nil)
	users := names(20)
	s.people(users...)
	faults := []struct {
		name  string
		cause func()
	}{
		{"program killed", func() { s.kill(); s.start() }},
		{"Redis killed", func() {
			s.redis.Kill()
			if err := s.redis.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		}},
		{"Redis flushed", func() { s.client.FlushAll(t.Context()) }},
		{"Redis frozen", func() {
			if err := s.redis.Freeze(); err != nil {
				t.Fatal(err)
			}
			s.moment()
			if err := s.redis.Thaw(); err != nil {
				t.Fatal(err)
			}
		}},
	}
	w := s.startWriter(users)
	for range 3 {
		rand.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
		for _, fault := range faults {
			stopReaders := s.startReaders(users)
			s.moment()
			t.Log(fault.name)
			fault.cause()
			stopReaders()
		}
	}
	s.awaitReady()
	w.stop(t)
	s.fresh(users...)
	s.cached(users...)
	if out, err := s.try("verify", "--all"); err != nil || !strings.Contains(out, `"wrong": 0`) {
		t.Errorf("verify: %v\n%s", err, out)
	}
	s.everythingExpires()
}

// moment lets the system work for a random while, to meet a fault wherever it
// is: there is no signal for "at random".
func (s *system) moment() { time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond) }
