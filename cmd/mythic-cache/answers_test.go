package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

// ask posts a prompt and follows until there is an answer.
func (s *system) ask(prompt, bearer string) (text, key string) {
	s.t.Helper()
	body, _ := json.Marshal(map[string]string{"prompt": prompt})
	a := s.request(http.MethodPost, "/ai/answers", bearer, http.Header{"Content-Type": {"application/json"}}, body)
	testserver.Eventually(s.t, "an answer", func() error {
		switch a.status {
		case http.StatusOK:
			return nil
		case http.StatusAccepted:
			a = s.get(a.header.Get("Location"), bearer)
		}
		if a.status != http.StatusOK {
			return fmt.Errorf("%d %s", a.status, a.body)
		}
		return nil
	})
	var got struct{ Key, Text string }
	if err := json.Unmarshal(a.body, &got); err != nil || got.Text == "" || got.Key == "" {
		s.t.Fatalf("answer %s: %v", a.body, err)
	}
	return got.Text, got.Key
}

// The built-in demo model answers, says that it is one, and is asked once.
func TestAnAnswerIsAskedOnce(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	var wg sync.WaitGroup
	texts := make([]string, 8)
	keys := make([]string, 8)
	for i := range texts {
		wg.Go(func() { texts[i], keys[i] = s.ask("Write a preface.", token("ann")) })
	}
	wg.Wait()
	for i := range texts {
		if texts[i] != texts[0] || keys[i] != keys[0] {
			t.Errorf("answer %d differs: %q %q", i, texts[i], texts[0])
		}
	}
	if !strings.Contains(strings.ToLower(texts[0]), "demo") {
		t.Errorf("the demo model does not say what it is: %q", texts[0])
	}
	if a := s.get("/ai/answers/"+keys[0], token("ann")); a.status != http.StatusOK || a.header.Get("X-Cache") != "HIT" {
		t.Errorf("the stored answer: %d %s", a.status, a.header.Get("X-Cache"))
	}
	if a := s.get("/ai/answers/"+keys[0], token("bob")); a.status != http.StatusNotFound {
		t.Errorf("bob sees ann's answer: %d", a.status)
	}
	if strings.Contains(s.log.String(), "preface") {
		t.Error("a prompt is in the log")
	}
	s.everythingExpires()
}

// A question whose answer was there costs nothing, and /cache/stats says so.
func TestSparedTokensAreTold(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	s.ask("Write a preface.", token("ann"))
	s.ask("Write a preface.", token("ann"))
	testserver.Eventually(t, "what was spared is told", func() error {
		var told struct{ AI cache.AIReport }
		a := s.get("/cache/stats", "")
		if err := json.Unmarshal(a.body, &told); err != nil {
			return err
		}
		if ai := told.AI; ai.Calls != 1 || ai.Hits != 1 || ai.TokensSaved == 0 || ai.TokensSaved != ai.TokensSpent {
			return fmt.Errorf("the account says %+v", ai)
		}
		return nil
	})
}
