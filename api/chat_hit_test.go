package api

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"mythiccache/cache"
)

// chatHits returns a function that asks for one answer that is there, with a token and a
// limit.
func chatHits(t testing.TB, w *world, stream bool) func() {
	t.Helper()
	more := ""
	if stream {
		more = `,"stream":true`
	}
	question := `{"model":"demo","temperature":0.7,"messages":[{"role":"system","content":"You write books."},{"role":"user","content":"a title"}]` + more + `}`
	key := keyOf(t, question, "ann")
	body, err := cache.Answer{
		Key: key, ID: "chatcmpl-x", Model: "demo-2", Created: 7, Text: strings.Repeat("Salt and light, and all that the sea gives back. ", 12), FinishReason: "stop",
		Usage: cache.Usage{PromptTokens: 2, CompletionTokens: 3, TotalTokens: 5},
	}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	w.put("ai_answer", key, cache.Fill{Owner: "ann", Owned: true, Body: body})
	asked := strings.NewReader(question)
	r := httptest.NewRequest(http.MethodPost, chatPath, asked)
	r.Header.Set("Authorization", token(t, "ann"))
	r.ContentLength = int64(len(question))
	d := &discard{header: http.Header{}}
	return func() {
		clear(d.header)
		asked.Reset(question)
		r.Body = io.NopCloser(asked)
		w.server.Handler().ServeHTTP(d, r)
		if d.status != http.StatusOK || d.header["X-Cache"][0] != markHit {
			t.Fatal(d.status, d.header)
		}
	}
}

// maxChatAllocations of an answer that is in memory, and the test's two.
const maxChatAllocations = 24

func TestAChatHitIsCheap(t *testing.T) {
	w := begin(t, nearBy(t), func(o *Options) { o.Limits = "default=1000000/1m" })
	hit := chatHits(t, w, false)
	for range 1000 { // until it is in memory, and admissions are taken ahead
		hit()
	}
	if allocations := testing.AllocsPerRun(1000, hit); allocations > maxChatAllocations && !raceDetector {
		t.Errorf("a hit allocates %.0f times; at most %d are allowed", allocations, maxChatAllocations)
	}
}

func BenchmarkChatHit(b *testing.B) {
	for name, stream := range map[string]bool{"whole": false, "stream": true} {
		b.Run(name, func(b *testing.B) {
			w := begin(b, nearBy(b), func(o *Options) { o.Limits = "default=1000000000/1m" })
			hit := chatHits(b, w, stream)
			for range 100 {
				hit()
			}
			b.ReportAllocs()
			for b.Loop() {
				hit()
			}
		})
	}
}
