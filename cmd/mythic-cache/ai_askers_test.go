package main

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"

	"mythiccache/internal/modelserver"
	"mythiccache/internal/testserver"
)

// newSystemAsking is relay and API, with a model and without workers.
func newSystemAsking(t testing.TB, model *modelserver.Server) *system {
	t.Helper()
	s := &system{
		t: t, server: postgres, database: postgres.Database(t), redis: testserver.NewRedis(t), args: []string{"run", "--roles", "relay,api"},
		settings: map[string]string{"LLM_BASE_URL": model.URL(), "LLM_MODEL": "writer"},
	}
	s.client, s.conn = s.redis.Client(t), s.connect()
	s.command("demo", "load")
	s.command("migrate", "up")
	s.start()
	s.awaitReady()
	return s
}

// newNamedWorker starts a worker that the model knows by its API key.
func (s *system) newNamedWorker(name string) *workerProcess {
	s.t.Helper()
	named := *s
	named.settings = maps.Clone(s.settings)
	named.settings["LLM_API_KEY"] = name
	return named.newWorker()
}

// askers ask one thing, every other one as a stream, each of one of several processes.
type askers struct {
	t      testing.TB
	apis   []*system
	params openai.ChatCompletionNewParams
	heard  chan string // what streams have been told, each time that it grows
	number int
	group  sync.WaitGroup

	mu  sync.Mutex
	got []openai.ChatCompletion
}

// join has so many more ask.
func (a *askers) join(n int) {
	for range n {
		c, stream := a.apis[a.number/2%len(a.apis)].chat("ann"), a.number%2 == 0
		a.number++
		a.group.Go(func() {
			var got openai.ChatCompletion
			if stream {
				all := follow(a.t, c, a.params, a.heard)
				if all.err != nil {
					a.t.Error(all.err)
				}
				got = all.ChatCompletion
			} else if whole, err := c.New(a.t.Context(), a.params); err != nil {
				a.t.Error(err)
			} else {
				got = *whole
			}
			a.mu.Lock()
			defer a.mu.Unlock()
			a.got = append(a.got, got)
		})
	}
}

// await waits until so many streams have been told a text.
func (a *askers) await(streams int, text string) {
	a.t.Helper()
	most := time.After(time.Minute)
	for streams > 0 {
		select {
		case got := <-a.heard:
			if got == text {
				streams--
			}
		case <-most:
			a.t.Fatalf("%d streams have not been told %q", streams, text)
		}
	}
}

// end waits until all have an answer, and demands that all have the same.
func (a *askers) end(text string) {
	a.t.Helper()
	a.group.Wait()
	if len(a.got) != a.number {
		a.t.Errorf("%d of %d have an answer", len(a.got), a.number)
	}
	wrong := map[string]int{}
	for _, got := range a.got {
		if len(got.Choices) != 1 || got.Choices[0].Message.Content != text || got.Choices[0].FinishReason != "stop" || got.Usage.TotalTokens != int64(modelserver.Tokens(text)+2) {
			wrong[fmt.Sprintf("%+v %+v", got.Choices, got.Usage)]++
		}
	}
	for told, n := range wrong {
		a.t.Errorf("%d were told %s", n, told)
	}
}

// Two hundred ask the same of three processes, and three workers ask the model once.
// Where the worker that asks is killed in the midst of the answer, another asks once
// more, and all are told one answer.
func TestManyAskOnce(t *testing.T) {
	t.Parallel()
	const text = "Salt and Light and all that the sea gives back"
	words := strings.SplitAfter(text, " ")
	model := modelserver.New(t)
	steps := map[string]chan struct{}{"a title": make(chan struct{}), "a chapter": make(chan struct{})}
	holder := make(chan string, 100)
	var mu sync.Mutex
	calls := map[string]int{}
	model.Respond(func(c modelserver.Call) modelserver.Reply {
		mu.Lock()
		defer mu.Unlock()
		calls[c.Prompt]++
		if calls[c.Prompt] > 1 {
			return modelserver.Reply{Text: text}
		}
		holder <- strings.TrimPrefix(c.Header.Get("Authorization"), "Bearer ")
		return modelserver.Reply{Text: text, Step: steps[c.Prompt]}
	})
	s := newSystemAsking(t, model)
	apis := []*system{s, s.newAPI(), s.newAPI()}
	workers := map[string]*workerProcess{}
	for _, name := range []string{"one", "two", "three"} {
		workers[name] = s.newNamedWorker(name)
	}
	for _, w := range workers {
		s.awaitReading(w)
	}
	const many, late, later = 140, 40, 20
	begin := func(prompt string) *askers {
		a := &askers{t: t, apis: apis, params: about(prompt), heard: make(chan string, 100*(many+late+later))}
		a.join(many)
		a.await(many/2, words[0])
		for i := 1; i < 4; i++ {
			steps[prompt] <- struct{}{}
		}
		a.join(late)
		a.await((many+late)/2, strings.Join(words[:4], ""))
		return a
	}
	alive, bereft := begin("a title"), begin("a chapter")

	alive.join(later)
	close(steps["a title"])
	alive.end(text)
	first := alive.got[0]
	for _, got := range alive.got {
		if got.ID != first.ID || got.Created != first.Created || got.Model != first.Model {
			t.Errorf("somebody was told of %s, and another of %s", got.ID, first.ID)
		}
	}

	<-holder // of the title
	dying := workers[<-holder]
	if err := dying.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	bereft.join(later)
	bereft.end(text)
	t.Logf("from the worker's death to the last answer: %s", time.Since(killed).Round(time.Millisecond))
	if calls["a title"] != 1 || calls["a chapter"] != 2 {
		t.Errorf("the model was called %v", calls)
	}
	testserver.Eventually(t, "the answer is there", func() error {
		a := s.request(http.MethodPost, "/v1/chat/completions", token("ann"), nil, []byte(`{"messages":[{"role":"user","content":"a chapter"}],"model":"writer"}`))
		if a.status != http.StatusOK || a.header.Get("X-Cache") != "HIT" {
			return errors.New(string(a.body))
		}
		return nil
	})
}
