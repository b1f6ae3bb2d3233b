package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/internal/modelserver"
	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// While the model thinks about more questions than are asked of it at a time, rows
// that change and runs that go on are seen as soon as ever.
func TestSlowModelDelaysNothingElse(t *testing.T) {
	t.Parallel()
	model := modelserver.New(t)
	thinks := make(chan struct{})
	model.Respond(func(modelserver.Call) modelserver.Reply { return modelserver.Reply{Hold: thinks} })
	s := newSystem(t, map[string]string{"LLM_BASE_URL": model.URL(), "LLM_MODEL": "writer"})
	s.people(names(10)...)
	before := s.dropTimes()

	const questions = 3 * asksInFlight
	for n := range questions {
		s.add(event.TopicAI, event.AIRequested, "user0", fmt.Sprintf(`{"prompt":"Question %d"}`, n))
	}
	for range asksInFlight {
		<-model.Arrived()
	}
	during := s.dropTimes()
	s.publishRun("RUN-BESIDE")
	s.awaitStatus("RUN-BESIDE", "", func(got status) bool { return got.Message == "goes on" })
	s.compare("an entry was dropped", before, during)
	if n := len(model.Calls()); n != asksInFlight {
		t.Errorf("the model was asked %d questions at a time, not %d", n, asksInFlight)
	}
	close(thinks)
	testserver.Eventually(t, "all questions are answered", func() error {
		if n := len(model.Calls()); n != questions {
			return fmt.Errorf("%d of %d", n, questions)
		}
		return nil
	})
}

// add writes an event straight into a stream.
func (s *system) add(topic, kind, subject, data string) {
	s.t.Helper()
	if err := s.client.XAdd(s.t.Context(), &redis.XAddArgs{
		Stream: stream.NewKeys("mythic:").Topic(topic),
		Values: []string{event.FieldType, kind, event.FieldSubject, subject, event.FieldData, data},
	}).Err(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *system) publishRun(run string) {
	s.t.Helper()
	s.exec(`SELECT mythic_cache.publish('run.progress', $1, '{"message":"goes on"}')`, run)
}

// dropTimes measures how long it takes from the entry in a stream that a user's
// books have changed to the end of what was cached of them, some dozen times.
func (s *system) dropTimes() []time.Duration {
	s.t.Helper()
	var times []time.Duration
	for _, user := range slices.Repeat(names(10), 4) {
		s.cached(user)
		times = append(times, s.dropTime(user))
	}
	return times
}

func (s *system) dropTime(user string) time.Duration {
	s.t.Helper()
	key := "mythic:user_books:{" + user + "}"
	length := func() int64 {
		n, err := s.client.StrLen(s.t.Context(), key).Result()
		if err != nil {
			s.t.Fatal(err)
		}
		return n
	}
	whole, begun := length(), time.Now()
	s.add("books", "books.changed", user, "")
	testserver.Eventually(s.t, "the entry is dropped", func() error {
		if n := length(); n == whole {
			return fmt.Errorf("%d bytes", n)
		}
		return nil
	})
	return time.Since(begun)
}

// compare demands that something takes no longer than it did before. What waits for
// the slow ones would take seconds at least; what merely has less of the processor
// may take a little longer.
func (s *system) compare(what string, before, during []time.Duration) {
	s.t.Helper()
	median := func(times []time.Duration) time.Duration { return slices.Sorted(slices.Values(times))[len(times)/2] }
	was, is, most := median(before), median(during), slices.Max(during)
	s.t.Logf("%s after %s at the median, and beside the slow ones after %s, %s at most", what, was, is, most)
	if is > 10*was+100*time.Millisecond || most > 2*time.Second {
		s.t.Errorf("%s after %s at the median, and beside the slow ones after %s, %s at most", what, was, is, most)
	}
}

// things are three views of one table. While somebody holds the advisory lock 1, loads
// of ids from 1000 on do not end in one of them.
const things = `
views:
  seen:
    key: [id]
    load: SELECT json_build_object('n', n) FROM things WHERE id = $1
    tables: {things: SELECT id FROM changed WHERE id < 1000}
    http: {path: '/seen/{id}', key: id}
  kept:
    key: [id]
    on_change: precompute
    load: SELECT json_build_object('n', n) FROM things WHERE id = $1
    tables: {things: SELECT id FROM changed WHERE id < 1000}
    http: {path: '/kept/{id}', key: id}
  slow:
    key: [id]
    on_change: precompute
    load: SELECT json_build_object('n', n, 'w', CASE WHEN id >= 1000 THEN pg_advisory_xact_lock_shared(1)::text END) FROM things WHERE id = $1
    tables: {things: SELECT id FROM changed}
    http: {path: '/slow/{id}', key: id}
`

const (
	turns    = connections / 3 // loads of one view at a time
	slowKeys = 2 * fillBatches // more than there are places for batches, or connections
)

// A view that has more slow keys than a worker has places for anything holds up no
// other view: neither what its readers ask for, nor what is precomputed, nor the
// invalidation of either, nor run events.
func TestSlowViewDelaysNoOthers(t *testing.T) {
	t.Parallel()
	t.Run("that readers ask for", func(t *testing.T) {
		t.Parallel()
		slowViewDelaysNoOthers(t, func(s *system, id int) { s.get(fmt.Sprintf("/slow/%d", id), "") })
	})
	t.Run("that is precomputed", func(t *testing.T) {
		t.Parallel()
		slowViewDelaysNoOthers(t, func(s *system, id int) { s.exec(`UPDATE things SET n = 140 WHERE id = $1`, id) })
	})
}

// load brings about the load of a slow key.
func slowViewDelaysNoOthers(t *testing.T, load func(s *system, id int)) {
	t.Helper()
	s := newSystemOfThings(t)
	before, loadsBefore, runsBefore := s.changeTimes(100, "seen", "kept"), s.loadTimes(110), s.runTimes("BEFORE")
	unlock := s.stick()
	for n := range turns { // one after the other, so that each has a batch of its own
		load(s, 1000+n)
		s.stuck(n + 1)
	}
	stop := s.besiege(slowKeys)
	s.exec(`UPDATE things SET n = 150`)
	during, loadsDuring, runsDuring := s.changeTimes(200, "seen", "kept"), s.loadTimes(210), s.runTimes("DURING")
	s.stuck(turns)
	stop()
	s.compare("a change was seen", before, during)
	s.compare("a change was precomputed", loadsBefore, loadsDuring)
	s.compare("a run event was kept", runsBefore, runsDuring)
	unlock()
	for id := range slowKeys {
		s.filled("slow", 1000+id, 150)
		s.shows("slow", 1000+id, 150)
	}
}

// As long as a view has fewer slow keys than turns to load, its other keys do not wait
// for them either, those of their own batch included.
func TestSlowKeysDelayNoOthersOfTheirView(t *testing.T) {
	t.Parallel()
	s := newSystemOfThings(t)
	before := s.changeTimes(100, "slow")
	unlock := s.stick()
	defer unlock()
	s.exec(`UPDATE things SET n = 150 WHERE id < $1`, 1000+turns-1) // one batch
	s.stuck(turns - 1)
	begun := time.Now()
	for id := range 20 {
		s.filled("slow", id, 150)
		s.shows("slow", id, 150)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("what is beside the slow ones in a batch was loaded after %s", took)
	}
	during := s.changeTimes(200, "slow")
	if a := s.get("/slow/1000", ""); a.status != http.StatusServiceUnavailable {
		t.Errorf("a slow key is not slow: %d %s", a.status, a.body)
	}
	s.compare("a change was seen", before, during)
}

func newSystemOfThings(t testing.TB) *system {
	t.Helper()
	file := filepath.Join(t.TempDir(), "views.yaml")
	if err := os.WriteFile(file, []byte(things), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &system{
		t: t, server: postgres, database: postgres.Database(t), redis: testserver.NewRedis(t),
		args: []string{"run", "--migrate"}, settings: map[string]string{"VIEWS_FILE": file},
	}
	s.client, s.conn = s.redis.Client(t), s.connect()
	s.exec(`CREATE TABLE things (id int PRIMARY KEY, n int)`)
	s.exec(`INSERT INTO things SELECT id, 0 FROM generate_series(0, 19) id UNION SELECT id, 0 FROM generate_series(1000, $1) id`, 999+slowKeys)
	s.start()
	s.awaitReady()
	return s
}

// stick makes the loads of slow keys wait until the returned function is called.
func (s *system) stick() (unlock func()) {
	s.t.Helper()
	lock := s.connect()
	if _, err := lock.Exec(s.t.Context(), `SELECT pg_advisory_lock(1)`); err != nil {
		s.t.Fatal(err)
	}
	return func() {
		s.t.Helper()
		if _, err := lock.Exec(s.t.Context(), `SELECT pg_advisory_unlock(1)`); err != nil {
			s.t.Fatal(err)
		}
	}
}

// stuck waits until so many loads wait, and fails where there are more.
func (s *system) stuck(want int) {
	s.t.Helper()
	testserver.Eventually(s.t, "the slow loads wait", func() error {
		n := one[int](s, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'`)
		if n > want {
			s.t.Fatalf("%d loads of a view wait, of %d that may", n, want)
		}
		if n < want {
			return fmt.Errorf("%d wait", n)
		}
		return nil
	})
}

// besiege has that many readers ask for a slow key each, again and again until stop is
// called.
func (s *system) besiege(readers int) (stop func()) {
	s.t.Helper()
	ended := make(chan struct{})
	var asking sync.WaitGroup
	for id := range readers {
		asking.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
				}
				a, err := s.tryRequest(http.MethodGet, fmt.Sprintf("/slow/%d", 1000+id), "", nil, nil)
				if err != nil || a.status != http.StatusServiceUnavailable {
					s.t.Errorf("a slow key is not slow: %d %s, %v", a.status, a.body, err)
					return
				}
			}
		})
	}
	return func() {
		close(ended)
		asking.Wait()
	}
}

// changeTimes measures how long it takes from the commit of a change of one row to
// the first reader of each of the views that sees it.
func (s *system) changeTimes(n int, views ...string) []time.Duration {
	s.t.Helper()
	var times []time.Duration
	for id := range 20 {
		s.exec(`UPDATE things SET n = $2 WHERE id = $1`, id, n)
		begun := time.Now()
		for _, name := range views {
			s.shows(name, id, n)
		}
		times = append(times, time.Since(begun))
	}
	return times
}

// loadTimes measures how long it takes from the commit of a change of one row to what
// is precomputed of it.
func (s *system) loadTimes(n int) []time.Duration {
	s.t.Helper()
	var times []time.Duration
	for id := range 20 {
		s.exec(`UPDATE things SET n = $2 WHERE id = $1`, id, n)
		begun := time.Now()
		s.filled("kept", id, n)
		times = append(times, time.Since(begun))
	}
	return times
}

// runTimes measures how long it takes from a run's event to its row.
func (s *system) runTimes(run string) []time.Duration {
	s.t.Helper()
	var times []time.Duration
	for n := range 20 {
		id := fmt.Sprintf("%s%d", run, n)
		begun := time.Now()
		s.publishRun(id)
		testserver.Eventually(s.t, "the event is kept", func() error {
			if !one[bool](s, `SELECT EXISTS (SELECT FROM mythic_cache.run_events WHERE run_id = $1)`, id) {
				return errors.New("it is not")
			}
			return nil
		})
		times = append(times, time.Since(begun))
	}
	return times
}

// filled waits until the entry has that number. Nobody asks for it: that would fill
// it too.
func (s *system) filled(name string, id, n int) {
	s.t.Helper()
	testserver.Eventually(s.t, fmt.Sprintf("%s %d is filled", name, id), func() error {
		entry := s.client.Get(s.t.Context(), fmt.Sprintf("mythic:%s:{%d}", name, id)).Val()
		if !strings.Contains(entry, fmt.Sprintf(`{"n":%d`, n)) {
			return fmt.Errorf("%q", entry)
		}
		return nil
	})
}

// shows waits until a view shows that number.
func (s *system) shows(name string, id, n int) {
	s.t.Helper()
	testserver.Eventually(s.t, fmt.Sprintf("%s %d shows %d", name, id, n), func() error {
		a := s.get(fmt.Sprintf("/%s/%d", name, id), "")
		var got struct{ N int }
		if err := json.Unmarshal(a.body, &got); err != nil || a.status != http.StatusOK || got.N != n {
			return fmt.Errorf("%d %s", a.status, a.body)
		}
		return nil
	})
}
