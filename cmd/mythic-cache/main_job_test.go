package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"mythiccache/internal/testserver"
)

// people makes users with two books each, apart from the demo's.
func (s *system) people(names ...string) {
	s.t.Helper()
	for _, name := range names {
		s.exec(`INSERT INTO users (clerk_user_id, email) VALUES ($1, $1 || '@example.com')`, name)
		s.exec(`INSERT INTO books (user_id, run_id, title) SELECT id, $1 || n, 'Book ' || n FROM users, generate_series(1, 2) n WHERE clerk_user_id = $1`, name)
	}
}

// Whatever a transaction does to the rows, /books/my says what SQL says.
func TestBooksFollowSQL(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	s.people("ann", "bob", "cem")
	inTx := func(statements ...string) func() {
		return func() {
			tx, err := s.conn.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, sql := range statements {
				if _, err := tx.Exec(t.Context(), sql); err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
			}
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, step := range []struct {
		name   string
		change func()
		moved  bool // whether SQL's answer for ann or bob must have changed
	}{
		{"insert", inTx(`INSERT INTO books (user_id, title) SELECT id, 'New' FROM users WHERE clerk_user_id = 'ann'`), true},
		{"update", inTx(`UPDATE books SET title = title || '!' WHERE title = 'New'`), true},
		{"move between users", inTx(`UPDATE books SET user_id = (SELECT id FROM users WHERE clerk_user_id = 'bob') WHERE title = 'New!'`), true},
		{"delete", inTx(`DELETE FROM books WHERE title = 'New!'`), true},
		{"rename a user", inTx(`UPDATE users SET clerk_user_id = 'bob2' WHERE clerk_user_id = 'bob'`), true},
		{"rename back", inTx(`UPDATE users SET clerk_user_id = 'bob' WHERE clerk_user_id = 'bob2'`), true},
		{"bulk update", inTx(`UPDATE books SET title = title || '*'`), true},
		{"rolled back", func() {
			tx, err := s.conn.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), `DELETE FROM books`); err != nil {
				t.Fatal(err)
			}
			if err := tx.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"savepoint rolled back", inTx(`UPDATE books SET title = title || 'a'`, `SAVEPOINT s`, `DELETE FROM books`, `ROLLBACK TO s`), true},
		{"upsert", inTx(`INSERT INTO users (clerk_user_id, email) VALUES ('ann', 'x') ON CONFLICT (clerk_user_id) DO UPDATE SET email = 'x'`), false},
		{"delete a user with cascade", inTx(`DELETE FROM users WHERE clerk_user_id = 'bob'`), true},
		{"truncate", inTx(`TRUNCATE books`), true},
	} {
		s.cached("ann", "bob", "bob2", "cem")
		annBefore, _ := s.booksBySQL("ann")
		bobBefore, _ := s.booksBySQL("bob")
		step.change()
		annAfter, _ := s.booksBySQL("ann")
		bobAfter, _ := s.booksBySQL("bob")
		if moved := fmt.Sprint(annBefore, bobBefore) != fmt.Sprint(annAfter, bobAfter); moved != step.moved {
			t.Fatalf("%s: changed SQL's answer: %v", step.name, moved)
		}
		s.fresh("ann", "bob", "bob2", "cem")
	}
}

// status is the part of /status that the tests compare.
type status struct {
	RunID, Message, Style, Format string
	Stages                        struct {
		Data   bool `json:"data_collected"`
		Images bool `json:"images_downloaded"`
		Book   bool `json:"book_generated"`
	}
	Files        map[string]any
	Profile      map[string]any
	Status       *string
	CurrentStage *string `json:"current_stage"`
	Progress     *int    `json:"progress_percentage"`
	ErrorMessage *string `json:"error_message"`
}

// awaitStatus waits until the run's status, as bearer sees it, is as wanted.
func (s *system) awaitStatus(run, bearer string, want func(status) bool) {
	s.t.Helper()
	testserver.Eventually(s.t, "status of "+run, func() error {
		a := s.get("/status/"+run, bearer)
		if a.status != http.StatusOK {
			return fmt.Errorf("%d %s", a.status, a.body)
		}
		var got status
		if err := json.Unmarshal(a.body, &got); err != nil {
			return err
		}
		if got.RunID != run || !want(got) {
			return fmt.Errorf("%s", a.body)
		}
		return nil
	})
}

func TestRunEventsFoldWhateverTheirOrder(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	// Told backwards, twice, and by two ways: the end first, the beginning last.
	const cloudEvent = `{"specversion":"1.0","id":"%s","source":"tests","type":"%s","subject":"RUN-A","time":"2026-01-01T00:00:0%dZ","data":%s}`
	tell := func(id, kind string, second int, data string) {
		a := s.request(http.MethodPost, "/events", eventsToken, http.Header{"Content-Type": {"application/cloudevents+json"}},
			fmt.Appendf(nil, cloudEvent, id, kind, second, data))
		if a.status != http.StatusAccepted {
			t.Fatalf("POST /events: %d %s", a.status, a.body)
		}
	}
	tell("4", "run.finished", 4, `{"message":"done","stages":{"book_generated":true},"files":{"pdf":"a.pdf"}}`)
	tell("3", "run.progress", 5, `{"message":"a late word","stages":{"images_downloaded":true}}`)
	tell("2", "run.progress", 2, `{"message":"half way","progress_percentage":50,"stages":{"data_collected":true}}`)
	tell("1", "run.started", 1, `{"message":"begun","style":"classic","format":"a4","profile":{"username":"ann"}}`)
	tell("2", "run.progress", 2, `{"message":"half way","progress_percentage":50,"stages":{"data_collected":true}}`)
	s.awaitStatus("RUN-A", "", func(got status) bool {
		return got.Message == "done" && got.Style == "classic" && got.Stages.Data && got.Stages.Images && got.Stages.Book &&
			got.Files["pdf"] == "a.pdf" && got.Profile["username"] == "ann"
	})
	if n := one[int](s, `SELECT count(*) FROM mythic_cache.run_events WHERE run_id = 'RUN-A'`); n != 4 {
		t.Errorf("%d run events are kept, not 4", n)
	}
}

func TestSessionRowWinsAndIsItsOwnersForEver(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	s.people("ann", "bob")
	s.exec(`SELECT mythic_cache.publish('run.started', 'RUN-B', '{"message":"begun","status":"from the event","current_stage":"from the event"}')`)
	s.awaitStatus("RUN-B", "", func(got status) bool { return *got.Status == "from the event" })
	s.exec(`INSERT INTO processing_sessions (run_id, user_id, instagram_url, status, current_stage, progress_percentage)
		SELECT 'RUN-B', id, 'https://instagram.example/ann', 'running', 'scraping', 10 FROM users WHERE clerk_user_id = 'ann'`)
	s.awaitStatus("RUN-B", token("ann"), func(got status) bool {
		return got.Message == "begun" && *got.Status == "running" && *got.CurrentStage == "scraping" && *got.Progress == 10
	})
	hidden := func(bearer string) {
		t.Helper()
		testserver.Eventually(t, "hidden", func() error {
			if a := s.get("/status/RUN-B", bearer); a.status != http.StatusNotFound {
				return fmt.Errorf("%d %s", a.status, a.body)
			}
			return nil
		})
	}
	hidden(token("bob"))
	hidden("")
	s.exec(`UPDATE processing_sessions SET progress_percentage = 60, current_stage = 'writing' WHERE run_id = 'RUN-B'`)
	s.awaitStatus("RUN-B", token("ann"), func(got status) bool { return *got.Progress == 60 && *got.CurrentStage == "writing" })
	s.exec(`UPDATE processing_sessions SET user_id = (SELECT id FROM users WHERE clerk_user_id = 'bob') WHERE run_id = 'RUN-B'`)
	s.awaitStatus("RUN-B", token("bob"), func(got status) bool { return *got.Progress == 60 })
	hidden(token("ann"))
	s.exec(`DELETE FROM processing_sessions WHERE run_id = 'RUN-B'`)
	for _, bearer := range []string{"", token("ann"), token("bob")} {
		hidden(bearer)
	}
}

func TestUsersSeeOnlyTheirOwn(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	s.people("ann", "bob")
	s.cached("ann", "bob")
	for _, path := range []string{"/books/my?user=ann", "/books/my?clerk_user_id=ann", "/books/my?sub=ann"} {
		a := s.request(http.MethodGet, path, token("bob"), http.Header{"X-User-Id": {"ann"}, "X-Forwarded-User": {"ann"}}, nil)
		if strings.Contains(string(a.body), `"ann1"`) || !strings.Contains(string(a.body), `"bob1"`) {
			t.Errorf("GET %s as bob: %s", path, a.body)
		}
	}
	for _, bearer := range []string{"", "nonsense", token("ann") + "x"} {
		if a := s.get("/books/my", bearer); a.status != http.StatusUnauthorized {
			t.Errorf("with the token %q: %d %s", bearer, a.status, a.body)
		}
	}
}

func TestEveryWayInArrives(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	cli := func(args ...string) {
		t.Helper()
		all := append([]string{"-u", s.redis.URL()}, args...)
		if out, err := exec.CommandContext(t.Context(), "redis-cli", all...).CombinedOutput(); err != nil {
			t.Fatalf("redis-cli: %v %s", err, out)
		}
	}
	cli("XADD", "mythic:{stream}:run", "*", "type", "run.started", "subject", "RUN-XADD", "data", `{"message":"by hand"}`)
	s.exec(`SELECT mythic_cache.publish('run.started', 'RUN-SQL', '{"message":"by SQL"}')`)
	s.command("publish", "run.started", "RUN-CLI", `{"message":"by command"}`)
	a := s.request(http.MethodPost, "/events", eventsToken, http.Header{"Content-Type": {"application/cloudevents+json"}},
		[]byte(`{"specversion":"1.0","id":"1","source":"tests","type":"run.started","subject":"RUN-HTTP","data":{"message":"by HTTP"}}`))
	if a.status != http.StatusAccepted {
		t.Fatalf("POST /events: %d %s", a.status, a.body)
	}
	for run, message := range map[string]string{"RUN-XADD": "by hand", "RUN-SQL": "by SQL", "RUN-CLI": "by command", "RUN-HTTP": "by HTTP"} {
		s.awaitStatus(run, "", func(got status) bool { return got.Message == message })
	}
	// A malformed one goes to the dead letters, of each group that reads the topic, and
	// holds up nobody: who keeps runs, and who asks ahead about them.
	cli("XADD", "mythic:{stream}:run", "*", "nonsense", "yes")
	testserver.Eventually(t, "dead letter", func() error {
		n, err := s.client.XLen(t.Context(), "mythic:{stream}:dead").Result()
		if err != nil || n != 2 {
			return fmt.Errorf("%d dead letters, %w", n, err)
		}
		return nil
	})
	s.exec(`SELECT mythic_cache.publish('run.progress', 'RUN-SQL', '{"message":"goes on"}')`)
	s.awaitStatus("RUN-SQL", "", func(got status) bool { return got.Message == "goes on" })
}

// An app event without a snapshot drops the entry, whatever its version.
func TestBooksChangedByTheApp(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	s.people("ann")
	s.cached("ann")
	s.command("publish", "books.changed", "ann")
	testserver.Eventually(t, "dropped", func() error {
		if a := s.get("/books/my", token("ann")); a.header.Get("X-Cache") != "MISS" {
			return fmt.Errorf("X-Cache %s", a.header.Get("X-Cache"))
		}
		return nil
	})
}

// The change of a book beside a concurrent change of its user's id leaves both
// keys right, which the mapping inside the transaction alone cannot do.
func TestJoinedMappingSeesConcurrentCommits(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	s.people("old")
	for round, order := range []string{"book first", "user first"} {
		from, to := "old", "new"
		if round%2 == 1 {
			from, to = to, from
		}
		s.cached(from, to)
		other := s.connect()
		bookTx, err := s.conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		userTx, err := other.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		do := func(tx pgx.Tx, sql string, args ...any) {
			t.Helper()
			if _, err := tx.Exec(t.Context(), sql, args...); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
		do(bookTx, `UPDATE books SET title = $1 WHERE run_id = 'old1'`, order)
		do(userTx, `UPDATE users SET clerk_user_id = $2 WHERE clerk_user_id = $1`, from, to)
		first, second := bookTx, userTx
		if order == "user first" {
			first, second = second, first
		}
		if err := first.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		// Let readers fill between the commits: that is what would go stale.
		if order == "user first" {
			testserver.Eventually(t, "the new key is filled", func() error {
				a := s.get("/books/my", token(to))
				if a.header.Get("X-Cache") != "HIT" || !strings.Contains(string(a.body), "old1") {
					return fmt.Errorf("%s %s", a.header.Get("X-Cache"), a.body)
				}
				return nil
			})
		}
		if err := second.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.fresh(from, to)
	}
}

// A cold read asks the workers for a fill over a stream, waits for it and
// answers; every operation is a debug line that says how long it took.
func TestColdReadIsFilledByTheWorkers(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	var user string
	var cold answer
	n := 0
	testserver.Eventually(t, "filled within the wait of a request", func() error { // which is short for a busy machine
		n++
		user = fmt.Sprintf("user_%d", n)
		if cold = s.get("/books/my", token(user)); cold.status != http.StatusOK || cold.header.Get("X-Cache") != "MISS" {
			return fmt.Errorf("%d %s %s", cold.status, cold.header.Get("X-Cache"), cold.body)
		}
		return nil
	})
	if n, err := s.client.XLen(t.Context(), "mythic:{stream}:fill").Result(); err != nil || n == 0 {
		t.Errorf("no fill was asked for: %d %v", n, err)
	}
	hit := s.get("/books/my", token(user))
	if hit.header.Get("X-Cache") != "HIT" || !bytes.Equal(hit.body, cold.body) || hit.header.Get("ETag") == "" {
		t.Errorf("hit: %v", hit.header)
	}
	again := s.request(http.MethodGet, "/books/my", token(user), http.Header{"If-None-Match": {hit.header.Get("ETag")}}, nil)
	if again.status != http.StatusNotModified {
		t.Errorf("with its ETag: %d", again.status)
	}
	s.exec(`UPDATE books SET title = 'new' WHERE user_id = (SELECT id FROM users WHERE clerk_user_id = $1)`, user)
	s.fresh(user)
	for _, operation := range []string{"cache hit", "cache save", "cache invalidate"} {
		line := ""
		for text := range strings.SplitSeq(s.log.String(), "\n") {
			if strings.Contains(text, `"message":"`+operation) && strings.Contains(text, user) {
				line = text
			}
		}
		if !strings.Contains(line, `"level":"debug"`) || !strings.Contains(line, `"took"`) {
			t.Errorf("no debug line of a %s: %s", operation, line)
		}
	}
}

// A caller who passes the transaction it wrote reads what it wrote.
func TestReadYourOwnWrites(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	s.people("ann")
	s.cached("ann")
	for n := range 50 {
		title := fmt.Sprintf("write %d", n)
		xid := one[string](s, `WITH w AS (UPDATE books SET title = $1 WHERE run_id = 'ann1') SELECT pg_current_xact_id()::text`, title)
		a := s.request(http.MethodGet, "/books/my", token("ann"), http.Header{"X-Min-Xid": {xid}}, nil)
		if a.status != http.StatusOK || !strings.Contains(string(a.body), title) {
			t.Fatalf("after transaction %s: %d %s", xid, a.status, a.body)
		}
	}
	a := s.request(http.MethodGet, "/books/my", token("ann"), http.Header{"X-Min-Xid": {"9000000000000"}}, nil)
	if a.status != http.StatusBadRequest {
		t.Errorf("a transaction that was never begun: %d %s", a.status, a.body)
	}
	tx, err := s.conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	var open string
	if err := tx.QueryRow(t.Context(), `SELECT pg_current_xact_id()::text`).Scan(&open); err != nil {
		t.Fatal(err)
	}
	if a := s.request(http.MethodGet, "/books/my", token("ann"), http.Header{"X-Min-Xid": {open}}, nil); a.status != http.StatusConflict {
		t.Errorf("a transaction in progress: %d %s", a.status, a.body)
	}
}
