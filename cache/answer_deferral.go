package cache

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// deferredFor is how much longer than a question is left alone it is remembered how often
// that was. It is longer than the event of one waits that comes back.
const deferredFor = 5 * time.Minute

// Deferral is for how long one question is left alone, since the provider had no time for
// it. All processes heed it, whoever asks, and however often.
type Deferral struct {
	Times int           // that the provider said so, in a row; 0: it did not
	Since time.Duration // how long ago the last time is
	Left  time.Duration // until it may be asked again
}

// aiDeferred names the deferral of a question.
func (k keys) aiDeferred(key string) string { return k.prefix + "ai_deferred:{" + key + "}" }

// Defer notes that the provider had no time for a question, for the how manieth time in a
// row, and for how long it is to be left alone. Settle forgets it.
func (a *Answers) Defer(ctx context.Context, key string, times int, left time.Duration) error {
	now := a.store.peer.now()
	text := fmt.Sprintf("%d %d %d", times, now.UnixMilli(), now.Add(left).UnixMilli())
	return a.write(ctx, "note a question put off", func(p redis.Pipeliner) {
		p.Set(ctx, a.store.keys.aiDeferred(key), text, left+deferredFor)
	})
}

// Deferred returns the deferral of a question, which Claim tells, too.
func (a *Answers) Deferred(ctx context.Context, key string) (Deferral, error) {
	var noted *redis.StringCmd
	err := a.write(ctx, "look for a question put off", func(p redis.Pipeliner) { noted = p.Get(ctx, a.store.keys.aiDeferred(key)) })
	if err != nil {
		return Deferral{}, err
	}
	return deferralOf(noted.Val(), a.store.peer.now()), nil
}

// deferralOf reads what Defer wrote.
func deferralOf(text string, now time.Time) Deferral {
	var times int
	var at, until int64
	if n, err := fmt.Sscanf(text, "%d %d %d", &times, &at, &until); n < 3 || err != nil {
		return Deferral{}
	}
	return Deferral{Times: times, Since: max(now.Sub(time.UnixMilli(at)), 0), Left: max(time.UnixMilli(until).Sub(now), 0)}
}
