package cache

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache/view"
)

//go:embed answer_claim.lua
var answerClaim string

//go:embed answer_forget.lua
var answerForget string

const (
	// askedFor bounds how long an answer counts as being made after it was asked
	// for; who looks later is told that there is none.
	askedFor = 10 * time.Minute
	// refusedFor and failedFor are how long a failure of the model is remembered:
	// one that trying again would not change, and one that it might. Neither is
	// an answer; they spare the provider the same question.
	refusedFor = 30 * time.Second
	failedFor  = time.Second
	// forgottenFor is how long a late or repeated request from before an ai.forget
	// is still recognized: longer than any event waits to be tried again.
	forgottenFor = 7 * 24 * time.Hour
	// indexSlack is how much longer than its answers a scope's index lives: the
	// time that making an answer takes passes between the two.
	indexSlack = 10 * time.Minute
)

// aiScope names the index of a scope's answers. It and the two that follow share
// a slot.
func (k keys) aiScope(scope string) string { return k.prefix + "ai_scope:{" + scope + "}" }

// aiAsked names what a scope has asked for and not had.
func (k keys) aiAsked(scope string) string { return k.prefix + "ai_asked:{" + scope + "}" }

// aiForgotten names up to which event a scope is forgotten, or one answer alone:
// the digest that is its key stands for a scope then.
func (k keys) aiForgotten(scope string) string { return k.prefix + "ai_forgotten:{" + scope + "}" }

// aiFailed names how asking for an answer failed just now.
func (k keys) aiFailed(key string) string { return k.prefix + "ai_failed:{" + key + "}" }

// Answers keeps what is known of answers beside their entries: which ones a scope
// has, which it waits for, and what has been forgotten.
//
// That an answer which is being made is not stored after its scope was forgotten:
//
//  1. a worker takes the key's lease, then calls Claim, then asks the model;
//  2. Forget leaves its mark, then reads the index; the caller then removes what
//     it found, leases included, with Invalidate.
//
// Where Claim came before Forget, the key is in the index and the lease is taken
// away, so the put is refused. Where it came after, it sees the mark.
type Answers struct {
	store         *Store
	life          time.Duration // of an answer's entry
	claim, forget *redis.Script
	flows, lines  twoScripts
	pipe          *flowPipe
	view          string // its name
}

// NewAnswers returns what is known of the answers of one view.
func (s *Store) NewAnswers(v *view.View) *Answers {
	return &Answers{
		store: s, life: v.TTL + s.staleFor + indexSlack,
		claim: redis.NewScript(answerClaim), forget: redis.NewScript(answerForget), flows: s.flows,
		lines: s.lines, pipe: newFlowPipe(s.client, s.flows.add), view: v.Name,
	}
}

// aiDropped names until when an answer will not be made that was asked for, and why.
func (k keys) aiDropped(key string) string { return k.prefix + "ai_dropped:{" + key + "}" }

// Asked is how an answer stands that is not in the cache.
type Asked struct {
	Pending bool   // it is being made, or waits for that
	Refused string // a sentence: why the model gave none; empty where it has not refused
	Dropped string // a sentence: why nobody makes it; empty where somebody may

	After time.Duration // of what is dropped: when it is worth to ask again
}

// Failure is how asking the model failed.
type Failure struct {
	Reason string // a sentence for who asked; empty: it did not
	Final  bool   // asking again would not change it

	Deferral Deferral // of a question for which the provider had no time, which is no failure of anybody
}

// Ask notes that a scope waits for an answer, and forgets that it was dropped. Failures it
// does not forget: they are remembered to spare the provider, whoever asks.
func (a *Answers) Ask(ctx context.Context, scope, key string) error {
	keys := a.store.keys
	until := a.store.peer.now().Add(askedFor)
	return a.write(ctx, "note an answer asked for", func(p redis.Pipeliner) {
		set := keys.aiAsked(scope)
		p.ZAddArgs(ctx, set, redis.ZAddArgs{GT: true, Members: []redis.Z{{Score: float64(until.UnixMilli()), Member: key}}})
		p.PExpire(ctx, set, askedFor)
		p.Del(ctx, keys.aiDropped(key))
	})
}

// Asked returns how an answer stands for a scope. What another scope waits for
// is as if nobody did.
func (a *Answers) Asked(ctx context.Context, scope, key string) (Asked, error) {
	var until *redis.FloatCmd
	var failed, dropped *redis.StringCmd
	var clock *redis.TimeCmd
	err := a.write(ctx, "look for an answer asked for", func(p redis.Pipeliner) {
		until = p.ZScore(ctx, a.store.keys.aiAsked(scope), key)
		failed = p.Get(ctx, a.store.keys.aiFailed(key))
		dropped = p.Get(ctx, a.store.keys.aiDropped(key))
		clock = p.Time(ctx)
	})
	if err != nil || until.Val() <= float64(clock.Val().UnixMilli()) {
		return Asked{}, err
	}
	if f := failureOf(failed.Val()); f.Final {
		return Asked{Refused: f.Reason}, nil
	}
	if after, why, ok := droppedOf(dropped.Val(), clock.Val()); ok {
		return Asked{Dropped: why, After: after}, nil
	}
	return Asked{Pending: true}, nil
}

// Drop is NoteDropped, and ends the answer's line.
func (a *Answers) Drop(ctx context.Context, scope, key string, after time.Duration, why string) error {
	return a.dropped(ctx, scope, key, after, why, func(p redis.Pipeliner) { p.Del(ctx, a.store.keys.aiLine(key)) })
}

// NoteDropped notes that nobody makes an answer for some time, and why. Whoever looks for it
// is told, for as long as an answer counts as asked for.
func (a *Answers) NoteDropped(ctx context.Context, scope, key string, after time.Duration, why string) error {
	return a.dropped(ctx, scope, key, after, why, func(redis.Pipeliner) {})
}

func (a *Answers) dropped(ctx context.Context, scope, key string, after time.Duration, why string, also func(redis.Pipeliner)) error {
	until := a.store.peer.now().Add(after)
	life := min(after, askedFor)
	return a.write(ctx, "note a question dropped", func(p redis.Pipeliner) {
		also(p)
		p.Set(ctx, a.store.keys.aiDropped(key), strconv.FormatInt(until.UnixMilli(), 10)+" "+why, max(life, time.Millisecond))
		p.ZAddArgs(ctx, a.store.keys.aiAsked(scope), redis.ZAddArgs{XX: true, Members: []redis.Z{{Score: float64(a.store.peer.now().Add(life).UnixMilli()), Member: key}}})
	})
}

// droppedOf reads what Drop wrote.
func droppedOf(text string, now time.Time) (after time.Duration, why string, ok bool) {
	until, why, ok := strings.Cut(text, " ")
	ms, err := strconv.ParseInt(until, 10, 64)
	return max(time.UnixMilli(ms).Sub(now), 0), why, ok && err == nil
}

// Fail remembers for a moment how asking the model failed. Whoever waits for a
// final failure waits no longer than it is remembered.
func (a *Answers) Fail(ctx context.Context, scope, key string, f Failure) error {
	until := a.store.peer.now().Add(refusedFor)
	return a.write(ctx, "note a failure", func(p redis.Pipeliner) {
		if !f.Final {
			p.Set(ctx, a.store.keys.aiFailed(key), f.Reason, failedFor)
			return
		}
		p.Set(ctx, a.store.keys.aiFailed(key), AnswerRefused+f.Reason, refusedFor)
		p.ZAddArgs(ctx, a.store.keys.aiAsked(scope), redis.ZAddArgs{XX: true, Members: []redis.Z{{Score: float64(until.UnixMilli()), Member: key}}})
	})
}

// failureOf reads what Fail wrote.
func failureOf(text string) Failure {
	reason, final := strings.CutPrefix(text, AnswerRefused)
	return Failure{Reason: reason, Final: final}
}

// Settle notes that a scope no longer waits for an answer, and ends its line and deferral.
func (a *Answers) Settle(ctx context.Context, scope, key string) error {
	return a.write(ctx, "settle an answer", func(p redis.Pipeliner) {
		p.ZRem(ctx, a.store.keys.aiAsked(scope), key)
		p.Del(ctx, a.store.keys.aiLine(key), a.store.keys.aiDeferred(key))
	})
}

// Leave is Settle for a question that has no answer: how long it is to be left alone stands.
func (a *Answers) Leave(ctx context.Context, scope, key string) error {
	return a.write(ctx, "leave a question", func(p redis.Pipeliner) {
		p.ZRem(ctx, a.store.keys.aiAsked(scope), key)
		p.Del(ctx, a.store.keys.aiLine(key))
	})
}

// Claim notes that an answer is being made for a scope, and reports false where
// scope or answer have been forgotten since the event that asked, whose stream
// entry is named by its id, and those that have joined it. Call it with the key's
// lease in hand. Where asking has just failed, or is put off, it says how.
func (a *Answers) Claim(ctx context.Context, scope, key, entry string) (wanted bool, failed Failure, err error) {
	keys := a.store.keys
	var newest, forgotten, failure, deferred *redis.StringCmd
	// Whoever forgets the answer after this takes the lease away.
	err = a.write(ctx, "claim an answer", func(p redis.Pipeliner) {
		newest = p.HGet(ctx, keys.aiLine(key), lineNewest)
		forgotten = p.Get(ctx, keys.aiForgotten(key))
		failure = p.Get(ctx, keys.aiFailed(key))
		deferred = p.Get(ctx, keys.aiDeferred(key))
	})
	if err != nil {
		return false, Failure{}, err
	}
	event := max(eventOrder(entry), newest.Val())
	noted, err := a.claim.Run(ctx, a.store.client,
		[]string{keys.aiScope(scope), keys.aiAsked(scope), keys.aiForgotten(scope)},
		event, key, a.life.Milliseconds(), askedFor.Milliseconds()).Int()
	if err != nil {
		return false, Failure{}, fmt.Errorf("claim an answer: %w", err)
	}
	failed = failureOf(failure.Val())
	failed.Deferral = deferralOf(deferred.Val(), a.store.peer.now())
	return noted == 1 && forgotten.Val() < event, failed, nil
}

// Forget has a scope forgotten up to an event, and returns the keys of the
// answers that the caller is to remove.
func (a *Answers) Forget(ctx context.Context, scope, entry string) ([]string, error) {
	keys := a.store.keys
	found, err := a.forget.Run(ctx, a.store.client,
		[]string{keys.aiScope(scope), keys.aiAsked(scope), keys.aiForgotten(scope)},
		eventOrder(entry), forgottenFor.Milliseconds()).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("forget answers: %w", err)
	}
	return found, nil
}

// ForgetKey has one answer forgotten up to an event; the caller is to remove it.
func (a *Answers) ForgetKey(ctx context.Context, key, entry string) error {
	_, err := a.Forget(ctx, key, entry)
	return err
}

// write sends commands in one round trip. A redis.Nil is no error.
func (a *Answers) write(ctx context.Context, what string, build func(redis.Pipeliner)) error {
	p := a.store.client.Pipeline()
	build(p)
	if err := exec(ctx, p); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// eventOrder writes the id of a stream entry, <milliseconds>-<number>, in a form
// whose order as text is that of the ids.
func eventOrder(entry string) string {
	first, second, _ := strings.Cut(entry, "-")
	ms, _ := strconv.ParseUint(first, 10, 64) // what is no number is before everything
	seq, _ := strconv.ParseUint(second, 10, 64)
	return fmt.Sprintf("%020d-%020d", ms, seq)
}
