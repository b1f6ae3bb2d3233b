package cache

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mythiccache/cache/view"
)

// near keeps entries that are read often in memory, and with them what their views'
// keys hold. Redis tells of each key that is written (client tracking in its
// broadcasting form, see near_link.go), and it is dropped.
//
// How an entry that has just become old is kept out:
//
//  1. a reader leaves a mark at the key, and asks Redis;
//  2. the key is written, and Redis's word of that comes, before or after the answer:
//     it finds the mark and strikes it out;
//  3. the reader has the old value, and its mark is struck out: it is not kept.
//
// Had the word not come yet at 3, it would come after it, and drop what was kept. It
// comes once Redis has run the write, a moment after the writer may know of it: for
// so long, some fractions of a millisecond, an old entry may still be a Hit here.
//
// An era begins with the first sign of life on a new link and ends with its loss. What
// was read in an era from the Redis at the link's other end counts as a Hit in that era
// alone, while the store's connections lead there too, and only while a sign of life
// is not older than aliveFor: what Redis had to tell before it was asked for that sign
// has been told. (A process that was stopped and goes on finds its last one too old,
// and so asks Redis, whatever still waits in the link.)
//
// Afterwards it is a spare, for who would else have nothing, and the next era does not
// take it away: that Redis is heard again does not mean that all who read are answered
// again. It goes when Redis tells that it was written, when a reader finds that Redis
// has something newer or nothing, and it is given for no longer than StaleFor after the
// last sign of life of the era in which it was read.
type near struct {
	keys  keys
	most  int64 // bytes, of one shard
	seed  maphash.Seed
	began time.Time // what the moments below count from

	era    atomic.Pointer[era] // nil while there is no link
	proven atomic.Int64        // when the last sign of life was asked for that came

	views  map[string]*nearView // never changes
	shards [nearShards]nearShard

	hits, passed, struck atomic.Uint64
	lag                  prometheus.Histogram
	clock                func() time.Time // of Redis
	staleness            prometheus.Histogram
}

// era is one life of the link.
type era struct {
	runID  string       // of the Redis at its other end
	proven atomic.Int64 // when its last sign of life was asked for
}

const (
	nearShards = 16
	aliveFor   = time.Second
)

// nearView is what a view's key holds.
type nearView struct {
	known  atomic.Pointer[knownView] // nil: nobody has read it since it was written
	mu     sync.Mutex
	writes uint64 // of the key
}

type knownView struct {
	viewKey
	in *era
}

func newNear(names keys, views []*view.View, bytes int64, clock func() time.Time) *near {
	n := &near{
		keys: names, most: max(bytes/nearShards, 1), seed: maphash.MakeSeed(), began: time.Now(),
		views: map[string]*nearView{}, lag: newLag(), clock: clock, staleness: newNearStaleness(),
	}
	for _, v := range views {
		n.views[v.Name] = &nearView{}
	}
	for i := range n.shards {
		n.shards[i].init(n.most)
	}
	return n
}

func (n *near) shard(k waitKey) *nearShard {
	return &n.shards[maphash.String(n.seed, k.key)%nearShards]
}

// find returns what is kept of a key and of its view; no entry where either is missing.
func (n *near) find(name, key string) (*kept, *knownView) {
	v := n.views[name]
	if v == nil {
		return nil, nil
	}
	whole := v.known.Load()
	if whole == nil {
		return nil, nil
	}
	k := waitKey{name, key}
	return n.shard(k).use(k), whole
}

// alive reports whether what was read in both eras may be given as fresh.
func (n *near) alive(found *kept, whole *knownView, runID string) bool {
	now := n.era.Load()
	return now != nil && found.in == now && whole.in == now && now.runID == runID && n.silent() < aliveFor
}

// silent returns how long ago the last sign of life was asked for that came.
func (n *near) silent() time.Duration { return n.since(&n.proven) }

// linked reports whether Redis tells of what is written.
func (n *near) linked() bool { return n.era.Load() != nil && n.silent() < aliveFor }

// unproven returns how long ago an entry was last known to be what Redis has.
func (n *near) unproven(found *kept) time.Duration { return n.since(&found.in.proven) }

func (n *near) since(moment *atomic.Int64) time.Duration {
	return time.Since(n.began) - time.Duration(moment.Load())
}

// mark is left by who reads a key from Redis.
type mark struct {
	in     *era // nil: there was no link, and nothing will be kept
	key    *struckOut
	writes uint64 // of the view's key
}

// begin leaves a mark. It must come before the question to Redis.
func (n *near) begin(k waitKey) mark {
	v := n.views[k.view]
	m := mark{in: n.era.Load()}
	if m.in == nil || v == nil {
		return mark{}
	}
	v.mu.Lock()
	m.writes = v.writes
	v.mu.Unlock()
	m.key = n.shard(k).begin(k)
	return m
}

// end takes the mark away, and keeps what was read unless it was struck out.
func (n *near) end(k waitKey, m mark, l *look, err error) {
	// Of what another Redis holds than the one that the link leads to nobody would tell.
	told := m.in != nil && err == nil && l.known && signedBy(l.whose, m.in.runID)
	if told {
		n.measure(k, l, m.in)
	}
	if err == nil {
		n.compare(k, m, l, told)
	}
	switch {
	case m.in == nil:
		return
	case !told:
		n.shard(k).end(k, m.key, nil)
		return
	}
	v := n.views[k.view]
	v.mu.Lock()
	if v.writes == m.writes && n.era.Load() == m.in {
		v.known.Store(&knownView{viewKey: l.whole, in: m.in})
	}
	v.mu.Unlock()
	if l.err != nil || l.header.state == stateFence {
		n.shard(k).end(k, m.key, nil)
		return
	}
	k.key = strings.Clone(k.key) // it may be a part of a whole request, which nobody has counted
	found := &kept{at: k, entry: l.entry, run: l.header.run, in: m.in}
	found.entry.Key = k.key
	found.bytes = found.size()
	if n.era.Load() != m.in || found.bytes > n.most {
		found = nil
	}
	n.shard(k).end(k, m.key, found)
}

// compare lets what is kept go where it turns out to be older than what Redis has: once
// somebody has been given that, nobody is given this, however it stands with the link.
func (n *near) compare(k waitKey, m mark, l *look, told bool) {
	v := n.views[k.view]
	if v == nil {
		return
	}
	now := n.era.Load()
	v.mu.Lock()
	old := v.known.Load()
	switch ours := old != nil && now != nil && old.in == now; {
	case old == nil:
	case ours && told && m.in == now: // of what is newer the link tells
	case !l.known:
		v.known.Store(nil)
	case l.whole.fence.Compare(old.fence) > 0, !ours && l.whole.fence == old.fence: // else it was read before that
		v.known.Store(&knownView{viewKey: l.whole})
	}
	v.mu.Unlock()
	n.shard(k).outgrow(k, l)
}

// written drops what is kept of a name in Redis.
func (n *near) written(name string) {
	n.struck.Add(1)
	rest, ok := strings.CutPrefix(name, n.keys.prefix)
	if !ok {
		return
	}
	if of, ok := strings.CutPrefix(name, n.keys.view("")); ok {
		if v := n.views[of]; v != nil {
			v.drop()
			return
		}
	}
	if of, key, ok := strings.Cut(rest, ":{"); ok {
		k := waitKey{of, strings.TrimSuffix(key, "}")}
		n.shard(k).drop(k, n.clock)
	}
}

// announced drops what is kept of a key before anybody is answered with what was just
// announced of it: it may be newer, and Redis's own word of that not have come yet.
func (n *near) announced(k waitKey) { n.shard(k).drop(k, n.clock) }

func (v *nearView) drop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.writes++
	v.known.Store(nil)
}

// forget drops everything: Redis was flushed.
func (n *near) forget() {
	for _, v := range n.views {
		v.drop()
	}
	for i := range n.shards {
		n.shards[i].clear()
	}
}

// lose ends an era: nothing is fresh, and no mark counts. Its entries stay, as spares.
func (n *near) lose() { n.era.Store(nil) }

// open begins an era. Whoever began to read in the one before keeps nothing: he may
// have missed what was written in between, and be the last to know.
func (n *near) open(runID string) {
	for _, v := range n.views {
		v.mu.Lock()
		v.writes++
		v.mu.Unlock()
	}
	for i := range n.shards {
		n.shards[i].strike()
	}
	begun := &era{runID: runID}
	begun.proven.Store(n.proven.Load())
	n.era.Store(begun)
}

// heard notes a sign of life that was asked for at that moment.
func (n *near) heard(asked time.Duration) {
	n.proven.Store(int64(asked))
	if now := n.era.Load(); now != nil {
		now.proven.Store(int64(asked))
	}
	n.lag.Observe(n.silent().Seconds())
}

// held returns how much is kept.
func (n *near) held() (entries int, bytes int64) {
	for i := range n.shards {
		e, b := n.shards[i].held()
		entries += e
		bytes += b
	}
	return entries, bytes
}
