package api

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"mythiccache/internal/testserver"
)

// The lane answers what Redis has where nothing is kept in memory, and leaves to
// net/http what it has not.
func TestTheLaneAnswersFromRedis(t *testing.T) {
	w := begin(t, func(o *Options) {
		o.Reader = (&world{t: t, store: o.Store, views: o.Views}).reader(0)
		o.Limits = "default=1000/1m"
	})
	w.hears()
	e := w.put("run_status", "RUN1", fill(t, status("RUN1")))
	user := token(t, "user_1")
	c := w.talk(w.url)
	testserver.Eventually(t, "the lane", func() error {
		if c.get("/status/RUN1"); w.server.lane.Answered() == 0 {
			return errors.New("nothing was answered in it")
		}
		return nil
	})
	before := w.server.lane.Answered() // but for one, perhaps, that has been answered and not yet counted
	ask := func(path string, status int, headers ...string) {
		t.Helper()
		a := c.get(path, append([]string{"Authorization", user}, headers...)...)
		if said := a.Header.Get("Cache-Status"); a.StatusCode != status || strings.Contains(said, "near") {
			t.Errorf("%s: %s %s", path, a.Status, said)
		}
	}
	// A request that comes before net/http has done with the last one is net/http's, and
	// after one for which Redis took long, all are for a while.
	testserver.Eventually(t, "answers by the lane", func() error {
		ask("/status/RUN1", http.StatusOK)
		ask("/status/RUN1", http.StatusNotModified, "If-None-Match", e.ETag)
		if n := w.server.lane.Answered() - before; n < 6 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	before = w.server.lane.Answered()
	for range 3 {
		ask("/status/RUN2", http.StatusServiceUnavailable)
	}
	if n := w.server.lane.Answered() - before; n > 1 {
		t.Errorf("%d misses were answered in the lane", n)
	}
}

// Who is over the limit is told so in the lane, and the limiter is asked once for each.
func TestTheLaneRefuses(t *testing.T) {
	for _, nearBytes := range []int64{0, 1 << 20} {
		w := begin(t, func(o *Options) {
			o.Reader = (&world{t: t, store: o.Store, views: o.Views}).reader(nearBytes)
			o.Limits = "default=1/24h"
		})
		w.put("run_status", "RUN1", fill(t, status("RUN1")))
		w.get("/status/RUN1")
		c := w.talk(w.url)
		before, refused := w.server.lane.Answered(), 0
		asked := w.limiterRan()
		testserver.Eventually(t, "refusals by the lane", func() error {
			a := c.get("/status/RUN1")
			if refused++; a.StatusCode != http.StatusTooManyRequests || a.Header.Get("Retry-After") == "" {
				t.Errorf("near %d: %s %v", nearBytes, a.Status, a.Header)
			}
			if n := w.server.lane.Answered() - before; n < 20 {
				return fmt.Errorf("%d", n)
			}
			return nil
		})
		// Once more where the machine stood still for so long that it was asked again.
		if n := w.limiterRan() - asked; n < refused || n > refused+5 {
			t.Errorf("near %d: for %d refusals the limiter ran %d times", nearBytes, refused, n)
		}
	}
}

// limiterRan returns how many scripts Redis has run: there is but the limiter's.
func (w *world) limiterRan() (n int) {
	w.t.Helper()
	said, err := w.client.Info(w.t.Context(), "commandstats").Result()
	if err != nil {
		w.t.Fatal(err)
	}
	if _, after, ok := strings.Cut(said, "cmdstat_evalsha:calls="); ok {
		if _, err := fmt.Sscanf(after, "%d", &n); err != nil {
			w.t.Fatal(err)
		}
	}
	return n
}
