package api

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"mythiccache/cache"
	"mythiccache/cache/view"
)

// watches are those in this process who watch entries, by stream or by poll. However
// many there are, they share one subscription and, for each entry, one topic:
//
//  1. A request finds its entry as any other does, and joins the entry's topic. A
//     topic that is new is looked at once more, for what changed between the two.
//  2. Whatever is announced about the entry is made ready once and told to all of
//     the topic. What is older than what they know is not: announcements and looks
//     may cross.
//  3. A change that is not announced is found by looking: at everything when the
//     subscription was lost, at a view's entries when its fence has risen, at each
//     entry now and then. An entry that is gone or too old is asked for, as by a
//     request that misses; its fill is announced.
//
// Nobody queues: a watcher keeps the newest state that it has not been sent, and no
// other.
type watches struct {
	store     *cache.Store
	waiters   *cache.Waiters
	publisher Publisher
	views     []*view.View // that can be watched
	auth      *authenticator
	log       zerolog.Logger
	metrics   *watchMetrics
	limit     int // of watchers
	perCaller int
	times     watchTimes

	stopping chan struct{}
	wake     chan struct{} // something is to be looked at, or nobody is left
	group    sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	looking  bool // the goroutine that looks is there
	topics   map[topicKey]*topic
	unseen   map[*topic]struct{} // to be looked at
	watching int
	callers  map[string]int
}

// watchTimes are how long things take.
type watchTimes struct {
	heartbeat time.Duration // between two signs of life to a stream
	patience  time.Duration // for a client that does not read
	life      time.Duration // of a stream, at most
	mark      time.Duration // between two looks at the views' own keys
	look      time.Duration // between two looks at an entry
	ask       time.Duration // between two requests to fill an entry
}

func usualWatchTimes() watchTimes {
	return watchTimes{
		heartbeat: 15 * time.Second, patience: 5 * time.Second, life: time.Hour,
		mark: time.Second, look: 30 * time.Second, ask: 5 * time.Second,
	}
}

// watcher is who watches an entry. Neither method blocks.
type watcher interface {
	hear(c *change)
	end(why string) // once, when the server stops
}

func newWatches(s *Server, o Options, registry prometheus.Registerer) (*watches, error) {
	if o.MaxWatchers < 0 || o.MaxPerCaller < 0 {
		return nil, fmt.Errorf("neither MaxWatchers (%d) nor MaxPerCaller (%d) may be negative", o.MaxWatchers, o.MaxPerCaller)
	}
	metrics, err := newWatchMetrics(registry)
	if err != nil {
		return nil, err
	}
	var views []*view.View
	for _, v := range o.Views.All() {
		if v.HTTP != nil && v.HTTP.Watch != "" {
			views = append(views, v)
		}
	}
	return &watches{
		store: o.Store, views: views, waiters: o.Waiters, publisher: o.Publisher, auth: s.auth, log: o.Log, metrics: metrics,
		limit: cmp.Or(o.MaxWatchers, 10_000), perCaller: cmp.Or(o.MaxPerCaller, 20), times: usualWatchTimes(),
		stopping: make(chan struct{}), wake: make(chan struct{}, 1),
		topics: map[topicKey]*topic{}, unseen: map[*topic]struct{}{}, callers: map[string]int{},
	}, nil
}

// join adds a watcher of an entry that it has just found, and has it hear of what the
// entry is by now. Its errors are problems.
func (w *watches) join(v *view.View, e cache.Entry, at time.Time, c caller, one watcher) (*topic, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed:
		return nil, problem(kindBusy, "the service is stopping; another process will do").later(time.Second)
	case w.watching >= w.limit:
		return nil, problem(kindBusy, "too many are watching already").later(watchLater)
	case c.limited != "" && w.callers[c.limited] >= w.perCaller:
		return nil, problem(kindLimited, fmt.Sprintf("at most %d may be watched at once", w.perCaller)).later(watchLater)
	}
	w.watching++
	w.group.Add(1)
	if c.limited != "" {
		w.callers[c.limited]++
	}
	w.metrics.joined(one)
	t := w.topic(v, e.Key)
	t.learn(e, at)
	t.watchers[one] = struct{}{}
	one.hear(t.newest)
	return t, nil
}

// watchLater is when to try again where too many watch.
const watchLater = 10 * time.Second

// leave ends what join began.
func (w *watches) leave(t *topic, c caller, one watcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.group.Done()
	delete(t.watchers, one)
	if len(t.watchers) == 0 {
		t.watch.Cancel()
		delete(w.topics, t.on)
		delete(w.unseen, t)
	}
	w.watching--
	if n := w.callers[c.limited]; n > 1 {
		w.callers[c.limited] = n - 1
	} else {
		delete(w.callers, c.limited)
	}
	w.metrics.left(one)
	if w.watching == 0 {
		w.rouse()
	}
}

// topic returns the topic of an entry. It is called with the lock held.
func (w *watches) topic(v *view.View, key string) *topic {
	on := topicKey{v.Name, key}
	if t := w.topics[on]; t != nil {
		return t
	}
	t := &topic{on: on, view: v, watchers: map[watcher]struct{}{}}
	t.watch = w.waiters.Watch(v.Name, key, func(f cache.Filled) { w.announced(t, f) })
	w.topics[on] = t
	w.unseen[t] = struct{}{}
	if !w.looking {
		w.looking = true
		w.group.Go(w.look)
	}
	w.rouse()
	return t
}

// announced takes in an announcement. One that the store refused is told as well: it
// was read later than all that the watchers know, or it is not told for its version.
func (w *watches) announced(t *topic, f cache.Filled) {
	if f.Outcome == cache.Failed {
		return // the look will ask again
	}
	w.tell(t, f.Entry, f.At)
}

// tell tells the watchers of a topic what its entry is.
func (w *watches) tell(t *topic, e cache.Entry, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !t.learn(e, at) {
		return
	}
	for one := range t.watchers {
		one.hear(t.newest)
	}
}

// rouse wakes the goroutine that looks.
func (w *watches) rouse() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// stop ends all watches and lets no more begin. Streams are told to come back, to
// whichever process is there then.
func (w *watches) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	w.closed = true
	close(w.stopping)
	for _, t := range w.topics {
		for one := range t.watchers {
			one.end(endStopping)
		}
	}
}

// wait waits until nothing is left of what stop has ended, or the context ends.
func (w *watches) wait(ctx context.Context) error {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		w.group.Wait()
	}()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("watchers were still there: %w", ctx.Err())
	}
}

// count returns how many watch.
func (w *watches) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.watching
}
