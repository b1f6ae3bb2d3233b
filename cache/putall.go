package cache

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Made is a fill and the lease that it was made under.
type Made struct {
	Lease Lease
	Fill  Fill
}

// bytesPerScript bounds what one script is handed, beside keysPerScript.
const bytesPerScript = 1 << 20

// PutAll does for many fills what Put does for one, in one round trip, or two
// where somebody listens for announcements. It returns what became of each, in
// the order in which they were given: Accepted or Refused. A fill without lease
// or version fails all of them, and nothing is put. After another error some may
// have been put and some not; putting all again does no harm.
func (s *Store) PutAll(ctx context.Context, all []Made) ([]Filled, error) {
	if len(all) == 0 {
		return nil, nil
	}
	started := time.Now()
	puts := make([]put, len(all))
	for i, made := range all {
		var err error
		if puts[i], err = s.prepare(made); err != nil {
			return nil, fmt.Errorf("put entry %d of %d: %w", i+1, len(all), err)
		}
	}
	listeners, err := s.putAll(ctx, puts)
	if err != nil {
		return nil, fmt.Errorf("put %d entries: %w", len(all), err)
	}
	took := s.observe("put_all", started)
	filled := make([]Filled, len(puts))
	for i := range puts {
		filled[i] = puts[i].filled()
		s.notePut(filled[i], len(puts[i].value), took)
	}
	// Who begins to listen only now asks later than all of these answer: see Answers.
	if listeners > 0 {
		s.announceAll(ctx, filled)
	}
	return filled, nil
}

// put is one entry on its way.
type put struct {
	lease Lease
	entry Entry
	value []byte        // the entry, header and all
	keep  time.Duration // how long the key lives
	at    time.Time     // when it was judged, by the clock of Redis
	why   string        // it was refused; empty where it was not
}

// prepare makes the entry of a fill.
func (s *Store) prepare(made Made) (put, error) {
	l := made.Lease
	e, ttl, err := l.entry(made.Fill)
	if err != nil {
		return put{}, err
	}
	value, err := appendEntry(make([]byte, 0, headerLen+len(e.Body)+len(e.Owner)+64), e, runOf(l.runID))
	if err != nil {
		return put{}, err
	}
	if made.Fill.Pause > 0 {
		pause(value, e.Saved.Add(made.Fill.Pause))
	}
	keep := ttl
	if !e.Negative {
		e.ETag = etag(value[len(value)-len(e.Body)-etagLen : len(value)-len(e.Body)])
		keep += s.graceOf(l.View)
	}
	return put{lease: l, entry: e, value: value, keep: keep}, nil
}

// filled is what there is to announce.
func (p *put) filled() Filled {
	f := Filled{Entry: p.entry, Outcome: Accepted, Taken: p.lease.Taken, At: p.at}
	if p.why != "" {
		f.Outcome, f.Reason = Refused, ErrRefused.Error()+": "+p.why
	}
	return f
}

// putAll runs put_all.lua over batches, and then compares with the views' fences,
// as put does and for its reasons. It returns how many listen for announcements.
func (s *Store) putAll(ctx context.Context, puts []put) (listeners int64, err error) {
	batches := batchesOf(puts)
	replies := make([]*redis.Cmd, len(batches))
	fences := map[string]*redis.StringCmd{}
	var heard *redis.MapStringIntCmd
	err = s.pipeline(ctx, func(p redis.Pipeliner) {
		// One script for many keys needs them in one slot; on a cluster this is the
		// place that groups them by slot.
		for i, batch := range batches {
			replies[i] = s.addPutAll(ctx, p, batch)
		}
		clear(fences)
		for i := range puts {
			if name := puts[i].entry.View; fences[name] == nil {
				fences[name] = p.Get(ctx, s.keys.view(name))
			}
		}
		heard = p.PubSubNumSub(ctx, s.keys.filled())
	})
	if err != nil && !redis.HasErrorPrefix(err, "WRONGTYPE") {
		return 0, err
	}
	for i, batch := range batches {
		if err := readPutAll(replies[i], batch); err != nil {
			return 0, err
		}
	}
	for i := range puts {
		if err := puts[i].compare(fences[puts[i].entry.View]); err != nil {
			return 0, err
		}
	}
	return heard.Val()[s.keys.filled()], nil
}

// compare refuses an entry that the view's own fence is above.
func (p *put) compare(fence *redis.StringCmd) error {
	whole, known, err := decodeViewReply(fence)
	switch {
	case err != nil:
		return err
	case p.why != "":
	case !known:
		p.why = whyNoView
	case p.entry.Version.Compare(whole.fence) < 0:
		p.why = whyView
	}
	return nil
}

// batchesOf cuts into what one script does: leases that one Redis gave, and no
// more than it does in a short time.
func batchesOf(puts []put) [][]put {
	var batches [][]put
	begin, size := 0, 0
	for i := range puts {
		if i > begin && (i-begin == keysPerScript || size+len(puts[i].value) > bytesPerScript || puts[i].lease.runID != puts[begin].lease.runID) {
			batches = append(batches, puts[begin:i])
			begin, size = i, 0
		}
		size += len(puts[i].value)
	}
	return append(batches, puts[begin:])
}

func (s *Store) addPutAll(ctx context.Context, p redis.Pipeliner, batch []put) *redis.Cmd {
	names := make([]string, len(batch))
	args := make([]any, 0, 1+3*len(batch))
	args = append(args, batch[0].lease.runID)
	for i := range batch {
		one := &batch[i]
		names[i] = s.keys.entry(one.entry.View, one.entry.Key)
		args = append(args, one.lease.token, one.value, max(one.keep.Milliseconds(), 1))
	}
	return call(ctx, p, &s.scripts.putAll, names, args...)
}

// readPutAll notes when a batch was judged and which of it were refused.
func readPutAll(cmd *redis.Cmd, batch []put) error {
	r := replyOf(cmd)
	at := time.UnixMicro(r.int())
	for i := range batch {
		batch[i].at = at
	}
	for r.err == nil && len(r.values) > 0 {
		i, why := r.int(), r.text()
		if r.err == nil && (i < 1 || i > int64(len(batch))) {
			return fmt.Errorf("a script refused entry %d of %d", i, len(batch))
		}
		if r.err == nil {
			batch[i-1].why = why
		}
	}
	return r.err
}

// announceAll tells those who wait. That one of them does not hear it is no
// failure of what was decided: it will ask again.
func (s *Store) announceAll(ctx context.Context, all []Filled) {
	p := s.client.Pipeline()
	for _, f := range all {
		message, err := f.append(make([]byte, 0, 2*headerLen+len(f.Entry.Body)+len(f.Entry.Owner)+len(f.Reason)+64))
		if err != nil {
			s.log.Warn().Err(err).Str("view", f.Entry.View).Msg("announcement failed; those who wait will ask again")
			continue
		}
		p.Publish(ctx, s.keys.filled(), message)
	}
	if _, err := p.Exec(ctx); err != nil {
		s.log.Warn().Err(err).Int("entries", len(all)).Msg("announcements failed; those who wait will ask again")
	}
}
