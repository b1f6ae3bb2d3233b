package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
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
	if is > 10*was+100*time.Millisecond || most > 5*time.Second {
		s.t.Errorf("%s after %s at the median, and beside the slow ones after %s, %s at most", what, was, is, most)
	}
}

// stuck are two views of one table. Loads of ids from 1000 on wait for whoever holds
// the advisory lock 1.
const stuck = `
views:
  seen:
    key: [id]
    load: SELECT json_build_object('n', n, 'w', CASE WHEN id >= 1000 THEN pg_advisory_xact_lock_shared(1)::text END) FROM things WHERE id = $1
    tables: {things: SELECT id FROM changed}
    http: {path: '/seen/{id}', key: id}
  kept:
    key: [id]
    on_change: precompute
    load: SELECT json_build_object('n', n, 'w', CASE WHEN id >= 1000 THEN pg_advisory_xact_lock_shared(1)::text END) FROM things WHERE id = $1
    tables: {things: SELECT id FROM changed}
    http: {path: '/kept/{id}', key: id}
`

// slowKeys is one less than a worker has loads of one batch to precompute, and batches
// of fills, at a time: with one more, the others wait for them.
const slowKeys = 3

// Keys whose loads do not come to an end hold up neither the invalidation of others
// nor their loads, those of their own batch included.
func TestSlowKeysDelayNoOthers(t *testing.T) {
	t.Parallel()
	s := newSystemOfThings(t)
	before := s.changeTimes(100)
	lock := s.connect()
	if _, err := lock.Exec(t.Context(), `SELECT pg_advisory_lock(1)`); err != nil {
		t.Fatal(err)
	}
	s.exec(`UPDATE things SET n = 150`) // one batch of all keys, to precompute
	for id := range slowKeys {
		s.get(fmt.Sprintf("/seen/%d", 1000+id), "") // and a batch for each that a reader asks for
	}
	testserver.Eventually(t, "the slow loads wait", func() error {
		n := one[int](s, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'`)
		if n != 2*slowKeys {
			return fmt.Errorf("%d wait", n)
		}
		return nil
	})
	begun := time.Now()
	for id := range 20 {
		s.filled("kept", id)
		s.shows("kept", id, 150)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("what is beside the slow ones in a batch was loaded after %s", took)
	}
	during := s.changeTimes(200)
	if a := s.get("/seen/1000", ""); a.status != http.StatusServiceUnavailable {
		t.Errorf("a slow key is not slow: %d %s", a.status, a.body)
	}
	s.compare("a change was seen", before, during)
	if _, err := lock.Exec(t.Context(), `SELECT pg_advisory_unlock(1)`); err != nil {
		t.Fatal(err)
	}
	s.shows("seen", 1000, 150)
	s.shows("kept", 1000, 150)
}

func newSystemOfThings(t testing.TB) *system {
	t.Helper()
	file := filepath.Join(t.TempDir(), "views.yaml")
	if err := os.WriteFile(file, []byte(stuck), 0o600); err != nil {
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

// changeTimes measures how long it takes from the commit of a change of one row to
// the first reader of either view that sees it.
func (s *system) changeTimes(n int) []time.Duration {
	s.t.Helper()
	var times []time.Duration
	for id := range 20 {
		s.exec(`UPDATE things SET n = $2 WHERE id = $1`, id, n)
		begun := time.Now()
		s.shows("seen", id, n)
		s.shows("kept", id, n)
		times = append(times, time.Since(begun))
	}
	return times
}

// filled waits until there is an entry. Nobody asks for it: that would fill it too.
func (s *system) filled(name string, id int) {
	s.t.Helper()
	length := func(id int) int64 {
		return s.client.StrLen(s.t.Context(), fmt.Sprintf("mythic:%s:{%d}", name, id)).Val()
	}
	testserver.Eventually(s.t, fmt.Sprintf("%s %d is filled", name, id), func() error {
		if whole, empty := length(id), length(1000); whole <= empty {
			return fmt.Errorf("%d bytes, as an empty one of %d", whole, empty)
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
