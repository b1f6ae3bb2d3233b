package api

import (
	"slices"
	"strconv"
	"sync"
	"time"

	"mythiccache/cache"
	"mythiccache/producers/event"
)

// hotAnswers are the answers that are asked for often when their time is about to end:
// those are made again before it has, so that nobody has to wait for a model. How
// often an answer is asked for counts in its last tenth alone, and in this process:
// one that nobody wants any more by then is not made again, however many wanted it once.
type hotAnswers struct {
	reads int           // in the last part of an answer's life, after which it is hot; 0: none ever is
	part  time.Duration // of its life: the tenth

	mu    sync.Mutex
	known map[string]*heat // by key
	swept time.Time
}

// heat is how often one answer was asked for.
type heat struct {
	saved, until time.Time
	reads        int
}

const (
	hotPart  = 10     // the last tenth
	hotMost  = 10_000 // answers that are counted at a time
	hotSweep = time.Second
)

func newHotAnswers(reads int) *hotAnswers {
	return &hotAnswers{reads: reads, part: hotPart, known: map[string]*heat{}}
}

// read counts a reader, and reports whether it is the one who makes the answer hot.
func (h *hotAnswers) read(e cache.Entry, now time.Time) bool {
	if h.reads <= 0 || e.FreshUntil.Sub(now) > e.FreshUntil.Sub(e.Saved)/h.part {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sweep(now)
	one := h.known[e.Key]
	if one == nil || !one.saved.Equal(e.Saved) {
		if one == nil && len(h.known) >= hotMost {
			return false
		}
		one = &heat{saved: e.Saved, until: e.FreshUntil}
		h.known[e.Key] = one
	}
	one.reads++
	return one.reads == h.reads
}

// unasked takes back that an answer is asked for again, where that could not be said: as
// many readers once more say it again.
func (h *hotAnswers) unasked(e cache.Entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if one := h.known[e.Key]; one != nil && one.saved.Equal(e.Saved) {
		one.reads = 0
	}
}

// sweep forgets answers whose time is over.
func (h *hotAnswers) sweep(now time.Time) {
	if now.Sub(h.swept) < hotSweep {
		return
	}
	h.swept = now
	for key, one := range h.known {
		if now.After(one.until) {
			delete(h.known, key)
		}
	}
}

// again has an answer made again that is hot. Nobody waits for that; the worker does it
// once, whoever else asks, and within the budget. The question is at hand here alone:
// what is stored is its answer.
func (d *answerDesk) again(q question, result cache.Result) {
	if d.hot.read(result.Entry, result.Now) {
		d.askAgain(q, result.Entry)
	}
}

// askAgain asks for the next of an answer, unless there is to be none.
func (d *answerDesk) askAgain(q question, e cache.Entry) {
	a, err := cache.ReadAnswer(e.Body)
	if err != nil || !a.Lasting() || a.Brought {
		return // it stands for a moment, for those who waited, or the model has not made it
	}
	if asked, err := d.event(&q); err == nil { // one that is too long to be asked has no answer
		d.server.refreshes.send(d.view, e, againRequest(asked, e), func() { d.hot.unasked(e) })
	}
}

// againRequest is the event that makes a worker ask a question again, provided that the
// answer is still the one that was seen.
func againRequest(asked event.Event, e cache.Entry) event.Event {
	data := slices.Clone(asked.Data[:len(asked.Data)-1]) // an object with members
	data = append(data, `,"instead":"`+e.Version.String()+`","saved":"`...)
	data = strconv.AppendInt(data, e.Saved.UnixMilli(), 10)
	data = append(data, `"}`...)
	asked.Data = data
	return asked
}
