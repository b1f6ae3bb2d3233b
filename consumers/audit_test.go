package consumers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"mythiccache/cache/version"
	"mythiccache/internal/testserver"
	"mythiccache/producers/stream"
)

// snapshot is what a relay that has sent everything has as its position.
func (w *world) snapshot() version.Snapshot {
	w.Helper()
	s, err := version.ParseSnapshot(w.now().Epoch(), w.text("SELECT pg_current_snapshot()::text"))
	if err != nil {
		w.Fatal(err)
	}
	return s
}

// examine makes an examiner on a road on which all has been sent up to *sent.
func (w *world) examine(sent *version.Snapshot, settle time.Duration) *examiner {
	return &examiner{store: w.store, loader: w.loader, settle: settle, road: Road{
		Keys: stream.NewKeys("mythic:"), Group: "invalidate",
		Sent: func(context.Context) (version.Snapshot, error) { return *sent, nil },
	}}
}

// unnoticed makes an entry of a that is old though no event says so, and an audit to
// which all has been sent.
func (w *world) unnoticed(settle time.Duration) (x *examiner, sent *version.Snapshot) {
	w.Helper()
	w.set("a", 1)
	w.fill("thing", "a")
	w.set("a", 2)
	all := w.snapshot()
	return w.examine(&all, settle), &all
}

// suspicionOf looks at an entry that must differ.
func (w *world) suspicionOf(x *examiner, name, key string) *suspicion {
	w.Helper()
	seen, err := x.look(w.ctx, w.view(name), key)
	if err != nil || seen.state != differs {
		w.Fatalf("%s %s: state %d, %v", name, key, seen.state, err)
	}
	return x.suspect(w.view(name), key, seen)
}

// verdict demands that another look ends a suspicion so, "" for not at all.
func (w *world) verdict(x *examiner, s *suspicion, want Verdict, when string) {
	w.Helper()
	final, err := x.again(w.ctx, s)
	if err != nil || final != (want != "") || final && s.Verdict != want {
		w.Errorf("%s: final %v, %s, %v; want %q", when, final, s.Verdict, err, want)
	}
}

// primed sees to it that the next audit finds its statements prepared. To prepare them
// waits for the tables, too, but takes no snapshot that anything is read in.
func (w *world) primed() {
	w.Helper()
	if _, err := w.loader.audit(w.ctx, w.view("thing"), "a", nil); err != nil {
		w.Fatal(err)
	}
}

// Under REPEATABLE READ a table that was emptied after the snapshot reads as empty,
// rows and all: an audit locks first. The load waits for a transaction that writes the
// table anew; whatever it reads then is whole.
func TestAuditReadsNoEmptinessThatNeverWas(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	anew := func() (audited, error) {
		tx, err := w.pool.Begin(w.ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback(w.ctx)
		w.primed()
		for _, sql := range []string{"TRUNCATE things", "INSERT INTO things VALUES ('a', 2)"} {
			if _, err := tx.Exec(w.ctx, sql); err != nil {
				t.Fatal(err)
			}
		}
		var read audited
		done := make(chan error)
		go func() {
			var err error
			read, err = w.loader.audit(w.ctx, w.view("thing"), "a", nil)
			done <- err
		}()
		testserver.Eventually(t, "the audit waits for the table", func() error {
			// By this session: the one that is primed is for the audit.
			var waits bool
			err := tx.QueryRow(w.ctx, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 'things'::regclass").Scan(&waits)
			if err == nil && !waits {
				err = errors.New("it does not")
			}
			return err
		})
		if err := tx.Commit(w.ctx); err != nil {
			t.Fatal(err)
		}
		return read, <-done
	}
	read, err := anew()
	for range 10 { // a slow machine may see it lose its patience
		if sqlState(err) != pgLockNotAvailable {
			break
		}
		read, err = anew()
	}
	if err != nil || !read.Found || string(read.Body) != `{"n":2}` {
		t.Errorf("found %v %s, %v", read.Found, read.Body, err)
	}
}

// Whoever empties a table is not held up behind an audit that waits, for long.
func TestAuditGivesUpWaitingForALock(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	err := pgx.BeginFunc(w.ctx, w.pool, func(tx pgx.Tx) error {
		w.primed()
		if _, err := tx.Exec(w.ctx, "LOCK TABLE things"); err != nil {
			return err
		}
		_, err := w.loader.audit(w.ctx, w.view("thing"), "a", nil)
		return err
	})
	if sqlState(err) != pgLockNotAvailable || !passes(err) || !errors.Is(unread(err), errUnread) {
		t.Errorf("it ended with %v", err)
	}
}

// An entry is wrong when nothing is left on any part of the road that could mend it:
// in the outbox, in the stream, in the hands of the group.
func TestWhatIsOnItsWayIsNotWrong(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	w.fill("thing", "a")
	sent := w.snapshot()
	w.exec("WITH changed AS (UPDATE things SET n = 2 WHERE id = 'a' RETURNING id) INSERT INTO mythic_cache.outbox (type, view, subject) SELECT 'things.changed', 'thing', id FROM changed")
	x := w.examine(&sent, 0)
	s := w.suspicionOf(x, "thing", "a")
	w.verdict(x, s, "", "while the change is in the outbox")

	client, topic := w.redis.Client(t), x.road.Keys.Topic("things")
	add := func() {
		t.Helper()
		if err := client.XAdd(w.ctx, &redis.XAddArgs{Stream: topic, Values: []string{"type", "things.changed"}}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	add()
	sent = w.snapshot()
	w.verdict(x, s, "", "before the group is there")
	if err := client.XGroupCreate(w.ctx, topic, "invalidate", "0").Err(); err != nil {
		t.Fatal(err)
	}
	w.verdict(x, s, "", "before the group has read")
	read := func() []string {
		t.Helper()
		streams, err := client.XReadGroup(w.ctx, &redis.XReadGroupArgs{Group: "invalidate", Consumer: "me", Streams: []string{topic, ">"}}).Result()
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, m := range streams[0].Messages {
			ids = append(ids, m.ID)
		}
		return ids
	}
	ids := read()
	w.verdict(x, s, "", "while the group handles it")
	if err := client.XAck(w.ctx, topic, "invalidate", ids...).Err(); err != nil {
		t.Fatal(err)
	}
	w.verdict(x, s, Wrong, "when all is done")

	// The same entry again, and a relay that notices late what no trigger saw.
	x.settle = time.Hour
	s = w.suspicionOf(x, "thing", "a")
	w.verdict(x, s, "", "while a relay may still notice")
	testserver.Eventually(t, "a moment passes", func() error {
		if time.Since(s.steady) < 5*time.Millisecond { // ids tell milliseconds
			return errors.New("not yet")
		}
		return nil
	})
	add()
	x.settle = 0
	var after time.Time
	leads := false
	x.road.Leads = func(_ context.Context, moment time.Time) (bool, error) { after = moment; return leads, nil }
	w.verdict(x, s, "", "while no relay is at work")
	if !after.Equal(s.steady) || !s.marked.IsZero() {
		t.Errorf("a relay is asked after since %s, the entry was steady since %s, and is marked %s", after, s.steady, s.marked)
	}
	leads = true
	w.verdict(x, s, "", "while what it noticed is in the stream")
	ids = read()
	w.verdict(x, s, "", "while the group handles that")
	if err := client.XAck(w.ctx, topic, "invalidate", ids...).Err(); err != nil {
		t.Fatal(err)
	}
	x.road.Sent = func(ctx context.Context) (version.Snapshot, error) { return sent, x.repair(ctx, s) }
	w.verdict(x, s, Behind, "when it goes at the last moment")
	w.wants("thing", "a", "")
	w.verdict(x, s, Behind, "when it is gone")
}

// A relay may die before it has noticed what no trigger saw. That it led when the
// suspicion began, or until the time to notice was over, proves nothing: one must have
// been at work after that, and what it found by then must have been done.
func TestARelayThatDiedHasNoticedNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	x, _ := w.unnoticed(20 * time.Millisecond)
	var led time.Time // when a relay was last at work
	asked := 0
	x.road.Leads = func(_ context.Context, after time.Time) (bool, error) {
		asked++
		return !led.Before(after), nil
	}
	s := w.suspicionOf(x, "thing", "a")
	w.verdict(x, s, "", "at first")
	testserver.Eventually(t, "the relay has had its time", func() error {
		led = s.steady.Add(x.settle - time.Nanosecond)
		w.verdict(x, s, "", "when the relay that led has died")
		if asked == 0 {
			return errors.New("it has not")
		}
		return nil
	})
	if !s.marked.IsZero() || !s.unled {
		t.Errorf("without a relay it is marked %s, no relay is missed: %v", s.marked, !s.unled)
	}
	led = time.Now()
	w.verdict(x, s, Wrong, "when another has been at work")
	if s.marked.Before(led) {
		t.Errorf("what was to be done by %s is done, the relay was at work at %s", s.marked, led)
	}
}

// With no position, or one of another epoch, all is to be sent again.
func TestWithoutAPositionNothingIsWrong(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	w.fill("thing", "a")
	w.set("a", 2)
	var sent version.Snapshot
	x := w.examine(&sent, 0)
	s := w.suspicionOf(x, "thing", "a")
	w.verdict(x, s, "", "without a position")
	sent = w.snapshot()
	epoch := sent.Epoch
	sent.Epoch++
	w.verdict(x, s, "", "with one of another epoch")
	sent.Epoch = epoch
	w.verdict(x, s, Wrong, "with one of this epoch")
}

// Of several auditors one works. It goes on past keys whose truth cannot be had, and
// says of what is wrong all but the values. The next one takes over.
func TestAuditorsTakeTurns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things+`
  inverse: {key: [id], load: "SELECT to_json(1 / n) FROM things WHERE id = $1", tables: {things: SELECT id FROM changed}}
`)
	for _, id := range []string{"good", "bad", "zero"} {
		w.set(id, 1)
		w.fill("thing", id)
	}
	w.fill("inverse", "zero")
	w.exec("UPDATE things SET n = 0 WHERE id = 'zero'")
	w.exec("UPDATE things SET n = 7654321 WHERE id = 'bad'")
	w.fill("thing", "good")
	sent := w.snapshot()
	x := w.examine(&sent, time.Millisecond)
	start := func(name string) (log *safeLog, metrics *prometheus.Registry, stop func()) {
		log, metrics = &safeLog{}, prometheus.NewRegistry()
		a, err := NewAuditor(w.store, w.loader, w.views, AuditorOptions{
			Instance: name, Rate: 500, Road: x.road, Settle: x.settle, Lease: 300 * time.Millisecond,
			Log: zerolog.New(log), Metrics: metrics,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(w.ctx)
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()
		return log, metrics, sync.OnceFunc(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	log, metrics, stop := start("one")
	defer stop()
	testserver.Eventually(t, "both faults are found, and what cannot be read is passed by", func() error {
		got := verdicts(t, metrics)
		if got["thing wrong"] < 2 || got["thing fresh"] == 0 || got["inverse unread"] < 3 || got["passes"] < 2 {
			return fmt.Errorf("it has found %v", got)
		}
		return nil
	})
	otherLog, otherMetrics, stopOther := start("two")
	defer stopOther()
	w.set("good", 2) // from now on wrong, for the other to find
	client := w.redis.Client(t)
	if holder := client.Get(w.ctx, "mythic:audit").Val(); holder != "one" {
		t.Errorf("%q has the lease", holder)
	}
	stop()
	testserver.Eventually(t, "the other takes over", func() error {
		got, before := verdicts(t, otherMetrics), verdicts(t, metrics)
		if got["passes"] == 0 || got["thing wrong"]+before["thing wrong"] < 3 {
			return fmt.Errorf("it has found %v, the other %v", got, before)
		}
		return nil
	})
	stopOther()
	if n := client.Exists(w.ctx, "mythic:audit").Val(); n != 0 {
		t.Error("the lease was not given back")
	}
	text := log.String() + otherLog.String()
	if n := strings.Count(text, "the cache was wrong"); n != 3 {
		t.Errorf("%d violations were logged:\n%s", n, text)
	}
	if strings.Contains(text, "7654321") || !strings.Contains(text, `"key":"bad"`) || strings.Count(text, `"key":"good"`) != 1 {
		t.Errorf("it says\n%s", text)
	}
	for _, id := range []string{"good", "bad", "zero"} {
		w.wants("thing", id, "")
	}
}

// safeLog is a log that may be read while it is written.
type safeLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *safeLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *safeLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// verdicts reads what an auditor has counted.
func verdicts(t *testing.T, metrics *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			switch family.GetName() {
			case "mythic_cache_audit_checked_total": // its labels come in order: verdict, view
				found[m.GetLabel()[1].GetValue()+" "+m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			case "mythic_cache_audit_passes_total":
				found["passes"] = m.GetCounter().GetValue()
			}
		}
	}
	return found
}

// A process that dies without a word is in the way for as long as its lease lives.
func TestLeaseOfOneThatDied(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	of := func(holder string, life time.Duration) *soleLease {
		return &soleLease{client: w.redis.Client(t), name: "mythic:audit", holder: holder, life: life}
	}
	takes := func(l *soleLease, want bool) {
		t.Helper()
		if got, err := l.take(w.ctx); err != nil || got != want {
			t.Errorf("%s takes the lease: %v, %v", l.holder, got, err)
		}
	}
	dead, other := of("dead", time.Hour), of("other", time.Hour)
	takes(dead, true)
	takes(other, false)
	if err := other.give(w.ctx); err != nil {
		t.Fatal(err)
	}
	takes(other, false)
	dead.life = 50 * time.Millisecond
	takes(dead, true) // renewed, and for so long
	testserver.Eventually(t, "the lease runs out", func() error {
		if has, err := other.take(w.ctx); err != nil || !has {
			return fmt.Errorf("not yet: %w", err)
		}
		return nil
	})
	takes(dead, false)
}

// A walk meets each entry of the views, and nothing else.
func TestWalkMeetsEveryEntry(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	client := w.redis.Client(t)
	want := map[string]bool{}
	for n := range 700 {
		want["thing "+strconv.Itoa(n)] = true
		for _, name := range []string{"thing:{%d}", "answer:{%d}", "session:{%d}", "thing:{%d", "rate:{%d}"} {
			if err := client.Set(w.ctx, "mythic:"+fmt.Sprintf(name, n), "", time.Minute).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	all, err := newWalk(w.ctx, w.store, w.views)
	if err != nil {
		t.Fatal(err)
	}
	met := map[string]bool{}
	for end := false; !end || len(all.found) > 0; {
		p, last, err := all.next(w.ctx)
		if err != nil {
			t.Fatal(err)
		}
		end = end || last
		if p != nil {
			met[p.view.Name+" "+p.key] = true
		}
	}
	for name := range want {
		if !met[name] {
			t.Errorf("%s was not met", name)
		}
	}
	if len(met) != len(want) {
		t.Errorf("%d were met, there are %d", len(met), len(want))
	}
}
