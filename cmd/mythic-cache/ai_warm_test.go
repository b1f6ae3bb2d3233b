package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/internal/modelserver"
	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// complete asks for a completion as the app does, for a user.
func (s *system) complete(user, body string) (cache, text string) {
	s.t.Helper()
	a := s.request(http.MethodPost, "/v1/chat/completions", eventsToken, http.Header{"Content-Type": {"application/json"}, "X-User-Id": {user}}, []byte(body))
	var told struct {
		Choices []struct{ Message struct{ Content string } }
	}
	if err := json.Unmarshal(a.body, &told); err != nil || a.status != http.StatusOK || len(told.Choices) != 1 {
		s.t.Fatalf("%d %s", a.status, a.body)
	}
	return a.header.Get("X-Cache"), told.Choices[0].Message.Content
}

// warmed reports, as an error, what of group warm is not done.
func (s *system) warmed() error {
	states, err := stream.Groups(s.t.Context(), s.client, stream.NewKeys("mythic:"), []string{event.TopicAI, event.TopicRun, "processing_sessions"})
	for _, state := range states {
		if state.Group == groupWarm && state.Lag+state.Pending+state.Parked > 0 {
			return fmt.Errorf("of %s: lag %d, pending %d, parked %d", state.Topic, state.Lag, state.Pending, state.Parked)
		}
	}
	return err
}

// A run's data is collected, and its book's chapters are there before anybody asks.
func TestChaptersAreThereBeforeAnyoneAsks(t *testing.T) {
	t.Parallel()
	model := modelserver.New(t)
	s := newSystem(t, map[string]string{"LLM_BASE_URL": model.URL(), "LLM_MODEL": "writer", "AI_WARM_FILE": "../../examples/warm.yaml"})
	called := func(n int) func() error {
		return func() error {
			if got := len(model.Calls()); got != n {
				return errors.New(strings.Repeat("called ", got))
			}
			return nil
		}
	}
	s.exec(`SELECT mythic_cache.publish('run.progress', 'RUN2', '{"stages": {"data_collected": false}}')`)
	s.exec(`SELECT mythic_cache.publish('run.progress', 'RUN2', '{"stages": {"data_collected": true}, "profile": {"biography": "A \"heron\"."}}')`)
	testserver.Eventually(t, "three chapters are asked for", called(3))
	s.exec(`UPDATE processing_sessions SET status = 'processing', current_stage = 'generating' WHERE run_id = 'RUN2'`)
	testserver.Eventually(t, "titles are asked for", called(4))
	chapter := `{"stream":false,"messages":[{"role":"system","content":"You write the chapters of a book of photographs."},` +
		`{"role":"user","content":"Write chapter 2, People, of the book of profile_2. They say of themselves: A \"heron\".\n"}],"temperature":0.7}`
	titles := `{"model":"writer","messages":[{"role":"user","content":"Three titles for a book of the photographs of profile_2, one a line."}]}`
	testserver.Eventually(t, "all is answered", s.warmed)
	for what, body := range map[string]string{"chapter": chapter, "titles": titles} {
		if cache, text := s.complete("user_3", body); cache != "HIT" || !strings.HasPrefix(text, "You asked: ") {
			t.Errorf("%s is a %s: %q", what, cache, text)
		}
	}
	// Repeated, it costs nothing; another's question is another.
	s.exec(`SELECT mythic_cache.publish('run.progress', 'RUN2', '{"stages": {"data_collected": true}, "profile": {"biography": "A \"heron\"."}}')`)
	if cache, _ := s.complete("user_4", titles); cache != "MISS" {
		t.Errorf("another's titles are a %s", cache)
	}
	testserver.Eventually(t, "all is handled", s.warmed)
	if err := called(5)(); err != nil {
		t.Error(err)
	}
	s.everythingExpires()
}

// The built-in model has the demo's chapters.
func TestTheDemosChaptersAreThere(t *testing.T) {
	t.Parallel()
	s := newSystem(t, map[string]string{"REDIS_CACHE_TTL": "6", "AI_REFRESH_READS": "2", "RATE_LIMITS": "default=100000/1m"})
	chapter := `{"messages":[{"role":"user","content":"Write chapter 3, Journeys, of the book of profile_1."}]}`
	s.exec(`SELECT mythic_cache.publish('run.progress', 'RUN1', '{"stages": {"data_collected": true}}')`)
	testserver.Eventually(t, "three chapters are there", func() error {
		if n := len(s.client.Keys(t.Context(), "mythic:ai_answer:*").Val()); n != 3 {
			return errors.New("not yet")
		}
		return s.warmed() // of an answer that is being made there is a key, too
	})
	// As long as it is asked for it does not end, whatever its time is.
	var first, last string
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	for until := time.Now().Add(8 * time.Second); first == last && time.Now().Before(until); <-pace.C {
		a := s.request(http.MethodPost, "/v1/chat/completions", eventsToken, http.Header{"Content-Type": {"application/json"}, "X-User-Id": {"user_2"}}, []byte(chapter))
		if a.header.Get("X-Cache") != "HIT" {
			t.Fatalf("%d %s: %s", a.status, a.header.Get("X-Cache"), a.body)
		}
		var told struct{ Created json.Number }
		if err := json.Unmarshal(a.body, &told); err != nil {
			t.Fatal(err)
		}
		if last = told.Created.String(); first == "" {
			first = last
		}
	}
	if first == last {
		t.Error("it was never made again")
	}
}

// A file that is wrong stops the program, which says where.
func TestWrongTemplatesStopTheProgram(t *testing.T) {
	t.Parallel()
	right, err := os.ReadFile("../../examples/warm.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ from, to, says string }{
		"field":    {"scope:", "scopes:", "unknown field scopes in template book_chapters"},
		"template": {"{{.number}}", "{{.number", "messages[1].content:1: unexpected"},
		"model":    {"${LLM_MODEL:gpt-4o-mini}", "gpt-9", "warm.yaml:16: book_chapters.request.model is gpt-9, which is not one of AI_MODELS"},
		"scope":    {"scope: caller", "scope: shared", "book_chapters.scope is shared"},
	} {
		file := filepath.Join(t.TempDir(), "warm.yaml")
		if err := os.WriteFile(file, []byte(strings.Replace(string(right), c.from, c.to, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		p := &program{environ: []string{"AI_WARM_FILE=" + file, "LLM_BASE_URL=http://localhost:1/v1", "LLM_MODEL=writer", "AI_MODELS=writer"}}
		if _, err := p.config(); err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), file+":") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A template may read a table that is still to come, or never comes. Until then the
// program says what is wrong, passes over what would begin templates, and does the rest:
// it is ready, and trims the streams.
func TestTemplatesDoWithoutTheirTables(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "warm.yaml")
	if err := os.WriteFile(file, []byte(`templates:
  letter:
    on: {letters.written: {}}
    rows: SELECT writer, text FROM letters WHERE id = $1
    scope: writer
    request: {prompt: 'Answer {{.text}}.'}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &system{
		t: t, server: postgres, database: postgres.Database(t), redis: testserver.NewRedis(t), args: []string{"run"},
		settings: map[string]string{"AI_WARM_FILE": file},
	}
	s.client, s.conn = s.redis.Client(t), s.connect()
	s.command("demo", "load")
	s.command("migrate", "up")
	const old, letters = 1000, "mythic:{stream}:letters"
	p := s.client.Pipeline()
	for i := range old { // of a while ago: what is new is left alone
		p.XAdd(t.Context(), &redis.XAddArgs{
			Stream: letters, ID: fmt.Sprintf("%d-%d", time.Now().Add(-10*time.Minute).UnixMilli(), i+1), Values: []any{"type", "letters.sent", "subject", "1"},
		})
	}
	if _, err := p.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.awaitReady()
	why := file + `:4: letter.rows: PostgreSQL says: relation "letters" does not exist (SQLSTATE 42P01)`
	if out, err := s.try("doctor"); err == nil || !strings.Contains(out, "MEND  templates: "+why) {
		t.Errorf("doctor says %s", out)
	}
	if s.metric("mythic_cache_ai_templates_usable") != 0 {
		t.Error("the templates are said to be usable")
	}
	impaired := func(why string) error {
		if a := s.get("/readyz", adminToken); a.status != http.StatusOK || strings.Contains(string(a.body), "impaired: ") != (why != "") || !strings.Contains(string(a.body), why) {
			return fmt.Errorf("readyz says %s", a.body)
		}
		return nil
	}
	if err := impaired("SQLSTATE 42P01"); err != nil {
		t.Error(err)
	}
	s.add("letters", "letters.written", "1", "{}")
	const passed = `mythic_cache_ai_template_questions_total{outcome="refused",template="letter"}`
	testserver.Eventually(t, "the letter is passed over, and the stream trimmed", func() error {
		if n, left := s.metric(passed), s.client.XLen(t.Context(), letters).Val(); n != 1 || left >= old {
			return fmt.Errorf("%v passed over, %d entries left", n, left)
		}
		return nil
	})
	s.exec("CREATE TABLE letters (id text, writer text, text text)")
	s.exec("INSERT INTO letters VALUES ('1', 'ann', 'me')")
	testserver.Eventually(t, "the template can be used", func() error {
		if s.metric("mythic_cache_ai_templates_usable") != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	if out := s.command("doctor"); !strings.Contains(out, "ok    templates: PostgreSQL takes the queries of all 1") {
		t.Errorf("doctor says %s", out)
	}
	s.add("letters", "letters.written", "1", "{}")
	testserver.Eventually(t, "the letter is answered", func() error {
		if n := len(s.client.Keys(t.Context(), "mythic:ai_answer:*").Val()); n != 1 {
			return errors.New("not yet")
		}
		return s.warmed()
	})
	// A query that turns wrong is said, and found right again.
	testserver.Eventually(t, "nothing is impaired", func() error { return impaired("") })
	s.exec("ALTER TABLE letters RENAME COLUMN text TO said")
	s.add("letters", "letters.written", "1", "{}")
	testserver.Eventually(t, "the query has turned wrong", func() error { return impaired("SQLSTATE 42703") })
	testserver.Eventually(t, "the second letter is passed over", func() error {
		if n := s.metric(passed); n != 2 {
			return fmt.Errorf("%v passed over", n)
		}
		return s.warmed()
	})
	s.exec("ALTER TABLE letters RENAME COLUMN said TO text")
	testserver.Eventually(t, "nothing is impaired any more", func() error { return impaired("") })
	if log := s.log.String(); !strings.Contains(log, "templates cannot be used") || !strings.Contains(log, "letter.rows: PostgreSQL says") {
		t.Error("the log does not say what is wrong")
	}
	if cache, _ := s.complete("ann", `{"messages":[{"role":"user","content":"Answer me."}]}`); cache != "HIT" {
		t.Errorf("the answer is a %s", cache)
	}
	s.everythingExpires()
}
