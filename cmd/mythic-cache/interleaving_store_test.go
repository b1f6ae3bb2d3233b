package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/cache/view"
	"mythiccache/consumers"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// storeShelf is this program's.
type storeShelf struct {
	store       *cache.Store
	waiters     *cache.Waiters
	view        *view.View
	loader      *consumers.Loader
	filler      *consumers.Filler
	invalidator *consumers.Invalidator
	precomputer *consumers.Precomputer
	lease       time.Duration
	tally       *interleavingTally
}

// interleavingViews has one, whose value lists the transactions that it has seen; a key has
// no row until its first one.
func interleavingViews(ttl time.Duration) []byte {
	return fmt.Appendf(nil, `
views:
  touched:
    key: [id]
    on_change: precompute
    ttl: %[1]s
    negative: %[1]s
    load: SELECT json_build_object('seen', json_agg(xid::text::bigint)) FROM touches WHERE id = $1 HAVING count(*) > 0
    tables: {touches: SELECT id FROM changed}
    events: {touches.forgotten: subject}
`, ttl)
}

func newStoreShelf(w *interleavingWorld) (*storeShelf, error) {
	views, err := view.Parse("interleaving.yaml", interleavingViews(w.weather.TTL), nil)
	if err != nil {
		return nil, err
	}
	s := &storeShelf{lease: w.weather.Lease, tally: &w.tally, loader: w.loader}
	s.view, _ = views.Lookup("touched")
	if s.store, err = cache.New(w.dial, cache.Options{StaleFor: time.Minute, FenceTTL: w.weather.FenceTTL}); err != nil {
		return nil, err
	}
	s.waiters = s.store.NewWaiters()
	if s.filler, err = consumers.NewFiller(s.store, w.loader, consumers.FillerOptions{Lease: max(s.lease, 10*time.Millisecond)}); err != nil {
		return nil, err
	}
	if s.invalidator, err = consumers.NewInvalidator(s.store, views, consumers.InvalidatorOptions{}); err != nil {
		return nil, err
	}
	s.precomputer = consumers.NewPrecomputer(s.store, s.filler, views, consumers.PrecomputerOptions{Patience: 20 * time.Millisecond})
	return s, nil
}

func (s *storeShelf) read(ctx context.Context, key string, own uint64) ([]byte, bool, error) {
	q := cache.Query{View: s.view, Key: key}
	if own != 0 {
		q.MinXid = &cache.MinXid{Xid: own}
	}
	r, err := s.store.Read(ctx, q)
	if err != nil || r.Status == cache.Miss {
		return nil, false, err
	}
	s.tally.hits.Add(1)
	return r.Entry.Body, true, nil
}

func (s *storeShelf) fill(ctx context.Context, key string, required func() []uint64) ([]interleavingAnswer, error) {
	before := required()
	asked, err := s.store.Client().Time(ctx).Result()
	if err != nil {
		return nil, err
	}
	wait := s.waiters.Wait(s.view.Name, key)
	defer wait.Cancel()
	var answers []interleavingAnswer
	if oneOf(2) {
		err = s.filler.Fill(ctx, s.view, key, consumers.FillOptions{})
	} else {
		answers, err = s.fillSlowly(ctx, key, required)
	}
	over := time.After(0)
	if errors.Is(err, cache.ErrLeased) { // another is at it, who will tell
		over = time.After(rand.N(longestInterleavingDelay / 2))
	}
	for {
		select {
		case heard := <-wait.C():
			if heard.Outcome != cache.Failed && heard.Answers(asked) {
				s.tally.heard.Add(1)
				answers = append(answers, interleavingAnswer{heard.Entry.Body, before})
			}
		case <-over:
			return answers, err
		}
	}
}

// fillSlowly is a loader that neither renews its lease nor looks whether it still has it,
// and may take ages between lease, snapshot and put.
func (s *storeShelf) fillSlowly(ctx context.Context, key string, required func() []uint64) ([]interleavingAnswer, error) {
	lease, err := s.store.Lease(ctx, s.view, key, s.lease)
	if err != nil {
		return nil, err
	}
	linger(longestInterleavingDelay / 4)
	loaded, err := s.loader.Load(ctx, s.view, key)
	if err != nil {
		return nil, err
	}
	linger(longestInterleavingDelay)
	if oneOf(20) {
		return nil, s.store.Abandon(ctx, lease, "gave up")
	}
	before := required()
	_, err = s.store.Put(ctx, lease, cache.Fill{Negative: !loaded.Found, Version: loaded.Version, Snapshot: loaded.Snapshot, Body: loaded.Body})
	switch {
	case err == nil:
		s.tally.accepted.Add(1)
		return []interleavingAnswer{{loaded.Body, before}}, nil
	case errors.Is(err, cache.ErrRefused):
		s.tally.refused.Add(1)
	}
	return nil, err
}

func (s *storeShelf) handle(ctx context.Context, group int, events []event.Event) []error {
	messages := make([]*message.Message, len(events))
	for i, e := range events {
		messages[i] = stream.FromEvent(e)
	}
	if group == toPrecompute {
		return s.precomputer.Handle(ctx, messages)
	}
	return s.invalidator.Handle(ctx, messages)
}

// ensure makes the view's key where a flush has taken it away, as the relay does when it
// finds its position gone.
func (s *storeShelf) ensure(ctx context.Context, at version.Version) error {
	return s.store.EnsureViews(ctx, []*view.View{s.view}, at)
}
