package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
)

// Of many readers of an entry whose time is over soon one asks for the next; all are
// served what is there.
func TestAnEntryIsAskedForBeforeItsTimeIsOver(t *testing.T) {
	w := begin(t)
	f := fill(t, status("RUN1"))
	f.TTL, f.LoadTook = time.Minute, time.Hour // whoever draws in its second half asks
	w.put("run_status", "RUN1", f)
	w.get("/status/RUN1").wants(t, 200, map[string]string{"X-Cache": "HIT"})
	if asked := w.events.all(); len(asked) != 0 {
		t.Fatalf("asked in the first half of the entry's life: %+v", asked)
	}

	f.TTL = 8 * time.Second
	e := w.put("run_status", "RUN1", f)
	testserver.Eventually(t, "half of its time is over", func() error {
		if left := time.Until(e.FreshUntil); left > 3900*time.Millisecond {
			return fmt.Errorf("%s are left", left)
		}
		return nil
	})
	begun := time.Now()
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			for range 25 {
				r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/status/RUN1", http.NoBody)
				if a, err := send(r); err != nil || a.StatusCode != http.StatusOK || a.Header.Get("X-Cache") != "HIT" {
					t.Errorf("%v %v", a, err)
				}
			}
		})
	}
	readers.Wait()
	took := time.Since(begun)
	w.server.refreshes.wait()
	w.server.refreshes.wait() // as when a server serves twice
	asked := w.events.all()
	want := fmt.Sprintf(`{"instead":%q,"saved":"%d"}`, e.Version, e.Saved.UnixMilli())
	if most := 1 + int(took/refreshEvery); len(asked) < 1 || len(asked) > most {
		t.Errorf("asked %d times in %s", len(asked), took)
	}
	for _, a := range asked {
		if a.Type != event.FillRequested || a.View != "run_status" || a.Subject != "RUN1" || string(a.Data) != want {
			t.Errorf("asked %+v", a)
		}
	}
}

// held is a publisher that nothing leaves before it is released.
type held struct {
	Publisher
	release chan struct{}
	mu      sync.Mutex
	keys    []string
}

func (h *held) Append(_ context.Context, events ...event.Event) ([]string, error) {
	<-h.release
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range events {
		h.keys = append(h.keys, e.Subject)
	}
	return nil, errors.New("lost")
}

// Requests that cannot be sent are few, delay nobody, and end before the server does.
func TestRefreshesAreBounded(t *testing.T) {
	w := begin(t)
	h := &held{release: make(chan struct{})}
	r := newRefreshes(h, zerolog.Nop())
	for n := range 10 * refreshesAtOnce {
		r.ask(w.view("run_status"), cache.Entry{Key: strconv.Itoa(n / 2)})
	}
	waited := make(chan struct{})
	go func() { r.wait(); close(waited) }()
	select {
	case <-waited:
		t.Error("nothing is waited for")
	default:
	}
	close(h.release)
	<-waited
	if len(h.keys) != refreshesAtOnce {
		t.Errorf("%d requests at once", len(h.keys))
	}
}

func TestAKeyIsAskedForOnceInAWhile(t *testing.T) {
	r := newRefreshes(nil, zerolog.Nop())
	now := time.Now()
	for _, c := range []struct {
		key   string
		after time.Duration
		want  bool
	}{
		{"a", 0, true}, {"b", 0, true}, {"a", time.Millisecond, false}, {"a", refreshEvery - 1, false},
		{"a", refreshEvery, true}, {"a", refreshEvery + 1, false}, {"b", refreshEvery, true},
	} {
		if got := r.first(refreshKey{"run_status", c.key}, now.Add(c.after)); got != c.want {
			t.Errorf("%s after %s: %v", c.key, c.after, got)
		}
	}
	r.first(refreshKey{"run_status", "c"}, now.Add(time.Hour))
	if len(r.asked) != 1 {
		t.Errorf("%d keys are remembered for ever", len(r.asked))
	}
}
