package main

import (
	"context"
	"sync"
	"time"

	"mythiccache/cache"
)

// pulse tells from what processes report whether a relay is at work. Machines differ in
// their clocks, so a report is placed in time by its being another than the one that was
// there at the look before:
//
//  1. a look finds a report of a process whose relay leads;
//  2. a later look finds the next one, which says so again: it was written since 1.
//
// In between, some seconds, a relay has its heartbeats. One that has just taken over may
// be about to have its first, so what it says first counts for nothing, and what a
// process wrote before it died is not taken for news however long it stands.
type pulse struct {
	store *cache.Store

	mu     sync.Mutex
	looked time.Time // when the look before began
	last   map[string]reported
	beat   time.Time // after which a relay was at work
}

// reported is what a process has said of itself.
type reported struct {
	at    time.Time // by its own clock
	leads bool
}

// pulseEvery is how often reports are looked at, at most. A process makes one every
// three seconds.
const pulseEvery = 500 * time.Millisecond

// beatsAfter reports whether a relay is known to have been at work after a moment. That
// it does not say so now means that it is to be asked again.
func (p *pulse) beatsAfter(ctx context.Context, moment time.Time) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); now.Sub(p.looked) >= pulseEvery {
		reports, err := p.store.Reports(ctx)
		if err != nil {
			return false, err
		}
		p.hear(now, reports)
	}
	return !p.beat.Before(moment), nil
}

// hear takes in the reports that a look has found which began now.
func (p *pulse) hear(now time.Time, reports []cache.Report) {
	last := make(map[string]reported, len(reports))
	for _, r := range reports {
		news := reported{at: r.At, leads: r.Relay != nil && r.Relay.Leader}
		before := p.last[r.Instance]
		if news.leads && before.leads && !news.at.Equal(before.at) {
			p.beat = p.looked
		}
		last[r.Instance] = news
	}
	p.looked, p.last = now, last
}
