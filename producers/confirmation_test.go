package producers

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"mythiccache/cache/version"
	"mythiccache/internal/testserver"
)

// heldFences are fences whose views a relay fences no sooner than it is let.
type heldFences struct {
	*fences

	calls chan heldCall
}

// heldCall is a call that waits for its answer.
type heldCall struct {
	views  []string
	answer chan error
}

// FenceViews fences where the answer is nil, and fails with it elsewhere.
func (f *heldFences) FenceViews(ctx context.Context, names []string, at version.Version) error {
	call := heldCall{names, make(chan error, 1)}
	select {
	case f.calls <- call:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-call.answer:
		if err != nil {
			return err
		}
		return f.fences.FenceViews(ctx, names, at)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// next is the next call, which has to name views.
func (f *heldFences) next(t *testing.T, views ...string) heldCall {
	t.Helper()
	select {
	case call := <-f.calls:
		if !slices.Equal(call.views, views) {
			t.Fatalf("the relay fences %q, not %q", call.views, views)
		}
		return call
	case <-time.After(time.Minute):
		t.Fatalf("the relay does not fence %q", views)
		return heldCall{}
	}
}

// noted is how many of the fields that are noted once views are fenced stand beside
// the position: at which shape each view was, and for which run of Redis.
func (b *bed) noted(views ...string) (shapes int, run string) {
	b.t.Helper()
	fields := []string{PositionRunID}
	for _, name := range views {
		fields = append(fields, shapeField(name))
	}
	values, err := b.client.HMGet(b.t.Context(), b.keys.Position(), fields...).Result()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, shape := range values[1:] {
		if shape != nil {
			shapes++
		}
	}
	run, _ = values[0].(string)
	return shapes, run
}

// confirmed waits until the present run of Redis is, and demands that views had been
// fenced by then.
func (b *bed) confirmed(views ...string) {
	b.t.Helper()
	present := runID(b.t, b.client)
	testserver.Eventually(b.t, "the run of Redis is confirmed", func() error {
		shapes, run := b.noted(views...)
		if run != present {
			return errors.New("not yet")
		}
		if shapes != len(views) {
			b.t.Fatalf("it was, with %d of %d views fenced", shapes, len(views))
		}
		return nil
	})
}

// forget has Redis lose its note of the run, and of the shapes that views were at.
func (b *bed) forget(views ...string) {
	b.t.Helper()
	fields := []string{PositionRunID}
	for _, name := range views {
		fields = append(fields, shapeField(name))
	}
	forgotten, err := b.client.HDel(b.t.Context(), b.keys.Position(), fields...).Result()
	if err != nil || int(forgotten) != len(fields) {
		b.t.Fatalf("Redis lost %d fields, %v", forgotten, err)
	}
}

// restart kills Redis and starts it again, and returns the run_id that it has now.
func (b *bed) restart() string {
	b.t.Helper()
	b.redis.Kill()
	if err := b.redis.Start(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	return runID(b.t, b.client)
}

// held runs a relay that fences views no sooner than it is let.
func (b *bed) held() (*Relay, *heldFences, *testserver.Log) {
	b.t.Helper()
	f, said := &heldFences{b.fences, make(chan heldCall)}, &testserver.Log{}
	o := b.options()
	o.Fences, o.Log = f, zerolog.New(said).Level(zerolog.InfoLevel)
	r, _ := b.relayWith(o)
	return r, f, said
}

// A Redis that lost fences serves what they were for. It is not confirmed, so that
// this counts as stale, as long as the fences cannot be had back: neither those that
// are repeated anyway nor those that only the lost notes tell of.
func TestARedisIsNotConfirmedBeforeWhatItLostIsFenced(t *testing.T) {
	all := []string{"notes", "run_status", "user_books"}
	for name, c := range map[string]struct {
		ddl    string
		fences int // before those that are lost
	}{
		"changes go unnoticed": {`CREATE TABLE notes_3 PARTITION OF notes FOR VALUES IN (3)`, 2},
		"changes are seen":     {`ALTER TABLE notes DETACH PARTITION notes_2`, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := newNotesBed(t)
			_, f, _ := b.held()
			f.next(t, all...).answer <- nil // the first leader's
			b.confirmed(all...)
			b.exec(c.ddl)
			for range c.fences {
				f.next(t, "notes").answer <- nil
			}
			call := f.next(t, "notes")
			// As if it had been restarted, since the relay waits meanwhile.
			b.forget(all...)
			for range 4 {
				call.answer <- errors.New("refused by the test")
				call = f.next(t, all...)
				if shapes, run := b.noted(all...); shapes > 0 || run != "" {
					t.Fatalf("%d shapes and the run %q are noted, and nothing was fenced", shapes, run)
				}
			}
			call.answer <- nil
			b.confirmed(all...)
		})
	}
}

// A relay fences, and meanwhile Redis is another:
//
//  1. it reads what Redis has noted of fences, and fences what is due;
//  2. Redis loses fences, but not the position;
//  3. the relay notes what it has fenced, and finds its position.
//
// Neither says anything of what was lost at 2.
func TestARedisIsNotConfirmedByWhatAnotherHad(t *testing.T) {
	all := []string{"notes", "run_status", "user_books"}
	for name, c := range map[string]struct {
		drift bool // or the first leader fences, and has to note that
		lose  func(b *bed)
		again []string // what is fenced before the run is confirmed
	}{
		"the notes go":                     {true, func(b *bed) { b.forget(all...) }, all},
		"one note goes":                    {true, func(b *bed) { b.forget("user_books") }, []string{"notes", "user_books"}},
		"it restarts":                      {true, func(b *bed) { b.restart() }, []string{"notes"}},
		"it restarts before what is noted": {false, func(b *bed) { b.restart() }, all},
	} {
		t.Run(name, func(t *testing.T) {
			b := newNotesBed(t)
			_, f, _ := b.held()
			call := f.next(t, all...)
			if c.drift {
				call.answer <- nil
				b.confirmed(all...)
				b.exec(`CREATE TABLE notes_3 PARTITION OF notes FOR VALUES IN (3)`)
				f.next(t, "notes").answer <- nil
				call = f.next(t, "notes")
			}
			c.lose(b)
			call.answer <- nil
			call = f.next(t, c.again...)
			if _, run := b.noted(); run == runID(t, b.client) {
				t.Fatal("the run is confirmed, and what it lost was not fenced")
			}
			call.answer <- nil
			b.confirmed(all...)
		})
	}
}

// Fences may be refused where all else goes well. The relay says so once, is not ready
// until they are not, and tries less and less often.
func TestRefusedFencesAreTriedLessAndLessOften(t *testing.T) {
	all := []string{"notes", "run_status", "user_books"}
	b := newNotesBed(t)
	r, f, said := b.held()
	refused := func(times int, views ...string) (took time.Duration) {
		t.Helper()
		call := f.next(t, views...)
		started := time.Now()
		for n := range times {
			call.answer <- errors.New("refused by the test")
			call = f.next(t, views...)
			if r.Ready() == nil {
				t.Fatalf("it is ready after %d refusals", n+1)
			}
		}
		took = time.Since(started)
		call.answer <- nil
		testserver.Eventually(t, "it is ready", r.Ready)
		return took
	}
	b.exec(`CREATE TABLE notes_3 PARTITION OF notes FOR VALUES IN (3)`)
	if took := refused(6, all...); took < 63*retryFrom {
		t.Errorf("seven tries took %s", took)
	}
	if warned, sent := strings.Count(said.String(), "cannot write"), strings.Count(said.String(), "relay sends"); warned != 1 || sent != 1 {
		t.Errorf("it said %d times that it sends, and %d times that it does not:\n%s", sent, warned, said.String())
	}
	// Once they were not refused it does not wait as long as before.
	soonest := retryMost
	for range 3 {
		soonest = min(soonest, refused(1, "notes"))
	}
	if soonest >= 32*retryFrom {
		t.Errorf("after a success it waited for %s", soonest)
	}
}

// While rows wait, some of them may be what a Redis lost.
func TestARedisIsNotConfirmedInABacklog(t *testing.T) {
	b := newBed(t)
	s := b.beating()
	for _, behind := range []bool{true, false} {
		if err := s.lead.heartbeat(t.Context(), behind); err != nil {
			t.Fatal(err)
		}
		if _, run := b.noted(); (run == "") != behind {
			t.Errorf("behind: %t, and the run that is confirmed is %q", behind, run)
		}
	}
}
