package consumers

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

// A change whose keys are found by joins may be of any key until they are.
func TestAChangeWhoseKeysAreYetToBeFoundIsOnItsWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	w.fill("thing", "a")
	sent := w.snapshot()
	w.exec("WITH changed AS (UPDATE things SET n = 2 WHERE id = 'a' RETURNING id) INSERT INTO mythic_cache.outbox (type, view, subject, joins) SELECT 'things.changed', 'thing', 'b', '{}' FROM changed")
	x := w.examine(&sent, 0)
	s := w.suspicionOf(x, "thing", "a")
	w.verdict(x, s, "", "while nobody has looked whose it is")
	sent = w.snapshot()
	w.verdict(x, s, Wrong, "when it was another's")
}

// What waits for another attempt has not been done.
func TestAParkedEventIsOnItsWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	x, _ := w.unnoticed(0)
	client, keys := w.redis.Client(t), x.road.Keys
	if err := client.XGroupCreateMkStream(w.ctx, keys.Topic("things"), "invalidate", "0").Err(); err != nil {
		t.Fatal(err)
	}
	parked := keys.Parked("invalidate", "things")
	if err := client.ZAdd(w.ctx, parked, redis.Z{Score: 1, Member: "1-1"}).Err(); err != nil {
		t.Fatal(err)
	}
	s := w.suspicionOf(x, "thing", "a")
	w.verdict(x, s, "", "while an event is parked")
	if err := client.Del(w.ctx, parked).Err(); err != nil {
		t.Fatal(err)
	}
	w.verdict(x, s, Wrong, "when none is")
}

// Only what readers get, and somebody answers for, can be wrong.
func TestWhatNobodyAnswersForIsNotJudged(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   cache.Inspection
		want state
	}{
		{cache.Inspection{Status: cache.Miss, Why: cache.WhyFenced}, gone},
		{cache.Inspection{Status: cache.Hit}, same},
		{cache.Inspection{Status: cache.Hit, Confirmed: true}, same},
		{cache.Inspection{Status: cache.Stale, Why: cache.WhyStale, Confirmed: true}, same},
		{cache.Inspection{Status: cache.Stale, Why: cache.WhyStale}, unsure},
		{cache.Inspection{Status: cache.Stale, Why: cache.WhyUnconfirmed}, unsure},
		{cache.Inspection{Status: cache.Stale, Why: cache.WhyUnconfirmed, Confirmed: true}, unsure},
	} {
		if got := servable(c.in); got != c.want {
			t.Errorf("%+v is judged as %d, want %d", c.in, got, c.want)
		}
	}
}

// A Redis that was restarted at the last moment may have lost what dropped the entry: all
// begins anew.
func TestARestartOfRedisBeginsASuspicionAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	x, _ := w.unnoticed(0)
	s := w.suspicionOf(x, "thing", "a")
	s.steady, s.marked = time.Now(), time.Now()
	before := w.store.RunID()
	w.redis.Kill()
	if err := w.redis.Start(w.ctx); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "notice the new server", func() error {
		if err := w.store.Ping(w.ctx); err != nil || w.store.RunID() == before {
			return errors.Join(errors.New("still the old one"), err)
		}
		return nil
	})
	w.wants("thing", "a", `stale {"n":1}`)
	final, err := x.still(w.ctx, s)
	if err != nil || final || !s.steady.IsZero() || !s.marked.IsZero() {
		t.Errorf("after a restart it is final: %v, %v; steady since %s, marked %s", final, err, s.steady, s.marked)
	}
}

// One pass over everything puts every fault under suspicion, and nothing else.
func TestOnePassMeetsEveryFault(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	want := map[string]bool{}
	for n := range 300 {
		id := strconv.Itoa(n)
		w.set(id, 1)
		w.fill("thing", id)
		if n%50 == 0 {
			w.set(id, 2)
			want[id] = true
		}
	}
	sent := w.snapshot()
	a, err := NewAuditor(w.store, w.loader, w.views, AuditorOptions{Instance: "one", Rate: 100, Road: w.examine(&sent, time.Hour).road, Settle: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.begin(w.ctx); err != nil {
		t.Fatal(err)
	}
	a.walk.cursor, a.walk.whole = 0, true
	for begun := false; !begun || a.walk.cursor != 0 || len(a.walk.found) > 0; begun = true {
		if err := a.load(w.ctx); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range a.suspects {
		if !want[s.Key] {
			t.Errorf("%s is under suspicion: %s", s.Key, s.Why)
		}
	}
	if len(a.suspects) != len(want) {
		t.Errorf("%d are under suspicion, want %d", len(a.suspects), len(want))
	}
}
