package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// batch is what travels together: one MGET of the entries and their views' keys, and
// one script for the callers that the limiter is asked about. It is one worker's, who
// uses it again and again. (On a cluster this is the place that groups keys by slot.)
type batch struct {
	of       *pipeline
	readings []*reading

	looks map[waitKey]*pending  // the entries, each once
	views map[string]*batchView // all that have been asked for
	turn  uint64                // counts batches
	names []any                 // MGET and the keys
	found [][]byte
	reply bulks
	whose bulks // the connection's name

	limits map[limitKey]*asking
	order  []*asking // as the script has them
	sent   time.Time
	pipe   redis.Pipeliner
}

// batchView is what a worker knows of a view.
type batchView struct {
	name any    // of its key; made once
	turn uint64 // the batch that asks for it
	at   int    // where it stands among the names of that
	text []byte // what was found last,
	viewKey
	known bool // and what that means
}

// pending is an entry of a batch on its way.
type pending struct {
	look
	at   int // where it stands among the names
	view *batchView
	mark mark
}

// asking are the readings of one caller in a batch.
type asking struct {
	limit    *Limit
	later    int
	readings []*reading
}

func newBatch(p *pipeline) *batch {
	b := &batch{
		of: p, looks: map[waitKey]*pending{}, views: map[string]*batchView{}, limits: map[limitKey]*asking{},
		pipe: p.store.client.Pipeline(),
	}
	b.reset()
	return b
}

func (b *batch) reset() {
	clear(b.readings)
	clear(b.names)
	clear(b.order)
	b.readings, b.order = b.readings[:0], b.order[:0]
	b.names = append(b.names[:0], "mget")
	b.turn++
	clear(b.looks)
	clear(b.limits)
	b.reply.reset()
	b.whose.reset()
}

// add takes in a reading.
func (b *batch) add(r *reading) {
	b.readings = append(b.readings, r)
	if r.limited {
		b.addLimit(r)
	}
	if !r.looks {
		return
	}
	k := waitKey{r.view, r.key}
	p := b.looks[k]
	if p == nil {
		p = &pending{at: b.name(b.of.store.keys.entry(r.view, r.key)), view: b.viewOf(r.view)}
		b.looks[k] = p
	}
	r.look = &p.look
}

// addLimit lets a reading use what another batch has brought meanwhile, or has the
// limiter asked.
func (b *batch) addLimit(r *reading) {
	now := time.Now()
	if a, ok := b.of.allowances.take(&r.limit, now); ok {
		r.admission, r.ahead = a, now
		return
	}
	k := limitKey{r.limit.Rule, r.limit.Caller}
	of := b.limits[k]
	if of == nil {
		of = &asking{limit: &r.limit}
		b.limits[k] = of
		b.order = append(b.order, of)
	}
	of.readings = append(of.readings, r)
}

func (b *batch) name(name any) int {
	b.names = append(b.names, name)
	return len(b.names) - 2 // behind MGET
}

func (b *batch) viewOf(view string) *batchView {
	v := b.views[view]
	if v == nil {
		v = &batchView{name: b.of.store.keys.view(view)}
		b.views[view] = v
	}
	if v.turn != b.turn {
		v.turn, v.at = b.turn, b.name(v.name)
	}
	return v
}

// decode reads what was found, which is mostly what was there before.
func (v *batchView) decode(text []byte) (viewKey, bool) {
	if !bytes.Equal(text, v.text) {
		v.text = append(v.text[:0], text...)
		v.viewKey, v.known = decodeViewKey(string(text))
	}
	return v.viewKey, v.known
}

// run sends the batch and reads what comes. It is sent again, once, where the
// connection turns out to be dead, or Redis has lost the scripts: what is read is
// read again, and an admission that was given in vain is the callers' loss.
func (b *batch) run(ctx context.Context) error {
	for k, p := range b.looks {
		if b.of.near != nil {
			p.mark = b.of.near.begin(k)
		}
	}
	for _, of := range b.order {
		of.later = b.of.allowances.next(of.limit, time.Now())
	}
	for attempt := 0; ; attempt++ {
		err := b.send(ctx)
		switch {
		case err == nil || attempt > 0 || ctx.Err() != nil:
			return err
		case redis.HasErrorPrefix(err, "NOSCRIPT"):
			source := b.of.store.scripts.limit.source
			if err := b.of.store.client.ScriptLoad(ctx, source).Err(); err != nil {
				return fmt.Errorf("load script limit: %w", err)
			}
		case !ofConnection(err):
			return err
		}
	}
}

// ofConnection reports whether an error is that of a connection, not what Redis said.
func ofConnection(err error) bool {
	var said redis.Error
	return !errors.As(err, &said) && !errors.Is(err, errOddReply)
}

func (b *batch) send(ctx context.Context) error {
	b.reply.reset()
	b.whose.reset()
	b.sent = time.Now()
	var limited *redis.Cmd
	if len(b.order) > 0 {
		limited = b.callLimiter(ctx, b.pipe)
	}
	if len(b.names) > 1 { // what is processed is only queued here
		if b.of.near != nil {
			_ = b.pipe.Process(ctx, redis.NewRawWriteToCmd(ctx, &b.whose, "client", "getname"))
		}
		_ = b.pipe.Process(ctx, redis.NewRawWriteToCmd(ctx, &b.reply, b.names...))
	}
	_, err := b.pipe.Exec(ctx)
	refused := limited != nil && refuses(limited.Err())
	if err != nil && !refused {
		return err
	}
	if err := b.readEntries(); err != nil {
		return err
	}
	switch {
	case limited == nil:
		return nil
	case refused:
		b.of.refusal.note(&b.of.store.log, limited.Err(), b.sent)
		b.admitAlone()
		return nil
	default:
		b.of.refusal.note(&b.of.store.log, nil, b.sent)
		return b.readLimiter(limited)
	}
}

// refuses reports whether Redis has run the rest of a batch but not the limiter, for it
// may not write (READONLY of one that was made a replica, MISCONF of one whose disk is
// full, OOM of one whose memory is), or we may not run scripts (NOPERM).
func refuses(err error) bool {
	return err != nil && !ofConnection(err) && !redis.HasErrorPrefix(err, "NOSCRIPT")
}

// admitAlone admits by this process's own count, as it does while Redis is away.
func (b *batch) admitAlone() {
	now := time.Now()
	for _, of := range b.order {
		for _, r := range of.readings {
			r.admission = b.of.allowances.alone(of.limit, now)
		}
	}
}

// callLimiter adds the script for all callers that it is to be asked about.
func (b *batch) callLimiter(ctx context.Context, p redis.Pipeliner) *redis.Cmd {
	keys := make([]string, len(b.order))
	args := make([]any, 0, 5*len(b.order))
	for i, of := range b.order {
		keys[i] = b.of.store.keys.rate(of.limit.Rule, of.limit.Caller)
		args = of.limit.args(args, len(of.readings), of.later)
	}
	return call(ctx, p, &b.of.store.scripts.limit, keys, args...)
}

// readLimiter divides what the limiter admits among its callers' readings, the first
// ones first, and keeps what is left.
func (b *batch) readLimiter(cmd *redis.Cmd) error {
	r := replyOf(cmd)
	now := time.UnixMicro(r.int())
	for _, of := range b.order {
		admitted, said := of.limit.admission(r)
		if r.err != nil {
			return fmt.Errorf("limiter: %w", r.err)
		}
		for i, reading := range of.readings {
			reading.admission = said
			if reading.admission.Allowed = i < admitted; reading.admission.Allowed {
				reading.admission.Remaining += admitted - i - 1
				reading.admission.RetryAfter = 0
			}
		}
		if left := admitted - len(of.readings); left >= 0 {
			b.of.allowances.give(of.limit, left, said, b.sent)
		}
	}
	b.of.store.peer.observe(now, b.sent)
	return nil
}

// readEntries decodes what MGET brought.
func (b *batch) readEntries() error {
	n := len(b.names) - 1
	if n == 0 {
		return nil
	}
	if cap(b.found) < n {
		b.found = make([][]byte, n)
	}
	found := b.found[:n]
	if err := b.reply.values(found); err != nil {
		return err
	}
	var whose []byte
	if b.of.near != nil {
		whose = b.whose.value()
	}
	for k, p := range b.looks {
		p.whose = whose
		p.whole, p.known = p.view.decode(found[p.view.at])
		// A copy, since an entry outlives the buffer, and the near cache counts it alone.
		p.entry, p.header, p.err = decodeEntry(k.view, k.key, append([]byte(nil), found[p.at]...))
		if p.err == nil {
			p.entry, p.err = b.of.store.unsealed(p.entry)
		}
	}
	return nil
}

// answer ends the batch: the near cache gets what was found, and each caller hears.
func (b *batch) answer(err error) {
	for k, p := range b.looks {
		if b.of.near != nil {
			b.of.near.end(k, p.mark, &p.look, err)
		}
	}
	for _, r := range b.readings {
		r.err = err
		if err != nil && !r.ahead.IsZero() {
			b.of.allowances.back(&r.limit, r.ahead, time.Now())
			r.err = uncounted{err}
		}
		r.done <- struct{}{}
	}
}
