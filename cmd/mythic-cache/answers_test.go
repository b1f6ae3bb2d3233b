package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"mythiccache/cache"
	"mythiccache/internal/modelserver"
	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
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

// However many ask, and ask again while the model thinks, it is called once, over
// OpenAI's wire, and its answer serves whoever asks from then on.
func TestAnAnswerIsAskedOnce(t *testing.T) {
	t.Parallel()
	model := modelserver.New(t)
	thinks := make(chan struct{})
	model.Respond(func(modelserver.Call) modelserver.Reply {
		return modelserver.Reply{Text: "A preface.", Hold: thinks}
	})
	s := newSystem(t, map[string]string{"LLM_BASE_URL": model.URL(), "LLM_MODEL": "writer"})
	body := []byte(`{"prompt":"Write a preface."}`)
	for range 2 {
		var wave sync.WaitGroup
		for range 8 {
			wave.Go(func() {
				a, err := s.tryRequest(http.MethodPost, "/ai/answers", token("ann"), http.Header{"Content-Type": {"application/json"}}, body)
				if err != nil || a.status != http.StatusAccepted || a.header.Get("Location") == "" {
					t.Errorf("while the model thinks: %d %s %v", a.status, a.body, err)
				}
			})
		}
		wave.Wait()
	}
	s.add(event.TopicAI, event.AIRequested, "ann", `{"prompt":"Write a preface."}`) // as another process would
	if n, err := s.client.XLen(t.Context(), "mythic:{stream}:ai").Result(); err != nil || n < 2 {
		t.Errorf("%d requests reached the workers, %v: too few to prove anything", n, err)
	}
	close(thinks)
	text, key := s.ask("Write a preface.", token("ann"))
	if text != "A preface." {
		t.Errorf("the answer is %q", text)
	}
	s.ask("Write a preface.", token("ann"))
	if a := s.get("/ai/answers/"+key, token("ann")); a.status != http.StatusOK || a.header.Get("X-Cache") != "HIT" {
		t.Errorf("the stored answer: %d %s", a.status, a.header.Get("X-Cache"))
	}
	if a := s.get("/ai/answers/"+key, token("bob")); a.status != http.StatusNotFound {
		t.Errorf("bob sees ann's answer: %d", a.status)
	}
	// Every request has been worked off, so no call is still to come.
	testserver.Eventually(t, "all requests are done", func() error {
		groups, err := s.client.XInfoGroups(t.Context(), "mythic:{stream}:ai").Result()
		if err != nil || len(groups) != 2 || groups[0].Pending+groups[0].Lag+groups[1].Pending+groups[1].Lag > 0 {
			return fmt.Errorf("%+v %w", groups, err)
		}
		return nil
	})
	if calls := model.Calls(); len(calls) != 1 || calls[0].Prompt != "Write a preface." || calls[0].Model != "writer" {
		t.Errorf("the model was called %d times: %+v", len(calls), calls)
	}
	if strings.Contains(s.log.String(), "preface") {
		t.Error("a prompt or its answer is in the log")
	}
	s.everythingExpires()
}

// Where no model is configured the built-in one answers, and says what it is.
func TestTheDemoModelSaysWhatItIs(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	if text, _ := s.ask("Write a preface.", token("ann")); !strings.Contains(strings.ToLower(text), "demo") {
		t.Errorf("the demo model says %q", text)
	}
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
