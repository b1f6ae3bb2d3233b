package producers

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

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
			f := &heldFences{b.fences, make(chan heldCall)}
			o := b.options()
			o.Fences = f
			b.relayWith(o)
			f.next(t, all...).answer <- nil // the first leader's
			b.confirmed(all...)
			b.exec(c.ddl)
			for range c.fences {
				f.next(t, "notes").answer <- nil
			}
			call := f.next(t, "notes")
			// As if it had been restarted, since the relay waits meanwhile.
			forgotten, err := b.client.HDel(t.Context(), b.keys.Position(), PositionRunID, shapeField("notes"), shapeField("run_status"), shapeField("user_books")).Result()
			if err != nil || forgotten != 4 {
				t.Fatalf("Redis lost %d fields, %v", forgotten, err)
			}
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
