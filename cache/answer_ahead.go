package cache

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// aiAhead names that an answer was asked for a moment ago before anybody did. It stands
// beside the answer's line.
func (k keys) aiAhead(key string) string { return k.prefix + "ai_line:{" + key + "}:ahead" }

// NoteAhead notes for some time that answers were asked for before anybody did. Call it
// once their questions are in the stream: a question that is asked twice costs little, and
// one that was only noted is lost.
func (a *Answers) NoteAhead(ctx context.Context, life time.Duration, keys ...string) error {
	return a.write(ctx, "note what was asked ahead", func(p redis.Pipeliner) {
		for _, key := range keys {
			p.Set(ctx, a.store.keys.aiAhead(key), "", max(life, time.Millisecond))
		}
	})
}

// NoteAheadLess ends the note sooner: after so long, where it is there and would stay for
// longer.
func (a *Answers) NoteAheadLess(ctx context.Context, life time.Duration, key string) error {
	return a.write(ctx, "note what was asked ahead", func(p redis.Pipeliner) {
		p.Do(ctx, "PEXPIRE", a.store.keys.aiAhead(key), max(life, time.Millisecond).Milliseconds(), "LT")
	})
}

// Ahead reports whether an answer was asked for a moment ago before anybody did.
func (a *Answers) Ahead(ctx context.Context, key string) (bool, error) {
	var noted *redis.IntCmd
	err := a.write(ctx, "look for what was asked ahead", func(p redis.Pipeliner) { noted = p.Exists(ctx, a.store.keys.aiAhead(key)) })
	return err == nil && noted.Val() == 1, err
}
