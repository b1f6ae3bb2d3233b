package stream_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// nemesisLedger lives in the test's process and keeps the books. Workers note there
// what they have handled before they answer for it.
type nemesisLedger struct {
	url string

	mu      sync.Mutex
	books   books
	during  string         // what is happening
	repeats map[string]int // by what was happening
	times   int            // events were noted
	traps   map[string]func()
	last    map[string]time.Time // a group noted something
	longest silence
}

// handledNote is what a worker says of events it has handled.
type handledNote struct {
	Worker, Group string
	IDs           []string
}

func startNemesisLedger(t testing.TB, groups map[string][]string) *nemesisLedger {
	t.Helper()
	l := &nemesisLedger{
		books:   books{groups: groups, events: map[string]*published{}, handled: map[string]map[string]int{}, poison: map[place]*poisoned{}},
		during:  "the start",
		repeats: map[string]int{}, traps: map[string]func(){}, last: map[string]time.Time{},
	}
	for group := range groups {
		l.books.handled[group] = map[string]int{}
	}
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	l.url = server.URL
	return l
}

// ServeHTTP takes a note. Only when it is answered is anything noted for sure.
func (l *nemesisLedger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var n handledNote
	if err := json.NewDecoder(r.Body).Decode(&n); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest) // of one that was killed as it wrote
		return
	}
	if trap := l.note(n, time.Now()); trap != nil {
		trap()
	}
}

// note returns what is to happen between a worker's note and its answer.
func (l *nemesisLedger) note(n handledNote, now time.Time) (trap func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range n.IDs {
		l.times++
		if l.books.handled[n.Group][id]++; l.books.handled[n.Group][id] > 1 {
			l.repeats[l.during]++
		}
	}
	if before, ok := l.last[n.Group]; ok && now.Sub(before) > l.longest.lasted {
		l.longest = silence{n.Group, l.during, now.Sub(before)}
	}
	l.last[n.Group] = now
	trap = l.traps[n.Worker]
	delete(l.traps, n.Worker)
	return trap
}

// trap has something happen to a worker between its next note and the answer.
func (l *nemesisLedger) trap(worker string, spring func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.traps[worker] = spring
}

// publish notes events that are published, or are about to be.
func (l *nemesisLedger) publish(p published, ids ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		one := p
		l.books.events[id] = &one
	}
}

// confirm notes that events are published.
func (l *nemesisLedger) confirm(ids ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		l.books.events[id].certain = true
	}
}

func (l *nemesisLedger) poison(at place, p poisoned) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.books.poison[at] = &p
}

// excuse notes that a topic, "" for all, lost entries: nobody owes those that came
// from no outbox.
func (l *nemesisLedger) excuse(topic string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.books.events {
		p.excused = p.excused || topic == "" || topic == p.topic
	}
	for at, p := range l.books.poison {
		p.excused = p.excused || topic == "" || topic == at.topic
	}
}

func (l *nemesisLedger) happens(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.during = what
}

// open returns who has yet to handle which events.
func (l *nemesisLedger) open() (left []fate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for group, topics := range l.books.groups {
		for _, topic := range topics {
			for id, p := range l.books.events {
				if p.topic == topic && p.owed() && !p.rejected && l.books.handled[group][id] == 0 {
					left = append(left, fate{group, id})
				}
			}
		}
	}
	return left
}

func (l *nemesisLedger) has(f fate) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.books.handled[f.group][f.id] > 0
}

// record takes what the ledger has counted into a record.
func (l *nemesisLedger) record(r *record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.add(&record{events: len(l.books.events), handled: l.times, repeats: l.repeats, longest: l.longest})
}

// scribe notes at the ledger, from another process.
type scribe struct {
	client *http.Client
	url    string
	worker string
}

func newScribe(url, worker string) *scribe {
	return &scribe{client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}, url: url, worker: worker}
}

// note returns once the ledger has it.
func (s *scribe) note(group string, ids []string) error {
	body, err := json.Marshal(handledNote{Worker: s.worker, Group: group, IDs: ids})
	if err != nil {
		return err
	}
	// No context: an event that was handled is noted, whatever ends meanwhile.
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	answer, err := s.client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("the ledger says %s", answer.Status)
	}
	return nil
}
