package api

import (
	"encoding/json"
	"fmt"
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
