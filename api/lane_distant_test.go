package api

import (
	"errors"
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
	for range 10 {
		ask("/status/RUN1", http.StatusOK)
		ask("/status/RUN1", http.StatusNotModified, "If-None-Match", e.ETag)
	}
	for range 3 {
		ask("/status/RUN2", http.StatusServiceUnavailable)
	}
	// A request that comes before net/http has done with the last one is net/http's.
	if n := w.server.lane.Answered() - before; n < 5 || n > 21 {
		t.Errorf("%d were answered in the lane", n)
	}
}
