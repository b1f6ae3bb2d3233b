package api

import (
	"context"
	"strconv"
	"strings"
	"time"

	"mythiccache/cache"
)

// maxPrefer bounds how long a caller may wait, below the timeout of writing.
const maxPrefer = 20 * time.Second

// get answers with an answer that the caller has asked for.
func (d *answerDesk) get(x *exchange) error {
	prefer := parsePrefer(x.request.Header["Prefer"])
	key := x.request.PathValue(d.view.HTTP.Key)
	if !cache.IsAnswerKey(key) {
		return x.hide()
	}
	result, err := x.read(d.view, key, nil)
	if err != nil {
		return err
	}
	switch result.Status {
	case cache.Hit:
		return x.serve(d.view, d.own(result.Entry), hitSource(result))
	case cache.Stale:
		// Without the question it cannot be asked again; it is what was answered.
		return x.serve(d.view, d.own(result.Entry), source{mark: markStale, detail: result.Why, at: result.Now})
	}
	ctx := x.request.Context()
	asked, err := d.asked(ctx, x.caller.user, key)
	switch {
	case err != nil:
		return x.cacheAway(err)
	case asked.Refused != "":
		x.markMiss()
		return refusal(asked.Refused)
	case asked.Dropped != "":
		x.markMiss()
		return problem(kindBusy, asked.Dropped).later(max(asked.After, time.Second))
	case !asked.Pending:
		return x.hide()
	case prefer.wait == 0:
		return d.pending(x, key)
	}
	begun := time.Now()
	got, err := d.listen(ctx, key, prefer.wait)
	x.fill += time.Since(begun)
	if err != nil {
		return d.unanswered(x, key, err, askSoon)
	}
	return x.serve(d.view, d.own(got.entry), missed(result.Why, got))
}

// asked returns how an answer stands for a caller; where some are shared, for everybody.
func (d *answerDesk) asked(ctx context.Context, user, key string) (cache.Asked, error) {
	asked, err := d.answers.Asked(ctx, user, key)
	if err == nil && asked == (cache.Asked{}) && d.server.o.Models.Sharing() {
		return d.answers.Asked(ctx, cache.SharedScope, key)
	}
	return asked, err
}

// listen waits for an answer that somebody has asked for.
func (d *answerDesk) listen(ctx context.Context, key string, patience time.Duration) (filled, error) {
	m := d.waits
	if err := m.enter(ask{view: d.view, key: key}); err != nil {
		return filled{}, errNotFilled // it can look again
	}
	defer m.leave()
	wait := m.waiters.Wait(d.view.Name, key)
	defer wait.Cancel()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	// It may have come between the last look and the registration.
	result, err := d.server.store.Read(ctx, cache.Query{View: d.view, Key: key})
	switch {
	case err != nil:
		return filled{}, err
	case result.Status == cache.Hit:
		return filled{entry: result.Entry, at: result.Now, stored: true, collapsed: true}, nil
	}
	for {
		select {
		case got := <-wait.C():
			switch {
			case got.Outcome == cache.Accepted:
				return filled{entry: got.Entry, at: got.At, stored: true, collapsed: true}, nil
			case strings.HasPrefix(got.Reason, cache.AnswerRefused), strings.HasPrefix(got.Reason, cache.AnswerBusy):
				return filled{}, &fillFailed{reason: got.Reason}
			}
		case <-timer.C:
			return filled{}, errNotFilled
		case <-ctx.Done():
			return filled{}, ctx.Err()
		}
	}
}

// prefer is what a caller prefers (RFC 7240).
type prefer struct {
	async bool          // respond-async
	wait  time.Duration // of wait=seconds, at most maxPrefer; 0 where it says nothing
}

// parsePrefer reads Prefer. What it does not know it ignores, as the RFC demands.
func parsePrefer(values []string) (p prefer) {
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			token, _, _ := strings.Cut(part, ";") // no preference of ours has parameters
			name, argument, _ := strings.Cut(strings.TrimSpace(token), "=")
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "respond-async":
				p.async = true
			case "wait":
				seconds, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(argument), `"`), 10, 31)
				if err == nil { // what it does not understand, too
					p.wait = min(time.Duration(seconds)*time.Second, maxPrefer)
				}
			}
		}
	}
	return p
}
