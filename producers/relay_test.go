package producers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
)

// ledger returns the ids of the published events in the outbox and in the streams.
func (b *bed) ledger() (outbox, streams []string) {
	b.t.Helper()
	rows, err := b.conn.Query(b.t.Context(), `SELECT event_id::text FROM mythic_cache.outbox WHERE event_id IS NOT NULL AND type <> 'mark.made'`)
	if err != nil {
		b.t.Fatal(err)
	}
	if outbox, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
		b.t.Fatal(err)
	}
	for _, e := range b.entries() {
		if e.ID != "" && e.Topic() != "mark" {
			streams = append(streams, e.ID)
		}
	}
	slices.Sort(outbox)
	slices.Sort(streams)
	return outbox, streams
}

// balanced fails the test unless every row of the outbox is in the streams, each once.
func (b *bed) balanced() {
	b.t.Helper()
	b.sync()
	outbox, streams := b.ledger()
	if !slices.Equal(outbox, streams) {
		b.t.Errorf("%d rows in the outbox, %d entries in the streams, %d distinct", len(outbox), len(streams), len(slices.Compact(slices.Clone(streams))))
	}
}

// write has writers publish, committing in any order, until stop is called, which
// waits for them. What fails since a server is away is left out.
func (b *bed) write(writers int) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				conn, err := pgx.Connect(ctx, b.url)
				if err != nil {
					continue
				}
				for ; ctx.Err() == nil && !conn.IsClosed(); n++ {
					_ = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
						if _, err := Publish(ctx, tx, event.Event{Type: "run.progress", Subject: fmt.Sprintf("w%d-%d", w, n)}); err != nil {
							return err
						}
						time.Sleep(time.Duration(rand.N(15)) * time.Millisecond) // of the load, not of the test
						if n%7 == 0 {
							return errors.New("rolled back")
						}
						return nil
					})
				}
				conn.Close(context.Background())
			}
		})
	}
	return sync.OnceFunc(func() { cancel(); group.Wait() })
}

func (b *bed) grows(by int) {
	b.t.Helper()
	from := b.client.XLen(b.t.Context(), b.keys.Topic("run")).Val()
	testserver.Eventually(b.t, "events arrive", func() error {
		if n := b.client.XLen(b.t.Context(), b.keys.Topic("run")).Val(); n < from+int64(by) {
			return fmt.Errorf("%d, from %d", n, from)
		}
		return nil
	})
}

func TestEachRowOnceWhateverCommitsFirst(t *testing.T) {
	b := newBed(t)
	stop := b.write(16)
	defer stop()
	for range 4 { // a relay that dies in between, and its successor
		_, stop := b.relay()
		b.grows(60)
		stop()
	}
	b.relay()
	stop()
	b.balanced()
}

// The same check finds the gaps of the usual way, reading id > last.
func TestTheLedgerCanFail(t *testing.T) {
	b := newBed(t)
	stop := b.write(16)
	defer stop()
	last, seen := int64(-1), map[int64]bool{}
	testserver.Eventually(t, "a row that id > last misses", func() error {
		rows, err := b.conn.Query(t.Context(), `SELECT id FROM mythic_cache.outbox WHERE id > $1 ORDER BY id`, last)
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil {
			return err
		}
		for _, id := range ids {
			seen[id], last = true, id
		}
		if n := one[int](b, `SELECT count(*) FROM mythic_cache.outbox WHERE id <= $1`, last); n > len(seen) {
			return nil
		}
		return errors.New("none yet")
	})
}

func TestALongTransactionHoldsNothingUp(t *testing.T) {
	b := newBed(t)
	other := b.connect()
	if _, err := other.Exec(t.Context(), `BEGIN; SELECT mythic_cache.publish('run.started', 'slow')`); err != nil {
		t.Fatal(err)
	}
	b.relay()
	for range 20 {
		b.sync()
	}
	if _, err := other.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	b.balanced()
}

func TestABacklogDrainsInPartsAndResumes(t *testing.T) {
	b := newBed(t)
	other := b.connect()
	if _, err := other.Exec(t.Context(), `BEGIN; SELECT mythic_cache.publish('run.started', 'slow')`); err != nil {
		t.Fatal(err)
	}
	b.exec(`SELECT mythic_cache.publish('run.started', 'r' || n) FROM generate_series(1, 15000) n`)
	_, stop := b.relay()
	testserver.Eventually(t, "the relay has begun", func() error {
		if b.client.XLen(t.Context(), b.keys.Topic("run")).Val() == 0 {
			return errors.New("nothing is there")
		}
		return nil
	})
	stop() // most likely in the middle
	if at, _ := parsePosition(b.client.HGet(t.Context(), b.keys.Position(), "position").Val()); at.part == nil {
		t.Log("the relay was too fast to be stopped in the middle")
	}
	if _, err := other.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	b.relay()
	b.balanced()
}

func TestRedisAwayAndBack(t *testing.T) {
	b := newBed(t)
	stop := b.write(4)
	defer stop()
	r, _ := b.relay()
	b.grows(20)
	b.redis.Kill()
	testserver.Eventually(t, "the relay says that Redis is away", func() error {
		if r.Ready() == nil {
			return errors.New("it is ready")
		}
		return nil
	})
	if err := b.redis.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.grows(20)
	stop()
	testserver.Eventually(t, "the relay is ready again", r.Ready)
	b.balanced()
	run := strings.TrimSpace(runID(t, b.client))
	testserver.Eventually(t, "the run_id is confirmed", func() error {
		if got := b.client.HGet(t.Context(), b.keys.Position(), PositionRunID).Val(); got != run {
			return fmt.Errorf("%q is confirmed, not %q", got, run)
		}
		return nil
	})
}

func runID(t *testing.T, client *redis.Client) string {
	t.Helper()
	_, rest, _ := strings.Cut(client.Info(t.Context(), "server").Val(), "run_id:")
	id, _, _ := strings.Cut(rest, "\r\n")
	return id
}

func TestRedisFullAndRoomAgain(t *testing.T) {
	b := newBed(t)
	r, _ := b.relay()
	// In progress at the position that the relay takes meanwhile.
	writer := b.connect()
	if _, err := writer.Exec(t.Context(), `BEGIN; SELECT pg_current_xact_id()`); err != nil {
		t.Fatal(err)
	}
	b.exec(`SELECT mythic_cache.publish('run.started', 'before')`)
	b.sync()
	if err := b.client.ConfigSet(t.Context(), "maxmemory", "512kb").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := writer.Exec(t.Context(), `SELECT mythic_cache.publish('run.started', 'r' || n) FROM generate_series(1, 500) n; COMMIT`); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "the relay says that Redis is full", func() error {
		if ready, backlog := r.Ready() == nil, r.State().Backlog; ready || backlog < 500 {
			return fmt.Errorf("ready: %t, backlog %d", ready, backlog)
		}
		return nil
	})
	if err := b.client.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	b.balanced()
}

// Idle, so that nothing but the heartbeat can notice.
func TestAnIdleRelayNoticesWhatRedisLost(t *testing.T) {
	for name, lose := range map[string]func(b *bed) error{
		"FLUSHALL": func(b *bed) error { return b.client.FlushAll(b.t.Context()).Err() },
		"DEL":      func(b *bed) error { return b.client.Del(b.t.Context(), b.keys.Topic("run")).Err() },
		"DEL and written to by another": func(b *bed) error {
			_, err := b.client.TxPipelined(b.t.Context(), func(p redis.Pipeliner) error {
				p.Del(b.t.Context(), b.keys.Topic("run"))
				for range 800 { // more than were there
					p.XAdd(b.t.Context(), &redis.XAddArgs{Stream: b.keys.Topic("run"), Values: []string{"type", "run.started", "subject", "by hand"}})
				}
				return nil
			})
			return err
		},
		"DEL of the position": func(b *bed) error { return b.client.Del(b.t.Context(), b.keys.Position()).Err() },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			b.relay()
			b.exec(`SELECT mythic_cache.publish('run.started', 'r' || n) FROM generate_series(1, 700) n`)
			b.sync()
			fences := len(b.fences.fenced())
			if err := lose(b); err != nil {
				t.Fatal(err)
			}
			testserver.Eventually(t, "every view is fenced, everything is sent again", func() error {
				outbox, streams := b.ledger()
				if missing := len(outbox) - len(slices.Compact(streams)); missing > 0 {
					return fmt.Errorf("%d are missing", missing)
				}
				if n := len(b.fences.fenced()); n != fences+1 {
					return fmt.Errorf("fenced %d times more", n-fences)
				}
				return nil
			})
		})
	}
}

// What was trimmed is not lost, nor is what somebody else writes beside us.
func TestTrimmingIsNoLoss(t *testing.T) {
	b := newBed(t)
	b.relay()
	b.exec(`SELECT mythic_cache.publish('run.started', 'r1')`)
	b.sync()
	fences := len(b.fences.fenced())
	b.client.XAdd(t.Context(), &redis.XAddArgs{Stream: b.keys.Topic("run"), Values: []string{"type", "run.started", "subject", "by hand"}})
	b.client.XTrimMaxLen(t.Context(), b.keys.Topic("run"), 1)
	s := newStreams(b.client, b.keys)
	if _, lost, err := s.Look(t.Context(), "", fencings{}); err != nil || lost != "" {
		t.Errorf("lost %q, %v", lost, err)
	}
	b.exec(`SELECT mythic_cache.publish('run.started', 'r2')`)
	b.sync()
	if n := len(b.fences.fenced()); n != fences {
		t.Errorf("fenced %d times", n-fences)
	}
}

func TestACrashedDatabaseBeginsAnEpoch(t *testing.T) {
	t.Parallel()
	pg := testserver.NewPostgres(t, nil)
	b := newBedOn(t, pg, mythic(t))
	b.people()
	r, _ := b.relay()
	b.sync()
	before := one[int64](b, `SELECT mythic_cache.current_epoch()`)
	stop := b.write(4)
	defer stop()
	b.grows(20)
	fences := len(b.fences.fenced())
	if err := pg.CrashBackend(one[int](b, `SELECT pg_backend_pid()`)); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "every view is fenced in a new epoch", func() error {
		all := b.fences.fenced()
		if len(all) == fences || int64(all[len(all)-1].Epoch()) <= before {
			return fmt.Errorf("fences %v, epoch before %d", all, before)
		}
		return nil
	})
	b.conn = b.connect()
	b.grows(20)
	stop()
	testserver.Eventually(t, "the relay is ready", r.Ready)
	b.sync()
	outbox, streams := b.ledger()
	if !slices.Equal(outbox, slices.Compact(streams)) {
		t.Errorf("%d rows, %d distinct entries", len(outbox), len(slices.Compact(streams)))
	}
}

// A clean restart keeps the epoch, and nothing is sent twice.
func TestACleanRestartKeepsTheEpoch(t *testing.T) {
	t.Parallel()
	pg := testserver.NewPostgres(t, nil)
	b := newBedOn(t, pg, mythic(t))
	b.exec(`SELECT mythic_cache.publish('run.started', 'r1')`)
	b.relay()
	b.sync()
	before := one[int64](b, `SELECT mythic_cache.current_epoch()`)
	pg.Stop()
	if err := pg.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.conn = b.connect()
	b.exec(`SELECT mythic_cache.publish('run.started', 'r2')`)
	b.balanced()
	if after := one[int64](b, `SELECT mythic_cache.current_epoch()`); after != before {
		t.Errorf("epoch %d became %d", before, after)
	}
	if n := len(b.fences.fenced()); n != 1 {
		t.Errorf("fenced %d times", n)
	}
}

func TestBumpedEpochFencesEverything(t *testing.T) {
	b := newBed(t)
	b.relay()
	b.exec(`SELECT mythic_cache.publish('run.started', 'r1')`)
	b.sync()
	epoch, err := BumpEpoch(t.Context(), b.conn, b.client, b.keys)
	if err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "every view is fenced in the new epoch", func() error {
		all := b.fences.fenced()
		if all[len(all)-1].Epoch() != epoch || b.client.XLen(t.Context(), b.keys.Topic("run")).Val() != 2 {
			return fmt.Errorf("fences %v", all)
		}
		return nil
	})
}

// A database that is behind Redis, as after a restore: its numbers must not be
// compared with the old ones.
func TestADatabaseBehindRedisBeginsAnEpoch(t *testing.T) {
	b := newBed(t)
	_, stop := b.relay()
	b.sync()
	stop()
	epoch := one[int64](b, `SELECT mythic_cache.current_epoch()`)
	ahead := fromStart(uint64(epoch), "other")
	ahead.seen.Xmin, ahead.seen.Xmax = 1<<40, 1<<40
	if err := b.client.HSet(t.Context(), b.keys.Position(), "position", ahead.String()).Err(); err != nil {
		t.Fatal(err)
	}
	_, stop = b.relay()
	b.sync()
	stop()
	if now := one[int64](b, `SELECT mythic_cache.current_epoch()`); now <= epoch {
		t.Errorf("epoch %d became %d", epoch, now)
	}
	later := fromStart(1<<47, "other")
	if err := b.client.HSet(t.Context(), b.keys.Position(), "position", later.String()).Err(); err != nil {
		t.Fatal(err)
	}
	b.relay()
	b.sync()
	if now := one[int64](b, `SELECT mythic_cache.current_epoch()`); now != 1<<47+1 {
		t.Errorf("epoch %d after Redis had %d", now, uint64(1)<<47)
	}
}

func TestOneLeadsAndAnotherTakesOver(t *testing.T) {
	b := newBed(t)
	stop := b.write(4)
	defer stop()
	first, _ := b.relay()
	b.grows(10)
	second, stopSecond := b.relay()
	testserver.Eventually(t, "the second stands by", second.Ready)
	if !first.State().Leader || second.State().Leader {
		t.Errorf("leaders: %v, %v", first.State().Leader, second.State().Leader)
	}
	// Its session goes, as when the process is stopped for longer than the timeout.
	for range 3 {
		b.exec(`SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
			WHERE l.locktype = 'advisory' AND l.granted AND d.datname = current_database()`)
		b.grows(30)
	}
	stopSecond()
	b.grows(30)
	stop()
	b.balanced()
}

func TestAReplyThatIsLostSendsNothingTwice(t *testing.T) {
	for name, retries := range map[string]int{"the client tries again": 3, "the relay looks": -1} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			proxy := newCutter(t, b.redis.Port)
			o := b.options()
			o.Dial = func(onConnect func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) {
				return redis.NewClient(&redis.Options{Addr: proxy.addr(), OnConnect: onConnect, MaxRetries: retries}), nil
			}
			b.relayWith(o)
			b.sync()
			for n := range 20 {
				subject := fmt.Sprintf("cut-%d", n)
				proxy.cutAfter(subject)
				b.exec(`SELECT mythic_cache.publish('run.started', $1)`, subject)
				b.sync()
			}
			if n := proxy.cuts(); n != 20 {
				t.Errorf("%d replies were cut", n)
			}
			b.balanced()
		})
	}
}

func TestStopLeavesNothingBehind(t *testing.T) {
	b := newBedOn(t, postgres, mythic(t)) // beside no other test
	leaks(t)
	_, stop := b.relay()
	b.sync()
	stop()
}

func TestBadOptionsAreRefused(t *testing.T) {
	b := newBed(t)
	for says, change := range map[string]func(*RelayOptions){
		"Dial":         func(o *RelayOptions) { o.Dial = nil },
		"Fences":       func(o *RelayOptions) { o.Fences = nil },
		"retention":    func(o *RelayOptions) { o.Retention = time.Second },
		"cannot parse": func(o *RelayOptions) { o.URL = "postgres://%" },
	} {
		o := b.options()
		change(&o)
		if _, err := NewRelay(o); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}
