package api

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"mythiccache/cache"
)

const chatPath = "/v1/chat/completions"

// post sends a POST of a form that the lane understands, all of it at once.
func (c *talker) post(path, body string, headers ...string) *answer {
	c.w.t.Helper()
	lines := []string{"POST " + path + " HTTP/1.1", "Host: x"}
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		lines = append(lines, headers[i]+": "+headers[i+1])
		r.Header.Add(headers[i], headers[i+1])
	}
	lines = append(lines, "Content-Type: application/json", fmt.Sprintf("Content-Length: %d", len(body)))
	if _, err := io.WriteString(c, strings.Join(lines, "\r\n")+"\r\n\r\n"+body); err != nil {
		c.w.t.Fatal(err)
	}
	response, err := http.ReadResponse(c.in, r)
	if err != nil {
		c.w.t.Fatal(err)
	}
	said, err := io.ReadAll(response.Body)
	if err != nil {
		c.w.t.Fatal(err)
	}
	return &answer{Response: response, body: said}
}

func asking(prompt, more string) string {
	return `{"model":"demo","messages":[{"role":"user","content":"` + prompt + `"}]` + more + `}`
}

// TestTheLaneAnswersQuestionsAsNetHTTPDoes asks a server with a lane and the same one
// without for answers that are there, in all forms and as everybody.
func TestTheLaneAnswersQuestionsAsNetHTTPDoes(t *testing.T) {
	for name, change := range map[string]func(*Options){"near": nearBy(t), "distant": func(*Options) {}} {
		t.Run(name, func(t *testing.T) {
			w := begin(t, change, func(o *Options) { o.Limits = "default=10000000/1m" })
			w.hears()
			bare := httptest.NewServer(w.server.Handler())
			t.Cleanup(bare.Close)
			put := func(prompt, scope string, a cache.Answer) string {
				a.Key = keyOf(t, asking(prompt, ""), scope)
				body, err := a.Encode()
				if err != nil {
					t.Fatal(err)
				}
				w.put("ai_answer", a.Key, cache.Fill{Owner: scope, Owned: true, Body: body})
				return a.Key
			}
			key := put("a title", "ann", answerLike(""))
			put("short", "ann", cache.Answer{Model: "demo", Text: "yes", FinishReason: "stop", Created: 7})
			put("app's", cache.AppScope, answerLike(""))
			fast, slow := w.talk(w.url), w.talk(bare.URL)
			fast.get("/livez")
			ann, app := token(t, "ann"), "Bearer "+eventsToken
			before, hits := w.server.lane.Answered(), 0
			same := func(path, body string, who []string) {
				theirs := slow.post(path, body, who...)
				ours := fast.post(path, body, who...)
				for _, one := range []*answer{ours, theirs} { // until it is in memory
					one.Header.Set("Server-Timing", strings.TrimPrefix(fleeting["Server-Timing"].ReplaceAllString(one.Header.Get("Server-Timing"), "*"), "redis;dur=*, "))
				}
				if a, b := ours.lasting(), theirs.lasting(); a != b && !settling(ours, theirs) {
					t.Fatalf("%s %s %q:\n%s\n\nand without the lane:\n%s", path, body, who, a, b)
				}
				if a, b := fmt.Sprint(ours.TransferEncoding), fmt.Sprint(theirs.TransferEncoding); a != b {
					t.Errorf("%s and without the lane %s", a, b)
				}
				if ours.StatusCode != http.StatusOK || ours.Header.Get("X-Cache") != markHit {
					t.Fatalf("%s %s %q: %s", path, body, who, ours.lasting())
				}
				hits++
			}
			for _, who := range [][]string{
				{"Authorization", ann}, {"Authorization", app, "X-User-Id", "ann"}, {"Authorization", ann, "X-Stainless-Lang", "go"}, {"Authorization", ann, "Accept-Encoding", "gzip"},
			} {
				for _, body := range []string{
					asking("a title", ""), asking("short", ""), asking("a title", `,"user":"ann"`), asking("a title", ` ,  "user" : null `), asking("a title", `,"stream":false`),
					asking("short", `,"stream":true`), asking("a title", `,"stream":true`), asking("a title", `,"stream":true,"stream_options":{"include_usage":true}`),
				} {
					same(chatPath, body, who)
					same("/ai/answers", body, who)
				}
			}
			for _, body := range []string{asking("app's", ""), asking("app's", `,"stream":true`), asking("a title", `,"user":"ann"`)} {
				same(chatPath, body, []string{"Authorization", app})
			}
			for _, path := range []string{"/ai/answers/" + key, "/ai/answers/none"} {
				_, theirs := slow.send(path, "Authorization", ann)
				_, ours := fast.send(path, "Authorization", ann)
				if a, b := ours.lasting(), theirs.lasting(); a != b && !settling(ours, theirs) {
					t.Fatalf("%s:\n%s\n\nand without the lane:\n%s", path, a, b)
				}
			}
			fast.byLane("/ai/answers/"+key, "Authorization", ann)
			if by := int(w.server.lane.Answered() - before); by < hits-10 || hits < 60 {
				t.Errorf("of %d hits the lane answered %d", hits, by)
			}
		})
	}
}

// TestWhatIsNoHitIsAskedOnce of a server with a lane: neither twice, nor by the lane.
func TestWhatIsNoHitIsAskedOnce(t *testing.T) {
	var spared atomic.Int32
	w := begin(t, nearBy(t), func(o *Options) {
		o.Limits = "default=1000/24h"
		o.Spared = func(string, string, cache.Usage) { spared.Add(1) }
	})
	w.hears()
	asked := make(chan heard, 100)
	w.answerer(func(q heard) {
		asked <- q
		w.say(q, "made")
	})
	c := w.talk(w.url)
	who := []string{"Authorization", token(t, "ann")}
	left := func(a *answer) (n int) {
		t.Helper()
		if _, err := fmt.Sscanf(a.Header.Get("Ratelimit"), `"default";r=%d`, &n); err != nil {
			t.Fatalf("%q: %v", a.lasting(), err)
		}
		return n
	}
	r := left(c.post(chatPath, asking("first", ""), who...)) // by net/http
	by := w.server.lane.Answered()
	for i, one := range []struct {
		body   string
		status int
		events int
	}{
		{asking("bad", `,"n":2`), 400, 0},
		{`{`, 400, 0},
		{``, 400, 0},
		{asking("second", ""), 200, 1},
		{asking("third", `,"stream":true`), 200, 1},
		{`{"model":"demo","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]}]}`, 200, 1}, // it is asked each time
		{`{"model":"demo","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]}]}`, 200, 1},
	} {
		for len(asked) > 0 {
			<-asked
		}
		a := c.post(chatPath, one.body, who...)
		if a.StatusCode != one.status || len(asked) != one.events || w.server.lane.Answered() != by || spared.Load() != 0 {
			t.Fatalf("%d. %s: %s, %d events, %d by the lane, %d spared", i, one.body, a.lasting(), len(asked), w.server.lane.Answered()-by, spared.Load())
		}
		if now := left(a); now != r-1 {
			t.Errorf("%d. %s: %d requests are left of %d", i, one.body, now, r)
		}
		r--
	}
	const hits = 20
	for i := range hits {
		more := []string{"", `,"stream":true`}[i%2]
		c.post(chatPath, asking("second", more), who...).wants(t, 200, map[string]string{"X-Cache": markHit})
	}
	if n := spared.Load(); n != hits || w.server.lane.Answered() < by+hits/2 {
		t.Errorf("of %d questions %d were spared, and %d answered by the lane", hits, n, w.server.lane.Answered()-by)
	}
}

// TestWhoIsOverTheLimitIsToldByTheLane, and counted no more than by net/http.
func TestWhoIsOverTheLimitIsToldByTheLane(t *testing.T) {
	w := begin(t, nearBy(t), func(o *Options) { o.Limits = "default=5/24h" })
	w.hears()
	w.answerer(func(q heard) { w.say(q, "made") })
	c := w.talk(w.url)
	who := []string{"Authorization", token(t, "ann")}
	admitted := 0
	for range 12 {
		if a := c.post(chatPath, asking("a title", ""), who...); a.StatusCode == http.StatusOK {
			admitted++
		} else if a.StatusCode != http.StatusTooManyRequests || a.Header.Get("Retry-After") == "" {
			t.Fatal(a.lasting())
		}
	}
	if admitted != 5 || w.server.lane.Answered() < 7 {
		t.Errorf("%d were admitted, %d answered by the lane", admitted, w.server.lane.Answered())
	}
}
