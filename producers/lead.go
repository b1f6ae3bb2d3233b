package producers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"mythiccache/producers/event"
)

// Sentences for why everything is fenced; they label a metric too.
const (
	whyAbsent    = "no position in Redis"
	whyUnread    = "the position cannot be read"
	whyEpoch     = "the position is of another epoch"
	whyTruncated = "the position is older than what was truncated"
	whyLost      = "a stream was deleted or lost entries"
)

// giveUpFor is how long no joined mapping is run after one took too long.
const giveUpFor = time.Minute

// lead is one leadership, on one connection and in one goroutine.
type lead struct {
	relay    *Relay
	conn     *pgx.Conn
	streams  *streams
	door     *doorbell
	rotation rotation
	ahead    readAhead

	placed position // as it stands in Redis
	from   position // at or after placed; nothing to send lies between

	confirmed bool      // all that waited has been sent since settling
	remapKeys int       // see remapKeys; below zero after a joined mapping took too long
	mapAgain  time.Time // until then it stays so: each try takes as long
	batchRows int
	drained   time.Time
	beat      time.Time
	heard     time.Time         // when PostgreSQL last heard from the session
	ensured   time.Time         // when absent view keys were last made
	retry     time.Duration     // pause before the next attempt, while Redis fails
	weighed   time.Time         // when the outbox was last weighed
	broken    map[string]string // view → why its keys cannot be told, to tell it once
}

// run leads until the session or the context ends. Failures of Redis it sits out.
func (l *lead) run(ctx context.Context) (err error) {
	if l.door, err = openDoorbell(ctx, l.conn); err != nil {
		return err
	}
	defer l.ahead.wait()
	settled := false
	for ctx.Err() == nil {
		var err error
		switch {
		case !settled:
			err = l.settle(ctx)
			settled = err == nil
		default:
			err = l.round(ctx)
		}
		if err != nil {
			l.ahead.wait() // whatever comes next wants the connection
		}
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errMoved), errors.Is(err, errLost), errors.Is(err, errRestarted), errors.Is(err, errEpoch):
			l.relay.o.Log.Info().Err(err).Msg("relay looks at its position afresh")
			settled = false
		case isPostgres(err) || l.conn.IsClosed():
			l.relay.metrics.stalled.WithLabelValues("postgres").Inc()
			return err
		default:
			settled = false
			if err := l.sitOut(ctx, err); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// isPostgres tells what PostgreSQL refused or could not do, for which the session
// is made anew, from Redis's failures.
func isPostgres(err error) bool {
	var refused *pgconn.PgError
	var connect *pgconn.ConnectError
	return errors.As(err, &refused) || errors.As(err, &connect) || errors.Is(err, errStandby) || errors.Is(err, errSuperseded)
}

// sitOut waits while Redis is away, full or slow. The rows wait in the outbox.
func (l *lead) sitOut(ctx context.Context, why error) error {
	l.relay.metrics.stalled.WithLabelValues("redis").Inc()
	if l.relay.fail(why) {
		l.relay.o.Log.Warn().Err(why).Msg("relay cannot write to Redis; rows wait in the outbox")
	}
	l.retry = min(max(2*l.retry, retryFrom), retryMost)
	if !rest(ctx, l.retry) {
		return ctx.Err()
	}
	return l.count(ctx) // which also keeps the session
}

// settle makes sure that the position fits both servers, or fences every view and
// begins from the start of the retained outbox. The order is epoch, fences,
// position: whoever dies between has it done again by the next.
func (l *lead) settle(ctx context.Context) error {
	now, err := readPresent(ctx, l.conn)
	if err != nil {
		return err
	}
	text, lost, err := l.streams.Look(ctx, "", fencings{})
	if err != nil {
		return err
	}
	at, err := parsePosition(text)
	why := ""
	switch {
	case text == "":
		why = whyAbsent
	case err != nil:
		why = whyUnread
	}
	// This process led under the epoch that is still in force here, and now there
	// is a higher one in Redis: it was begun on another primary.
	if now.epoch != 0 && now.epoch == l.relay.led && at.epoch > now.epoch {
		return fmt.Errorf("%w: epoch %d is below Redis's, %d", errSuperseded, now.epoch, at.epoch)
	}
	// A database that is behind its own position was restored: its xids from
	// there on are handed out a second time.
	restored := at.epoch == now.epoch && (at.seen.Xmax > now.snapshot.Xmax || at.part != nil && at.part.target.Xmax > now.snapshot.Xmax)
	if now.epoch == 0 || at.epoch > now.epoch || restored {
		if _, err := beginEpoch(ctx, l.conn, at.epoch); err != nil {
			return err
		}
		if now, err = readPresent(ctx, l.conn); err != nil {
			return err
		}
		l.relay.o.Log.Info().Uint64("epoch", now.epoch).Msg("relay began a new epoch")
	}
	switch {
	case why != "":
	case at.epoch != now.epoch:
		why = whyEpoch
	case lost != "":
		why = whyLost
	case !at.isStart() && now.truncated > 0 && !at.seen.Sees(now.truncated):
		why = whyTruncated
	}
	next := position{epoch: now.epoch, term: rand.Text()[:10], seen: at.seen, part: at.part}
	if why != "" {
		l.relay.o.Log.Warn().Str("why", why).Uint64("epoch", now.epoch).Msg("relay fences every view and sends the whole outbox again")
		l.relay.metrics.fenced.WithLabelValues(why).Inc()
		if err := l.relay.o.Fences.FenceAll(ctx, now.snapshot.Version()); err != nil {
			return fmt.Errorf("fence every view: %w", err)
		}
		next = fromStart(now.epoch, next.term)
	} else if err := l.relay.o.Fences.EnsureViews(ctx, now.snapshot.Version()); err != nil {
		return fmt.Errorf("make absent view keys: %w", err)
	}
	if err := l.streams.Place(ctx, text, next, why != ""); err != nil {
		return err
	}
	l.placed, l.from, l.confirmed = next, next, false
	l.relay.led = next.epoch
	l.beat, l.ensured = time.Now(), time.Now()
	l.relay.metrics.leader.Set(1)
	l.relay.set(func(s *RelayState) { s.Leader, s.Position = true, next.String() })
	return nil
}

// round reads one batch and sends it, or waits for one.
func (l *lead) round(ctx context.Context) error {
	found, more, err := l.drain(ctx)
	if err != nil {
		return err
	}
	if time.Since(l.beat) >= heartbeatEvery || !more && !l.confirmed {
		l.ahead.wait()
		if err := l.heartbeat(ctx, more); err != nil {
			return err
		}
		l.goesWell()
	}
	if more {
		return nil
	}
	if err := l.door.saw(ctx, found, l.from.seen); err != nil {
		return err
	}
	for {
		look, err := l.door.wait(ctx, max(heartbeatEvery-time.Since(l.beat), 0))
		if err != nil {
			return err
		}
		if look {
			return nil
		}
		if err := l.heartbeat(ctx, false); err != nil {
			return err
		}
		if time.Since(l.drained) >= fallbackPoll {
			return nil
		}
	}
}

// goesWell notes that neither server keeps rows from being sent. To have settled does
// not show that: what a heartbeat does besides may be refused each time.
func (l *lead) goesWell() {
	l.retry = 0
	if l.relay.mend() {
		l.relay.o.Log.Info().Msg("relay sends")
	}
}

// drain reads one batch and sends it. It reports how many rows it found and
// whether more wait.
func (l *lead) drain(ctx context.Context) (found int, more bool, err error) {
	started := time.Now()
	b, err := l.ahead.take(ctx, l.from, l.batchRows, l.remapKeys)
	if err != nil {
		var refused *pgconn.PgError
		if errors.As(err, &refused) && refused.Code == "57014" && !l.conn.IsClosed() && l.takeLess(err) {
			return 0, true, nil
		}
		return 0, false, err
	}
	l.heard = time.Now()
	if l.heard.After(l.mapAgain) {
		l.remapKeys = remapKeys
	}
	past := l.from.part != nil // a reading up to a target says nothing of what came after it
	l.batchRows = min(l.batchRows+l.batchRows/8+1, batchRows)
	if b.cut { // what is too large for one batch would be read, dropped and read again
		l.batchRows = max(b.found-1, 1)
	}
	steps := b.steps(l.from, l.note)
	if b.more && len(steps) > 0 {
		l.ahead.begin(ctx, steps[len(steps)-1].to, l.batchRows, l.remapKeys)
	}
	for len(steps) > 0 {
		n := together(steps)
		if err := l.append(ctx, steps[:n]); err != nil {
			return b.found, true, err
		}
		if ctx.Err() != nil {
			return b.found, true, ctx.Err()
		}
		steps = steps[n:]
	}
	switch {
	case len(b.rows) > 0:
		l.relay.metrics.drain.Observe(time.Since(started).Seconds())
		l.relay.set(func(s *RelayState) { s.Position = l.placed.String() })
		l.relay.o.Log.Debug().Int("rows", len(b.rows)).Dur("took", time.Since(started)).Msg("relay sent rows")
	case l.from.part != nil: // the way to the target held no more
		l.from.seen, l.from.part = l.from.part.target, nil
		return 0, true, nil
	default:
		l.from.seen = b.snapshot
	}
	if more = b.more || past; !more {
		l.drained = time.Now()
		l.relay.metrics.backlog.Set(0)
		l.relay.metrics.lastDrain.SetToCurrentTime()
		l.relay.set(func(s *RelayState) { s.Backlog, s.LastDrain = 0, l.drained })
	}
	return b.found, more, nil
}

// takeLess has the next reading do less than one that took too long did, and reports
// whether there was less to do: without joined mappings, which may take for ever, or
// else of fewer rows, which may be large.
func (l *lead) takeLess(why error) bool {
	switch {
	case l.remapKeys >= 0:
		l.relay.o.Log.Error().Err(why).Msg("relay gave up on joined mappings for a minute and fences their views instead")
		l.remapKeys, l.mapAgain = -1, time.Now().Add(giveUpFor)
	case l.batchRows > 1:
		l.batchRows = max(l.batchRows/8, 1)
		l.relay.o.Log.Warn().Err(why).Int("rows", l.batchRows).Msg("relay reads fewer rows at a time")
	default:
		return false
	}
	return true
}

// append does steps. What has begun is finished, so that a shutdown leaves no
// doubt about it.
func (l *lead) append(ctx context.Context, steps []step) error {
	done, err := l.streams.Append(context.WithoutCancel(ctx), l.placed, steps)
	for _, s := range steps[:done] {
		l.placed, l.from = s.to, s.to
		l.relay.metrics.scripts.Inc()
		l.relay.metrics.events.Add(float64(len(s.events)))
	}
	return err
}

// note logs, once for each reason, that a view is fenced because its keys could
// not be told.
func (l *lead) note(e event.Event, why string) {
	if why == "" || why == `{"truncated": true}` || why == whyInstalled {
		return
	}
	l.relay.metrics.broken.WithLabelValues(e.View).Inc()
	if l.broken[e.View] != why {
		l.broken[e.View] = why
		l.relay.o.Log.Error().Str("view", e.View).Str("type", e.Type).Str("why", why).Msg("a change's keys cannot be told, so its view is fenced")
	}
}
