package fastapi_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"

	"mythiccache/internal/testserver"
)

// answer is what came back.
type answer struct {
	code   int
	header http.Header
	body   string
}

// ask sends a request as a user ("" for nobody), with headers as name and value.
func ask(t *testing.T, user, method, url, body string, headers ...string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		claims := jwt.RegisteredClaims{Subject: user, ExpiresAt: jwt.NewNumericDate(time.Now().Add(time.Hour))}
		token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for pair := range slices.Chunk(headers, 2) {
		request.Header.Set(pair[0], pair[1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{code: response.StatusCode, header: response.Header, body: string(text)}
}

// must fails the test unless the answer has the code, and decodes its body.
func (a answer) must(t *testing.T, code int) map[string]any {
	t.Helper()
	if a.code != code {
		t.Fatalf("%d instead of %d: %s", a.code, code, a.body)
	}
	if a.body == "" {
		return nil
	}
	var document map[string]any
	if err := json.Unmarshal([]byte(a.body), &document); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	return document
}

func TestRunAndItsBookGoAllTheWayRound(t *testing.T) {
	s := start(t)
	const reader, other = "user_of_the_example", "user_who_is_curious"
	testserver.Eventually(t, "the worker is ready", func() error {
		if got := ask(t, "", http.MethodGet, s.worker+"/readyz", ""); got.code != http.StatusOK {
			return errors.New(got.body)
		}
		return nil
	})

	// Before there is anything, that is what is cached.
	if got := ask(t, reader, http.MethodGet, s.app+"/books/my", "").must(t, http.StatusOK); got["total"] != 0.0 {
		t.Errorf("books of somebody new: %v", got)
	}

	started := ask(t, reader, http.MethodPost, s.app+"/runs", `{"instagram_url":"https://www.instagram.com/somebody"}`)
	run, ok := started.must(t, http.StatusCreated)["run_id"].(string)
	if !ok {
		t.Fatalf("no run_id in %s", started.body)
	}
	statusOf := func(headers ...string) answer {
		return ask(t, reader, http.MethodGet, s.app+"/status/"+run, "", headers...)
	}
	// The row is seen by whoever brings its transaction along.
	status := statusOf("X-Min-Xid", started.header.Get("X-Min-Xid")).must(t, http.StatusOK)
	if status["status"] != "processing" || status["current_stage"] != "starting" {
		t.Errorf("just after the start: %v", status)
	}
	// The event that was published in the same transaction arrives as well.
	eventuallySays := func(what, field string, want any) {
		t.Helper()
		testserver.Eventually(t, what, func() error {
			if got := statusOf().must(t, http.StatusOK); got[field] != want {
				return fmt.Errorf("%s is %v in %v", field, got[field], got)
			}
			return nil
		})
	}
	eventuallySays("the event of the start", "message", "The run has started")

	ask(t, reader, http.MethodPost, s.app+"/runs/"+run+"/progress", `{"current_stage":"scraping","progress_percentage":40}`).must(t, http.StatusNoContent)
	eventuallySays("the row's progress", "progress_percentage", 40.0)
	eventuallySays("the event's message", "message", "At scraping")

	finished := ask(t, reader, http.MethodPost, s.app+"/runs/"+run+"/book", `{"title":"Somebody","profile_username":"somebody"}`)
	book := finished.must(t, http.StatusCreated)
	eventuallySays("the end", "status", "completed")

	// The list that was cached empty now has the book, for who wrote it at once.
	fresh := ask(t, reader, http.MethodGet, s.app+"/books/my", "", "X-Min-Xid", finished.header.Get("X-Min-Xid"))
	var list struct {
		Books []struct{ ID, Title string }
		Total int
	}
	fresh.must(t, http.StatusOK)
	if err := json.Unmarshal([]byte(fresh.body), &list); err != nil {
		t.Fatal(err)
	}
	if list.Total != 1 || len(list.Books) != 1 || list.Books[0].ID != book["id"] || list.Books[0].Title != "Somebody" {
		t.Errorf("books: %s", fresh.body)
	}
	s.checkPassedOn(t, reader, fresh)

	// To anybody else neither is there.
	ask(t, other, http.MethodGet, s.app+"/status/"+run, "").must(t, http.StatusNotFound)
	if got := ask(t, other, http.MethodGet, s.app+"/books/my", "").must(t, http.StatusOK); got["total"] != 0.0 {
		t.Errorf("another's books: %v", got)
	}
	s.checkRolledBack(t, reader, run)
}

// checkPassedOn makes sure that through the app come the worker's own bytes,
// and its manners.
func (s *system) checkPassedOn(t *testing.T, user string, fresh answer) {
	t.Helper()
	direct := ask(t, user, http.MethodGet, s.worker+"/books/my", "")
	if direct.body != fresh.body || direct.header.Get("ETag") != fresh.header.Get("ETag") {
		t.Errorf("the worker says %s, the app %s", direct.body, fresh.body)
	}
	if direct.header.Get("X-Cache") != "HIT" {
		t.Errorf("the second read was a %s", direct.header.Get("X-Cache"))
	}
	if again := ask(t, user, http.MethodGet, s.app+"/books/my", "", "If-None-Match", fresh.header.Get("ETag")); again.code != http.StatusNotModified || again.body != "" {
		t.Errorf("with its own ETag: %d %s", again.code, again.body)
	}
	if got := ask(t, "", http.MethodPost, s.app+"/runs", `{"instagram_url":"x"}`); got.code != http.StatusUnauthorized {
		t.Errorf("nobody started a run: %d", got.code)
	}
}

// checkRolledBack makes sure that an event of a transaction that is rolled back
// is not published: the app publishes before it finds that the run has a book.
func (s *system) checkRolledBack(t *testing.T, user, run string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	count := func() (finished int) {
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM mythic_cache.outbox WHERE type = 'run.finished' AND subject = $1", run).Scan(&finished); err != nil {
			t.Fatal(err)
		}
		return finished
	}
	if got := count(); got != 1 {
		t.Fatalf("%d events of one finished run", got)
	}
	ask(t, user, http.MethodPost, s.app+"/runs/"+run+"/book", `{"title":"Once more","profile_username":"somebody"}`).must(t, http.StatusConflict)
	if got := count(); got != 1 {
		t.Errorf("after a rollback there are %d events", got)
	}
}

// What a proxy routes to the worker is what the app reads through it, and none
// of what should stay inside.
func TestProxiesRouteWhatTheWorkerServes(t *testing.T) {
	for _, file := range []string{"nginx.conf", "Caddyfile"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"status", "/books/my", "ai/answers", "v1", "X-User-Id"} {
			if !strings.Contains(string(text), path) {
				t.Errorf("%s does not route %s", file, path)
			}
		}
		for _, path := range []string{"/events", "/metrics", "/cache/stats", "/health"} {
			if strings.Contains(string(text), path) {
				t.Errorf("%s lets the outside to %s", file, path)
			}
		}
	}
}
