package cache_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

// inHand asks until a reader holds admissions of a limit that were taken ahead.
func inHand(t *testing.T, r *cache.Reader, l *cache.Limit) {
	t.Helper()
	testserver.Eventually(t, "something in hand", func() error {
		if admit(t, r, l); r.Ahead(l) < 2 {
			return errWrong
		}
		return nil
	})
}

// TestARequestThatIsAskedAgainCountsOnce has one request fail several times, and be answered
// at last, refused, or given up by the client, for a caller who has admissions in hand.
func TestARequestThatIsAskedAgainCountsOnce(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	failing := lose(s)
	var refusing, slow atomic.Bool
	s.Client().AddHook(&meddler{func(context.Context, string) error {
		if slow.Load() {
			<-time.After(300 * time.Millisecond) // longer than the client's patience
		}
		if refusing.Load() {
			return redis.TxFailedErr // as good as any other that Redis says
		}
		return nil
	}})
	r := newReader(t, s, 1<<20) // which hears of Redis all the while
	for name, c := range map[string]struct {
		fails         int64
		refused, soon bool
		slow          bool
		patience,
		costs int
	}{
		"answered at once":          {fails: 0, costs: 1},
		"answered at last":          {fails: 20, costs: 1},
		"refused":                   {fails: all, refused: true},
		"not answered soon":         {fails: all, soon: true},
		"hung up between two":       {fails: all, patience: 100, costs: 1},
		"hung up while it is asked": {fails: all, refused: true, slow: true, patience: 100, costs: 1},
	} {
		limit := &cache.Limit{Caller: name, Rule: "r", Count: 1000, Per: 1000 * time.Hour}
		testserver.Eventually(t, name, func() error {
			begun := time.Now()
			limit.Caller += "x" // who has nothing in hand that is nearly over
			inHand(t, r, limit)
			before := r.Ahead(limit)
			ctx, cancel := t.Context(), func() {}
			if c.patience > 0 {
				ctx, cancel = context.WithTimeout(ctx, time.Duration(c.patience)*time.Millisecond)
			}
			defer cancel()
			slow.Store(c.slow)
			if refusing.Store(c.refused); !c.refused {
				failing.Store(c.fails)
			}
			q := cache.Query{View: books(), Key: "absent", Limit: limit}
			var err error
			if c.soon {
				_, ok := r.Soon(ctx, q)
				if !ok {
					err = errLost
				}
			} else {
				_, err = r.Read(ctx, q)
			}
			failing.Store(0)
			refusing.Store(false)
			slow.Store(false)
			if (err == nil) != (c.fails < all) {
				t.Errorf("%s: %v", name, err)
			}
			after := r.Ahead(limit)
			if time.Since(begun) > 900*time.Millisecond { // what was in hand may be over
				return errWrong
			}
			if after != before-c.costs {
				t.Errorf("%s: %d in hand before, %d after", name, before, after)
			}
			return nil
		})
	}
}

// deafness has Redis run what it is sent, and its replies lost, however often it is asked.
type deafness struct{ left atomic.Int64 }

func (d *deafness) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (d *deafness) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (d *deafness) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		for _, cmd := range cmds {
			if cmd.Name() == "mget" && d.left.Load() > 0 {
				d.left.Add(-1)
				return errLost
			}
		}
		return err
	}
}

// TestTheLimiterIsNotAskedAgainAndAgain has the limiter run and nobody hear what it says. The
// batch is sent twice at once, and each time counts; after that, this process's count does.
func TestTheLimiterIsNotAskedAgainAndAgain(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	deaf := &deafness{}
	s.Client().AddHook(deaf)
	r := newReader(t, s, 1<<20)
	limit := cache.Limit{Caller: "me", Rule: "r", Count: 9, Per: 9 * time.Hour} // none of it is taken ahead
	deaf.left.Store(20)
	got := readBy(t, r, cache.Query{View: books(), Key: "absent", Limit: &limit})
	if a := got.Admission; !a.Allowed || a.Remaining != 8 || a.Alone || r.Alone() != 1 || deaf.left.Load() != 0 {
		t.Errorf("%+v, %d admitted by its own count", a, r.Alone())
	}
	if a, err := s.Admit(t.Context(), limit); err != nil || a.Remaining != 9-2-1 {
		t.Errorf("at Redis: %+v, %v", a, err)
	}
	for deaf.left.Store(0); r.Alone() < 9; {
		deaf.left.Store(2)
		readBy(t, r, cache.Query{View: books(), Key: "absent", Limit: &limit})
	}
	deaf.left.Store(2)
	if got := readBy(t, r, cache.Query{View: books(), Key: "absent", Limit: &limit}); got.Why != cache.WhyLimited || got.Admission.RetryAfter <= 0 {
		t.Errorf("by its own count one too many: %s, %+v", summary(got), got.Admission)
	}
}
