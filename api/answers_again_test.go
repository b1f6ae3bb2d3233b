package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/producers/event"
)

func TestHotAnswersAreThoseReadNearTheirEnd(t *testing.T) {
	saved := time.UnixMilli(1_750_000_000_000)
	e := cache.Entry{Key: "a", Saved: saved, FreshUntil: saved.Add(time.Hour)}
	late := saved.Add(54*time.Minute + time.Second)
	h := newHotAnswers(3)
	for i := range 100 {
		if h.read(e, saved.Add(time.Duration(i)*32*time.Second)) {
			t.Fatalf("it is hot long before its end, at read %d", i)
		}
	}
	var hot []int
	for i := range 20 {
		if h.read(e, late) {
			hot = append(hot, i)
		}
		h.read(cache.Entry{Key: fmt.Sprint(i), Saved: saved, FreshUntil: saved.Add(time.Hour)}, late) // others are cold
	}
	if fmt.Sprint(hot) != "[2]" {
		t.Errorf("it was hot at reads %v", hot)
	}
	next := cache.Entry{Key: "a", Saved: late, FreshUntil: late.Add(5 * time.Minute)}
	soon := late.Add(4*time.Minute + 40*time.Second) // the one before would still be there
	for range 2 {
		if h.read(next, soon) {
			t.Error("the next is hot by the reads of the one before")
		}
	}
	if !h.read(next, soon) {
		t.Error("the next is never hot")
	}
	h.read(cache.Entry{Key: "b", Saved: saved, FreshUntil: saved.Add(3 * time.Hour)}, saved.Add(179*time.Minute))
	if n := len(h.known); n != 1 {
		t.Errorf("%d answers are remembered whose time is over", n-1)
	}
	for i := range hotMost + 10 {
		h.read(cache.Entry{Key: fmt.Sprint("many ", i), Saved: saved, FreshUntil: saved.Add(time.Hour)}, late)
	}
	if n := len(h.known); n != hotMost {
		t.Errorf("%d answers are counted", n)
	}
	off := newHotAnswers(0)
	for range 10 {
		if off.read(e, late) {
			t.Fatal("it is hot where none is to be")
		}
	}
}

// Whole answers, streams and those of our own form count together, and the request names
// the answer and asks its question.
func TestHotAnswerIsAskedForAgainOnce(t *testing.T) {
	w := begin(t, func(o *Options) { o.HotReads, o.Limits = 3, "default=1000/1m" })
	body := `{"model":"demo","messages":[{"role":"user","content":"a <title>"}]`
	stored := func(content, finish string, life time.Duration) cache.Entry {
		key := keyOf(t, `{"model":"demo","messages":[{"role":"user","content":"`+content+`"}]}`, "ann")
		text, err := cache.Answer{Key: key, Model: "demo", Text: "Salt", FinishReason: finish}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return w.put("ai_answer", key, cache.Fill{Owner: "ann", Owned: true, Body: text, TTL: life})
	}
	ask := func(path, body string) {
		t.Helper()
		a := w.do("POST", path, body, "Authorization", token(t, "ann"), "Content-Type", "application/json")
		a.wants(t, 200, map[string]string{"X-Cache": "HIT"})
	}
	young := stored("another", "stop", time.Hour)
	for range 10 {
		ask("/ai/answers", `{"prompt":"another"}`)
	}
	short := stored("short", "length", 10*time.Second)
	hot := stored("a <title>", "stop", time.Hour)
	w.server.chat.hot.part = 1 // all of their lives are their end
	ask("/v1/chat/completions", body+`}`)
	ask("/v1/chat/completions", body+`,"stream":true}`)
	w.server.refreshes.wait()
	if n := len(w.events.all()); n != 0 {
		t.Fatalf("%d were asked for after two reads", n)
	}
	ask("/ai/answers", body+`}`)
	ask("/ai/answers", body+`}`)
	for range 4 {
		ask("/ai/answers", `{"prompt":"short"}`)
	}
	w.server.refreshes.wait()
	events := w.events.all()
	if len(events) != 1 || events[0].Type != event.AIRequested || events[0].Subject != "ann" {
		t.Fatalf("asked for: %+v (%s and %s were not to be)", events, young.Key, short.Key)
	}
	var asked struct {
		Scope, Instead, Saved string
		Request               json.RawMessage
	}
	if err := json.Unmarshal(events[0].Data, &asked); err != nil {
		t.Fatal(err)
	}
	key, _, err := cache.AnswerKey("demo", asked.Scope, asked.Request)
	if err != nil || key != hot.Key || asked.Instead != hot.Version.String() || asked.Saved != fmt.Sprint(hot.Saved.UnixMilli()) {
		t.Errorf("asked for: %s (%v)", events[0].Data, err)
	}
}

// An answer whose request to be made again is lost is asked for by those who read it next.
func TestHotAnswerWhoseRequestIsLost(t *testing.T) {
	w := begin(t, func(o *Options) { o.HotReads, o.Limits = 2, "default=1000/1m" })
	w.server.chat.hot.part = 1
	key := keyOf(t, `{"messages":[{"role":"user","content":"a"}]}`, "ann")
	text, err := cache.Answer{Key: key, Model: "demo", Text: "Salt", FinishReason: "stop"}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	w.put("ai_answer", key, cache.Fill{Owner: "ann", Owned: true, Body: text, TTL: time.Hour})
	read := func(times, want int, what string) {
		t.Helper()
		for range times {
			w.ask(`{"prompt":"a"}`, "ann").wants(t, 200, map[string]string{"X-Cache": "HIT"})
		}
		w.server.refreshes.wait()
		if n := len(w.events.all()); n != want {
			t.Errorf("%s: %d were asked for", what, n)
		}
	}
	for range refreshesAtOnce {
		w.server.refreshes.sending <- struct{}{}
	}
	for range 2 {
		w.ask(`{"prompt":"a"}`, "ann").wants(t, 200, nil)
	}
	for range refreshesAtOnce {
		<-w.server.refreshes.sending
	}
	read(1, 0, "there was no place, and one has come")
	w.events.failWith(errors.New("away"), 0)
	read(1, 0, "the stream is away")
	w.events.failWith(nil, 0)
	read(2, 0, "it was tried just now")
	w.server.refreshes.mu.Lock()
	clear(w.server.refreshes.asked) // a second later
	w.server.refreshes.mu.Unlock()
	read(2, 1, "two more have come")
	read(5, 1, "it is asked for")
}

// What the app has brought is not asked of the model.
func TestBroughtAnswersAreNotMadeAgain(t *testing.T) {
	w := begin(t, func(o *Options) { o.HotReads, o.Limits = 1, "default=1000/1m" })
	w.server.chat.hot.part = 1
	for prompt, brought := range map[string]bool{"a": true, "b": false} {
		key := keyOf(t, `{"messages":[{"role":"user","content":"`+prompt+`"}]}`, "ann")
		text, err := cache.Answer{Key: key, Model: "demo", Text: "Salt", FinishReason: "stop", Brought: brought}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		w.put("ai_answer", key, cache.Fill{Owner: "ann", Owned: true, Body: text, TTL: time.Hour})
		for range 3 {
			w.ask(`{"prompt":"`+prompt+`"}`, "ann").wants(t, 200, map[string]string{"X-Cache": "HIT"})
		}
	}
	w.server.refreshes.wait()
	if events := w.events.all(); len(events) != 1 || !strings.Contains(string(events[0].Data), `"content":"b"`) {
		t.Errorf("asked for: %+v", events)
	}
}
