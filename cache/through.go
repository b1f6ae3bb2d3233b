package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"mythiccache/cache/version"
	"mythiccache/cache/view"
)

// ErrNotFound says that there is no such thing. A function that Through calls
// wraps it to say so; where ThroughOptions.NotFound is set, that is kept, and
// comes back without what was wrapped around it.
var ErrNotFound = errors.New("not found")

// ThroughOptions says what a Through keeps, and how. View and TTL are needed.
type ThroughOptions[T any] struct {
	// View names the results, in all processes: one name for one type and one
	// meaning of the key. It is of small letters, digits and underscores. Names
	// of the views file are no concern here. Give it another name when T changes
	// so that what was kept before would be misread.
	View string
	// TTL is how long a result is kept, less up to a twentieth, so that what was
	// made together does not expire together.
	TTL time.Duration
	// NotFound is how long ErrNotFound is kept; 0: not at all.
	NotFound time.Duration
	// CallFor is what a call may take: a deadline of its context. Others wait for
	// that long, and LeaseFor, before they call the function themselves; 1 minute.
	CallFor time.Duration
	// LeaseFor is how long a process that died in a call keeps the others from
	// calling; one that lives renews its lease; 10 s, and at least 30 ms.
	LeaseFor time.Duration
	// RedisFor is how long to wait for Redis, each time; 1 s. A call whose context
	// ends returns within that time, too, where Redis does not answer.
	RedisFor time.Duration
	// Encode and Decode turn results into bytes and back; JSON. They are called
	// by many goroutines; Decode keeps no part of the bytes it is given.
	Encode func(T) ([]byte, error)
	Decode func([]byte) (T, error)
	// OnError hears of what Do does not return: that Redis could not be used, or
	// that what it held could not be decoded. It is called by whoever called Do,
	// and must not wait. Without Redis it hears of it twice a second and for each
	// result that could not be kept.
	OnError func(ctx context.Context, key string, err error)
}

// Through answers from the store, and calls a function for what is not there: it
// memoizes. It is safe for concurrent use, in one process and in many.
//
// It promises that
//
//   - for one key one call is made at a time, in all processes that share a Redis
//     and a View, and those who asked meanwhile have its result. One who has
//     waited for CallFor and LeaseFor calls for itself, and so does the next
//     when a process died, after LeaseFor;
//   - a result is served for its TTL at most, and nothing that a call began to make
//     before a Forget is given to who asks after it;
//   - whoever calls Do has a value of its own: decoded from what was kept, also the
//     first time, so that what does not survive encoding is missing at once;
//   - errors are not kept. Those in this process who asked before the call began
//     have its error; others call again, in one process after the other;
//   - without Redis the function is called, by one at a time for each key in each
//     process. After a failure Redis is left alone for half a second.
//
// After Redis was restarted, nothing from before is served, since a Forget may
// have been among what it lost.
//
// A result must depend on the key alone: not on who asks, nor on values in the
// context, which is that of the one whose call it became. When that one's context
// ends, another who waits calls again.
//
// While a call is made, a goroutine renews its lease; it ends with the call. There
// is nothing to close.
type Through[T any] struct {
	memo   *memo
	encode func(T) ([]byte, error)
	decode func([]byte) (T, error)
}

// Bounds where the options say nothing, and the least that a lease may be: its
// renewal comes thrice in that time.
const (
	defaultCallFor  = time.Minute
	defaultLeaseFor = 10 * time.Second
	defaultRedisFor = time.Second
	leastLeaseFor   = 30 * time.Millisecond
)

// NewThrough checks the options. The waiters are the store's, and their Run must
// be under way for waiting to end at once; without them (nil), or while they hear
// nothing, who waits for another process looks five times a second.
func NewThrough[T any](s *Store, waiters *Waiters, o ThroughOptions[T]) (*Through[T], error) {
	switch {
	case s == nil:
		return nil, errors.New("through: there is no store")
	case waiters != nil && waiters.store != s:
		return nil, errors.New("through: the waiters are those of another store")
	case !view.ValidName(o.View):
		return nil, fmt.Errorf("through: %q cannot name a view", o.View)
	case o.TTL < time.Millisecond:
		return nil, fmt.Errorf("through %s: a TTL of %s", o.View, o.TTL)
	case o.NotFound < 0 || o.CallFor < 0 || o.LeaseFor < 0 || o.RedisFor < 0:
		return nil, fmt.Errorf("through %s: none of NotFound (%s), CallFor (%s), LeaseFor (%s) and RedisFor (%s) may be negative",
			o.View, o.NotFound, o.CallFor, o.LeaseFor, o.RedisFor)
	case o.LeaseFor > 0 && o.LeaseFor < leastLeaseFor:
		return nil, fmt.Errorf("through %s: a LeaseFor of %s is below %s", o.View, o.LeaseFor, leastLeaseFor)
	case (o.Encode == nil) != (o.Decode == nil):
		return nil, fmt.Errorf("through %s: Encode and Decode come together", o.View)
	}
	if o.Encode == nil {
		o.Encode, o.Decode = encodeJSON[T], decodeJSON[T]
	}
	m := &memo{
		store: s, waiters: waiters,
		// No name in a views file has a colon.
		view:     &view.View{Name: "through:" + o.View, TTL: o.TTL, Negative: o.NotFound, Model: true},
		callFor:  orElse(o.CallFor, defaultCallFor),
		leaseFor: orElse(o.LeaseFor, defaultLeaseFor),
		redisFor: orElse(o.RedisFor, defaultRedisFor),
		onError:  o.OnError,
	}
	return &Through[T]{memo: m, encode: o.Encode, decode: o.Decode}, nil
}

// Do returns what is kept under the key, or what the function returns, which is
// then kept. The function's error comes back as it is; its panic goes through, and
// is an error to the others who waited. A result that Encode refuses, or that
// Decode does not take back, is an error as well.
func (t *Through[T]) Do(ctx context.Context, key string, call func(context.Context) (T, error)) (T, error) {
	var answer T
	err := t.memo.do(ctx, question{
		key: key,
		call: func(ctx context.Context) ([]byte, error) {
			value, err := call(ctx)
			if err != nil {
				return nil, err
			}
			body, err := t.encode(value)
			if err != nil {
				return nil, fmt.Errorf("encode what is to be kept as %s: %w", t.memo.view.Name, err)
			}
			return body, nil
		},
		take: func(body []byte) error {
			value, err := t.decode(body)
			if err != nil {
				return fmt.Errorf("decode what is kept as %s: %w", t.memo.view.Name, err)
			}
			answer = value
			return nil
		},
	})
	return answer, err
}

// Forget removes what is kept under the key. A call that is under way goes on,
// for those who asked before; its result is not kept. It fails where Redis cannot
// be reached, and may or may not have forgotten then.
func (t *Through[T]) Forget(ctx context.Context, key string) error {
	_, err := t.memo.store.Invalidate(ctx, []Change{{View: t.memo.view, Key: key}})
	return err
}

// ForgetAll is Forget for all keys of the View.
func (t *Through[T]) ForgetAll(ctx context.Context) error {
	return t.memo.store.Fence(ctx, t.memo.view, version.Version{})
}

// Bypassed returns how many calls this Through has made without a lease, since
// Redis could not be used or another process held the lease for too long. The
// store counts hits, misses and saves, under the name "through:" and the View's.
func (t *Through[T]) Bypassed() uint64 { return t.memo.bypassed.Load() }

func encodeJSON[T any](value T) ([]byte, error) { return json.Marshal(value) }

func decodeJSON[T any](body []byte) (value T, err error) {
	err = json.Unmarshal(body, &value)
	return value, err
}

func orElse(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}
