package cache

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache/view"
)

// LeaseAll takes the leases of many keys of a view, in one round trip, and returns
// those that it got, in the order of the keys: others have the rest. After an
// error it holds some perhaps, which end by themselves.
func (s *Store) LeaseAll(ctx context.Context, v *view.View, keys []string, life time.Duration) ([]Lease, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	started := time.Now()
	tokens := make([]byte, len(keys)*tokenLen)
	_, _ = rand.Read(tokens) // never fails, by its promise
	token := func(i int) string { return string(tokens[i*tokenLen : (i+1)*tokenLen]) }
	replies := make([]*redis.Cmd, len(keys))
	err := s.pipeline(ctx, func(p redis.Pipeliner) {
		for i, key := range keys {
			replies[i] = call(ctx, p, &s.scripts.lease, []string{s.keys.entry(v.Name, key)}, token(i), life.Milliseconds(), s.fenceTTL.Milliseconds())
		}
	})
	if err != nil {
		return nil, fmt.Errorf("lease %d keys of %s: %w", len(keys), v.Name, err)
	}
	received := time.Now()
	got := make([]Lease, 0, len(keys))
	for i, reply := range replies {
		r := replyOf(reply)
		granted := r.int() == 1
		l := Lease{View: v, Key: keys[i], token: token(i), received: received}
		l.Taken, l.Until, l.runID = time.UnixMicro(r.int()), time.UnixMilli(r.int()), r.text()
		if r.err != nil {
			return nil, fmt.Errorf("lease %d keys of %s: %w", len(keys), v.Name, r.err)
		}
		if granted {
			got = append(got, l)
		}
	}
	took := s.observe("lease_all", started)
	s.log.Debug().Str("view", v.Name).Int("keys", len(keys)).Int("granted", len(got)).Dur("took", took).Msg("cache leases")
	return got, nil
}
