package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache/version"
	"mythiccache/cache/view"
)

// Inspection is what an operator wants to know of a key.
type Inspection struct {
	Name      string // in Redis
	State     string // absent, unknown (not an entry of this release), value, negative, fence
	Status    Status // what a reader would find
	Why       string //
	Entry     Entry  // Body included
	Version   version.Version
	Holder    string          // who holds the lease, empty: nobody
	Deadline  time.Time       // until when
	NotBefore time.Time       // nobody is given the lease before, since the key was filled just now; zero: no matter
	TTL       time.Duration   // until the key is gone; negative: it would stay, which is wrong
	Size      int             // bytes
	Fenced    bool            // the view has a key
	Fence     version.Version // the whole view's
	Confirmed bool            // for the Redis that answers
	Now       time.Time       // by the clock of Redis
}

// Inspect looks at a key without counting it as read.
func (s *Store) Inspect(ctx context.Context, v *view.View, key string) (Inspection, error) {
	in := Inspection{Name: s.keys.entry(v.Name, key), State: "unknown"}
	var entry, fence *redis.StringCmd
	var ttl *redis.DurationCmd
	err := s.pipeline(ctx, func(p redis.Pipeliner) {
		entry, ttl, fence = p.Get(ctx, in.Name), p.PTTL(ctx, in.Name), p.Get(ctx, s.keys.view(v.Name))
	})
	if err != nil && !redis.HasErrorPrefix(err, "WRONGTYPE") {
		return Inspection{}, fmt.Errorf("inspect %s: %w", v.Name, err)
	}
	in.Now = s.peer.now()
	whole, known, err := decodeViewReply(fence)
	if err != nil {
		return Inspection{}, fmt.Errorf("inspect %s: %w", v.Name, err)
	}
	in.Fenced, in.Fence, in.Confirmed = known, whole.fence, known && whole.confirmed == s.RunID()
	r := Result{Now: in.Now}
	if err := s.judge(&r, Query{View: v, Key: key}, entry, fence); err != nil {
		return Inspection{}, fmt.Errorf("inspect %s: %w", v.Name, err)
	}
	in.Status, in.Why = r.Status, r.Why
	in.TTL, in.Size = ttl.Val(), len(entry.Val())
	if errors.Is(entry.Err(), redis.Nil) {
		in.State, in.TTL = "absent", 0
		return in, nil
	}
	if e, h, err := decodeEntryReply(v.Name, key, entry); err == nil {
		in.Entry, in.Version, in.Deadline = e, h.version, h.deadline
		in.State = map[state]string{stateValue: "value", stateNegative: "negative", stateFence: "fence"}[h.state]
		switch {
		case h.token == "" || !h.deadline.After(in.Now):
		case h.token == pauseToken:
			in.NotBefore = h.deadline
		default:
			in.Holder = holder(h.token)
		}
	}
	return in, nil
}
